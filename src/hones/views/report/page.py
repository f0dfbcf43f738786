"""The report of a run, from what the run folder holds; the template says what its sections are called."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hones.errors import joined
from hones.files import write_bytes
from hones.method.analysis.results import LensRow
from hones.method.steering.parts import WAYS
from hones.rivals import METHODS
from hones.rivals.compare import HONES
from hones.runs.results import RunResults, read_results
from hones.runs.stale import stale
from hones.stats import UNEDITED
from hones.tabular import Column, together
from hones.views.charts import Chart, budget_curves, comparison_chart, head_map, layer_curves, level_chart
from hones.views.glossary import TERMS
from hones.views.kept import kept_curves
from hones.views.report.cards import Card, make_card
from hones.views.report.evidence import evidence_charts
from hones.views.report.groups import ablation_chart, group_chart
from hones.views.report.items import items_of_task
from hones.views.report.pictures import Thumbnail, thumbnail
from hones.views.report.provenance import provenance
from hones.views.report.summary import budget_sentence, sentences
from hones.views.report.templating import render
from hones.views.selectivity import costs_chart, selective_chart
from hones.views.sheet import Sheet, sheet
from hones.views.text import group_name, token_text

Lens = tuple[LensRow, Thumbnail, str, list[tuple[Sequence[LensRow], Sheet]]]
"""An item, its picture, the unedited model's answer or "", and for every group its rows, layer by layer, and data."""


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
    charts = {**run_charts(results), "groups": []}
    tables: list[Sheet] = []
    cards: dict[str, list[Card]] = {}
    lens: list[Lens] = []
    said = {
        (t.task, item.id, item.prompt): item.answers[UNEDITED].answer
        for t in results.tasks
        for item in t.answers
        if UNEDITED in item.answers
    }
    if (analysis := results.analysis) is not None:
        if analysis.groups:
            charts["groups"].append(group_chart(analysis))
        if analysis.ablations:
            charts["groups"].append(ablation_chart(analysis))
        if (overlap := analysis.table("overlap")).rows:
            tables.append(sheet(overlap))
        pictures = results.folder / "analysis"
        lens = _lens(analysis.lens, pictures, said)
        for card in analysis.cards:
            cards.setdefault(card.task, []).append(make_card(card, pictures, said))
    parts = ("heads", "neurons", "masking", "comparison", "steering", "answers")
    without = {part: [t.task for t in results.tasks if not getattr(t, part)] for part in parts}
    return render(
        "report.html.j2",
        title=f"{results.model}: HONES report",
        model=results.model,
        run=results.folder.resolve().name,
        tasks=[t.task for t in results.tasks],
        masked=[(t.task, t.masking) for t in results.tasks if t.masking is not None],
        sentences=sentences(results),
        stale=stale(results),
        stopped=[f"{task} stopped at {x.get('stage')}: {x.get('why')}" for task, x in results.record.stopped.items()],
        items=[items_of_task(x, results.folder) for t in results.tasks if (x := t.shown_answers) is not None],
        charts=charts,
        budgets=[line for t in results.tasks if (line := budget_sentence(t, results.record.ratio_of(t.task)))],
        methods=_methods(results),
        ways=_ways(results),
        glossary=TERMS,
        without={part: joined(tasks) if tasks else "" for part, tasks in without.items()},
        analysed=analysis is not None,
        overlap=tables,
        lens=lens,
        cards=cards,
        steered=_steered(results),
        provenance=provenance(results),
    )


def _methods(results: RunResults) -> list[tuple[str, str]]:
    """The methods of the comparisons, and by what they rank neurons."""
    names = dict.fromkeys(m.method for t in results.tasks if t.comparison is not None for m in t.comparison.methods)
    return [(name, METHODS[name].summary) for name in names if name in METHODS]


def _ways(results: RunResults) -> list[tuple[str, str]]:
    """The ways to steer of the evidence, and how their scales come about."""
    names = dict.fromkeys(w.method for t in results.tasks if t.evidence is not None for w in t.evidence.test.methods)
    return [(name, WAYS[name].summary) for name in names if name in WAYS]


