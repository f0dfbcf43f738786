"""auto: which method ranks the neurons, by what is at hand. The rules follow from what was measured (`ADVICE`).

In this order, for one task, or for all tasks of a run, whose sets are compared with each other and so share a method:

    critical heads are named                       hones      it alone of the five is guided by heads
    all answers of a task are the same             hones      the others ask what tells answers apart
    other tasks ask about fewer than FEWEST        selective  too few pictures to put a third of them aside
    other tasks ask about the same items           best-of    no method spares the others on every model: it measures
    one task                                       rounds     finds what stands in for what it has found
    more than MOST gradients for one of these      the next;  at last hones+, one gradient for each prompt

A gradient is one forward and one backward pass over a prompt. selective and rounds take one of every prompt in each
round, selective of the other tasks' prompts too; best-of takes selective's and two thirds of those of all it tries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hones.rivals.known import APART, ROUNDS, TRIED

AUTO = "auto"
FEWEST = 12
"""Pictures of which best-of puts a third aside."""
MOST_GRADIENTS = 100_000
"""About a day of two CPU cores for smol-llava, whose 6 x 24 took 162 s (bench/results/real-photographs-ocr.md)."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """A line of advice. measured: in words, with figures as they stand on the page."""

    use: str
    want: str
    measured: str
    page: str


ADVICE = (
    Advice(
        use="hones",
        want="the paper's method (the default)",
        measured="on planted models kept aside, average precision 0.145 [0.06, 0.24]",
        page="docs/leaderboard.md",
    ),
    Advice(
        use="hones+",
        want="neurons that are necessary for a task, in seconds",
        measured="there 0.905 [0.83, 0.96]; attribution patching has 0.735 [0.63, 0.84]",
        page="docs/leaderboard.md",
    ),
    Advice(
        use="rounds",
        want="those that stand in for each other too",
        measured="tiny-llava, ocr, 3 %: drop 0.75 [0.64, 0.85], hones+ 0.27 [0.17, 0.38]; it can cost other tasks",
        page="bench/results/rounds-cpu.md",
    ),
    Advice(
        use="selective",
        want="those that other tasks can spare",
        measured="smol-llava, .1 %: vqa loses 50 [32, 68] %, ocr −3 [−13, 2] %; "
        "at 1 % all, where atp's selective drop is +0.80 [+0.64, +0.96]",
        page="bench/results/real-drawings.md",
    ),
    Advice(
        use="selective",
        want="the same on photographs of words, which serve one task alone",
        measured="thin evidence, against it: ocr 93 [78, 100], caption 100, plain text 80 [76, 83] %",
        page="bench/results/real-photographs-ocr.md",
    ),
    Advice(
        use="best-of",
        want="whichever of these and atp spares most elsewhere, tried on a third of the items",
        measured="smol-llava, 1 %: selective drop of vqa 0.51 [+0.44, +0.57], it takes atp, of captions "
        "0.29 [+0.15, +0.40], captions and retrieval asked too; ocr 0.28 [+0.12, +0.43], mistaken with six items "
        "put aside",
        page="bench/results/best-of.md",
    ),
    Advice(
        use=AUTO,
        want="one of these five, by what is at hand",
        measured="best-of where other tasks are annotated; its other rules follow from the lines above",
        page="docs/methods.md",
    ),
)


@dataclass(frozen=True)
class AtHand:
    """What auto looks at, of one task.

    prompts: those of its items that are contrasted. others: as many of each other task that is about the same items and
    whose answers differ. told_apart: whether the task's own do. heads_named: whether critical heads were named for it.
    pictures: how many the items are about.
    """

    task: str
    prompts: int
    others: Mapping[str, int] = field(default_factory=dict)
    told_apart: bool = True
    heads_named: bool = False
    pictures: int = FEWEST

    def gradients(self, method: str) -> int:
        """How many a method takes, best-of at most."""
        if method == "best-of":
            tried = sum(map(self.gradients, TRIED))
            return self.gradients("selective") + round(tried * (APART - 1) / APART)
        prompts = self.prompts + (sum(self.others.values()) if method == "selective" else 0)
        return prompts * (ROUNDS if method in ("selective", "rounds") else 1)


@dataclass(frozen=True)
class Choice:
    """The method that is taken, why, and the page that has the figures."""

    method: str
    why: str
    page: str

    def __str__(self) -> str:
        return f"auto takes {self.method}: {self.why} ({self.page})"


def choose(tasks: Sequence[AtHand]) -> Choice:
    """The method for one task, or for several that share it: by the rules above, each of which holds for all."""
    if any(task.heads_named for task in tasks):
        return _choice("hones", "critical heads are named, and of the methods that auto knows they guide this one")
    if same := [task.task for task in tasks if not task.told_apart]:
        why = f"all answers of {' and '.join(same)} are the same, and the others ask what tells answers apart"
        return _choice("hones", why)
    if alone := [task.task for task in tasks if not task.others]:
        not_selective = f"no other task asks about the items of {' and '.join(alone)}"
    else:
        not_selective = _too_dear("selective", tasks)
    if not not_selective:
        beside = ", ".join(dict.fromkeys(name for task in tasks for name in task.others))
        annotated = f"the items are annotated for other tasks, {beside}"
        few = min(task.pictures for task in tasks)
        not_tried = (
            f"{few} pictures or texts are too few to try several" if few < FEWEST else _too_dear("best-of", tasks)
        )
        if not_tried:
            return _choice("selective", f"{annotated}, which it spares; {not_tried}")
        return _choice("best-of", f"{annotated}, and which method spares these differs from model to model")
    if not_rounds := _too_dear("rounds", tasks):
        return _choice("hones+", not_rounds)
    return _choice("rounds", f"{not_selective}; what it finds can cost other tasks")


def chosen_before(method: str, task: str) -> Choice:
    """What auto has chosen for a task of the same run stays, so that the sets of all its tasks are of one method."""
    return _choice(method, f"as for {task} in this run folder")


def _too_dear(method: str, tasks: Sequence[AtHand]) -> str:
    """That the method takes too many gradients on its dearest task, in words; "" where it does not."""
    most = max(tasks, key=lambda task: task.gradients(method))
    taken = most.gradients(method)
    if taken <= MOST_GRADIENTS:
        return ""
    return f"{method} would take {taken:,} gradients on {most.task}, more than {MOST_GRADIENTS:,}"


def _choice(method: str, why: str) -> Choice:
    return Choice(method, why, next((advice.page for advice in ADVICE if advice.use == method), "docs/methods.md"))
