"""Reading annotations: items for each task, seconds and peak memory of each file; and the build from COCO's files.

    python bench/data.py FILE... [--coco PICTURES] [--out FILE]

Each runs in a process of its own. `--coco 82783` writes synthetic files of the official sizes first: as many questions,
answers, captions and words per picture as COCO train2014 has.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

QUESTIONS, WORDS = 5.36, 2.1  # per picture: 443,757 and 173,589 over 82,783


def read(file: str) -> dict[str, object]:
    """Items that every task can use."""
    from hones import load_items, make_task
    from hones.tasks import TASKS

    started = time.perf_counter()
    items = load_items(file, images=".")
    seconds = time.perf_counter() - started
    counts = {}
    for name in TASKS:
        counts[name] = (
            len(make_task(name).examples(items)[0]) if name != "retrieval" or any(items.captions_of.values()) else 0
        )
    return {"items": len(items), **counts, "seconds": round(seconds, 2), "MiB": peak()}


def build(folder: str) -> dict[str, object]:
    """The paper's file from synthetic COCO files."""
    from hones.data.coco import CocoFiles, build_coco

    root = Path(folder)
    captions, questions, annotations, text = (
        root / f"{x}.json" for x in ("captions", "questions", "annotations", "text")
    )
    files = CocoFiles(captions, questions, annotations, text, root / "images")
    started = time.perf_counter()
    built = build_coco(files, root / "to", {"discovery": 500, "dev": 200, "test": 300})
    size = sum(file.stat().st_size for file in root.glob("*.json")) / 2**20
    seconds = time.perf_counter() - started
    return {"items": built.counts["answers"], "input MiB": round(size), "seconds": round(seconds, 1), "MiB": peak()}


def peak() -> int:
    """The most memory this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def write_coco(folder: Path, pictures: int) -> None:
    """Files in COCO's forms with random words in them."""
    rng, words = random.Random(0), [f"word{n}" for n in range(5000)]
    (folder / "images").mkdir()
    images, captions, asked, answered, text = [], [], [], [], {}
    for i in range(1, pictures + 1):
        name = f"COCO_train2014_{i:012d}.jpg"
        (folder / "images" / name).touch()
        url = f"http://images.cocodataset.org/train2014/{name}"
        images.append({"id": i, "file_name": name, "height": 480, "width": 640, "coco_url": url, "license": 3})
        for n in range(5):
            captions.append({"id": 5 * i + n, "image_id": i, "caption": " ".join(rng.choices(words, k=10))})
        for n in range(int(QUESTIONS + rng.random())):
            number = 1000 * i + n
            asked.append({"image_id": i, "question": " ".join(rng.choices(words, k=6)), "question_id": number})
            answers = [{"answer": rng.choice(words), "answer_confidence": "yes", "answer_id": k} for k in range(1, 11)]
            row = {"question_type": "what is", "multiple_choice_answer": answers[0]["answer"], "answers": answers}
            answered.append({**row, "image_id": i, "answer_type": "other", "question_id": number})
        for n in range(int(WORDS + rng.random()) if rng.random() < 0.5 else 0):
            word = {"id": 10 * i + n, "image_id": i, "bbox": [10.5, 20.0, 60.0, 20.0], "utf8_string": rng.choice(words)}
            word |= {"legibility": "legible", "language": "english", "class": "machine printed", "area": 1200.0}
            text[str(10 * i + n)] = {**word, "polygon": [10.5, 20.0, 70.5, 20.0, 70.5, 40.0, 10.5, 40.0]}
    contents = {
        "captions": {"images": images, "annotations": captions},
        "questions": {"data_subtype": "train2014", "questions": asked},
        "annotations": {"annotations": answered},
        "text": {"imgs": {}, "anns": text, "imgToAnns": {}},
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def alone(what: str, where: str) -> dict[str, object]:
    """One measurement in a process of its own."""
    done = subprocess.run([sys.executable, __file__, f"--{what}", where], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--coco", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    parser.add_argument("--build", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read or options.build:
        print(json.dumps(read(options.read) if options.read else build(options.build)))
        return
    rows = {Path(file).name: alone("read", file) for file in options.files}
    if options.coco is not None:
        with tempfile.TemporaryDirectory() as folder:
            write_coco(Path(folder), options.coco)
            rows[f"hones data coco, {options.coco} pictures"] = alone("build", folder)
    console = Console(record=True, width=120)
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table("file", *columns, title="Reading annotations")
    for name, row in rows.items():
        table.add_row(name, *(str(row.get(column, "")) for column in columns))
    console.print(table)
    if options.out is not None:
        options.out.write_text(f"```\n{console.export_text()}```\n")


if __name__ == "__main__":
    main()
