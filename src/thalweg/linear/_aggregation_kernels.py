"""Loops of smoothed aggregation over a graph whose nodes lie in blocks of a grid: `aggregation` says what for.

From the cells of a level in the layout of `_cycle_kernels` to the graph's nodes, and then from graph to graph.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from thalweg.linear._cycle_kernels import DIAGONAL, LAYER_FACE
from thalweg.numerics._disjoint_kernels import root

_FAST = {"contract", "reassoc", "nsz"}


@njit(cache=True)
def _join_children(level, halving, k, i, j, parent):
    """Union of a block's children through its inner faces; a child without an unknown is -1. Returns the parts."""
    parts = 0
    for c in range(8):
        c0, c1, c2 = c >> 2, (c >> 1) & 1, c & 1
        y = halving * i + c1
        inside = c1 < halving and y < level.shape[2]
        alive = inside and level[DIAGONAL, 2 * k - 1 + c0, y, 2 * j - 1 + c2] > 0
        parent[c] = c if alive else -1
        parts += alive
    for c in range(8):
        if parent[c] < 0:
            continue
        z, y, x = 2 * k - 1 + (c >> 2), halving * i + ((c >> 1) & 1), 2 * j - 1 + (c & 1)
        for axis in range(3):
            other = c | (4 >> axis)
            if other == c or parent[other] < 0 or not level[LAYER_FACE + axis, z, y, x] > 0:
                continue
            a, b = root(parent, c), root(parent, other)
            if a != b:
                parent[max(a, b)] = min(a, b)
                parts -= 1
    return parts


