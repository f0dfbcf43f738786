"""The findings in words, generated from the numbers. A direction is named only where the interval excludes zero."""

from collections.abc import Iterator, Sequence
from math import isnan

from hones.errors import joined
from hones.method.analysis.results import Analysis
from hones.method.found import HeadResult
from hones.method.head_ways import StepsTaken, SubsetFit
from hones.method.keeping import KeepingResult
from hones.method.masking import MaskingResult
from hones.method.steering.evaluate import SteeringResult
from hones.method.steering.results import Evidence, Tested
from hones.rivals.both_results import BothDirections
from hones.rivals.compare import HONES
from hones.rivals.results import Comparison
from hones.runs.results import RunResults, TaskResults
from hones.stats import LEVEL, Interval
from hones.tasks.log_probability import LogProbability
from hones.views.text import count, group_name, includes_zero, metric, number, with_change, with_interval

NO_CHANGE = "no change that the interval supports"


def sentences(results: RunResults) -> list[tuple[str, list[str]]]:
    """The findings of each task, then those across tasks."""
    told = [(t.task, [*_of_task(t, results.record.ratio_of(t.task))]) for t in results.tasks]
    if results.analysis is not None and len(results.analysis.tasks) > 1:
        told.append(("across tasks", [*across_sentences(results.analysis)]))
    return [(name, texts) for name, texts in told if texts]


def _of_task(t: TaskResults, ratio: float | None) -> Iterator[str]:
    yield from stuck_sentences(t)
    if t.heads is not None:
        yield heads_sentence(t.heads)
    if t.masking is not None:
        yield masking_sentence(t.task, t.masking)
        yield from selectivity_sentences(t.task, t.masking)
    if t.keeping is not None:
        yield keeping_sentence(t.task, t.keeping)
    if t.comparison is not None:
        yield comparison_sentence(t.comparison)
        yield from filter(None, [budget_sentence(t, ratio)])
    if t.both is not None:
        yield both_sentence(t.both)
    if t.evidence is not None:
        yield from evidence_sentences(t.evidence)
        return
    for method, result in t.steering.items():
        yield steering_sentence(t.task, method, result)


def stuck_sentences(t: TaskResults) -> Iterator[str]:
    """Where the unedited metric is at its end on all items, and what that means for everything that follows."""
    levels = [] if t.heads is None else [(t.heads.metric_name, t.heads.baseline, t.heads.items, "discovery item")]
    tested = t.masking or t.comparison
    if tested is not None:
        levels.append((tested.metric_name, tested.baseline, tested.items, "test item"))
    elif t.steering:
        steered = next(iter(t.steering.values()))
        levels.append((steered.metric_name, steered.base, steered.items, "test item"))
    ends: dict[tuple[str, float], list[str]] = {}
    for name, level, items, what in levels:
        if name != LogProbability.metric_name and level.value in (0.0, 1.0):
            ends.setdefault((name, level.value), []).append(f"the {count(items, what)}")
    for (name, end), places in ends.items():
        said = "0, its floor: nothing can be lost" if end == 0 else "1, its ceiling: a loss can show, a gain cannot"
        yield f"On {joined(places)} the unedited model's {metric(name)} is {said}."


def budget_sentence(t: TaskResults, ratio: float | None) -> str:
    """Where the comparison ran at another budget than the task's neurons; else nothing.

    Args:
        ratio: of the task's neurons, as run.json says.
    """
    if t.comparison is None or ratio in (None, t.comparison.ratio):
        return ""
    compared, selected = (f"{100 * x:.3g} %" for x in (t.comparison.ratio, ratio))
    return (
        f"The comparison of {t.task} ran at another budget: {compared} of all neurons, where the selection that is "
        f"masked and steered has {selected}; its drops are not those of the masking."
    )


def heads_sentence(r: HeadResult) -> str:
    """The strongest head, and how many critical heads are beyond doubt."""
    best = r.heads[0]
    if not r.critical:
        return (
            f"No head's replacement lowers {metric(r.metric_name)}, {with_interval(r.baseline, 2)}: none is critical."
        )
    strongest = f"its strongest head (layer {best.layer}, head {best.head})"
    replaced = f"Replacing {strongest}"
    if isinstance(r.found_by, SubsetFit):
        replaced = f"Replacing {strongest} among others, by a linear model of {count(r.found_by.count, 'subset')},"
    of = f"of {number(r.baseline.value, 2)} {metric(r.metric_name)}"
    if all(isnan(h.score.low) for h in r.critical):
        text = f"{replaced} costs {number(best.score.value, 2)} {of}; its heads file gives no intervals."
    else:
        cost = f"costs {with_change(best.score, 2)}"
        if includes_zero(best.score):
            cost = f"makes {NO_CHANGE} (drop {with_change(best.score, 2)})"
        certain = sum(h.score.low > 0 for h in r.critical)
        have = f"{'has' if certain == 1 else 'have'} an interval above zero"
        text = f"{replaced} {cost} {of}; {certain} of the {count(len(r.critical), 'critical head')} {have}."
    if isinstance(r.found_by, StepsTaken):
        grown = sum(h.growth is not None and h.growth.low > 0 for h in r.critical)
        text += f" They were chosen in steps; {grown} of them cost more with those before replaced than alone."
    return text + (" Heads left a race early: an approximation." if r.racing is not None else "")


