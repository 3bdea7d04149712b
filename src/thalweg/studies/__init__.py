"""One module per system: the paper's claim, the workload, the baselines, and what came out.

How a race is run and judged stands once, in `contest`; what its numbers say, in `Standings` and `Verdict`.
"""

from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Figure, Scale, Series
from thalweg.studies.standings import Breakdown, Standings, together
from thalweg.studies.verdict import Verdict

__all__ = [
    "Breakdown",
    "Evidence",
    "Figure",
    "Scale",
    "Series",
    "Standings",
    "Verdict",
    "contest",
    "together",
]
