"""The report of a run: its sections, from what the run folder holds; what is not there is named with its command."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hones.errors import joined
from hones.files import write_bytes
from hones.method.analysis.results import LensRow, NeuronCard
from hones.rivals.results import Comparison
from hones.runs.results import RunResults, read_results
from hones.runs.stale import stale
from hones.tabular import Column, together
from hones.views.charts import HONES, Chart, budget_curves, comparison_chart, head_map, layer_curves, level_chart
from hones.views.report.cards import Card, make_card
from hones.views.report.evidence import evidence_charts
from hones.views.report.groups import ablation_chart, group_chart
from hones.views.report.pictures import Thumbnail, thumbnail
from hones.views.report.provenance import provenance
from hones.views.report.summary import sentences, tiles
from hones.views.report.templating import render
from hones.views.sheet import Sheet, sheet
from hones.views.text import group_name, token_text


@dataclass(frozen=True)
class Section:
    """Charts and tables under a heading. missing: what is not there, and the command that makes it."""

    id: str
    title: str
    lead: str
    charts: Sequence[Chart] = ()
    tables: Sequence[Sheet] = ()
    missing: tuple[str, str] | None = None


@dataclass(frozen=True)
class LensGroup:
    """The lens rows of one item under one group, layer by layer."""

    name: str
    rows: tuple[LensRow, ...]
    table: Sheet


@dataclass(frozen=True)
class Lens:
    """One item: the group of its task alone, or else its first, and the other groups, folded."""

    first: LensRow
    picture: Thumbnail
    alone: LensGroup
    others: tuple[LensGroup, ...]


def write_report(folder: Path, to: Path | None = None) -> Path:
    """Write the report of a run folder, by default to RUN/report.html; returns its path.

    Raises:
        HonesError: the folder holds no results, or a damaged one; the file cannot be written.
    """
    to = folder / "report.html" if to is None else to
    write_bytes(to, render_report(read_results(folder)).encode())
    return to


def render_report(results: RunResults) -> str:
    """The page: one HTML file without outside parts."""
    analysis = results.analysis
    return render(
        "report.html.j2",
        title=f"{results.model}: HONES report",
        model=results.model,
        run=results.folder.resolve().name,
        tasks=[t.task for t in results.tasks],
        tiles=tiles(results),
        sentences=sentences(results),
        stale=stale(results),
        stopped=[f"{task} stopped at {x.get('stage')}: {x.get('why')}" for task, x in results.record.stopped.items()],
        sections=[*_found(results), *_compared(results), *_analysed(results)],
        lens=_lens(analysis.lens, results.folder / "analysis") if analysis is not None else [],
        cards=_cards(analysis.cards, results.folder / "analysis") if analysis is not None else [],
        analysed=analysis is not None,
        steering=_steering(results),
        evidence=_evidence(results),
        provenance=provenance(results),
    )


def _found(results: RunResults) -> list[Section]:
    """Heads, layers and masking."""
    heads = [head_map(t.task, t.heads) for t in results.tasks if t.heads is not None]
    layers = [layer_curves(results.per_layer)] if results.per_layer else []
    return [
        Section(
            "heads",
            "Which heads matter",
            "Each cell is one attention head; its colour says how much the task's metric falls without it.",
            heads,
            missing=_missing(results, "heads", "head scores", "hones heads"),
        ),
        Section(
            "layers",
            "Where the neurons lie",
            "The feed-forward neurons whose write-in toward the answer depends most on those heads.",
            layers,
            missing=_missing(results, "neurons", "neurons", "hones neurons"),
        ),
        Section(
            "masking",
            "Proof: masking the neurons",
            "The selected neurons set to zero on test pictures, beside as many random neurons in the same layers.",
            masking_charts(results),
            missing=_missing(results, "masking", "masking", "hones mask"),
        ),
    ]


def _missing(results: RunResults, part: str, what: str, command: str) -> tuple[str, str] | None:
    """Which tasks have no such part, and the command that makes it."""
    tasks = [t.task for t in results.tasks if not getattr(t, part)]
    return (f"No {what} for {joined(tasks)}", command) if tasks else None


def masking_charts(results: RunResults) -> list[Chart]:
    """The masking of all tasks, as one chart."""
    masked = [(t.task, t.masking) for t in results.tasks if t.masking is not None]
    if not masked:
        return []
    arms = {"baseline": "unmasked", "masked": "selected masked", "control": "random masked"}
    caption = "Lines: 95 % intervals over the test pictures; random: mean over draws."
    return [level_chart("Masking", caption, together(masked), arms)]


def comparison_charts(comparison: Comparison) -> list[Chart]:
    """What each method's neurons cost at the budget, and along budgets."""
    along = [budget_curves(comparison)] if any(curve.ratios for curve in comparison.curves) else []
    return [comparison_chart(comparison), *along]


