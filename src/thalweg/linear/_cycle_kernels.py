"""One level of a multigrid V-cycle over the cells of a grid, in float32.

A level is an array of the shape (fields, layers + 2, rows, columns + 2), with zeros around the layers and the columns;
a 2-D grid has one row a layer. One pass over the layers does all of a level's work on the way down, another all on the
way up: a stage follows the one before it a layer behind, so that every number is read from memory once.

The finest level's faces are all 1, and x = 0 outside its fluid: its product needs no faces.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_FAST = {"contract", "reassoc", "nsz"}

#: The fields of a level.
B, X, DIAGONAL, RELAX, TRANSFER, LAYER_FACE, ROW_FACE, COLUMN_FACE = range(8)
FIELDS = 8


@njit(cache=True, fastmath=_FAST)
def _subtract_product(t, level, finest, x, below, here, above, k, i):
    """``t -= A x`` in row i of layer k, whose x is ``x[here]``, between ``x[below]`` and ``x[above]``."""
    rows, last = x.shape[1], x.shape[2] - 1
    up, down = max(i - 1, 0), min(i + 1, rows - 1)
    first, final = np.float32(i > 0), np.float32(i + 1 < rows)
    if finest and rows == 1:
        for j in range(1, last):
            around = (x[here, i, j - 1] + x[here, i, j + 1]) + (x[below, i, j] + x[above, i, j])
            t[j] += around - level[DIAGONAL, k, i, j] * x[here, i, j]
    elif finest:
        for j in range(1, last):
            around = (x[here, i, j - 1] + x[here, i, j + 1]) + (x[below, i, j] + x[above, i, j])
            around += first * x[here, up, j] + final * x[here, down, j]
            t[j] += around - level[DIAGONAL, k, i, j] * x[here, i, j]
    else:
        for j in range(1, last):
            along = level[COLUMN_FACE, k, i, j - 1] * x[here, i, j - 1]
            along += level[COLUMN_FACE, k, i, j] * x[here, i, j + 1]
            across = level[LAYER_FACE, k - 1, i, j] * x[below, i, j]
            across += level[LAYER_FACE, k, i, j] * x[above, i, j]
            t[j] += (along + across) - level[DIAGONAL, k, i, j] * x[here, i, j]
        if rows > 1:
            for j in range(1, last):
                t[j] += first * level[ROW_FACE, k, up, j] * x[here, up, j]
                t[j] += level[ROW_FACE, k, i, j] * x[here, down, j]


@njit(cache=True, fastmath=_FAST)
def _residual(t, level, finest, k, i):
    """``t = b - A x`` in row i of layer k."""
    for j in range(1, level.shape[3] - 1):
        t[j] = level[B, k, i, j]
    _subtract_product(t, level, finest, level[X], k - 1, k, k + 1, k, i)


@njit(cache=True, fastmath=_FAST)
def descend(level, coarse, finest, colour, room, t, halving, scale):
    """X: a red and a black half-sweep from zero; the coarse B: the restriction of what they leave.

    With a ``halving`` of 0 ``coarse`` has the cells of this level, and B is what restriction sums over each block.
    """
    _, layers, rows, columns = level.shape
    layers -= 2
    r, u = room[0], room[1]
    coarse[B] = 0
    u[0] = 0
    for k in range(1, layers + 4):
        for i in range(rows):
            if k <= layers:  # red, from zero
                p = (k + i) % 2
                for j in range(1, columns - 1):
                    level[X, k, i, j] = colour[p, j] * level[RELAX, k, i, j] * level[B, k, i, j]
        for stage in (1, 2):  # black a layer behind; the residual and its smoothing part another behind
            m = k - stage
            if not 1 <= m <= layers:
                continue
            for i in range(rows):
                _residual(t, level, finest, m, i)
                p = (m + i + 1) % 2
                if stage == 1:
                    for j in range(1, columns - 1):
                        level[X, m, i, j] += colour[p, j] * level[RELAX, m, i, j] * t[j]
                else:
                    for j in range(1, columns - 1):
                        r[m & 3, i, j] = t[j]
                        u[m & 3, i, j] = level[TRANSFER, m, i, j] * t[j]
        if k == layers + 3:
            u[(k - 2) & 3] = 0
        m = k - 3
        if m < 1:
            continue
        for i in range(rows):  # what r - A u leaves to the coarse cells
            for j in range(1, columns - 1):
                t[j] = r[m & 3, i, j]
            _subtract_product(t, level, finest, u, (m - 1) & 3, m & 3, (m + 1) & 3, m, i)
            for j in range(1, columns - 1):
                t[j] = t[j] if level[DIAGONAL, m, i, j] > 0 else np.float32(0)
            if halving == 0:
                coarse[B, m, i] = t
                continue
            above, row = (m + 1) // 2, i // halving
            for j in range(1, coarse.shape[3] - 1):
                coarse[B, above, row, j] += scale * (t[2 * j - 1] + t[2 * j])


@njit(cache=True, fastmath=_FAST)
def ascend(level, coarse, finest, colour, room, t, halving):
    """Add the coarse X to X, smoothed, then a black and a red half-sweep: the transpose of `descend`."""
    _, layers, rows, columns = level.shape
    layers -= 2
    u = room[0]
    u[0] = 0
    for k in range(1, layers + 4):
        if k <= layers:
            for i in range(rows):
                if halving == 0:
                    u[k & 3, i] = coarse[X, k, i]
                    continue
                above, row = (k + 1) // 2, i // halving
                for j in range(1, coarse.shape[3] - 1):
                    u[k & 3, i, 2 * j - 1] = coarse[X, above, row, j]
                    u[k & 3, i, 2 * j] = coarse[X, above, row, j]
                for j in range(1, columns):
                    u[k & 3, i, j] = u[k & 3, i, j] if level[DIAGONAL, k, i, j] > 0 else np.float32(0)
        elif k == layers + 1:
            u[k & 3] = 0
        m = k - 1
        if 1 <= m <= layers:
            for i in range(rows):
                t[:] = 0
                _subtract_product(t, level, finest, u, (m - 1) & 3, m & 3, (m + 1) & 3, m, i)
                for j in range(1, columns - 1):
                    level[X, m, i, j] += u[m & 3, i, j] + level[TRANSFER, m, i, j] * t[j]
        for stage in (2, 3):  # black, then red a layer behind
            m = k - stage
            if not 1 <= m <= layers:
                continue
            for i in range(rows):
                _residual(t, level, finest, m, i)
                p = (m + i + 3 - stage) % 2
                for j in range(1, columns - 1):
                    level[X, m, i, j] += colour[p, j] * level[RELAX, m, i, j] * t[j]


@njit(cache=True, fastmath=_FAST)
def largest(residual):
    """The largest absolute value."""
    found = 0.0
    for value in residual:
        found = max(found, abs(value))
    return found


@njit(cache=True, fastmath=_FAST)
def pack(residual, factor, level):
    """A residual times ``factor`` into B, zero outside the fluid."""
    _, layers, rows, columns = level.shape
    n = 0
    for k in range(1, layers - 1):
        for i in range(rows):
            for j in range(1, columns - 1):
                value = np.float32(factor * residual[n + j - 1])
                level[B, k, i, j] = value if level[DIAGONAL, k, i, j] > 0 else np.float32(0)
            n += columns - 2


@njit(cache=True, fastmath=_FAST)
def unpack(level, factor, residual, z):
    """``factor X`` of the fluid cells; what is no fluid keeps the residual."""
    _, layers, rows, columns = level.shape
    n = 0
    for k in range(1, layers - 1):
        for i in range(rows):
            for j in range(1, columns - 1):
                wet = level[DIAGONAL, k, i, j] > 0
                z[n + j - 1] = factor * level[X, k, i, j] if wet else residual[n + j - 1]
            n += columns - 2
