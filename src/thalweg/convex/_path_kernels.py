"""Numba loops of sparse linear models: passes over columns, dense or sparse, and sweeps over few of them.

A matrix is three arrays: columns one after another, and CSC's row indices and pointers; a dense one has no pointers.
Columns are sliced before the loops over their entries: a loop from zero spares the test for negative indices, which
makes a sparse pass more than twice as fast.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_FAST = {"contract", "reassoc", "nsz", "arcp"}

#: A column whose spread is less than this share of its size, both squared, is constant: the intercept has its part.
CONSTANT = 1e-28
#: Above this share the spread is taken from sums of one pass, and has lost at most four of its digits.
SPREAD = 1e-4


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
def column_add(data, indices, indptr, j, step, v):
    """``v += step X_j``."""
    if len(indptr) == 0:
        n = len(v)
        column = data[j * n : (j + 1) * n]
        for i in range(n):
            v[i] += step * column[i]
    else:
        entries, places = data[indptr[j] : indptr[j + 1]], indices[indptr[j] : indptr[j + 1]]
        for e in range(len(entries)):
            v[places[e]] += step * entries[e]


@njit(cache=True, inline="always")
def shrunk_to(u, t):
    """u, nearer to zero by t but not beyond."""
    return u - t if u > t else (u + t if u < -t else 0.0)


@njit(cache=True, fastmath=_FAST)
def correlations(data, indices, indptr, columns, v, out):
    """``out[k] = X_columns[k] . v``."""
    for k in range(len(columns)):
        out[k] = column_dot(data, indices, indptr, columns[k], v)


@njit(cache=True, fastmath=_FAST)
def add_columns(data, indices, indptr, columns, d, out):
    """``out += X_columns d``."""
    for k in range(len(columns)):
        if d[k] != 0.0:
            column_add(data, indices, indptr, columns[k], d[k], out)


@njit(cache=True, fastmath=_FAST)
def first_pass(data, indices, indptr, v, rows, is_centred, sums, squares, out):
    """``out[j] = X_j . v``, the columns' sums, and their squared lengths, less their means where centred."""
    for j in range(len(out)):
        start = j * rows if len(indptr) == 0 else indptr[j]
        stop = start + rows if len(indptr) == 0 else indptr[j + 1]
        entries = data[start:stop]
        size, total, along = 0.0, 0.0, 0.0
        if len(indptr) == 0:
            for e in range(len(entries)):
                x = entries[e]
                size += x * x
                total += x
                along += x * v[e]
        else:
            places = indices[start:stop]
            for e in range(len(entries)):
                x = entries[e]
                size += x * x
                total += x
                along += x * v[places[e]]
        out[j], sums[j], squares[j] = along, total, size
        if is_centred:
            spread, mean = size - total * total / rows, total / rows
            if spread < SPREAD * size:
                spread = mean * mean * (rows - len(entries))
                for e in range(len(entries)):
                    spread += (entries[e] - mean) ** 2
            squares[j] = spread if spread > CONSTANT * size else 0.0


@njit(cache=True, fastmath=_FAST)
def lazy_pass(data, indices, indptr, columns, v, w, share, away, lengths, reference, limit, is_known, out):
    """``out[j] = X_j . v`` where it may reach the limit, elsewhere a bound below it; returns how many were read.

    ``X_j . v = share reference_j + X_j . q`` with ``|q| = away``, and so ``|X_j . v|`` is bounded. Columns that are
    known already, or in use (``w_j`` not zero), are left, or read.
    """
    read = 0
    for j in columns:
        if is_known[j]:
            continue
        bound = abs(share * reference[j]) + lengths[j] * away
        if bound < limit and w[j] == 0.0:
            out[j] = bound
        else:
            out[j] = column_dot(data, indices, indptr, j, v)
            is_known[j] = True
            read += 1
    return read


@njit(cache=True)
def unscreened(columns, c, w, lengths, l2, factor, radius):
    """The columns that a ball of this radius around ``factor c`` does not prove to be zero."""
    kept, out = 0, np.empty_like(columns)
    for j in columns:
        if w[j] != 0.0 or 1.0 - abs(factor * c[j]) <= radius * np.sqrt(lengths[j] ** 2 + l2):
            out[kept] = j
            kept += 1
    return out[:kept]


@njit(cache=True, fastmath=_FAST)
def compacted(data, indices, indptr, columns, roots, entries, places, starts):
    """Sparse columns one after another, their rows multiplied by ``roots``."""
    at = 0
    for k in range(len(columns)):
        j = columns[k]
        starts[k] = at
        from_data, from_places = data[indptr[j] : indptr[j + 1]], indices[indptr[j] : indptr[j + 1]]
        to_data, to_places = entries[at : at + len(from_data)], places[at : at + len(from_data)]
        for e in range(len(from_data)):
            to_data[e] = from_data[e] * roots[from_places[e]]
            to_places[e] = from_places[e]
        at += len(from_data)
    starts[len(columns)] = at


