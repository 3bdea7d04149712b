"""One module per system: the paper's claim, the workload, the baselines, and what came out."""

from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Verdict

__all__ = ["Evidence", "Figure", "Scale", "Series", "Verdict"]
