"""Numba loops of conic programs, for all of a batch: residuals of a point, and the matrix of Newton's step there.

Second-order cones are given by their first rows and how many rows they have; the bound comes first. Matrices that all
of the batch share have one page. Semidefinite cones are not done here: their rows are left as they are.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_FAST = {"contract", "reassoc", "nsz", "arcp"}

#: The smallest norm of float64 that may be divided by.
TINY = 1e-300


@njit(cache=True)
def nearest(v, zero, flat, starts, sizes, y):
    """Write the projection on the dual cone into y, which holds v or a semidefinite part's projection already."""
    for i in range(len(v)):
        for row in range(zero, flat):
            y[i, row] = max(v[i, row], 0.0)
        for cone in range(len(starts)):
            at, end = starts[cone], starts[cone] + sizes[cone]
            t, r = v[i, at], _length(v[i, at + 1 : end])
            if r <= t:
                continue
            edge = max(0.5 * (t + r), 0.0)
            y[i, at] = edge
            for row in range(at + 1, end):
                y[i, row] *= edge / max(r, TINY)


@njit(cache=True, fastmath=_FAST)
def residuals(P, A, b, c, u, v, y):
    """``P u + A'y + c``, ``b - A u + v - y``, A u, the size of all that cancels in them, and their own size."""
    k, n = u.shape
    m = v.shape[1]
    stationarity, primal, images = np.empty((k, n)), np.empty((k, m)), np.empty((k, m))
    cancels, left = np.empty(k), np.empty(k)
    for i in range(k):
        p, a, forces = P[i % len(P)], A[i % len(A)], np.zeros(n)
        total = rest = 0.0
        for row in range(m):
            image = _dot(a[row], u[i])
            if y[i, row] != 0.0:
                _add(a[row], y[i, row], forces)
            images[i, row] = image
            primal[i, row] = b[i, row] - image + v[i, row] - y[i, row]
            total += image**2 + b[i, row] ** 2 + v[i, row] ** 2
            rest += primal[i, row] ** 2
        for row in range(n):
            curvature = _dot(p[row], u[i])
            stationarity[i, row] = curvature + forces[row] + c[i, row]
            total += curvature**2 + forces[row] ** 2 + c[i, row] ** 2
            rest += stationarity[i, row] ** 2
        cancels[i], left[i] = np.sqrt(total), np.sqrt(rest)
    return stationarity, primal, images, cancels, left


@njit(cache=True)
def jacobian(P, A, v, active, kept, starts, sizes, shift):
    """Transposed: of the conditions in u and the kept rows of v; row r of a cone is row r + shift of it.

    Flat rows that are not active are those of the identity, and semidefinite ones are zero.
    """
    k, n = len(v), P.shape[1]
    flat, size = active.shape[1], n + len(kept)
    J = np.zeros((k, size, size))
    for i in range(k):
        p, a, j = P[i % len(P)], A[i % len(A)], J[i]
        for column in range(n):
            for row in range(n):
                j[column, row] = p[row, column]
        for place in range(len(kept)):
            row = kept[place]
            if row < flat and not active[i, row]:
                j[n + place, n + place] = 1.0
                continue
            for column in range(n):
                j[column, n + place] = -a[row, column]
                if row < flat:
                    j[n + place, column] = a[row, column]
        for cone in range(len(starts)):
            at = starts[cone]
            _cone_columns(a, v[i, at : at + sizes[cone]], at, at + shift, n, j)
    return J


@njit(cache=True)
def _cone_columns(a, v, at, place, n, j):
    """``A'D`` and ``I - D`` of one second-order cone, D the projection's derivative."""
    size, t, r = len(v), v[0], _length(v[1:])
    if r <= t:  # D is the identity
        for row in range(size):
            for column in range(n):
                j[place + row, column] = a[at + row, column]
        return
    if r <= -t:
        for row in range(size):
            j[place + row, place + row] = 1.0
        return
    half, share = 0.5 / max(r, TINY), 0.5 * t / max(r, TINY)
    along = np.zeros(n)
    for row in range(1, size):
        _add(a[at + row], half * v[row], along)
    for column in range(n):
        j[place, column] = 0.5 * a[at, column] + along[column]
    j[place, place] = 0.5
    for row in range(1, size):
        w = half * v[row]
        for column in range(n):
            first = a[at, column] - 4.0 * share * along[column]
            j[place + row, column] = w * first + (0.5 + share) * a[at + row, column]
        j[place, place + row] = j[place + row, place] = -w
        for column in range(1, size):
            j[place + row, place + column] = 4.0 * share * w * half * v[column]
        j[place + row, place + row] += 0.5 - share


@njit(cache=True)
def turned(v, active, starts, sizes, x):
    """Write D x over x, D the projection's derivative at v."""
    for i in range(len(v)):
        for row in range(active.shape[1]):
            if not active[i, row]:
                x[i, row] = 0.0
        for cone in range(len(starts)):
            at, end = starts[cone], starts[cone] + sizes[cone]
            t, r = v[i, at], _length(v[i, at + 1 : end])
            if r <= t:
                continue
            if r <= -t:
                for row in range(at, end):
                    x[i, row] = 0.0
                continue
            half, share = 0.5 / max(r, TINY), 0.5 * t / max(r, TINY)
            first, along = x[i, at], half * _dot(v[i, at + 1 : end], x[i, at + 1 : end])
            x[i, at] = 0.5 * first + along
            for row in range(at + 1, end):
                x[i, row] = (first - 4.0 * share * along) * half * v[i, row] + (0.5 + share) * x[i, row]


@njit(cache=True)
def _length(x):
    total = 0.0
    for value in x:
        total += value**2
    return np.sqrt(total)


@njit(cache=True, fastmath=_FAST, inline="always")
def _dot(x, y):
    total = 0.0
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@njit(cache=True, fastmath=_FAST, inline="always")
def _add(x, weight, total):
    for i in range(len(x)):
        total[i] += weight * x[i]
