"""The linear programme of a simplex, by its vertices."""

from __future__ import annotations

import numpy as np
from numba import njit

#: Of rows scaled to one, and of the objective scaled to one.
FEASIBLE, TIED, SINGULAR = 1e-10, 1e-10, 1e-13


@njit(cache=True)
def best_vertex(objective, rows, bounds, active):
    """Maximise ``objective @ a`` over a >= 0, sum a = 1, ``rows @ a >= bounds``.

    Args:
        objective: shape (m,), of size about one.
        rows, bounds: shapes (n, m) and (n,), with rows of size about one; the m rows of a >= 0 come first.
        active: shape (subsets, m - 1), which rows are tight at a candidate.

    Returns:
        whether anything is feasible, and the mean of the optimal vertices, shape (m,).
    """
    m = objective.shape[0]
    kept = np.empty((active.shape[0], m))
    count, best = 0, -np.inf
    system = np.empty((m, m + 1))
    a = np.empty(m)
    for subset in range(active.shape[0]):
        for i in range(m - 1):
            system[i, :m] = rows[active[subset, i]]
            system[i, m] = bounds[active[subset, i]]
        system[m - 1, :] = 1.0
        if not _solved(system, a):
            continue
        fits = True
        for i in range(rows.shape[0]):
            value = 0.0
            for j in range(m):
                value += rows[i, j] * a[j]
            if value < bounds[i] - FEASIBLE:
                fits = False
                break
        if not fits:
            continue
        total = 0.0
        for j in range(m):
            a[j] = max(a[j], 0.0)
            total += a[j]
        a /= total
        value = 0.0
        for j in range(m):
            value += objective[j] * a[j]
        if value > best + TIED:
            count, best = 0, value
        if value >= best - TIED and not _held(kept, count, a):
            kept[count] = a
            count += 1
    found = np.zeros(m)
    for k in range(count):
        found += kept[k]
    return count > 0, found / max(count, 1)


@njit(cache=True)
def _held(kept, count, a):
    """Whether a vertex was met before, at another set of tight rows."""
    for k in range(count):  # noqa: SIM110 -- Numba compiles no generators
        if np.abs(kept[k] - a).max() <= 1e-9:
            return True
    return False


@njit(cache=True)
def _solved(system, a):
    """Gaussian elimination with row pivots of an augmented matrix, in place; False where it is singular."""
    m = a.shape[0]
    for i in range(m):
        pivot = i
        for k in range(i + 1, m):
            if abs(system[k, i]) > abs(system[pivot, i]):
                pivot = k
        if abs(system[pivot, i]) < SINGULAR:
            return False
        for j in range(i, m + 1):
            system[i, j], system[pivot, j] = system[pivot, j], system[i, j]
        for k in range(i + 1, m):
            factor = system[k, i] / system[i, i]
            for j in range(i, m + 1):
                system[k, j] -= factor * system[i, j]
    for i in range(m - 1, -1, -1):
        value = system[i, m]
        for j in range(i + 1, m):
            value -= system[i, j] * a[j]
        a[i] = value / system[i, i]
    return True
