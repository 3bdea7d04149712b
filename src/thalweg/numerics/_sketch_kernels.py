"""Projections on single sketched equations: rows of a CSR matrix, and Gaussian combinations of all of them."""

from numba import njit


@njit(cache=True)
def kaczmarz(indptr, indices, data, squares, b, z, rows):
    """``z -= a_i (a_i z - b_i) / |a_i|^2`` for each i of ``rows``; returns the entries read."""
    read = 0
    for i in rows:
        if squares[i] == 0.0:
            continue
        first, last = indptr[i], indptr[i + 1]
        gap = -b[i]
        for k in range(first, last):
            gap += data[k] * z[indices[k]]
        gap /= squares[i]
        for k in range(first, last):
            z[indices[k]] -= gap * data[k]
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
            for k in range(indptr[i], indptr[i + 1]):
                v[indices[k]] += s[i] * data[k]
        square = 0.0
        for j in range(len(v)):
            square += v[j] * v[j]
        if square == 0.0:
            continue
        step = along / square
        for j in range(len(v)):
            z[j] -= step * v[j]
        for i in range(len(r)):
            product = 0.0
            for k in range(indptr[i], indptr[i + 1]):
                product += data[k] * v[indices[k]]
            r[i] -= step * product
