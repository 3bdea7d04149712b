"""Projections on single sketched equations: rows of a CSR matrix, and Gaussian combinations of all of them.

Rows are sliced before the loops over their entries: a loop from zero spares the test for negative indices.
"""

import numpy as np
from numba import njit


@njit(cache=True)
def kaczmarz(indptr, indices, data, squares, b, z, rows):
    """``z -= a_i (a_i z - b_i) / |a_i|^2`` for each i of ``rows``; returns the entries read."""
    read = 0
    for i in rows:
        if squares[i] == 0.0:
            continue
        first, last = indptr[i], indptr[i + 1]
        entries, places = data[first:last], indices[first:last]
        gap = -b[i]
        for k in range(len(entries)):
            gap += entries[k] * z[places[k]]
        gap /= squares[i]
        for k in range(len(entries)):
            z[places[k]] -= gap * entries[k]
        read += last - first
    return read


@njit(cache=True)
def gaussian(indptr, indices, data, z, r, v, normals):
    """``z -= A's (s'r) / |A's|^2`` and ``r = A z - b`` kept, for each s, a row of ``normals``; v is work space."""
    for s in normals:
        v[:] = 0.0
        along = 0.0
        for i in range(len(s)):
            along += s[i] * r[i]
            entries, places = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
            for k in range(len(entries)):
                v[places[k]] += s[i] * entries[k]
        square = 0.0
        for j in range(len(v)):
            square += v[j] * v[j]
        if square == 0.0:
            continue
        step = along / square
        for j in range(len(v)):
            z[j] -= step * v[j]
        for i in range(len(r)):
            entries, places = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
            product = 0.0
            for k in range(len(entries)):
                product += entries[k] * v[places[k]]
            r[i] -= step * product


@njit(cache=True, nogil=True)
def _mixed(word):
    """The finalizer of splitmix64: neighbouring words become unlike."""
    word = np.uint64(word) + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@njit(cache=True, nogil=True, fastmath={"contract"})
def osnap(A, count, weights, first, seed, name, B):
    """``B += S W^(1/2) A[:count]``: each row goes, with random signs, to two rows of B, at weight ``2^-1/2``.

    Row e is named ``name + e``, and its signs and places depend on seed and name alone. ``weights[first + e]`` are the
    weights, empty where all are one. Source: Nelson and Nguyen (2013), OSNAP with s = 2.
    """
    rows, half = len(B), np.sqrt(0.5)
    for e in range(count):
        word = _mixed(np.uint64(seed) ^ _mixed(np.uint64(name + e)))
        size = half * np.sqrt(weights[first + e]) if len(weights) else half
        one = np.int64((word & np.uint64(0x7FFFFFFF)) % np.uint64(rows))
        two = np.int64(((word >> np.uint64(31)) & np.uint64(0x7FFFFFFF)) % np.uint64(rows))
        s1 = size if word >> np.uint64(63) else -size
        s2 = size if (word >> np.uint64(62)) & np.uint64(1) else -size
        for c in range(A.shape[1]):
            B[one, c] += s1 * A[e, c]
            B[two, c] += s2 * A[e, c]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
def householder(B, rows):
    """The R of ``B[:rows] = Q R`` in the upper triangle of B, by Householder's reflections; Q is not kept."""
    q = B.shape[1]
    w = np.empty(q, B.dtype)
    for j in range(min(q, rows)):
        square = 0.0
        for i in range(j, rows):
            square += B[i, j] * B[i, j]
        norm = np.sqrt(square)
        if norm == 0.0:
            continue
        pivot = B[j, j] + norm if B[j, j] >= 0.0 else B[j, j] - norm
        B[j, j] = pivot
        scale = 2.0 / (square - (pivot - norm if pivot > 0 else pivot + norm) ** 2 + pivot * pivot)
        for c in range(j + 1, q):
            w[c] = 0.0
        for i in range(j, rows):
            v = B[i, j]
            for c in range(j + 1, q):
                w[c] += v * B[i, c]
        for i in range(j, rows):
            v = scale * B[i, j]
            for c in range(j + 1, q):
                B[i, c] -= v * w[c]
        B[j, j] = -norm if pivot > 0.0 else norm
