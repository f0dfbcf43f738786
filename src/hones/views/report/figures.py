"""Figures for papers: the charts of the report as PDF (fonts embedded) and SVG, the same bytes for the same run."""

import io
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl

from hones.errors import HonesError
from hones.files import write_bytes
from hones.runs.results import RunResults, read_results
from hones.views.charts import Chart, head_map, layer_curves
from hones.views.report.evidence import evidence_charts
from hones.views.report.groups import groups_with_drops
from hones.views.report.page import comparison_charts, masking_charts
from hones.views.style import RC
from hones.views.svg import figure_svg

FORMATS = ("pdf", "svg", "both")


def write_figures(folder: Path, to: Path | None = None, form: str = "both") -> list[Path]:
    """Write every figure that the run has data for, by default to RUN/figures; returns the files.

    Raises:
        HonesError: the folder holds no results, or a damaged one; no such format; a file cannot be written.
    """
    if form not in FORMATS:
        raise HonesError(f"--format {form}", expected="pdf, svg or both")
    to = folder / "figures" if to is None else to
    written = []
    for chart in _charts(read_results(folder)):
        for kind, content in (("pdf", _pdf), ("svg", figure_svg)):
            if form in (kind, "both"):
                written.append(to / f"{chart.name}.{kind}")
                write_bytes(written[-1], content(chart))
    return written


def _charts(results: RunResults) -> Iterator[Chart]:
    if results.per_layer:
        yield layer_curves(results.per_layer)
    if results.analysis is not None and results.analysis.groups:
        yield groups_with_drops(results.analysis)
    yield from masking_charts(results)
    yield from evidence_charts([t.evidence for t in results.tasks if t.evidence is not None])
    for t in results.tasks:
        if t.heads is not None:
            yield head_map(t.task, t.heads)
        if t.comparison is not None:
            yield from comparison_charts(t.comparison)


@mpl.rc_context(RC)
def _pdf(chart: Chart) -> bytes:
    file = io.BytesIO()
    chart.figure.savefig(file, format="pdf", transparent=True, metadata={"CreationDate": None})
    return file.getvalue()
