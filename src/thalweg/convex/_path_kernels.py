"""Numba loops of sparse linear models: sweeps over a working set of columns, dense or sparse.

A matrix is three arrays: columns one after another, and CSC's row indices and pointers; a dense one has no pointers.
Columns are sliced before the loops over their entries: a loop from zero spares the test for negative indices, which
makes a sparse pass more than twice as fast.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True, fastmath=_FAST, inline="always")
def column_dot(data, indices, indptr, j, v):
    """``X_j . v``."""
    total = 0.0
    if len(indptr) == 0:
        n = len(v)
        column = data[j * n : (j + 1) * n]
        for i in range(n):
            total += column[i] * v[i]
    else:
        entries, places = data[indptr[j] : indptr[j + 1]], indices[indptr[j] : indptr[j + 1]]
        for e in range(len(entries)):
            total += entries[e] * v[places[e]]
    return total


@njit(cache=True, fastmath=_FAST, inline="always")
def column_add(data, indices, indptr, j, step, h, v):
    """``v += step h * X_j``; an empty h stands for ones."""
    if len(indptr) == 0:
        n = len(v)
        column = data[j * n : (j + 1) * n]
        if len(h) == 0:
            for i in range(n):
                v[i] += step * column[i]
        else:
            for i in range(n):
                v[i] += step * h[i] * column[i]
    elif len(h) == 0:
        entries, places = data[indptr[j] : indptr[j + 1]], indices[indptr[j] : indptr[j + 1]]
        for e in range(len(entries)):
            v[places[e]] += step * entries[e]
    else:
        entries, places = data[indptr[j] : indptr[j + 1]], indices[indptr[j] : indptr[j + 1]]
        for e in range(len(entries)):
            i = places[e]
            v[i] += step * h[i] * entries[e]


@njit(cache=True, fastmath=_FAST)
def correlations(data, indices, indptr, columns, v, out):
    """``out[k] = X_columns[k] . v``."""
    for k in range(len(columns)):
        out[k] = column_dot(data, indices, indptr, columns[k], v)


@njit(cache=True, fastmath=_FAST)
def curvatures(data, indices, indptr, columns, h, rows, out):
    """``out[k] = sum_i h_i X_ik^2``; an empty h stands for ones."""
    for k in range(len(columns)):
        j, total = columns[k], 0.0
        start = j * rows if len(indptr) == 0 else indptr[j]
        stop = start + rows if len(indptr) == 0 else indptr[j + 1]
        entries = data[start:stop]
        if len(h) == 0:
            for e in range(len(entries)):
                total += entries[e] * entries[e]
        elif len(indptr) == 0:
            for e in range(len(entries)):
                total += entries[e] * entries[e] * h[e]
        else:
            places = indices[start:stop]
            for e in range(len(entries)):
                total += entries[e] * entries[e] * h[places[e]]
        out[k] = total


#: A column whose spread is less than this share of its size, both squared, is constant: the intercept has its part.
CONSTANT = 1e-28


@njit(cache=True)
def centred(data, indices, indptr, columns, h, h_sum, rows, sums, out):
    """``sums[k] = sum_i h_i X_ik`` and ``out[k] = sum_i h_i (X_ik - m_k)^2``, m_k the column's weighted mean."""
    for k in range(len(columns)):
        j = columns[k]
        start = j * rows if len(indptr) == 0 else indptr[j]
        stop = start + rows if len(indptr) == 0 else indptr[j + 1]
        entries, places = data[start:stop], indices[start : start if len(indptr) == 0 else stop]
        total, there = 0.0, 0.0
        for e in range(len(entries)):
            weight = (h[places[e]] if len(places) else h[e]) if len(h) else 1.0
            total += weight * entries[e]
            there += weight
        mean = total / h_sum
        spread, size = mean * mean * max(h_sum - there, 0.0), 0.0
        for e in range(len(entries)):
            weight = (h[places[e]] if len(places) else h[e]) if len(h) else 1.0
            spread += weight * (entries[e] - mean) ** 2
            size += weight * entries[e] * entries[e]
        sums[k] = total
        out[k] = spread if spread > CONSTANT * size else 0.0


@njit(cache=True, inline="always")
def shifted(v, h, by):
    """``v += by h``; an empty h stands for ones."""
    if len(h) == 0:
        for i in range(len(v)):
            v[i] += by
    else:
        for i in range(len(v)):
            v[i] += by * h[i]


@njit(cache=True)
def sweep(data, indices, indptr, h, curvature, sums, w, v, columns, l1, l2, intercept, h_sum):
    """One round of coordinate steps on ``sum_i h_i (z_i - t_i)^2/2 + l1 |w|_1 + l2/2 |w|^2``, ``v = h (z - t)``.

    With an intercept (``h_sum > 0``) it is at its minimum before each coordinate's step, as if all columns were
    centred: ``sums`` and ``curvature`` are those of `centred`, and what the intercept moves is added to v at the end.
    Returns the intercept and the largest violation met.
    """
    worst, shift = 0.0, 0.0
    if h_sum > 0.0:
        total = v.sum()
        intercept -= total / h_sum
        shifted(v, h, -total / h_sum)
        worst = abs(total)
    for k in range(len(columns)):
        j = columns[k]
        L = curvature[k] + l2
        if L == 0.0:
            continue
        old = w[j]
        g = column_dot(data, indices, indptr, j, v) + l2 * old
        if h_sum > 0.0:
            g += shift * sums[k]
        u = old - g / L
        t = l1 / L
        new = u - t if u > t else (u + t if u < -t else 0.0)
        if new != old:
            w[j] = new
            column_add(data, indices, indptr, j, new - old, h, v)
            if h_sum > 0.0:
                shift -= (new - old) * sums[k] / h_sum
            worst = max(worst, abs(new - old) * L)
    if shift != 0.0:
        intercept += shift
        shifted(v, h, shift)
    return intercept, worst


@njit(cache=True)
def predict(data, indices, indptr, w, columns, intercept, z):
    """``z = X_columns w_columns + intercept``."""
    z[:] = intercept
    nothing = np.empty(0)
    for j in columns:
        if w[j] != 0.0:
            column_add(data, indices, indptr, j, w[j], nothing, z)