@njit(cache=True, fastmath=_FAST)
def curvatures(data, indices, indptr, columns, rows, unit, sums, out):
    """``sums[k] = q . X_k`` and ``out[k] = |X_k - sums[k] q|^2`` for the unit vector q; zero sums where q is empty."""
    for k in range(len(columns)):
        j = columns[k]
        start = j * rows if len(indptr) == 0 else indptr[j]
        stop = start + rows if len(indptr) == 0 else indptr[j + 1]
        entries = data[start:stop]
        size = 0.0
        for e in range(len(entries)):
            size += entries[e] * entries[e]
        sums[k], out[k] = 0.0, size
        if len(unit):
            along = column_dot(data, indices, indptr, j, unit)
            spread = size - along * along
            if spread < SPREAD * size:
                spread, covered = 0.0, 0.0
                places = indices[start : stop if len(indptr) else start]
                for e in range(len(entries)):
                    q = unit[places[e]] if len(places) else unit[e]
                    covered += q * q
                    spread += (entries[e] - along * q) ** 2
                spread += along * along * max(1.0 - covered, 0.0)
            sums[k], out[k] = along, (spread if spread > CONSTANT * size else 0.0)


@njit(cache=True, fastmath=_FAST)
def column_sweeps(data, indices, indptr, columns, curvature, sums, unit, v, r, l1, l2, count):
    """Rounds of coordinate steps on ``|r|^2/2 + l1 |v|_1 + l2/2 |v|^2``, ``r = t - B v``, B the columns less
    ``sums`` times the unit vector.

    What the columns' parts along that vector leave in r is carried in one number, and put right after each round.
    """
    for _ in range(count):
        along = 0.0
        for k in range(len(columns)):
            L = curvature[k] + l2
            if curvature[k] <= 0.0:
                continue
            old = v[k]
            g = column_dot(data, indices, indptr, columns[k], r) + along * sums[k] - l2 * old
            new = shrunk_to(old + g / L, l1 / L)
            if new != old:
                v[k] = new
                column_add(data, indices, indptr, columns[k], old - new, r)
                along += (new - old) * sums[k]
        if along != 0.0:
            for i in range(len(r)):
                r[i] += along * unit[i]


@njit(cache=True, fastmath=_FAST)
def image(data, indices, indptr, columns, sums, unit, d, out):
    """``out = B d`` of `column_sweeps`."""
    out[:] = 0.0
    along = 0.0
    for k in range(len(columns)):
        column_add(data, indices, indptr, columns[k], d[k], out)
        along += sums[k] * d[k]
    if along != 0.0:
        for i in range(len(out)):
            out[i] -= along * unit[i]


@njit(cache=True, fastmath=_FAST)
def conjugate_gradients(
    data, indices, indptr, columns, curvature, sums, unit, rhs, l2, rows, enough, share, most
):
    """Nearly the d with ``(B'B + l2) d = rhs``, preconditioned by the diagonal; and the iterations done.

    Ends when no entry of the residual is larger than ``enough``, or its weighted square has fallen to ``share``.
    """
    d, r = np.zeros(len(rhs)), rhs.copy()
    scale = 1.0 / (curvature + l2)
    s = scale * r
    p = s.copy()
    rs = r @ s
    target = share * rs
    t, product = np.empty(rows), np.empty(len(rhs))
    done = 0
    while done < most and rs > target:
        image(data, indices, indptr, columns, sums, unit, p, t)
        correlations(data, indices, indptr, columns, t, product)
        bend = 0.0
        for k in range(len(p)):
            product[k] += l2 * p[k]
            bend += p[k] * product[k]
        if not bend > 0.0:
            break
        step = rs / bend
        done += 1
        new, largest = 0.0, 0.0
        for k in range(len(p)):
            d[k] += step * p[k]
            r[k] -= step * product[k]
            s[k] = scale[k] * r[k]
            new += r[k] * s[k]
            largest = max(largest, abs(r[k]))
        if largest <= enough:
            break
        for k in range(len(p)):
            p[k] = s[k] + new / rs * p[k]
        rs = new
    return d, done


@njit(cache=True, fastmath=_FAST)
def gram_sweeps(G, v, g, l1, l2, count):
    """Rounds of coordinate steps on ``-g'd + d'G d/2 + l1 |v + d|_1 + l2/2 |v + d|^2``, g brought up to date."""
    for _ in range(count):
        for k in range(len(v)):
            bend = G[k, k]
            if bend <= 0.0:
                continue
            L, old = bend + l2, v[k]
            new = shrunk_to(old + (g[k] - l2 * old) / L, l1 / L)
            if new != old:
                v[k] = new
                step, column = new - old, G[:, k]
                for i in range(len(v)):
                    g[i] -= step * column[i]


@njit(cache=True)
def submatrix(G, places, out):
    """``out = G[places][:, places]`` of a column-major matrix."""
    for k in range(len(places)):
        column, to = G[:, places[k]], out[:, k]
        for i in range(len(places)):
            to[i] = column[places[i]]


@njit(cache=True, fastmath=_FAST)
def gram_product(G, places, d, out):
    """``out = G[:, places] d``."""
    out[:] = 0.0
    for k in range(len(places)):
        if d[k] != 0.0:
            column, by = G[:, places[k]], d[k]
            for i in range(len(out)):
                out[i] += by * column[i]
