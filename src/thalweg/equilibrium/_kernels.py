"""Numba loops of bilinear components: lines of a matrix drawn where a difference is large, and their product."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def add_drawn(lines, norms, d, drawn, sign, out):
    """``out += sign * S`` with S an unbiased estimate of ``d @ lines``.

    For each of the uniform numbers ``drawn`` a line i, with probability proportional to ``norms_i |d_i|``. O(len(d) +
    len(drawn) columns).
    """
    n = len(d)
    sums = np.empty(n)
    total = 0.0
    for i in range(n):
        total += norms[i] * abs(d[i])
        sums[i] = total
    if not np.isfinite(total):
        out[:] = np.nan
        return
    if total == 0.0:
        return
    share = sign * total / len(drawn)
    for s in range(len(drawn)):
        at = min(np.searchsorted(sums, drawn[s] * total, side="right"), n - 1)
        if norms[at] == 0.0 or d[at] == 0.0:  # the last line, reached by rounding
            continue
        weight = share / norms[at] if d[at] > 0.0 else -share / norms[at]
        for k in range(len(out)):
            out[k] += weight * lines[at, k]
