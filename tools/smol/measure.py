"""What smol-llava can do, through the product: built-in pictures and photographs, on pictures that it never saw.

    python -m smol.measure smol-llava --photographs FOLDER --to ../bench/results/real-competence.md

Per source and task the metric with its interval (paired bootstrap over pictures), what the best constant answer gives
(retrieval: a random order), and what the model says of a blank picture. Adds the figures to the model's manifest.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hones import load_items, load_vlm, make_task, write_shapes
from hones.data.shapes.scene import SIZE
from hones.files import write_bytes, write_json
from hones.models.interventions import BASELINE
from hones.models.merged import merged_models
from hones.models.vlm import VLM
from hones.stats import UNEDITED, Interval, Measurement
from hones.sweep.measure import measure
from hones.tasks import TASKS

from .photographs import Photographs, read_photographs
from .pictures import cropped, with_word

SEED = 20  # of the evaluation pictures; training draws from other names, so none is shared
BLANK = "blank"
CANDIDATES = {"built-in": 50, "photographs": 10}


@dataclass(frozen=True)
class Row:
    """One source and task."""

    source: str
    task: str
    metric: str
    pictures: int
    score: Interval
    guess: float
    blank: float
    above_blank: Interval

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        intervals = {"score": self.score.as_dict(), "above_blank": self.above_blank.as_dict()}
        return {**vars(self), **intervals}


def of_built_in(folder: Path, items: int) -> dict[str, Path]:
    """Per task a file of built-in pictures."""
    file = write_shapes(folder, {"test": items}, seed=SEED)["test"]
    return dict.fromkeys(TASKS, file)


def of_photographs(folder: Path, kept: Photographs, items: int) -> dict[str, Path]:
    """Per task a file of photographs, in the unified format; several questions of one photograph are several items."""
    rng = random.Random(SEED)
    captioned = rng.sample(kept.captioned, min(items, len(kept.captioned)))
    asked = rng.sample(kept.asked, min(items, len(kept.asked)))
    words = rng.sample(kept.words, min(items, len(kept.words)))
    (folder / "images").mkdir(parents=True)
    captions = [
        {
            "image_path": str(p.path),
            "captions": [{"caption_id": 5 * i + k, "caption": c} for k, c in enumerate(p.captions)],
        }
        for i, p in enumerate(captioned)
    ]
    questions = [
        {"image_path": str(p.path), "vqa": {"question": q, "answer": a, "all_answers": [a]}}
        for p in asked
        for q, a in p.questions[:4]
    ]
    pasted = []
    for i, word in enumerate(words):
        picture, lettering = with_word(cropped(rng.choice(kept.captioned), None), word.picture, word.text, rng)
        path = folder / "images" / f"word_{i:04d}.png"
        picture.save(path)
        pasted.append({"image_path": str(path), "ocr": {"text": word.text, "bbox": list(lettering.box)}})
    files = {}
    for name, rows in (("caption", captions), ("retrieval", captions), ("vqa", questions), ("ocr", pasted)):
        for number, row in enumerate(rows):
            row |= {"image_id": number, "image_info": {"file_name": Path(row["image_path"]).name}}
        files[name] = folder / f"{name}.json"
        files[name].write_text(json.dumps({"data": rows}))
    return files


def by_picture(measured: Measurement, pictures: list[Path]) -> Measurement:
    """The same with pictures, not questions, as what is resampled."""
    index = {path: number for number, path in enumerate(dict.fromkeys(pictures))}
    at = np.array([index[path] for path in pictures])
    arms = {}
    for arm, statistics in measured.arms.items():
        summed = np.zeros((len(statistics), len(index), statistics.shape[2]))
        for draw, of_draw in zip(summed, statistics, strict=True):
            np.add.at(draw, at, of_draw)
        arms[arm] = summed
    return Measurement(arms, measured.score, SEED)


def rows_of(vlm: VLM, source: str, files: dict[str, Path], folder: Path, retrieval_items: int) -> Iterator[Row]:
    """Measure every task of a source."""
    blank = folder / "blank.png"
    Image.new("RGB", (SIZE, SIZE), (235, 235, 235)).save(blank)
    for name, file in files.items():
        started = time.monotonic()
        task = make_task(name, candidates=CANDIDATES[source])
        examples, left_out = task.examples(load_items(file))
        assert not left_out, left_out
        if name == "retrieval":
            examples = examples[:retrieval_items]
        (seen,) = measure(vlm, [(task, examples)], {UNEDITED: BASELINE}, seed=SEED)
        (blind,) = measure(vlm, [(task, [replace(e, image=blank) for e in examples])], {UNEDITED: BASELINE}, seed=SEED)
        both = Measurement({UNEDITED: seen.arms[UNEDITED], BLANK: blind.arms[UNEDITED]}, task.score, SEED)
        both = by_picture(both, [Path(e.image) for e in examples if e.image is not None])
        row = Row(
            source,
            name,
            task.metric_name,
            both.items,
            both.level(UNEDITED),
            task.guess(examples),
            both.value(BLANK),
            both.difference(UNEDITED, BLANK),
        )
        print(row, f"{time.monotonic() - started:.0f} s", flush=True)
        yield row


def page(model: str, rows: list[Row]) -> str:
    """The table."""
    lines = [
        f"# What {model} can do",
        "",
        "On pictures that training never saw, through `hones` (float32, greedy answers); intervals: paired bootstrap",
        f"over pictures, 95 %. Retrieval among {CANDIDATES['built-in']} candidates on built-in pictures, "
        f"{CANDIDATES['photographs']} on photographs.",
        "",
        "| pictures | task | metric | n | score | best guess | blank picture | above blank |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.source} | {r.task} | {r.metric} | {r.pictures} | {r.score:.3f} | {r.guess:.3f} | {r.blank:.3f} | "
            f"{r.above_blank:+.3f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=60, help="pictures of each source and task")
    parser.add_argument("--retrieval-items", type=int, default=60, help="of which retrieval, the dearest, asks about")
    parser.add_argument("--photographs", type=Path, help="folder with flickr8k, daquar and words")
    parser.add_argument("--to", type=Path, help="page to write")
    options = parser.parse_args()
    vlm = load_vlm(options.model)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        sources = {"built-in": of_built_in(Path(scratch) / "shapes", options.items)}
        if options.photographs is not None:
            kept = read_photographs(options.photographs, test=True)
            sources["photographs"] = of_photographs(Path(scratch) / "photographs", kept, 3 * options.items)
        for source, files in sources.items():
            rows += rows_of(vlm, source, files, Path(scratch), options.retrieval_items)
    if options.to is not None:
        write_bytes(options.to, page(options.model, rows).encode())
    merged = merged_models().get(options.model)
    if merged is not None:
        write_json(merged.folder / "manifest.json", merged.manifest | {"figures": [row.as_dict() for row in rows]})


if __name__ == "__main__":
    main()
