"""The paper's file from COCO's official annotations: pictures that serve all four tasks, and their disjoint splits.

A picture is taken if it has

    1. five captions that are not empty (COCO captions),
    2. a legible word (COCO-Text: legibility `legible`, a text, a box with an area on the picture),
    3. a question with answers (VQAv2).

All its captions are kept, in the order of their ids. Of several words or questions one is chosen: the one of lowest id,
as in the published sample (all 1,333 questions there are a picture's first), or a seeded draw (`choose="seeded"`). The
pictures, in the order of their ids, are shuffled by the seed and cut into the splits, one after another.

Every file is read once and cut down as it is parsed, so that memory holds the largest file's text and what is kept.
"""

import gc
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from hones.data.content import read_raw
from hones.data.readers.cells import texts
from hones.data.readers.vqav2 import vqa_fields
from hones.errors import HonesError, cause
from hones.files import decoded, write_json

CAPTIONS_NEEDED = 5
Choice = Literal["first", "seeded"]
SPLITS = {"discovery": 5000, "dev": 2000, "test": 3000}
_Rows = dict[Any, list[dict[str, Any]]]
"""By picture."""


@dataclass(frozen=True)
class CocoFiles:
    """The official files, as published; images: the folder of the pictures."""

    captions: Path
    questions: Path
    annotations: Path
    text: Path
    images: Path


@dataclass(frozen=True)
class Built:
    """What was written. counts: pictures after each step, in order; the first is all pictures of the captions file."""

    files: dict[str, Path]
    counts: dict[str, int]


def build_coco(
    files: CocoFiles, to: Path, splits: Mapping[str, int] = SPLITS, seed: int = 3407, choose: Choice = "first"
) -> Built:
    """Write `all.json`, a unified file of each split and `provenance.json` into `to`.

    Raises:
        HonesError: a file is missing or not what its name says, or fewer pictures remain than the splits need.
    """
    if choose not in get_args(Choice):
        raise HonesError(f"--choose {choose}", expected=" or ".join(get_args(Choice)))
    if not files.images.is_dir():
        raise HonesError(f"no picture folder {files.images}", expected="an existing folder", do="check --images")
    present = {file.name for file in files.images.iterdir()}
    hashes: dict[str, str] = {}
    pictures, captions = _captions(files.captions, hashes)
    kept = {*pictures}
    counts = {"pictures with captions": len(kept)}

    def keep(step: str, ids: Iterable[Any]) -> None:
        kept.intersection_update(ids)
        counts[step] = len(kept)

    keep("picture file", (i for i, info in pictures.items() if info["file_name"] in present))
    keep(f"{CAPTIONS_NEEDED} captions", (i for i, rows in captions.items() if len(rows) >= CAPTIONS_NEEDED))
    words = _words(files.text, {i: pictures[i] for i in kept}, hashes)
    keep("legible word", words)
    questions = _questions(files.questions, kept, hashes)
    keep("question", questions)
    answered = _answered(files.annotations, questions, hashes)
    keep("answers", answered)
    if len(kept) < sum(splits.values()):
        wanted = " + ".join(f"{size} {name}" for name, size in splits.items())
        steps = pairwise(counts.items())
        lost = ", ".join(f"{before - after} without {name}" for (_, before), (name, after) in steps)
        raise HonesError(
            f"{len(kept)} pictures have all annotations",
            expected=f"{sum(splits.values())} ({wanted})",
            do=f"ask for smaller splits; lost on the way: {lost}",
        )

    def chosen(rows: list[dict[str, Any]], draw: str) -> dict[str, Any]:
        """The first, or a draw that depends on nothing but the seed and the rows."""
        return rows[0] if choose == "first" else random.Random(draw).choice(rows)

    items = {
        i: {
            "image_id": i,
            "image_info": pictures[i],
            "vqa": chosen(answered[i], f"{seed}/{i}/question"),
            "captions": sorted(captions[i], key=lambda row: row["caption_id"]),
            "ocr": chosen(words[i], f"{seed}/{i}/word"),
        }
        for i in sorted(kept)
    }
    order = list(items)
    random.Random(f"{seed}/splits").shuffle(order)
    written = {"all": to / "all.json"}
    write_json(written["all"], {"data": list(items.values())})
    begin = 0
    for name, size in splits.items():
        written[name] = to / f"{name}.json"
        write_json(written[name], {"data": [items[i] for i in order[begin : begin + size]]})
        begin += size
    provenance = {"seed": seed, "choose": choose, "sizes": dict(splits), "pictures": counts, "sha256": hashes}
    write_json(to / "provenance.json", provenance)
    return Built(written, counts)


def _captions(file: Path, hashes: dict[str, str]) -> tuple[dict[Any, dict[str, Any]], _Rows]:
    """The pictures and their captions."""
    content = _parse(file, hashes)
    pictures = {
        row["id"]: {key: row[key] for key in ("file_name", "height", "width", "coco_url") if key in row}
        for row in _list(content, "images", file)
        if _has(row, id=int, file_name=str, height=int, width=int)
    }
    captions: _Rows = defaultdict(list)
    for row in _list(content, "annotations", file):
        if _has(row, id=int, image_id=int, caption=str) and row["caption"].strip():
            captions[row["image_id"]].append({"caption_id": row["id"], "caption": row["caption"]})
    if not pictures or not captions:
        raise _unlike(file, "COCO's captions: images and annotations with caption")
    return pictures, captions


