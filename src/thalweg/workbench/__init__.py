"""Compare methods on one's own problem, rerun the papers' claims, and read both as one page."""

from thalweg.workbench.compare import Comparison, compare
from thalweg.workbench.profiles import performance_profile
from thalweg.workbench.report import render_comparison, render_figures, render_studies
from thalweg.workbench.reproduce import Record, reproduce

__all__ = [
    "Comparison",
    "Record",
    "compare",
    "performance_profile",
    "render_comparison",
    "render_figures",
    "render_studies",
    "reproduce",
]
