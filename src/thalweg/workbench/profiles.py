"""Performance profiles.

Dolan and More (2002), "Benchmarking optimization software with performance profiles".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from thalweg.core import InvalidProblem, Series


def performance_profile(costs: Mapping[str, Sequence[float]]) -> list[Series]:
    """For each method, the share of problems on which its cost is within a factor tau of the best method's.

    Args:
        costs: positive costs of each method on the same problems; infinity where it failed.

    >>> profiles = performance_profile({"a": [1.0, 2.0], "b": [2.0, 1.0]})
    >>> profiles[0].x, profiles[0].y
    ([1.0, 2.0], [0.5, 1.0])
    """
    table = np.array(list(costs.values()), dtype=float)
    if table.ndim != 2 or table.size == 0 or not (table > 0).all():
        raise InvalidProblem("performance_profile needs positive costs of every method on the same problems.")
    best = table.min(0)
    # Where every method failed there is no best: no ratio is finite.
    ratios = np.where(np.isfinite(best), table / np.where(np.isfinite(best), best, 1.0), np.inf)
    taus = np.unique(np.concatenate([[1.0], ratios[np.isfinite(ratios)]]))
    taus = taus[np.unique(np.linspace(0, len(taus) - 1, 200).astype(int))]
    return [
        Series(name, taus.tolist(), [float((row <= tau * (1 + 1e-12)).mean()) for tau in taus])
        for name, row in zip(costs, ratios, strict=True)
    ]