@njit(cache=True)
def count_apart(level, halving):
    """How many blocks hold unknowns, how many fall apart, and how many pairs of neighbours both do."""
    _, layers, rows, columns = level.shape
    depth, width = -(-rows // halving), (columns - 1) // 2
    apart, parent = np.zeros((2, depth + 1, width + 1), np.bool_), np.empty(8, np.int64)
    blocks, found, pairs = 0, 0, 0
    for k in range(1, (layers - 1) // 2 + 1):
        for i in range(depth):
            for j in range(1, width + 1):
                if halving == 1:  # in a square of four cells: parts = cells - faces, but for a ring
                    z, x = 2 * k - 1, 2 * j - 1
                    cells = (level[DIAGONAL, z, i, x] > 0) + (level[DIAGONAL, z, i, x + 1] > 0)
                    cells += (level[DIAGONAL, z + 1, i, x] > 0) + (level[DIAGONAL, z + 1, i, x + 1] > 0)
                    faces = (level[LAYER_FACE, z, i, x] > 0) + (level[LAYER_FACE, z, i, x + 1] > 0)
                    faces += (level[LAYER_FACE + 2, z, i, x] > 0) + (level[LAYER_FACE + 2, z + 1, i, x] > 0)
                    parts = cells - faces + (faces == 4)
                else:
                    parts = _join_children(level, halving, k, i, j, parent)
                blocks += parts > 0
                here = parts > 1
                apart[k & 1, i + 1, j] = here
                if here:
                    found += 1
                    pairs += apart[(k + 1) & 1, i + 1, j] + apart[k & 1, i, j] + apart[k & 1, i + 1, j - 1]
    return blocks, found, pairs


@njit(cache=True)
def number_parts(level, halving, owner, places):
    """The part that each cell belongs to, -1 without an unknown, and the block of each part; returns their number."""
    _, layers, rows, columns = level.shape
    parent, name = np.empty(8, np.int64), np.empty(8, np.int64)
    found = 0
    owner[:] = -1
    for k in range(1, (layers - 1) // 2 + 1):
        for i in range(-(-rows // halving)):
            for j in range(1, (columns - 1) // 2 + 1):
                _join_children(level, halving, k, i, j, parent)
                for c in range(8):
                    if parent[c] < 0:
                        continue
                    top = root(parent, c)
                    if top == c:
                        name[c] = found
                        places[found, 0], places[found, 1], places[found, 2] = k - 1, i, j - 1
                        found += 1
                    owner[2 * k - 1 + (c >> 2), halving * i + ((c >> 1) & 1), 2 * j - 1 + (c & 1)] = name[top]
    return found


@njit(cache=True)
def couplings(level, halving, count, air, owner, crossing, coarse, series, above, ends, weights, opening):
    """Faces between parts and their conductance to the air; returns the number of faces.

    What the networks make of a block's faces and air is shared out among its parts as the fine ones are.
    """
    _, layers, rows, columns = level.shape
    found = 0
    for k in range(1, layers - 1):
        for i in range(rows):
            for j in range(1, columns - 1):
                here = owner[k, i, j]
                if here < 0:
                    continue
                z, y, x = (k + 1) // 2, i // halving, (j + 1) // 2
                a = air[k, i, j]
                if a > 0:
                    share = 2.0 * a / (1.0 + 0.5 * a) / count
                    opening[here] += share * above[z, y, x] / series[z, y, x]
                for axis in range(3):
                    face = level[LAYER_FACE + axis, k, i, j]
                    if not face > 0:
                        continue
                    other = owner[k + (axis == 0), i + (axis == 1), j + (axis == 2)]
                    if other == here or not coarse[LAYER_FACE + axis, z, y, x] > 0:
                        continue
                    ends[0, found], ends[1, found] = here, other
                    weights[found] = (
                        face / count * coarse[LAYER_FACE + axis, z, y, x] / crossing[axis, z, y, x]
                    )
                    found += 1
    return found


@njit(cache=True)
def aggregate(indptr, indices, data, diagonal, place, most, near, label):
    """Join neighbours of a block, up to ``most`` of them; a node without neighbours is -1. Returns their number."""
    n = len(diagonal)
    parent, size = np.arange(n), np.ones(n, np.int64)
    for i in range(n):
        label[i] = -1
        for q in range(indptr[i], indptr[i + 1]):
            j = indices[q]
            if j == i or not data[q] < -near * diagonal[i]:
                continue
            label[i] = -2
            if j > i or place[i] != place[j]:
                continue
            a, b = root(parent, i), root(parent, j)
            if a != b and size[a] + size[b] <= most:
                parent[max(a, b)] = min(a, b)
                size[min(a, b)] = size[a] + size[b]
    found = 0
    for i in range(n):
        if label[i] != -2:
            continue
        top = root(parent, i)
        if top == i:  # a root is the first of its aggregate
            label[i] = found
            found += 1
        else:
            label[i] = label[top]
    return found


@njit(cache=True)
def smoothed(indptr, indices, data, label, count, factor, most, weak):
    """``(I - W D^-1 F) P`` in CSR, P the indicator of the labels.

    F is A without entries above ``weak`` of the row's least, its row sums kept; its diagonal is D, no less than the sum
    of what is left. W is ``factor``, and less where more than ``most`` of a row would go to other aggregates: with that
    under one half, rows of one node of each aggregate make a matrix with a dominant diagonal, so the columns are
    independent and the coarse matrix is definite.
    """
    starts, room = np.empty(len(indptr), np.int32), len(indices) + len(label)
    columns, values = np.empty(room, np.int32), np.empty(room)
    last, found = np.full(count, -1, np.int64), 0
    for i in range(len(label)):
        starts[i] = begin = found
        if label[i] < 0:
            continue
        least, left, own, total = 0.0, 0.0, 0.0, 0.0
        for q in range(indptr[i], indptr[i + 1]):
            least = min(least, data[q])
        for q in range(indptr[i], indptr[i + 1]):
            total += data[q]
            if data[q] < weak * least:
                left -= data[q]
                own -= data[q] if label[indices[q]] == label[i] else 0.0
        diagonal = left + max(total, 0.0)
        share = min(factor, most * diagonal / (diagonal - own)) if own < diagonal else factor
        last[label[i]], columns[found], values[found] = found, label[i], 1.0 - share
        found += 1
        for q in range(indptr[i], indptr[i + 1]):
            there = label[indices[q]]
            if there < 0 or not data[q] < weak * least:
                continue
            if last[there] < begin:
                last[there], columns[found], values[found] = found, there, 0.0
                found += 1
            values[last[there]] -= share * data[q] / diagonal
    starts[-1] = found
    return starts, columns[:found].copy(), values[:found].copy()


@njit(cache=True)
def divide(starts, columns, values, middle, diagonal):
    """Bring each row into the order of a sweep: what is before the diagonal, the diagonal, and what is after it."""
    for i in range(len(middle)):
        at = starts[i]
        for q in range(starts[i], starts[i + 1]):
            if columns[q] < i:
                columns[at], columns[q] = columns[q], columns[at]
                values[at], values[q] = values[q], values[at]
                at += 1
        for q in range(at, starts[i + 1]):
            if columns[q] == i:
                columns[at], columns[q] = columns[q], columns[at]
                values[at], values[q] = values[q], values[at]
        middle[i], diagonal[i] = at, values[at]


@njit(cache=True, fastmath=_FAST)
def restrict(cells, owner, scale, b):
    """Sums of cells over the parts that they belong to."""
    b[:] = 0
    for k in range(owner.shape[0]):
        for i in range(owner.shape[1]):
            for j in range(owner.shape[2]):
                if owner[k, i, j] >= 0:
                    b[owner[k, i, j]] += scale * cells[k, i, j]


@njit(cache=True)
def prolong(x, owner, cells):
    """To each cell what its part has."""
    for k in range(owner.shape[0]):
        for i in range(owner.shape[1]):
            for j in range(owner.shape[2]):
                cells[k, i, j] = x[owner[k, i, j]] if owner[k, i, j] >= 0 else np.float32(0)


@njit(cache=True, fastmath=_FAST)
def descend(indptr, middle, indices, data, over, starts, columns, values, b, x, coarse):
    """x: a forward Gauss-Seidel sweep from zero; ``coarse``: the restriction of what it leaves."""
    for i in range(len(b)):
        left = b[i]
        for q in range(indptr[i], middle[i]):
            left -= data[q] * x[indices[q]]
        x[i] = left * over[i]
    coarse[:] = 0
    for i in range(len(b)):
        left = 0.0
        for q in range(middle[i] + 1, indptr[i + 1]):
            left -= data[q] * x[indices[q]]
        for q in range(starts[i], starts[i + 1]):
            coarse[columns[q]] += values[q] * left


@njit(cache=True, fastmath=_FAST)
def ascend(indptr, middle, indices, data, over, starts, columns, values, b, x, coarse):
    """Add the coarse correction, then a backward sweep: the transpose of `descend`."""
    for i in range(len(b)):
        for q in range(starts[i], starts[i + 1]):
            x[i] += values[q] * coarse[columns[q]]
    for i in range(len(b) - 1, -1, -1):
        left = b[i]
        for q in range(indptr[i], middle[i]):
            left -= data[q] * x[indices[q]]
        for q in range(middle[i] + 1, indptr[i + 1]):
            left -= data[q] * x[indices[q]]
        x[i] = left * over[i]
