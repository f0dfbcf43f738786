"""Scenes as items in the unified format, and as files."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from hones.data.shapes.language import captions, describe, existence, false_statement, questions
from hones.data.shapes.scene import SIZE, Content, draw, make_scene
from hones.data.shapes.signs import draw_sign, make_sign
from hones.errors import HonesError

_RETRIEVAL_NEGATIVES, _HARD_NEGATIVES = 49, 12  # the hard ones drawn with repetition


SOURCES: dict[str, Callable[[str], tuple[Content, Image.Image]]] = {
    "shapes": lambda seed: (scene := make_scene(seed), draw(scene)),
    "signs": lambda seed: (sign := make_sign(seed), draw_sign(sign)),
}


def annotate(scene: Content, image_id: int, file_name: str) -> dict[str, Any]:
    """The scene's item in the unified format, with 49 retrieval negatives that are verified to be false.

    `pope` holds an object that is there or not, and which: what docs/examples/pope.yaml asks about.
    """
    rng = random.Random(f"annotate/{scene.seed}")
    kind, question, answer = rng.choice(questions(scene, rng))
    description = describe(scene, rng)
    references = captions(description, scene.place)
    negatives: dict[str, None] = {}
    for _ in range(_HARD_NEGATIVES):
        negatives[captions(false_statement(scene, rng, hard=True))[0]] = None
    while len(negatives) < _RETRIEVAL_NEGATIVES:
        negatives[captions(false_statement(scene, rng, hard=False))[0]] = None
    return {
        "image_id": image_id,
        "image_info": {"file_name": file_name, "height": SIZE, "width": SIZE},
        "vqa": {"question": question, "answer": answer, "all_answers": [answer], "question_type": kind},
        "captions": [{"caption_id": 5 * image_id + i, "caption": text} for i, text in enumerate(references)],
        "ocr": {"text": scene.label.string, "bbox": scene.label.box},
        "retrieval": {"negatives": list(negatives)},
        "pope": existence(scene, random.Random(f"pope/{scene.seed}")),
    }


def write_shapes(folder: str | Path, splits: dict[str, int], seed: int = 0, source: str = "shapes") -> dict[str, Path]:
    """Write pictures and one unified annotation file per split; returns the files by split name.

    Splits are picture-disjoint: every picture has a seed of its own.

    Args:
        source: how the pictures look, a name of SOURCES; questions and captions are of the same kind.

    Raises:
        HonesError: no such source.
    """
    if source not in SOURCES:
        raise HonesError(f"no source {source!r}", expected=f"one of {', '.join(SOURCES)}")
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    image_id = 0
    for split, size in splits.items():
        items = []
        for i in range(size):
            image_id += 1
            scene, picture = SOURCES[source](f"{seed}/{split}/{i}")
            name = f"{split}_{i:05d}.png"
            picture.save(folder / "images" / name)
            items.append(annotate(scene, image_id, name))
        files[split] = folder / f"{split}.json"
        files[split].write_text(json.dumps({"data": items}, indent=1))
    return files
