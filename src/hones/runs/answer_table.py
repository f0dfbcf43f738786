"""What the model says in a run as a table: the answers under chosen arms, the items that changed first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hones.errors import HonesError
from hones.runs.answers import FILE, MASKED, STEERED, AnsweredItem, read_answers
from hones.stats import UNEDITED
from hones.tabular import Column, Table, Tabular
from hones.tasks.reading import holds

MAIN = (UNEDITED, MASKED, STEERED)
"""The arms that are shown unless others are asked for."""
LONGEST = 90
"""Characters of a text in a table; the file and CSV have all of it."""


@dataclass(frozen=True)
class Answers(Tabular):
    """What the model says about items of one task and split.

    arms: those that are compared and shown, the unedited model first where it is there. shown: how many rows suffice.
    """

    task: str
    split: str
    items: Sequence[AnsweredItem]
    arms: tuple[str, ...]
    shown: int | None = None

    @property
    def changed(self) -> list[AnsweredItem]:
        """The items about which an arm says something else than the unedited model."""
        return [item for item in self.items if item.changed(self.arms)]

    @property
    def wrong(self) -> list[AnsweredItem]:
        """The items to which the unedited model's answer has less than the whole score."""
        return [item for item in self.items if UNEDITED in item.answers and not item.answers[UNEDITED].is_right]

    @property
    def ordered(self) -> list[AnsweredItem]:
        """Changed ones first, then wrong ones, each in the order of the data."""
        wrong = {id(item) for item in self.wrong}
        return sorted(self.items, key=lambda item: (not item.changed(self.arms), id(item) not in wrong))

    def tables(self) -> list[Table]:
        """One row per item."""
        columns = (
            Column("item", "item", "text"),
            Column("asked", "asked", "text"),
            Column("target", "target", "text"),
            *(Column(arm, arm, "text", missing="-") for arm in self.arms),
            *(Column(f"{arm} score") for arm in self.arms),
        )
        rows = []
        for item in self.ordered:
            shown = {arm: item.answers[arm] for arm in self.arms if arm in item.answers}
            row: dict[str, Any] = {"item": item.id, "asked": _cut(item.question), "target": _cut(item.wanted)}
            row |= {arm: _cut(str(x)) for arm, x in shown.items()} | {
                f"{arm} score": x.score for arm, x in shown.items()
            }
            rows.append(row)
        title = f"{self.task}: {len(self.items)} {self.split} item{'' if len(self.items) == 1 else 's'}"
        if len(self.arms) > 1:
            title += f", {len(self.changed)} changed"
        caption = "\n".join(["in brackets: the metric of the answer alone", *self.lengths()])
        return [Table("answers", title, columns, rows, caption, self.shown)]

    def lengths(self) -> list[str]:
        """How long written answers are under each arm, and how many hold a right one: a line each, where arms differ.

        A set that ends how an answer ends takes the metric to 0, and may leave the right words in it.
        """
        written = [
            x for x in self.items if all(arm in x.answers and x.answers[arm].margins is None for arm in self.arms)
        ]
        words = {arm: [len(item.answers[arm].answer.split()) for item in written] for arm in self.arms}
        held = {
            arm: sum(any(holds(x.answers[arm].answer, right) for right in x.references) for x in written)
            for arm in self.arms
        }
        said = []
        if len({*map(tuple, words.values())}) > 1:
            means = ", ".join(f"{arm} {np.mean(counts):.1f}" for arm, counts in words.items())
            said.append(f"words in an answer: {means}")
        if len({*held.values()}) > 1:
            counts = ", ".join(f"{arm} {count}" for arm, count in held.items())
            said.append(f"answers that hold a right one: {counts} of {len(written)}")
        return said


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def answers_of(run: Path, task: str, split: str | None = None, arms: Sequence[str] = ()) -> Answers:
    """The answers of a task of a run folder.

    Args:
        split: by default test where it has answers, else discovery.
        arms: by default unedited, masked and steered, those that the split has.

    Raises:
        HonesError: no answers, or none of that split or of those arms.
    """
    file = run / task / FILE
    if not file.is_file():
        raise HonesError(f"no file {file}", do="run a stage of this task, with --fresh where it has finished already")
    return chosen_answers(task, read_answers(file), split, arms, file)


def chosen_answers(
    task: str,
    items: Sequence[AnsweredItem],
    split: str | None = None,
    arms: Sequence[str] = (),
    file: Path = Path(FILE),
) -> Answers:
    """Those of one split and of some arms, both by default as `answers_of` says.

    Raises:
        HonesError: none of that split or of those arms.
    """
    splits = dict.fromkeys(item.split for item in items)
    chosen = split or ("test" if "test" in splits else next(iter(splits), "test"))
    of_split = [item for item in items if item.split == chosen]
    if not of_split:
        raise HonesError(f"{file} has no answers of the {chosen} items", expected=f"one of {', '.join(splits)}")
    there = dict.fromkeys(arm for item in of_split for arm in item.answers)
    unknown = [arm for arm in arms if arm not in there]
    if unknown:
        raise HonesError(f"{file} has no answers of {', '.join(unknown)}", expected=f"some of {', '.join(there)}")
    return Answers(task, chosen, of_split, tuple(arms) or tuple(arm for arm in MAIN if arm in there))
