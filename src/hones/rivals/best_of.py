"""best-of: the ranking, of a few methods', whose first neurons spare most elsewhere on items that it was not found on.

No method is the most selective on every model and at every budget (`docs/methods.md`), so which one is to be taken is
measured, on the discovery items alone:

1. Every third picture is put aside. Each of `TRIED` ranks on the others.
2. The first n neurons of each ranking are masked while this task, the other tasks of the same pictures and plain text
   are asked about the pictures put aside. With s(t) the share that t loses (`hones.method.selectivity`; of plain text
   the share of a token's probability), the margin of a ranking is

       s(task) - max over the others o of s(o),

   that without any other s(task) alone. What the model cannot do at all there has nothing to lose and is no other.
3. The method of the largest margin (ties: the earlier of `TRIED`) ranks on all items. These are its numbers.

So the choice rests on a third of the items, and it is for a budget: at another one another method may be taken.
A method that has nothing to go on, as selective without other tasks, is left out with a remark. The cost is that of all
of `TRIED` on two thirds of the items and of one of them on all, and a sweep of five masks.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from hones.errors import TaskStops
from hones.log import remark
from hones.method.beside import Beside, measure_beside
from hones.method.found import sites_of
from hones.method.neurons import select_neurons
from hones.models.interventions import BASELINE, Intervention
from hones.rivals import METHODS
from hones.rivals.base import Context, Importance, Method
from hones.rivals.known import APART, TRIED
from hones.rivals.ranked import importance_of, ranked
from hones.rivals.rounds import Schedule
from hones.stats import UNEDITED, Interval, Measurement
from hones.sweep.measure import measure
from hones.sweep.run import Job
from hones.tasks.base import Example

TRIALS = "best-of"
"""What `Context.shared` keeps the trial of a task and budget under, and run.json that of a ranking."""


@dataclass(frozen=True)
class Trial:
    """What was measured on the pictures put aside.

    margins: of each method's first neurons, in the order of `TRIED`, 95 % over the items put aside; the largest of
    several is on the high side. items: of the task, put aside; of: all of them.
    """

    taken: str
    margins: dict[str, Interval]
    items: int
    of: int

    def __str__(self) -> str:
        margins = ", ".join(f"{name} {margin:+.2f}" for name, margin in self.margins.items())
        said = f"best-of takes {self.taken}: margin on {self.items} of {self.of} items put aside: {margins}"
        if self.margins[self.taken].low > 0:
            return said
        if len({margin.value for margin in self.margins.values()}) == 1 < len(self.margins):
            return f"{said}; all are alike there, so it is the first of them: give more items, or another --ratio"
        return f"{said}; none is surely above zero there, so mask it with --also, or give more items"


@dataclass(frozen=True)
class BestOf(Method, known="best-of"):
    """Several methods, tried on a part of the items."""

    cut_by_items = True
    schedule: Schedule = field(default_factory=Schedule)

    @property
    def options(self) -> dict[str, Any]:
        """The schedule of those in rounds, which are tried, and the part of the pictures put aside."""
        return {**asdict(self.schedule), "tried": [*TRIED], "apart": APART}

    def with_schedule(self, **asked: int) -> "BestOf":
        return replace(self, schedule=replace(self.schedule, **asked))

    def for_budget(self, ratio: float) -> "BestOf":
        return replace(self, schedule=replace(self.schedule, ratio=ratio))

    def check(self, context: Context) -> None:
        """Also raises TaskStops where no picture can be put aside."""
        super().check(context)
        put_aside(context)

    def importance(self, context: Context) -> Importance:
        """The numbers of the method that is taken, float32.

        Raises:
            TaskStops: fewer than three pictures, or the model can do nothing on those put aside.
            HonesError: as the methods that are tried.
        """
        learnt, aside = put_aside(context)
        methods = [self._made(name) for name in TRIED]
        trial = self._try(methods, learnt, aside)
        context.shared[TRIALS, context.task.name, self.schedule.ratio] = trial
        remark(f"{context.task.name}: {trial}")
        taken = next(method for method in methods if method.name == trial.taken)
        return importance_of(taken, context, sweep=context.sweep)

    def _made(self, name: str) -> Method:
        """A method with this schedule."""
        asked = {"rounds": self.schedule.rounds}
        asked |= {} if self.schedule.width is None else {"width": self.schedule.width}
        return METHODS[name].with_schedule(**asked).for_budget(self.schedule.ratio)

    def _try(self, methods: Sequence[Method], learnt: Context, aside: Context) -> Trial:
        sets: dict[str, Intervention] = {}
        for method in methods:
            try:
                ((_, found),) = ranked([method], learnt, lambda one: learnt.sweep.part(f"trial-{one.name}"))
            except TaskStops as stops:
                remark(f"best-of on {learnt.task.name} leaves out {method.name}: {stops}")
                continue
            chosen = select_neurons(found.importance, self.schedule.ratio, learnt.vlm.anatomy.expert_of)
            sets[method.name] = Intervention(masked=frozenset(sites_of(chosen)))
        sweep = aside.sweep.part("trial")
        progress = f"{aside.task.name}: trial"
        arms = {UNEDITED: BASELINE, **sets}
        (own,) = measure(aside.vlm, [(aside.task, aside.examples)], arms, sweep, seed=aside.seed, progress=progress)
        others: list[Job] = [(task, examples) for task, examples in (*aside.others, *aside.elsewhere) if examples]
        beside = measure_beside(aside.vlm, others, sets, sweep, seed=aside.seed, progress=progress)
        margins = {name: margin_of(own, beside, name) for name in sets}
        taken = max(margins, key=lambda name: margins[name].value)
        items = len(aside.examples)
        return Trial(taken, margins, items, items + len(learnt.examples))


def trial_of(context: Context, method: Method) -> dict[str, Any]:
    """What run.json says of a ranking's trial; nothing of other methods."""
    if not isinstance(method, BestOf):
        return {}
    return {TRIALS: asdict(context.shared[TRIALS, context.task.name, method.schedule.ratio])}


