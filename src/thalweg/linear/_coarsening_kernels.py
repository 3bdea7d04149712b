"""The levels of a multigrid cycle, from the cells of a grid and three small networks; layout as in `_cycle_kernels`."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from thalweg.linear._cycle_kernels import COLUMN_FACE, DIAGONAL, LAYER_FACE, RELAX, ROW_FACE, TRANSFER

_FAST = {"contract", "reassoc", "nsz"}


@njit(cache=True, fastmath=_FAST)
def _evaluate(seen, first, first_bias, last, last_bias, out):
    """A network of one hidden layer on ``seen``, (inputs, count), into ``out``, (outputs, count)."""
    count = seen.shape[1]
    hidden = np.empty(count, np.float32)
    for o in range(len(last)):
        for j in range(count):
            out[o, j] = last_bias[o]
    for h in range(len(first)):
        for j in range(count):
            hidden[j] = first_bias[h]
        for a in range(first.shape[1]):
            weight = first[h, a]
            for j in range(count):
                hidden[j] += weight * seen[a, j]
        for o in range(len(last)):
            weight = last[o, h]
            for j in range(count):
                out[o, j] += weight * max(hidden[j], np.float32(0))


@njit(cache=True)
def faces(fluid, level):
    """Faces between fluid cells of the finest level; ``fluid`` has its layout."""
    layers, rows, columns = fluid.shape
    for k in range(1, layers - 1):
        for i in range(rows):
            for j in range(1, columns - 1):
                here = fluid[k, i, j]
                level[LAYER_FACE, k, i, j] = here * fluid[k + 1, i, j]
                level[COLUMN_FACE, k, i, j] = here * fluid[k, i, j + 1]
                if i + 1 < rows:
                    level[ROW_FACE, k, i, j] = here * fluid[k, i + 1, j]


@njit(cache=True, fastmath=_FAST)
def weigh(level, finest, dimensions, first, first_bias, last, last_bias, table, air, share):
    """Diagonal, relaxation and transfer factors of a level; the finest looks them up by its fluid and air faces."""
    _, layers, rows, columns = level.shape
    seen, out = np.zeros((5, columns), np.float32), np.empty((3, columns), np.float32)
    count, one, two = np.float32(2 * dimensions), np.float32(1), np.float32(2)
    for k in range(1, layers - 1):
        for i in range(rows):
            for j in range(1, columns - 1):
                a, b = level[COLUMN_FACE, k, i, j - 1], level[COLUMN_FACE, k, i, j]
                c, e = level[LAYER_FACE, k - 1, i, j], level[LAYER_FACE, k, i, j]
                total, squares = (a + b) + (c + e), (a * a + b * b) + (c * c + e * e)
                if dimensions == 3:
                    a, b = level[ROW_FACE, k, i - 1, j] if i > 0 else np.float32(0), level[ROW_FACE, k, i, j]
                    total, squares = total + (a + b), squares + (a * a + b * b)
                seen[0, j], seen[1, j] = total / count, squares / count
                seen[2, j], seen[3, j] = air[k, i, j] / two, share[k, i, j]
                level[DIAGONAL, k, i, j] = total + air[k, i, j]
            if not finest:
                _evaluate(seen, first, first_bias, last, last_bias, out)
            for j in range(1, columns - 1):
                diagonal = level[DIAGONAL, k, i, j]
                if not diagonal > 0:
                    continue
                colour = (k + i + j) % 2
                if finest:
                    airs = int(air[k, i, j] + np.float32(0.5))
                    fluids = int(diagonal - air[k, i, j] + np.float32(0.5))
                    factor, transfer = table[fluids, airs, colour], table[fluids, airs, 2]
                else:
                    factor = two / (one + math.exp(-out[colour, j]))
                    transfer = np.float32(0.5) / (one + math.exp(-out[2, j]))
                level[RELAX, k, i, j] = factor / diagonal
                level[TRANSFER, k, i, j] = transfer


@njit(cache=True, fastmath=_FAST)
def gather(level, dimensions, air, share, crossing, inner, coarse_air, series, coarse_share):
    """Means over the blocks of a level: faces that cross to the next block, faces within, air, its series, fluid."""
    layers, rows, columns = coarse_air.shape
    halving = 2 if dimensions == 3 else 1
    count = np.float32(2 ** (dimensions - 1))
    for k in range(1, layers - 1):
        for i in range(rows):
            for j in range(1, columns - 1):
                for c0 in range(2):
                    for c1 in range(halving):
                        y = halving * i + c1
                        if y >= share.shape[1]:
                            continue
                        for c2 in range(2):
                            z, x = 2 * k - 1 + c0, 2 * j - 1 + c2
                            a = air[z, y, x]
                            coarse_air[k, i, j] += a / count
                            series[k, i, j] += (
                                np.float32(2) * a / (np.float32(1) + np.float32(0.5) * a) / count
                            )
                            coarse_share[k, i, j] += share[z, y, x] / (np.float32(2) * count)
                            for axis in range(3):
                                child = c0 if axis == 0 else (c1 if axis == 1 else c2)
                                target = crossing if child == 1 else inner
                                target[axis, k, i, j] += level[LAYER_FACE + axis, z, y, x] / count


@njit(cache=True, fastmath=_FAST)
def couple(
    axis, dimensions, first, first_bias, last, last_bias, limit, finest, crossing, inner, air, share, coarse
):
    """Coarse faces along an axis: the mean of the fine ones times what a network says."""
    layers, rows, columns = air.shape
    dk, di, dj = axis == 0, axis == 1, axis == 2
    seen, out = np.zeros((8, columns), np.float32), np.empty((1, columns), np.float32)
    seen[7] = np.float32(1 if finest else 0)
    others, two = np.float32(dimensions - 1), np.float32(2)
    for k in range(1, layers - 1):
        for i in range(rows - di):
            for j in range(1, columns - 1):
                z, y, x = k + dk, i + di, j + dj
                p, q = share[k, i, j], share[z, y, x]
                s, t = inner[axis, k, i, j], inner[axis, z, y, x]
                across = inner[0, k, i, j] + inner[1, k, i, j] + inner[2, k, i, j] - s
                across += inner[0, z, y, x] + inner[1, z, y, x] + inner[2, z, y, x] - t
                seen[0, j], seen[1, j], seen[2, j] = crossing[axis, k, i, j], p + q, abs(p - q)
                seen[3, j], seen[4, j], seen[5, j] = s + t, abs(s - t), across / others
                seen[6, j] = (air[k, i, j] + air[z, y, x]) / two
            _evaluate(seen, first, first_bias, last, last_bias, out)
            for j in range(1, columns - 1):
                if crossing[axis, k, i, j] > 0:
                    coarse[LAYER_FACE + axis, k, i, j] = crossing[axis, k, i, j] * math.exp(
                        min(max(out[0, j], -limit), limit)
                    )


@njit(cache=True, fastmath=_FAST)
def open_to_air(
    dimensions,
    first,
    first_bias,
    last,
    last_bias,
    limit,
    finest,
    crossing,
    inner,
    air,
    series,
    share,
    conductance,
):
    """Coarse conductance to the air: half a cell and its air in series, times what a network says."""
    layers, rows, columns = air.shape
    seen, out = np.zeros((6, columns), np.float32), np.empty((1, columns), np.float32)
    seen[5] = np.float32(1 if finest else 0)
    count = np.float32(dimensions)
    for k in range(1, layers - 1):
        for i in range(rows):
            anything = False
            for j in range(1, columns - 1):
                anything |= air[k, i, j] > 0
            if not anything:
                continue
            for j in range(1, columns - 1):
                within = inner[0, k, i, j] + inner[1, k, i, j] + inner[2, k, i, j]
                beyond = crossing[0, k, i, j] + crossing[1, k, i, j] + crossing[2, k, i, j]
                seen[0, j], seen[1, j], seen[2, j] = air[k, i, j], series[k, i, j], share[k, i, j]
                seen[3, j], seen[4, j] = within / count, beyond / count
            _evaluate(seen, first, first_bias, last, last_bias, out)
            for j in range(1, columns - 1):
                if series[k, i, j] > 0:
                    conductance[k, i, j] = series[k, i, j] * math.exp(min(max(out[0, j], -limit), limit))
