"""The items of a task: question and target, what the model says unedited, masked and steered, and what changed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hones.errors import joined
from hones.runs.answer_table import Answers
from hones.runs.answers import AnsweredItem, Said
from hones.stats import UNEDITED
from hones.views.report.pictures import Thumbnail, picture_asked_about
from hones.views.text import count

FIRST = 12
"""Items that are open at once; the others unfold."""
MOST = 100
SIDE = 160

UNCHANGED = "unchanged"
WORDS = ("now wrong", "scored lower", "other words, same score", "scored higher", "now right")


@dataclass(frozen=True)
class Arm:
    """What the model says under one arm: None where it was not asked. change: against the unedited model, in words."""

    name: str
    said: Said | None
    change: str = ""

    @property
    def verdict(self) -> str:
        """yes, no, or neither: whether the change is for the better."""
        return {"now right": "yes", "scored higher": "yes", "now wrong": "no", "scored lower": "no"}.get(
            self.change, ""
        )


@dataclass(frozen=True)
class AskedItem:
    """One item ready for the page."""

    item: AnsweredItem
    picture: Thumbnail
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class TaskItems:
    """The items of one task, those that changed first.

    told: sentences about them. shown, folded: open at once, and not. hidden: how many more there are.
    """

    task: str
    arms: tuple[str, ...]
    told: tuple[str, ...]
    shown: Sequence[AskedItem]
    folded: Sequence[AskedItem]
    hidden: int


def items_of_task(answers: Answers, run: Path) -> TaskItems:
    """The first `MOST` items of a task, changed ones first, with small pictures."""
    asked = []
    pictures: dict[object, Thumbnail] = {}
    for item in answers.ordered[:MOST]:
        place = (item.picture, item.box)
        if place not in pictures:
            pictures[place] = picture_asked_about(item, run, SIDE)
        asked.append(AskedItem(item, pictures[place], _arms(item, answers.arms)))
    hidden = len(answers.items) - len(asked)
    return TaskItems(answers.task, answers.arms, told(answers), asked[:FIRST], asked[FIRST:], hidden)


def _arms(item: AnsweredItem, names: Sequence[str]) -> tuple[Arm, ...]:
    before = item.answers.get(UNEDITED)
    arms = []
    for name in names:
        said = item.answers.get(name)
        change = ""
        if name != UNEDITED and before is not None and said is not None:
            change = change_of(before, said)
        arms.append(Arm(name, said, change))
    return tuple(arms)


def change_of(before: Said, after: Said) -> str:
    """What an edit changes, in words."""
    if (before.answer, before.score, before.rank) == (after.answer, after.score, after.rank):
        return UNCHANGED
    if before.score is None or after.score is None:
        return "other words"
    if before.score == after.score:
        return "other words, same score" if before.answer != after.answer else "another rank, same score"
    if after.score > before.score:
        return "now right" if after.is_right else "scored higher"
    return "now wrong" if after.score == 0 else "scored lower"


def told(answers: Answers) -> tuple[str, ...]:
    """How many items have the whole score, and how many every edit changes, by what it does to them."""
    sentences = []
    before = [item.answers[UNEDITED] for item in answers.items if UNEDITED in item.answers]
    if before and all(x.score is not None and 0 <= x.score <= 1 for x in before):
        right = sum(x.is_right for x in before)
        have = "has" if right == 1 else "have"
        sentences.append(f"Unedited, {right} of {count(len(before), f'{answers.split} item')} {have} the whole score.")
    by_item = [_arms(item, answers.arms) for item in answers.items]
    for arms in zip(*by_item, strict=True):
        changes = Counter(arm.change for arm in arms if arm.change)
        if not changes:
            continue
        asked = changes.total()
        del changes[UNCHANGED]
        changed = changes.total()
        name = arms[0].name.capitalize()
        if not changed:
            sentences.append(f"{name}, none of {count(asked, 'item')} changes.")
            continue
        parts = [f"{changes[words]} {words}" for words in dict.fromkeys((*WORDS, *changes)) if changes[words]]
        change = "changes" if changed == 1 else "change"
        sentences.append(f"{name}, {changed} of {count(asked, 'item')} {change}: {joined(parts)}.")
    return tuple(sentences)
