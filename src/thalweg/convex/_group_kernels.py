"""Numba loops of group penalties: sweeps over groups of a quadratic, and how far groups are from being settled.

Group k is ``starts[k]:starts[k + 1]``; its block of the Hessian, b^2 numbers, begins at ``blocks[places[k]]``. A
Hessian is symmetric and column-major, and may be larger than what is asked for; columns of data are as in
`_path_kernels`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from thalweg.convex._path_kernels import _FAST, column_add, column_dot


@njit(cache=True)
def _norm_of_shrunk(u, threshold, factor):
    """``|(|u| - factor threshold)_+|``."""
    square = 0.0
    for i in range(len(u)):
        left = abs(u[i]) - factor * threshold[i]
        if left > 0.0:
            square += left * left
    return np.sqrt(square)


@njit(cache=True)
def _widest(starts):
    widest = 0
    for k in range(len(starts) - 1):
        widest = max(widest, starts[k + 1] - starts[k])
    return widest


@njit(cache=True)
def hessian_blocks(H, starts, places, blocks):
    """Fill in blocks of H."""
    for k in range(len(starts) - 1):
        a, b = starts[k], starts[k + 1]
        for i in range(a, b):
            column, to = H[:, i], blocks[places[k] + (i - a) * (b - a) :]
            for j in range(a, b):
                to[j - a] = column[j]


@njit(cache=True, fastmath=_FAST)
def column_blocks(data, indices, indptr, rows, columns, starts, ridge, places, blocks):
    """Fill in blocks of ``B'B + ridge``, B some columns of the data."""
    spread = np.zeros(rows)
    for k in range(len(starts) - 1):
        a, b = starts[k], starts[k + 1]
        made = blocks[places[k] :]
        for i in range(b - a):
            column = spread
            if len(indptr) == 0:
                column = data[columns[a + i] * rows : (columns[a + i] + 1) * rows]
            else:
                column_add(data, indices, indptr, columns[a + i], 1.0, spread)
            for j in range(i, b - a):
                found = column_dot(data, indices, indptr, columns[a + j], column)
                made[i * (b - a) + j] = made[j * (b - a) + i] = found
            made[i * (b - a) + i] += ridge
            if len(indptr) > 0:
                for e in range(indptr[columns[a + i]], indptr[columns[a + i] + 1]):
                    spread[indices[e]] = 0.0


@njit(cache=True)
def group_tops(blocks, places, starts):
    """Bounds of the largest eigenvalue of each block: its largest row sum, or its Frobenius norm."""
    tops = np.empty(len(starts) - 1)
    for k in range(len(tops)):
        size, rows, square = starts[k + 1] - starts[k], 0.0, 0.0
        made = blocks[places[k] :]
        for i in range(size):
            row = 0.0
            for j in range(size):
                row += abs(made[i * size + j])
            rows = max(rows, row)
        if rows > 0.0:
            for e in range(size * size):
                square += (made[e] / rows) ** 2
        tops[k] = rows * min(1.0, np.sqrt(square))
    return tops


@njit(cache=True)
def _group_minimum(block, r, x, L, l1, weight, most, new):
    """Proximal gradient steps on one group of a quadratic, r its gradient at x; both in place.

    Ends when a step is a tenth of the first.
    """
    b, first = len(x), 0.0
    for step in range(most):
        square = 0.0
        for i in range(b):
            u, t = x[i] - r[i] / L, l1[i] / L
            new[i] = u - t if u > t else (u + t if u < -t else 0.0)
            square += new[i] * new[i]
        size = np.sqrt(square)
        left = 1.0 - weight / (L * size) if size * L > weight else 0.0
        largest = 0.0
        for i in range(b):
            new[i] = left * new[i] - x[i]
            largest = max(largest, abs(new[i]))
        if largest == 0.0:
            break
        for i in range(b):
            if new[i] != 0.0:
                x[i] += new[i]
                for j in range(b):
                    r[j] += block[i * b + j] * new[i]
        if step == 0:
            first = largest
        elif largest <= 0.1 * first:
            break


