"""Reports: one self-contained HTML file of a run, its figures for papers, and the page of one explained answer."""

from hones.report.explain import render_explanation
from hones.report.figures import write_figures
from hones.report.page import render_report, write_report

__all__ = ["render_explanation", "render_report", "write_figures", "write_report"]
