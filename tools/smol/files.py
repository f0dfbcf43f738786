"""Photographs that are kept for tests as items of the unified format: what smol-llava is measured and studied on."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

from .photographs import Photograph, Photographs
from .pictures import cropped, photographed, with_word

Rows = list[dict[str, Any]]


def write_photographs(
    folder: Path, kept: Photographs, sizes: dict[str, int], seed: int, questions: int, apart: bool = True
) -> dict[str, Path]:
    """A file per split, `folder`/SPLIT.json, their pictures in images/ beside it, no photograph in two of them.

    sizes: of each split, how many photographs with captions, with questions, and with a word pasted in.
    questions: of a photograph, at most. apart: whether no photograph is both captioned and under a word, which takes
    twice as many.
    """
    rng = random.Random(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    captioned = rng.sample(kept.captioned, len(kept.captioned))
    asked, words = rng.sample(kept.asked, len(kept.asked)), rng.sample(kept.words, len(kept.words))
    files = {}
    for split, size in sizes.items():
        under = captioned[size if apart else 0 :][:size]
        part = Photographs(captioned[:size], asked[:size], words[:size])
        del captioned[: 2 * size if apart else size], asked[:size], words[:size]
        rows = _rows(folder / "images", part, under, split, questions, rng)
        files[split] = folder / f"{split}.json"
        files[split].write_text(json.dumps({"data": rows}))
    return files


def _rows(
    images: Path, photographs: Photographs, under: list[Photograph], split: str, questions: int, rng: random.Random
) -> Rows:
    """Items of one task each. Several questions of a photograph are several items; a photograph under a word, one of
    `under`, is asked for the word alone.
    """
    rows: Rows = []
    for photograph in photographs.captioned:
        captions = [{"caption_id": k, "caption": text} for k, text in enumerate(photograph.captions)]
        rows.append({"image_info": _copied(photograph, images), "captions": captions})
    for photograph in photographs.asked:
        shown = _copied(photograph, images)
        for question, answer in rng.sample(photograph.questions, min(questions, len(photograph.questions))):
            vqa = {"question": question, "answer": answer, "all_answers": [answer]}
            rows.append({"image_info": shown, "vqa": vqa})
    for number, word in enumerate(photographs.words):
        ground = cropped(rng.choice(under), None)
        picture, lettering = with_word(ground, photographed(word), rng)
        name = f"word_{split}_{number:04d}.png"
        picture.save(images / name)
        rows.append({"image_info": {"file_name": name}, "ocr": {"text": word.text, "bbox": [*lettering.box]}})
    for number, row in enumerate(rows):
        row |= {"image_id": row["image_info"]["file_name"], "item_id": f"{split}/{number}"}
    return rows


def _copied(photograph: Photograph, images: Path) -> dict[str, Any]:
    shutil.copyfile(photograph.path, images / photograph.path.name)
    return {"file_name": photograph.path.name}