@njit(cache=True)
def hessian_sweeps(H, blocks, places, g, x, starts, tops, l1, weight, share, tolerance, sweeps, steps):
    """Nearly the minimiser of a quadratic with Hessian H plus ``sum l1 |x| + sum weight_k |x_k|``, groups k in turn.

    x, and g, the quadratic's gradient at it, are changed in place. ``tops`` are bounds of the blocks' largest
    eigenvalues; a group takes at most ``steps`` steps of its own. Ends when a sweep moves less than ``share`` of what
    the first did, or than the tolerance.
    """
    n, widest = len(x), _widest(starts)
    now, slope, room = np.empty(widest), np.empty(widest), np.empty(widest)
    for sweep in range(sweeps):
        largest = 0.0
        for k in range(len(starts) - 1):
            a, b, L = starts[k], starts[k + 1], tops[k]
            if L <= 0.0:
                continue
            there, r = now[: b - a], slope[: b - a]
            there[:], r[:] = x[a:b], g[a:b]
            _group_minimum(blocks[places[k] :], r, there, L, l1[a:b], weight[k], steps, room)
            for i in range(a, b):
                step = there[i - a] - x[i]
                if step != 0.0:
                    x[i] = there[i - a]
                    column = H[:, i]
                    for j in range(n):
                        g[j] += column[j] * step
                    largest = max(largest, abs(step) * np.sqrt(L))
        if sweep == 0:
            tolerance = max(tolerance, share * largest)
        if largest <= tolerance:
            break


@njit(cache=True, fastmath=_FAST)
def column_sweeps(
    data,
    indices,
    indptr,
    columns,
    blocks,
    places,
    r,
    x,
    starts,
    groups,
    tops,
    l1,
    weight,
    ridge,
    sweeps,
    steps,
):
    """Rounds over some groups of ``|r|^2/2 + ridge/2 |x|^2 + sum l1 |x| + sum weight_k |x_k|``, ``r = t - B x``."""
    widest = _widest(starts)
    now, slope, room = np.empty(widest), np.empty(widest), np.empty(widest)
    for _ in range(sweeps):
        for k in groups:
            a, b, L = starts[k], starts[k + 1], tops[k]
            if L <= 0.0:
                continue
            there, g = now[: b - a], slope[: b - a]
            for i in range(a, b):
                there[i - a] = x[i]
                g[i - a] = ridge * x[i] - column_dot(data, indices, indptr, columns[i], r)
            _group_minimum(blocks[places[k] :], g, there, L, l1[a:b], weight[k], steps, room)
            for i in range(a, b):
                step = there[i - a] - x[i]
                if step != 0.0:
                    x[i] = there[i - a]
                    column_add(data, indices, indptr, columns[i], -step, r)


@njit(cache=True)
def group_violations(g, x, starts, l1, weight):
    """For each group the largest entry of the least subgradient of `hessian_sweeps`' objective."""
    found = np.empty(len(weight))
    for k in range(len(weight)):
        a, b = starts[k], starts[k + 1]
        square = 0.0
        for i in range(a, b):
            square += x[i] * x[i]
        size = np.sqrt(square)
        left, worst = 1.0, 0.0
        if size == 0.0:
            beyond = _norm_of_shrunk(g[a:b], l1[a:b], 1.0)
            left = 1.0 - weight[k] / beyond if beyond > weight[k] else 0.0
        for i in range(a, b):
            slope = g[i] + (weight[k] * x[i] / size if size > 0.0 else 0.0)
            if x[i] != 0.0:
                slope = abs(slope + (l1[i] if x[i] > 0.0 else -l1[i]))
            else:
                slope = max(abs(slope) - l1[i], 0.0) * left
            worst = max(worst, slope)
        found[k] = worst
    return found


@njit(cache=True)
def group_strengths(g, starts, l1, weight):
    """For each group the least factor of its penalties at which it stays zero under the gradient g."""
    found = np.zeros(len(weight))
    for k in range(len(weight)):
        a, b = starts[k], starts[k + 1]
        size, high = _norm_of_shrunk(g[a:b], l1[a:b], 0.0), 0.0
        if size == 0.0:
            continue
        for i in range(a, b):
            if g[i] != 0.0:
                high = max(high, abs(g[i]) / l1[i] if l1[i] > 0.0 else np.inf)
        if weight[k] > 0.0:
            high = min(high, size / weight[k])
        low = 0.0
        if np.isfinite(high) and l1[a:b].any():
            while high - low > 1e-3 * high:
                middle = 0.5 * (low + high)
                if _norm_of_shrunk(g[a:b], l1[a:b], middle) > middle * weight[k]:
                    low = middle
                else:
                    high = middle
        found[k] = high
    return found


@njit(cache=True)
def add_bends(H, starts, unit, bend):
    """``H += bend_k (I - u_k u_k')`` for each group k, u_k its part of ``unit``: the curvature of norms."""
    for k in range(len(bend)):
        for i in range(starts[k], starts[k + 1]):
            for j in range(starts[k], starts[k + 1]):
                H[j, i] -= bend[k] * unit[i] * unit[j]
            H[i, i] += bend[k]