def masking_sentence(task: str, r: MaskingResult) -> str:
    """What masking the neurons costs, against random neurons."""
    on = f"{task} on {count(r.items, 'test item')}"
    text = f"Masking the {count(r.neurons, 'neuron')} {_moves(on, r.baseline, r.masked, r.absolute_drop, 'drop')}"
    cost = number(r.baseline.value - r.control.value, 2)
    if includes_zero(r.advantage):
        verdict = f"no difference that the interval supports ({with_change(r.advantage, 2)})"
    else:
        more = "more" if r.advantage.value > 0 else "less"
        verdict = f"{number(abs(r.advantage.value), 2)} {more} for the selection, an interval that excludes zero"
    return f"{text}; random neurons of the same layers cost {cost}: {verdict}."


def keeping_sentence(task: str, r: KeepingResult) -> str:
    """How much of the metric the neurons bring back alone, and what is left without them."""
    alone = (
        f"With {count(r.neurons, 'neuron')} kept and all others replaced ({r.rest}), {task} on "
        f"{count(r.items, 'test item')} has {with_interval(r.kept, 2)} {metric(r.metric_name)}; the whole model "
        f"{number(r.whole.value, 2)}, none kept {number(r.empty.value, 2)}"
    )
    if r.faithfulness is None or r.completeness is None:
        return f"{alone}: {r.sentence()}."
    beyond = f"beyond random neurons {with_change(r.advantage, 2)}"
    if includes_zero(r.advantage):
        beyond = f"no difference to random neurons that the interval supports ({with_change(r.advantage, 2)})"
    return (
        f"{alone}: a faithfulness of {with_interval(r.faithfulness, 2)}, {beyond}; without them "
        f"{with_interval(r.completeness, 2)} of the scale is left."
    )


def both_sentence(both: BothDirections) -> str:
    """Whose neurons, kept alone along budgets, bring back most."""
    areas = [(c.method, c.cpr, c.cmd) for c in both.curves if c.cpr is not None and c.cmd is not None]
    if not areas:
        said = f"whole - nothing kept {with_change(both.span, 2)}"
        return f"Of {both.task}, no share that kept neurons bring back is given ({said}, or one budget alone)."
    method, cpr, cmd = max(areas, key=lambda area: area[1].value)
    return (
        f"Kept alone along the budgets, the neurons of {method} bring back most of {both.task}: CPR "
        f"{with_interval(cpr, 2)}, CMD {with_interval(cmd, 2)}."
    )


def selectivity_sentences(task: str, r: MaskingResult) -> Iterator[str]:
    """Whether other tasks and plain text are spared; nothing where they were not measured."""
    found = r.selectivity
    if found is None:
        return
    losing = [(other.task, other.relative_drop) for other in found.others if other.relative_drop is not None]
    if losing and found.selective_drop is not None:
        name, lost = max(losing, key=lambda x: x[1].value)
        most = f"the most that another task loses is {with_change(lost, 1)} % of its baseline ({name})"
        yield f"Of the other tasks, {most}: a selective drop of {with_change(found.selective_drop, 2)}."
    text = found.plain_text
    if text is not None and text.is_read:
        now = f"from {number(text.baseline.value, 2)} to {number(text.masked.value, 2)} nats a token"
        yield f"The log loss of plain text goes {now} (change {with_change(text.increase, 2)})."
    if found.general:
        yield (
            f"The set is general: what it costs elsewhere rivals what it costs {task}, so its drop does not say that "
            "its neurons are of this task."
        )


def comparison_sentence(c: Comparison) -> str:
    """Whom HONES beats, and who beats it."""
    others = [(m.method, m.hones_advantage) for m in c.methods if m.hones_advantage is not None]
    hones = next((m for m in c.methods if m.method == HONES), None)
    if hones is None or not others:
        return f"{count(len(c.methods), 'method')} compared, without HONES to compare them with."
    beaten, better, undecided = _standing(others)
    parts = [
        f"beats {joined(beaten)}" if beaten else "beats none of the others",
        f"is beaten by {joined(better)}" if better else "is beaten by none",
    ]
    tied = f"; with {undecided} the interval of the difference includes zero" if undecided else ""
    return (
        f"Against {count(len(others), 'other method')} at the same budget, HONES (drop "
        f"{with_change(hones.absolute_drop, 2)}) {' and '.join(parts)}{tied}."
    )


