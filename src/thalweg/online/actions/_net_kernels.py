"""Numba loops over candidates: promises of a net, and the candidates that an answer leaves."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, fastmath=True)
def net_promises(supports, grid, columns, out):
    """The largest ``<phi_M(a), g>`` over actions a, for each support M and each point g of the grid.

    ``supports`` (C, s), ``grid`` (L, s) in the order in which its last coordinate runs fastest, ``columns`` (d, n) the
    features of all actions, ``out`` (C, L). The sum over all coordinates but the last is kept while they stay.
    """
    s, n = supports.shape[1], columns.shape[1]
    base = np.zeros(n, dtype=columns.dtype)
    for c in range(len(supports)):
        last = columns[supports[c, s - 1]]
        for k in range(len(grid)):
            moved = k == 0
            for j in range(s - 1):
                moved = moved or grid[k, j] != grid[k - 1, j]
            if moved:
                base[:] = 0.0
                for j in range(s - 1):
                    g, column = grid[k, j], columns[supports[c, j]]
                    for a in range(n):
                        base[a] += g * column[a]
            g = grid[k, s - 1]
            most = base[0] + g * last[0]
            for a in range(n):
                value = base[a] + g * last[a]
                most = max(most, value)
            out[c, k] = most


@njit(cache=True)
def candidate_value(support, point, phi):
    """``<phi_M, g>``, added up in one fixed order, so that equal candidates have equal values."""
    total = 0.0
    for j in range(len(support)):
        total += point[j] * phi[support[j]]
    return total


@njit(cache=True)
def keep_consistent(alive, supports, grid, phi, reward, tolerance):
    """Move the candidates that are within ``tolerance`` of the ``reward`` to the front, in order; how many they are.

    ``alive`` holds numbers of candidates, support * len(grid) + point; ``phi`` (d,) is the action's features.
    """
    kept = 0
    for k in range(len(alive)):
        c, g = divmod(alive[k], len(grid))
        if abs(candidate_value(supports[c], grid[g], phi) - reward) <= tolerance:
            alive[kept] = alive[k]
            kept += 1
    return kept


@njit(cache=True)
def count_ball(bound, s):
    """Points of Z^s whose squares sum to at most ``bound``."""
    if s == 0:
        return 1.0
    most = int(np.floor(np.sqrt(bound)))
    if s == 1:
        return 2.0 * most + 1.0
    total = 0.0
    for i in range(-most, most + 1):
        total += count_ball(bound - i * i, s - 1)
    return total