def put_aside(context: Context) -> tuple[Context, Context]:
    """The context without every third picture, and with these alone; of texts without a picture, every third item.

    Raises:
        TaskStops: there are fewer than three.
    """
    places = {place: n for n, place in enumerate(dict.fromkeys(e.about for e in context.examples))}
    if len(places) < APART:
        raise TaskStops(
            f"best-of on {context.task.name}: {len(places)} pictures or texts",
            expected=f"at least {APART}, of which one is put aside",
            do="use more items, or name a method",
        )

    def part(aside: bool) -> Context:
        def of_these(examples: Sequence[Example]) -> list[Example]:
            return [e for e in examples if (places[e.about] % APART == APART - 1) == aside]

        def of_others(examples: Sequence[Example]) -> list[Example]:
            return [e for n, e in enumerate(examples) if (n % APART == APART - 1) == aside]

        return replace(
            context,
            examples=of_these(context.examples),
            others=[(task, of_these(examples)) for task, examples in context.others],
            elsewhere=[(task, of_others(examples)) for task, examples in context.elsewhere],
            hones=None,
        )

    return part(aside=False), part(aside=True)


def margin_of(own: Measurement, beside: Beside, arm: str) -> Interval:
    """The share that the task loses, less the largest that another task or plain text loses.

    Raises:
        TaskStops: the task has nothing to lose.
    """
    lost = own.share_lost(arm)
    if lost is None:
        raise TaskStops(
            f"best-of has nothing to choose by: the model does nothing right on the {own.items} items put aside",
            do="use more items, or name a method",
        )
    elsewhere = [*(measured.share_lost(arm) for _, measured in beside.others), beside.of_text(arm)]
    shares = [share for share in elsewhere if share is not None]
    return lost.beyond(shares) if shares else lost.interval