def run_charts(results: RunResults) -> dict[str, list[Chart]]:
    """The charts of every section that figures for papers have too."""
    masked = [(t.task, t.masking) for t in results.tasks if t.masking is not None]
    arms = {"baseline": "unmasked", "masked": "selected masked", "control": "random masked"}
    caption = "Lines: 95 % intervals over the test pictures; random: mean over draws."
    elsewhere = filter(None, [costs_chart(masked), keeping_chart(results)])
    methods: list[Chart] = []
    for comparison in (t.comparison for t in results.tasks if t.comparison is not None):
        methods += filter(None, [comparison_chart(comparison), selective_chart(comparison)])
        if any(curve.ratios for curve in comparison.curves):
            methods.append(budget_curves(comparison))
    methods += [kept_curves(t.both) for t in results.tasks if t.both is not None and t.both.span.low > 0]
    return {
        "heads": [head_map(t.task, t.heads) for t in results.tasks if t.heads is not None],
        "layers": [layer_curves(results.per_layer)] if results.per_layer else [],
        "masking": [*([level_chart("Masking", caption, together(masked), arms)] if masked else []), *elsewhere],
        "methods": methods,
        "evidence": evidence_charts([t.evidence for t in results.tasks if t.evidence is not None]),
    }


def keeping_chart(results: RunResults) -> Chart | None:
    """The metric with the selected neurons alone, beside the whole model and nothing kept."""
    kept = [(t.task, t.keeping) for t in results.tasks if t.keeping is not None]
    if not kept:
        return None
    caption = "All other feed-forward neurons replaced. Lines: 95 % intervals over the test pictures."
    arms = {"whole": "whole model", "kept": "only the selected kept", "empty": "none kept"}
    return level_chart("Keeping", caption, together(kept), arms)


def _lens(rows: Sequence[LensRow], folder: Path, said: Mapping[tuple[str, str, str], str]) -> list[Lens]:
    """Items with the group of their task alone, or else their first, before the others."""
    by_item: dict[tuple[str, ...], dict[tuple[str, ...], list[LensRow]]] = {}
    for row in rows:
        by_item.setdefault((row.task, row.item, row.prompt), {}).setdefault(row.group, []).append(row)
    lens: list[Lens] = []
    for i, by_group in enumerate(by_item.values(), 1):
        groups = []
        for n, of_group in enumerate(sorted(by_group.values(), key=lambda rows: rows[0].group != (rows[0].task,)), 1):
            cells = tuple((r.layer, token_text(t.text), t.weight) for r in of_group for t in r.falls)
            caption = f"Tokens that fall, {group_name(of_group[0].group)}"
            groups.append((of_group, Sheet(f"lens-{i}-{n}", caption, ("layer", "token", "fall"), cells)))
        first = groups[0][0][0]
        answer = said.get((first.task, first.item, first.prompt), "")
        lens.append((first, thumbnail(first.picture, folder), answer, groups))
    return lens


def _steered(results: RunResults) -> tuple[Chart, Sheet] | tuple[()]:
    """What scales change, by way where there is no evidence to show the others; nothing where nothing was steered."""
    steered = [
        (t.task, method, result)
        for t in results.tasks
        for method, result in t.steering.items()
        if t.evidence is None or method == HONES
    ]
    if not steered:
        return ()
    table = together([(task, result) for task, _, result in steered])
    rows = [{**row, "method": method} for row, (_, method, _) in zip(table.rows, steered, strict=True)]
    task, *others = table.columns
    table = replace(table, columns=(task, Column("method", "method"), *others), rows=rows)
    several = len({task for task, *_ in steered}) < len(steered)
    named = [{**row, "task": f"{row['task']}, {row['method']}"} for row in rows] if several else rows
    caption = "Lines: 95 % intervals over the test pictures."
    chart = level_chart("Steering", caption, replace(table, rows=named), {"base": "base", "steered": "steered"})
    return chart, sheet(table, caption="The metric on test pictures with and without the scales")
