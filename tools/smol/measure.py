"""What smol-llava can do, through the product: built-in pictures and photographs, on pictures that it never saw.

    python -m smol.measure smol-llava --photographs FOLDER --to ../bench/results/real-competence.md

Per source and task the metric with its interval (paired bootstrap over pictures), what the best constant answer gives
(retrieval: a random order), and what the model says of a blank picture. A metric sees whole answers; how much likelier
the right one is than with another picture of the same source, in nats, needs fewer items to be sure of (another, as
any model finds an empty picture strange). Adds the figures to the model's manifest.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
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
from hones.tasks.base import Answer, Example, Task
from hones.tasks.log_probability import LogProbability

from .files import write_photographs
from .photographs import read_photographs

SEED = 20  # of the evaluation pictures; training draws from other names, so none is shared
QUESTIONS = 8  # of a photograph, at most
BESIDE, GUESS = "beside", "guess"
CANDIDATES = {"built-in": 50, "photographs": 10}
ANNOTATION = {"vqa": "vqa", "ocr": "ocr", "caption": "captions", "retrieval": "captions"}  # the field of each task


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
    above_guess: Interval
    above_blank: Interval
    nats: Interval | None  # of log p(right answer), above another picture; None where candidates are ranked

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {name: value.as_dict() if isinstance(value, Interval) else value for name, value in vars(self).items()}


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


def beside(vlm: VLM, task: Task, examples: Sequence[Example], pictures: Sequence[Path]) -> Measurement:
    """The examples with their own pictures, and with others in their place."""
    (seen,) = measure(vlm, [(task, examples)], {UNEDITED: BASELINE}, seed=SEED)
    changed = [replace(example, image=picture) for example, picture in zip(examples, pictures, strict=True)]
    (found,) = measure(vlm, [(task, changed)], {UNEDITED: BASELINE}, seed=SEED)
    return Measurement({UNEDITED: seen.arms[UNEDITED], BESIDE: found.arms[UNEDITED]}, task.score, SEED)


def others(pictures: Sequence[Path]) -> list[Path]:
    """For each the next picture, the first after the last."""
    distinct = [*dict.fromkeys(pictures)]
    following = dict(zip(distinct, [*distinct[1:], distinct[0]], strict=True))
    return [following[picture] for picture in pictures]


def guessed(task: Task, examples: Sequence[Example]) -> np.ndarray:
    """Statistics [1, N, k] of the best answer for any picture; of retrieval those of all candidates tied."""

    def of(constant: Answer) -> np.ndarray:
        return np.stack([task.statistics(example, constant) for example in examples])[None]

    if len(examples[0].prompts) > 1:
        return of(np.zeros(len(examples[0].prompts)))
    constants = sorted({reference for example in examples for reference in example.references})
    return max(map(of, constants), key=lambda statistics: float(task.score(statistics.sum((0, 1)))))


def rows_of(
    vlm: VLM, source: str, file: Path, folder: Path, retrieval_items: int, tasks: Sequence[str] = tuple(ANNOTATION)
) -> Iterator[Row]:
    """Measure tasks of a source."""
    blank = folder / "blank.png"
    Image.new("RGB", (SIZE, SIZE), (235, 235, 235)).save(blank)
    items = load_items(file)
    for name in tasks:
        key = ANNOTATION[name]
        started = time.monotonic()
        task = make_task(name, candidates=CANDIDATES[source])
        examples, left_out = task.examples(replace(items, items=tuple(item for item in items if getattr(item, key))))
        assert not left_out, left_out
        if name == "retrieval":
            examples = examples[:retrieval_items]
        pictures = [Path(e.image) for e in examples if e.image is not None]
        both = beside(vlm, task, examples, [blank] * len(examples))
        both = by_picture(Measurement({**both.arms, GUESS: guessed(task, examples)}, task.score, SEED), pictures)
        nats = None
        if name != "retrieval":
            gold = LogProbability(task)
            likelier = beside(vlm, gold, [gold.with_gold(example) for example in examples], others(pictures))
            nats = by_picture(likelier, pictures).difference(UNEDITED, BESIDE)
        row = Row(
            source,
            name,
            task.metric_name,
            both.items,
            both.level(UNEDITED),
            both.value(GUESS),
            both.value(BESIDE),
            both.difference(UNEDITED, GUESS),
            both.difference(UNEDITED, BESIDE),
            nats,
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
        "Words are photographed ones, pasted into photographs on the grid of the tower's patches, about a patch a",
        f"character: easier than words anywhere. Of a photograph at most {QUESTIONS} questions are asked.",
        "",
        "The last column: how much likelier the right answer (the first caption) is than with another picture of the",
        "same source, in nats of its log-probability.",
        "",
        "| pictures | task | metric | n | score | best guess | blank picture | above guess | above blank | nats |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.source} | {r.task} | {r.metric} | {r.pictures} | {r.score:.3f} | {r.guess:.3f} | {r.blank:.3f} | "
            f"{r.above_guess:+.3f} | {r.above_blank:+.3f} | {'' if r.nats is None else f'{r.nats:+.3f}'} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=60, help="built-in pictures of each task")
    parser.add_argument("--retrieval-items", type=int, default=24, help="of which retrieval, the dearest, asks about")
    parser.add_argument(
        "--photograph-items", type=int, default=710, help="photographs of each task, as far as there are"
    )
    parser.add_argument("--photograph-retrieval-items", type=int, default=40, help="of which retrieval asks about")
    parser.add_argument("--photographs", type=Path, help="folder with flickr8k, daquar and words")
    parser.add_argument("--to", type=Path, help="page to write")
    options = parser.parse_args()
    vlm = load_vlm(options.model)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = {"built-in": write_shapes(folder / "shapes", {"test": options.items}, seed=SEED)["test"]}
        if options.photographs is not None:
            kept = read_photographs(options.photographs, test=True)
            written = write_photographs(
                folder / "photographs", kept, {"test": options.photograph_items}, SEED, QUESTIONS, apart=False
            )
            sources["photographs"] = written["test"]
        for source, file in sources.items():
            most = options.retrieval_items if source == "built-in" else options.photograph_retrieval_items
            rows += rows_of(vlm, source, file, folder, most)
    if options.to is not None:
        write_bytes(options.to, page(options.model, rows).encode())
    merged = merged_models().get(options.model)
    if merged is not None:
        write_json(merged.folder / "manifest.json", merged.manifest | {"figures": [row.as_dict() for row in rows]})


if __name__ == "__main__":
    main()
