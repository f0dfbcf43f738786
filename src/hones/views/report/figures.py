"""Figures for papers: the charts of the report as PDF (fonts embedded) and SVG, the same bytes for the same run."""

import io
from pathlib import Path

import matplotlib as mpl

from hones.errors import HonesError
from hones.files import write_bytes
from hones.runs.results import read_results
from hones.views.charts import Chart
from hones.views.report.groups import groups_with_drops
from hones.views.report.page import run_charts
from hones.views.style import RC
from hones.views.svg import figure_svg


def write_figures(folder: Path, to: Path | None = None, form: str = "both") -> list[Path]:
    """Write every figure that the run has data for, by default to RUN/figures; returns the files.

    Raises:
        HonesError: the folder holds no results, or a damaged one; no such format; a file cannot be written.
    """
    if form not in ("pdf", "svg", "both"):
        raise HonesError(f"--format {form}", expected="pdf, svg or both")
    to = folder / "figures" if to is None else to
    results = read_results(folder)
    charts = [chart for of_section in run_charts(results).values() for chart in of_section]
    if results.analysis is not None and results.analysis.groups:
        charts.append(groups_with_drops(results.analysis))
    written = []
    for chart in charts:
        for kind, content in (("pdf", _pdf), ("svg", figure_svg)):
            if form in (kind, "both"):
                written.append(to / f"{chart.name}.{kind}")
                write_bytes(written[-1], content(chart))
    return written


@mpl.rc_context(RC)
def _pdf(chart: Chart) -> bytes:
    file = io.BytesIO()
    chart.drawing.figure.savefig(file, format="pdf", transparent=True, metadata={"CreationDate": None})
    return file.getvalue()