def _words(file: Path, pictures: Mapping[Any, dict[str, Any]], hashes: dict[str, str]) -> _Rows:
    """The legible words of these pictures, by ascending id; both published forms of COCO-Text (v1 and v2)."""

    def without_outline(row: dict[str, Any]) -> dict[str, Any]:
        row.pop("polygon", None)  # most of the file
        row.pop("mask", None)
        return row

    content = _parse(file, hashes, without_outline)
    annotations = content.get("anns") if isinstance(content, dict) else None
    if not isinstance(annotations, dict) or not isinstance(content.get("imgs"), dict):
        raise _unlike(file, "COCO-Text: imgs and anns")
    words: _Rows = defaultdict(list)
    for name, row in annotations.items():
        if not _has(row, image_id=int, utf8_string=str, bbox=list) or row["image_id"] not in pictures:
            continue
        word = row["utf8_string"].strip()
        if row.get("legibility") == "legible" and word and _on_picture(row["bbox"], pictures[row["image_id"]]):
            more = {key: row[key] for key in ("class", "language", "legibility") if key in row}
            number = row.get("id", name)
            words[row["image_id"]].append({"ocr_id": number, "text": word, "bbox": row["bbox"], **more})
    for rows in words.values():
        rows.sort(key=lambda row: (int(row["ocr_id"]) if str(row["ocr_id"]).isdecimal() else 0, str(row["ocr_id"])))
    return words


def _on_picture(box: list[Any], info: Mapping[str, Any]) -> bool:
    if len(box) != 4 or not all(isinstance(x, int | float) and abs(x) < 1e9 for x in box):
        return False
    x, y, width, height = box
    shown = x < info["width"] and y < info["height"] and x + width > 0 and y + height > 0
    return width > 0 and height > 0 and shown


def _questions(file: Path, kept: set[Any], hashes: dict[str, str]) -> _Rows:
    """The questions about these pictures, by ascending id."""
    questions: _Rows = defaultdict(list)
    for row in _list(_parse(file, hashes), "questions", file):
        good = _has(row, image_id=int, question_id=int, question=str) and row["question"].strip()
        if good and row["image_id"] in kept:
            questions[row["image_id"]].append(row)
    for rows in questions.values():
        rows.sort(key=lambda row: row["question_id"])
    return questions


def _answered(file: Path, questions: _Rows, hashes: dict[str, str]) -> _Rows:
    """The vqa fields of the questions that have answers."""
    wanted = {row["question_id"] for rows in questions.values() for row in rows}
    strings: dict[str, str] = {}

    def smaller(row: dict[str, Any]) -> Any:
        """An answer as its text, the same object for equal ones; an annotation if it is of a question asked."""
        if "answer_id" in row:
            answer = row.get("answer")
            return strings.setdefault(answer, answer) if isinstance(answer, str) else None
        number = row.get("question_id")
        return row if "question_id" not in row or (isinstance(number, int) and number in wanted) else None

    rows = _list(_parse(file, hashes, smaller), "annotations", file)
    of = {row["question_id"]: row for row in rows if _has(row, question_id=int, answers=list) and texts(row["answers"])}
    answered: _Rows = defaultdict(list)
    for picture, asked in questions.items():
        for question in asked:
            fields = vqa_fields(question, of[question["question_id"]]) if question["question_id"] in of else None
            if fields is not None:
                answered[picture].append(fields)
    return answered


def _parse(file: Path, hashes: dict[str, str], smaller: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """A JSON file, every object replaced by what `smaller` makes of it as soon as it is parsed.

    hashes: receives the file's, under its name with as many of its folders as tell it from the files read before.

    Raises:
        HonesError: it does not exist or is not JSON.
    """
    raw = read_raw(file, "check the options of hones data coco")
    names = ("/".join(file.parts[-count:]) for count in range(1, len(file.parts) + 1))
    hashes[next((name for name in names if name not in hashes), str(file))] = hashlib.sha256(raw).hexdigest()
    collecting = gc.isenabled()
    gc.disable()  # millions of small objects, none of them garbage
    try:
        text = decoded(raw)
        del raw
        return json.loads(text, object_hook=smaller)
    except (ValueError, RecursionError) as error:
        raise HonesError(f"{file} is not JSON ({cause(error)})") from error
    finally:
        if collecting:
            gc.enable()


def _list(content: Any, key: str, file: Path) -> list[Any]:
    rows = content.get(key) if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise _unlike(file, f"a list under {key!r}")
    return rows


def _has(row: Any, **fields: type) -> bool:
    """Whether a row is an object with these fields of these types."""
    return isinstance(row, dict) and all(
        isinstance(row.get(key), kind) and not isinstance(row[key], bool) for key, kind in fields.items()
    )


def _unlike(file: Path, expected: str) -> HonesError:
    return HonesError(f"{file} is not the file that its option asks for", expected=expected)