def _compared(results: RunResults) -> list[Section]:
    comparisons = [t.comparison for t in results.tasks if t.comparison is not None]
    charts = [chart for comparison in comparisons for chart in comparison_charts(comparison)]
    lead = "Every method selects as many neurons on the same pictures; a longer bar means that they matter more."
    missing = _missing(results, "comparison", "comparison with other methods", "hones compare")
    return [Section("methods", "Against other methods", lead, charts, missing=missing)]


def _analysed(results: RunResults) -> list[Section]:
    analysis = results.analysis
    if analysis is None:
        missing = ("No analysis across tasks", "hones analyze")
        return [Section("groups", "What the tasks share", "", missing=missing)]
    charts = [group_chart(analysis)] if analysis.groups else []
    if analysis.ablations:
        charts.append(ablation_chart(analysis))
    overlap = sheet(analysis.table("overlap"))
    lead = "Each neuron is in exactly one group: that of the tasks which selected it."
    return [Section("groups", "What the tasks share", lead, charts, [overlap] if overlap.rows else ())]


def _lens(rows: Sequence[LensRow], folder: Path) -> list[Lens]:
    by_item: dict[tuple[str, ...], dict[tuple[str, ...], list[LensRow]]] = {}
    for row in rows:
        by_item.setdefault((row.task, row.item, row.prompt), {}).setdefault(row.group, []).append(row)
    lenses = []
    for i, by_group in enumerate(by_item.values(), 1):
        of_item = sorted(by_group.values(), key=lambda rows: rows[0].group != (rows[0].task,))
        alone, *others = (_lens_group(f"lens-{i}-{n}", rows) for n, rows in enumerate(of_item, 1))
        first = of_item[0][0]
        lenses.append(Lens(first, thumbnail(first.picture, folder), alone, tuple(others)))
    return lenses


def _lens_group(name: str, rows: Sequence[LensRow]) -> LensGroup:
    cells = tuple((r.layer, token_text(t.text), t.weight) for r in rows for t in r.falls)
    group = group_name(rows[0].group)
    return LensGroup(group, tuple(rows), Sheet(name, f"Tokens that fall, {group}", ("layer", "token", "fall"), cells))


def _cards(cards: Sequence[NeuronCard], folder: Path) -> list[tuple[str, list[Card]]]:
    by_task: dict[str, list[Card]] = {}
    for card in cards:
        by_task.setdefault(card.task, []).append(make_card(card, folder))
    return [*by_task.items()]


def _steering(results: RunResults) -> Section:
    steered = [
        (t.task, method, result)
        for t in results.tasks
        for method, result in t.steering.items()
        if t.evidence is None or method == HONES
    ]
    missing = _missing(results, "steering", "steering", "hones steer")
    lead = "One scale per selected neuron, learned on other pictures with the model frozen."
    if not steered:
        return Section("steering", "Steering", lead, missing=missing)
    table = together([(task, result) for task, _, result in steered])
    task, *others = table.columns
    rows = [{**row, "method": method} for row, (_, method, _) in zip(table.rows, steered, strict=True)]
    table = replace(table, columns=(task, Column("method", "method"), *others), rows=rows)
    several = len({task for task, *_ in steered}) < len(steered)
    named = [{**row, "task": f"{row['task']}, {row['method']}"} for row in rows] if several else rows
    caption = "Lines: 95 % intervals over the test pictures."
    chart = level_chart("Steering", caption, replace(table, rows=named), {"base": "base", "steered": "steered"})
    words = "The metric on test pictures with and without the scales"
    return Section("steering", "Steering", lead, [chart], [sheet(table, caption=words)], missing)


def _evidence(results: RunResults) -> Section | None:
    """None where no evidence was measured."""
    evidences = [t.evidence for t in results.tasks if t.evidence is not None]
    if not evidences:
        return None
    lead = "HONES, its controls and other sets of neurons: the same trainer, settings and test pictures, paired."
    return Section("evidence", "Evidence that steering helps", lead, evidence_charts(evidences))