def _standing(advantages: Sequence[tuple[str, Interval]]) -> tuple[list[str], list[str], int]:
    """Over whom HONES is ahead, behind whom, and with how many the interval of the difference includes zero."""
    ahead = [name for name, x in advantages if x.low > 0]
    behind = [name for name, x in advantages if x.high < 0]
    return ahead, behind, len(advantages) - len(ahead) - len(behind)


def steering_sentence(task: str, method: str, r: SteeringResult) -> str:
    """What steering gains."""
    on = f"{task} on {count(r.items, 'test item')}"
    return f"Steering ({method}) {_moves(on, r.base, r.steered, r.gain, 'gain')}."


def evidence_sentences(e: Evidence) -> Iterator[str]:
    """What steering gains, against whom, out of domain, and what it costs; directions only beyond the interval."""
    yield f"Steering (HONES, mean over {count(len(e.seeds), 'seed')}) {_gains(e.task, e.test)}."
    if e.out_of_domain is not None:
        yield f"Out of domain, it {_gains(e.task, e.out_of_domain)}."
    if e.elsewhere:
        parts = [
            f"{'raise' if o.change.value > 0 else 'lower'} {o.task} (change {with_change(o.change, 2)})"
            for o in e.elsewhere
            if not includes_zero(o.change)
        ]
        same = [o.task for o in e.elsewhere if includes_zero(o.change)]
        parts += [f"make {NO_CHANGE} to {joined(same)}"] if same else []
        yield f"The scales of {e.task} {joined(parts)}."


def _gains(task: str, tested: Tested) -> str:
    hones = next(way for way in tested.methods if way.method == HONES)
    on = f"{task} on {count(tested.items, 'item')}"
    text = _moves(on, tested.base, hones.steered, hones.gain, "gain")
    others = [(w.method, w.hones_advantage) for w in tested.methods if w.hones_advantage is not None]
    ahead, behind, undecided = _standing(others)
    parts = [f"it is ahead of {joined(ahead)}"] if ahead else []
    parts += [f"it is behind {joined(behind)}"] if behind else []
    if undecided:
        parts.append(f"with {count(undecided, 'other way')} the interval of the difference includes zero")
    return f"{text}; {', '.join(parts)}" if parts else text


def _moves(what: str, base: Interval, now: Interval, change: Interval, called: str) -> str:
    """lowers vqa from 0.96 to 0.74 (drop 0.22 [0.15, 0.29]); no direction where the interval includes zero.

    Args:
        called: gain, now - base, or drop, base - now.
    """
    rises = change.value > 0 if called == "gain" else change.value < 0
    did = f"makes {NO_CHANGE} to" if includes_zero(change) else "raises" if rises else "lowers"
    from_to = f"from {number(base.value, 2)} to {number(now.value, 2)}"
    return f"{did} {what} {from_to} ({called} {with_change(change, 2)})"


def across_sentences(analysis: Analysis) -> Iterator[str]:
    """What the tasks share, and which group matters beyond chance."""
    names = [t.task for t in analysis.tasks]
    total = sum(g.neurons for g in analysis.groups)
    everywhere = sum(g.neurons for g in analysis.groups if len(g.tasks) == len(names))
    alone = sum(g.neurons for g in analysis.groups if len(g.tasks) == 1)
    if total:
        yield (
            f"Of {count(total, 'neuron')} that some task selected, {alone:,} serve one task only and {everywhere:,} "
            f"serve all of {joined(names)}."
        )
    certain = [a for a in analysis.ablations if a.advantage.low > 0]
    below = sum(a.advantage.high < 0 for a in analysis.ablations)
    pairs = len(analysis.ablations)
    if certain:
        most = max(certain, key=lambda a: a.advantage.value)
        yield (
            f"The group that matters most beyond chance is {group_name(most.group)}: masking it costs {most.task} "
            f"{with_change(most.drop, 2)}, random neurons {number(most.random_drop.value, 2)}."
        )
    elif pairs:
        yield "No group's drop is larger than that of random neurons by more than its interval."
    if certain or below:
        chance = number(pairs * (1 - LEVEL) / 2, 1)
        yield (
            f"Of {count(pairs, 'pair')} of group and task, {len(certain)} have an interval above random neurons and "
            f"{below} below; chance alone would give about {chance} of each."
        )
