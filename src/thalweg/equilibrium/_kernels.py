"""Compiled loops: draws of a game's rows and columns, and their sums."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Reals = NDArray[np.floating]


@njit(cache=True, fastmath=False)
def add_drawn(vectors: Reals, lengths: Reals, d: Reals, uniform: Reals, sign: float, out: Reals) -> None:
    """Adds to ``out`` a sum unbiased for ``sign d @ vectors``: the mean of vectors drawn by ``lengths |d|``.

    Args:
        vectors: shape (k, l), C order.
        lengths: theirs, shape (k,).
        d: shape (k,).
        uniform: a number in [0, 1) for each draw.
        out: shape (l,).
    """
    sums = np.empty(len(d))
    total = 0.0
    for i in range(len(d)):
        total += lengths[i] * abs(d[i])
        sums[i] = total
    if not total > 0.0:
        if np.isnan(total):
            out[:] = np.nan
        return
    share = sign * total / len(uniform)
    for u in uniform:
        # to the right: a vector that adds nothing is never drawn
        i = min(int(np.searchsorted(sums, u * total, side="right")), len(d) - 1)
        if lengths[i] == 0.0 or d[i] == 0.0:  # the last, by rounding
            i = int(np.searchsorted(sums, total))
        weight = share * np.sign(d[i]) / lengths[i]
        for j in range(len(out)):
            out[j] += weight * vectors[i, j]
