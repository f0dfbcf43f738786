"""Results as tables and pictures for a terminal."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hones.data.items import LeftOut
from hones.method.heads import HeadResult
from hones.method.masking import MaskingResult
from hones.method.neurons import RankedNeuron
from hones.method.steering.evaluate import SteeringResult
from hones.runs.pipeline import Outcome
from hones.stats import Interval
from hones.tabular import heat

_LEFT_OUT_SHOWN = 20


def head_table(result: HeadResult) -> Table:
    """The critical heads with their scores."""
    title = f"Critical heads, {result.metric_name} {level(result.baseline)} on {result.items} items"
    if result.racing is not None:
        dropped = sum(h.dropped for h in result.heads)
        title += f"; racing at {result.racing.confidence:g}, within {result.racing.margin:g}: {dropped} dropped early"
    table = Table("rank", "layer", "head", "score: drop when replaced [95 %]", "without it", title=title)
    for rank, h in enumerate(result.critical, 1):
        table.add_row(str(rank), str(h.layer), str(h.head), str(h.score), f"{h.intervened:.3f}")
    return table


def head_map(result: HeadResult) -> RenderableType:
    """Layers by heads, redder where replacement costs more, bluer where it helps; a dot marks the critical heads."""
    layers = 1 + max(h.layer for h in result.heads)
    heads = 1 + max(h.head for h in result.heads)
    critical = {(h.layer, h.head) for h in result.critical}
    return heat_map(result.matrix(layers, heads), critical, "the metric")


def heat_map(
    scores: Float[np.ndarray, "layers heads"], critical: Collection[tuple[int, int]], of: str
) -> RenderableType:
    """The map of how much every head's replacement lowers `of`."""
    strongest = float(np.abs(scores).max()) or 1.0
    heads = range(scores.shape[1])
    lines = [Text("layer " + "".join(f"{h:>3}" if h % 4 == 0 else "   " for h in heads), style="dim")]
    for layer, row in enumerate(scores):
        line = Text(f"{layer:>5} ")
        for head in heads:
            cell = " ● " if (layer, head) in critical else "   "
            line.append(cell, style=f"black on {heat(float(row[head]) / strongest)}")
        lines.append(line)
    darkest = f"darkest red: {of} drops by {strongest:.3f}" if scores.any() else f"no head moves {of}"
    lines.append(Text(f"      ● critical; {darkest}", style="dim"))
    return Group(*lines)


def neuron_table(selected: Sequence[RankedNeuron], layers: int, shown: int = 10) -> Table:
    """The first neurons, and how many lie in each layer."""
    counts = np.bincount([n.layer for n in selected], minlength=layers)
    per_layer = ", ".join(f"{layer}: {count}" for layer, count in enumerate(counts))
    table = Table(
        "rank", "layer", "neuron", "importance", title=f"{len(selected)} neurons", caption=f"per layer {per_layer}"
    )
    for n in selected[:shown]:
        table.add_row(str(n.rank), str(n.layer), str(n.neuron), f"{n.score:.4g}")
    return table


def masking_table(results: Iterable[tuple[str, MaskingResult]]) -> Table:
    """Baseline, drop and control of each task; 80 columns wide."""
    rows = [*results]
    table = Table(title=f"Masking the selected neurons, {_items(r for _, r in rows)}", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("task", "base", "masked", "random", "drop [95 %]", "random - masked"):
        table.add_column(heading, no_wrap=True)
    for task, r in rows:
        relative = "" if r.relative_drop is None else f" = {r.relative_drop.value:.1f} %"
        levels = (f"{interval.value:.3f}" for interval in (r.baseline, r.masked, r.control))
        table.add_row(_task(task, r.metric_name), *levels, _two_lines(r.absolute_drop, relative), _verdict(r.advantage))
    table.caption = "random: as many neurons in the same layers, mean over draws; bold: interval above zero"
    return table


def steering_table(results: Iterable[tuple[str, SteeringResult]]) -> Table:
    """Base against the learned scales on the test items; 80 columns wide."""
    rows = [*results]
    table = Table(title=f"Steering the selected neurons, {_items(r for _, r in rows)}", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("task", "base", "steered", "gain [95 %]"):
        table.add_column(heading, no_wrap=True)
    for task, r in rows:
        levels = (f"{interval.value:.3f}" for interval in (r.base, r.steered))
        table.add_row(_task(task, r.metric_name), *levels, _verdict(r.gain))
    return table


def _items(results: Iterable[MaskingResult | SteeringResult]) -> str:
    counts = sorted({r.items for r in results})
    return f"{' to '.join(str(n) for n in {counts[0]: 0, counts[-1]: 0})} test items"


def _task(task: str, metric_name: str) -> Text:
    return Text.assemble(task, ("\n" + metric_name.removeprefix(f"{task}_"), "dim"))


def outcome_tables(outcomes: Sequence[Outcome]) -> Group:
    """Everything a run found, in two tables."""
    return Group(
        masking_table([(o.task, o.masking) for o in outcomes]),
        steering_table([(o.task, o.steering) for o in outcomes]),
    )


def left_out_list(left_out: Sequence[tuple[str, LeftOut]]) -> RenderableType:
    """Every item that was left out, by name."""
    lines = [Text(f"left out ({where}): item {item.id}: {item.reason}", style="yellow") for where, item in left_out]
    hidden = len(lines) - _LEFT_OUT_SHOWN
    if hidden > 0:
        lines = [*lines[:_LEFT_OUT_SHOWN], Text(f"... and {hidden} more, all named in run.json", style="yellow")]
    return Group(*lines)


def level(interval: Interval) -> str:
    """A level (not a difference) with its interval."""
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _verdict(interval: Interval) -> Text:
    """Bold where the interval lies above zero."""
    return Text(_two_lines(interval), style="bold" if interval.low > 0 else "")


def _two_lines(interval: Interval, more: str = "") -> str:
    return f"{interval.value:+.3f}{more}\n[{interval.low:+.3f}, {interval.high:+.3f}]"
