"""The ways to score heads other than each alone: what is asked for, and what a result records; no torch is needed.

single        each head replaced alone, the paper's way (`hones.method.heads`)
subsets       random subsets replaced, a linear model of what is left (`hones.method.head_subsets`)
conditional   each head replaced where others are already, step by step (`hones.method.head_steps`)
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from hones.errors import HonesError

By = Literal["single", "subsets", "conditional"]
Utility = Literal["metric", "logprob"]
PER_HEAD = 4
"""Subsets for each head, unless said otherwise."""


@dataclass(frozen=True)
class Subsets:
    """Random subsets of the heads. share: the chance of each head to be in one. count: how many; None: 4 for each head.

    ridge: of the regression, in units of the mean variance of its columns; 0: least squares.
    """

    share: float = 0.1
    count: int | None = None
    ridge: float = 0.0
    way: Literal["subsets"] = "subsets"

    @property
    def options(self) -> dict[str, Any]:
        """What is asked for, as a run records it."""
        return {"share": self.share, "count": self.count, "ridge": self.ridge}

    def check(self) -> None:
        """Raises HonesError for numbers that mean nothing."""
        if not 0 < self.share < 1:
            raise HonesError(f"{self.share:g}", argument="share", expected="a share of the heads between 0 and 1")
        if self.count is not None and self.count < 1:
            raise HonesError(str(self.count), argument="subsets", expected="at least 1")
        if not 0 <= self.ridge < float("inf"):
            raise HonesError(f"{self.ridge:g}", argument="ridge", expected="0 or more, such as 0.1")

    def of(self, heads: int) -> "Subsets":
        """These of a model of so many heads, with their count.

        Raises:
            HonesError: as `check`; or, without a ridge, fewer subsets than the fit has numbers to find, a coefficient
                for each head and the intercept.
        """
        self.check()
        count = PER_HEAD * heads if self.count is None else self.count
        if count <= heads and self.ridge == 0:
            raise HonesError(
                f"{count} of {heads} heads",
                argument="subsets",
                expected=f"{heads + 1} or more, a coefficient for each head and the intercept",
                do="a ridge such as 0.1 fits fewer, and shrinks all coefficients",
            )
        return replace(self, count=count)


@dataclass(frozen=True)
class Conditional:
    """Heads chosen in steps. steps: sweeps over all heads; the first is of each alone."""

    steps: int = 6
    way: Literal["conditional"] = "conditional"

    @property
    def options(self) -> dict[str, Any]:
        """What is asked for, as a run records it."""
        return {"steps": self.steps}

    def check(self) -> None:
        """Raises HonesError for a number that means nothing."""
        if self.steps < 1:
            raise HonesError(str(self.steps), argument="steps", expected="at least 1")

    def of(self, heads: int) -> "Conditional":
        """These of any model."""
        self.check()
        return self

    def chosen(self, top_k: int) -> list[int]:
        """How many of K heads are chosen after each step; steps that would choose none are left out."""
        return [*dict.fromkeys(-(-top_k * step // self.steps) for step in range(1, self.steps + 1))]


HeadWay = Subsets | Conditional
"""None in its place: single."""


@dataclass(frozen=True)
class SubsetFit:
    """What subsets gave. intercept: the linear model's metric with no head replaced.

    r2: the share of the variance over subsets that the linear model explains; left_out: of subsets that it was not
    fitted to, one at a time. None where the metric of all subsets is the same, or nothing is left to judge by.
    draw_error: the standard error of a coefficient over draws of the subsets, the mean over heads; no part of the
    intervals, which are over items.
    """

    share: float
    count: int
    ridge: float
    intercept: float
    r2: float | None
    left_out: float | None
    draw_error: float | None
    way: Literal["subsets"] = "subsets"

    def __str__(self) -> str:
        explained = "all subsets score the same" if self.r2 is None else f"R2 {self.r2:.2f}"
        left_out = "" if self.left_out is None else f", {self.left_out:.2f} on subsets left out"
        error = "" if self.draw_error is None else f"; another draw moves a score by {self.draw_error:.2g}"
        ridge = f", ridge {self.ridge:g}" if self.ridge else ""
        return f"{self.count:,} subsets, each head in {100 * self.share:g} %{ridge}: {explained}{left_out}{error}"


@dataclass(frozen=True)
class StepsTaken:
    """What steps gave. steps: as asked. chosen: heads after each that was taken."""

    steps: int
    chosen: tuple[int, ...]
    way: Literal["conditional"] = "conditional"

    @property
    def count(self) -> int:
        """Heads that were chosen."""
        return self.chosen[-1] if self.chosen else 0

    def __str__(self) -> str:
        return f"chosen after each step {', '.join(map(str, self.chosen)) or 'none'}"


FoundBy = SubsetFit | StepsTaken


def make_head_way(
    by: str,
    *,
    share: float | None = None,
    subsets: int | None = None,
    ridge: float | None = None,
    steps: int | None = None,
) -> HeadWay | None:
    """The way of that name with what is asked of it; None: single.

    Raises:
        HonesError: no such way, an option of another way, or one out of range.
    """
    if by not in get_args(By):
        raise HonesError(by, argument="by", expected=", ".join(get_args(By)))
    owned = {
        "subsets": {"share": share, "subsets": subsets, "ridge": ridge},
        "conditional": {"steps": steps},
    }
    for owner, options in owned.items():
        for name, value in options.items():
            if value is not None and owner != by:
                raise HonesError(f"--{name} with --by {by}", expected=f"--by {owner}")
    way: HeadWay | None = None
    if by == "subsets":
        asked = {"share": share, "count": subsets, "ridge": ridge}
        way = Subsets(**{name: value for name, value in asked.items() if value is not None})
    elif by == "conditional":
        way = Conditional() if steps is None else Conditional(steps)
    if way is not None:
        way.check()
    return way


def check_utility(name: str | None, way: HeadWay | None) -> Utility:
    """By what heads are scored; None: by the metric, or where several are replaced at once by the log-probability.

    With several replaced a metric is often at its floor, where subsets are no longer told apart and a search ends.

    Raises:
        HonesError: no such utility.
    """
    if name is None:
        return "metric" if way is None else "logprob"
    for known in get_args(Utility):
        if name == known:
            return known
    raise HonesError(name, argument="utility", expected=" or ".join(get_args(Utility)))
