"""Selectivity: what masking a task's neurons costs other tasks and plain text.

A few neurons of a language model end a task, and every other one with it: a drop beyond random neurons does not tell.
With the share that a task t loses, s(t) = (P(t) - P(t under the mask)) / P(t), on the test items of each,

    selective drop of task t = s(t) - max over the other tasks u of s(u)

Its interval is that of `hones.stats.Share.beyond`: each task's items are resampled by themselves, unedited and masked
alike, and the largest of the others is taken inside each resample. Another task that the model cannot do, P(u) = 0, has
nothing to lose and is not among them.

Plain text (`hones.tasks.plain_text`) stands beside: the increase D of its log loss in nats a token, and as a share
1 - exp(-D), what a token's probability loses in the geometric mean. It is no part of the number, which so means the
same for every model; where the unedited model reads it worse than a uniform guess would, it says nothing.

A set is *general* where its own drop lies beyond random neurons, yet the interval of its selective drop, or of its
share beyond plain text's, reaches 0. How all this is measured: `hones.method.beside`.
"""

from dataclasses import dataclass

from hones.stats import Interval
from hones.tabular import Column, Row, Table

PLAIN = "plain text"
ASK_OTHERS = "no other task was asked, so nothing is said of selectivity: --also ocr,caption asks them"


@dataclass(frozen=True)
class OtherTask:
    """Another task under a mask, on its test items; relative_drop in per cent, None where the baseline is 0."""

    task: str
    metric_name: str
    items: int
    baseline: Interval
    masked: Interval
    drop: Interval
    relative_drop: Interval | None


@dataclass(frozen=True)
class PlainTextLoss:
    """The log loss of plain text under a mask, in nats a token.

    share_lost: of a token's probability, in per cent. guess: the loss of a uniform guess, log of the vocabulary.
    """

    paragraphs: int
    baseline: Interval
    masked: Interval
    increase: Interval
    share_lost: Interval
    guess: float

    @property
    def is_read(self) -> bool:
        """Whether the unedited model reads plain text better than a uniform guess."""
        return self.baseline.value < self.guess


@dataclass(frozen=True)
class Selectivity:
    """What a mask costs beside its own task.

    plain_text: None where the model cannot be asked it. selective_drop: a share of the baseline; None without another
    task that has something to lose. general: None where nothing can be said, as no other task was asked.
    """

    others: tuple[OtherTask, ...]
    plain_text: PlainTextLoss | None
    selective_drop: Interval | None
    general: bool | None

    @property
    def says_something(self) -> bool:
        """Whether another task was measured, or plain text that the model reads."""
        return bool(self.others) or (self.plain_text is not None and self.plain_text.is_read)

    def rows(self) -> list[Row]:
        """What was measured, a row each, plain text last."""
        rows: list[Row] = [{**vars(other), "on": other.task} for other in self.others]
        if self.plain_text is not None:
            text = self.plain_text
            # a share of a probability below chance may be any number
            changed = {"drop": text.increase, "relative_drop": text.share_lost if text.is_read else None}
            rows.append({**vars(text), **changed, "on": PLAIN, "metric_name": "log_loss", "items": text.paragraphs})
        return rows

    def sentence(self) -> str:
        """What follows from it, in words."""
        said = []
        if self.selective_drop is not None:
            said.append(f"selective drop {self.selective_drop:+.2f}: the share lost minus the largest of the others")
        if self.general:
            said.append("GENERAL: what the set costs elsewhere rivals what it costs its own task")
        if self.plain_text is not None and not self.plain_text.is_read:
            said.append("plain text says nothing: the unedited model reads it worse than a uniform guess")
        return "; ".join(said)


def selectivity_table(own: Row, found: Selectivity) -> Table:
    """What a mask costs its own task, the others and plain text, a row each.

    Args:
        own: of its own task, with the values of an `OtherTask`.
    """
    columns = (
        Column("on", "measured on", below="metric_name"),
        Column("metric_name", "metric", "metric"),
        Column("items", "items", "count", detail=True),
        Column("baseline", "base", "interval", terse=True),
        Column("masked", "masked", "interval", terse=True),
        Column("drop", "drop [95 %]", "interval", "+.3f", full="drop"),
        Column("relative_drop", "share lost, %", "interval", ".1f", missing="-"),
    )
    caption = "of plain text: nats a token, their increase, and the share of a token's probability"
    said = "\n".join(filter(None, (found.sentence(), caption if found.plain_text is not None else "")))
    return Table("selectivity", "What the mask costs elsewhere", columns, [own, *found.rows()], said)
