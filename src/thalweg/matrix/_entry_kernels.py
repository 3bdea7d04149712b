"""Loops over the entries of a sparse matrix: predictions, products, and their order."""

from __future__ import annotations

import numpy as np
from numba import njit

from thalweg.matrix._row_kernels import FAST


@njit(cache=True, nogil=True, fastmath=FAST)
def predictions(rows, columns, U, V, out):
    """``out[e] = U[rows[e]] . V[columns[e]]``."""
    q = U.shape[1]
    for e in range(len(out)):
        u, v = U[rows[e]], V[columns[e]]
        s = U.dtype.type(0)
        for c in range(q):
            s += u[c] * v[c]
        out[e] = s


@njit(cache=True, nogil=True, fastmath=FAST)
def row_products(indptr, indices, U, V, start, stop, out):
    """`predictions` for the entries of the rows ``start`` to ``stop`` of a CSR pattern."""
    q = U.shape[1]
    for i in range(start, stop):
        u = U[i]
        for e in range(indptr[i], indptr[i + 1]):
            v = V[indices[e]]
            s = U.dtype.type(0)
            for c in range(q):
                s += u[c] * v[c]
            out[e] = s


@njit(cache=True, nogil=True, fastmath=FAST)
def sparse_times(indptr, indices, values, D, start, out):
    """``out[j] = sum_e values[e] D[indices[e]]`` over the entries of row ``start + j``."""
    q = D.shape[1]
    for j in range(len(out)):
        for c in range(q):
            out[j, c] = 0.0
        for e in range(indptr[start + j], indptr[start + j + 1]):
            v, i = values[e], indices[e]
            for c in range(q):
                out[j, c] += v * D[i, c]


@njit(cache=True, nogil=True)
def counting_order(keys, order, n):
    """A stable sort of ``order`` by ``keys[order]``, whole numbers below n; also where each key's run starts."""
    starts = np.zeros(n + 1, np.int64)
    for key in keys:
        starts[key + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    place = starts[:-1].copy()
    out = np.empty(len(order), np.int64)
    for e in order:
        key = keys[e]
        out[place[key]] = e
        place[key] += 1
    return out, starts
