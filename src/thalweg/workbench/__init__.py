"""Compare methods on one's own problem, rerun the papers' claims, and read both as one page."""

from thalweg.workbench.compare import Comparison, compare
from thalweg.workbench.page import render_figures
from thalweg.workbench.profiles import performance_profile
from thalweg.workbench.record import Record, evidence_folder, read_recorded, write_recorded
from thalweg.workbench.report import render_studies
from thalweg.workbench.reproduce import reproduce

__all__ = [
    "Comparison",
    "Record",
    "compare",
    "evidence_folder",
    "performance_profile",
    "read_recorded",
    "render_figures",
    "render_studies",
    "reproduce",
    "write_recorded",
]
