"""Rows of a half-step by their normal equations: Cholesky, or coordinate descent where there are bounds."""

from __future__ import annotations

import numpy as np
from numba import njit

from thalweg.matrix._conjugate_kernels import conjugate
from thalweg.matrix._row_kernels import FAST, dot, gather, opened, right_side


@njit(cache=True, nogil=True, fastmath=FAST)
def _add_gram(A, n, weights, first, scaled, N):
    """``N += A' W A`` over the buffer's rows, by the library's product."""
    if len(weights):
        for e in range(n):
            for c in range(len(N)):
                scaled[e, c] = weights[first + e] * A[e, c]
        N += np.dot(scaled[:n].T, A[:n])
    else:
        N += np.dot(A[:n].T, A[:n])


@njit(cache=True, nogil=True, fastmath=FAST)
def _normal_matrix(D, indices, A, scaled, targets, weights, first, count, gram, lift, b, N):
    """``N = A' W A + G + lift``, its lower half at least, and ``b = A' t``; returns the piece in the buffer."""
    q = len(b)
    b[:] = 0.0
    if len(gram):
        N[:, :] = gram
    else:
        N[:, :] = 0.0
    size, held = len(A), -1
    for piece in range(0, count, size):
        n = min(size, count - piece)
        gather(D, indices, first + piece, n, A)
        held = piece
        right_side(A, n, targets, first + piece, b)
        _add_gram(A, n, weights, first + piece, scaled, N)
    for c in range(q):
        N[c, c] += lift
    return held


@njit(cache=True, nogil=True, fastmath=FAST)
def _cholesky(N):
    """The lower factor in the place of N's lower half; False where N is singular to rounding."""
    q = len(N)
    largest = 0.0
    for i in range(q):
        largest = max(largest, N[i, i])
    least = 32.0 * q * np.finfo(N.dtype).eps * largest
    for i in range(q):
        for j in range(i):
            s = N[i, j]
            for c in range(j):
                s -= N[i, c] * N[j, c]
            N[i, j] = s / N[j, j]
        s = N[i, i]
        for c in range(i):
            s -= N[i, c] * N[i, c]
        if not s > least:
            return False
        N[i, i] = np.sqrt(s)
    return True


@njit(cache=True, nogil=True, fastmath=FAST)
def _back(L, x):
    """``x = (L L')^-1 x``."""
    q = len(x)
    for i in range(q):
        s = x[i]
        for c in range(i):
            s -= L[i, c] * x[c]
        x[i] = s / L[i, i]
    for i in range(q - 1, -1, -1):
        x[i] /= L[i, i]
        s = x[i]
        for c in range(i):
            x[c] -= L[i, c] * s


@njit(cache=True, nogil=True, fastmath=FAST)
def _lower_times(N, x, out):
    """``out = N x`` from N's lower half."""
    q = len(x)
    out[:] = 0.0
    for i in range(q):
        s = N[i, i] * x[i]
        for c in range(i):
            s += N[i, c] * x[c]
            out[c] += N[i, c] * x[i]
        out[i] += s


@njit(cache=True, nogil=True, fastmath=FAST)
def exact_rows(indptr, indices, targets, weights, D, gram, ridge, by_count, start, X, slopes, rights, A):
    """Each row's least-squares problem solved: normal equations and Cholesky; arguments as `cg_rows`.

    Where they are singular, conjugate gradients from zero give the solution of least norm. Cost: ``k^2`` flops an entry
    and ``k^3/3`` a row.
    """
    q = D.shape[1]
    N, L, b, w = (
        np.empty((q, q), D.dtype),
        np.empty((q, q), D.dtype),
        np.empty(q, D.dtype),
        np.empty(q, D.dtype),
    )
    r, p = np.empty(q, D.dtype), np.empty(q, D.dtype)
    scaled = np.empty(A.shape if len(weights) else (0, q), D.dtype)
    rounding = np.finfo(D.dtype).eps
    for j in range(len(X)):
        x = X[j]
        first, count, lift = opened(indptr, start + j, ridge, by_count)
        if count == 0:
            x[:] = 0.0
            slopes[j] = rights[j] = 0.0
            continue
        held = _normal_matrix(D, indices, A, scaled, targets, weights, first, count, gram, lift, b, N)
        _lower_times(N, x, w)
        slopes[j], rights[j] = 0.0, dot(b, b)
        for c in range(q):
            slopes[j] += (b[c] - w[c]) * (b[c] - w[c])
        L[:, :] = N
        if (count >= q or lift > 0.0 or len(gram) > 0) and _cholesky(L):
            x[:] = b
            _back(L, x)
        else:
            x[:] = 0.0
            r[:] = b
            least = (16.0 * rounding) ** 2 * rights[j]
            conjugate(D, indices, A, held, weights, first, count, gram, lift, 4 * q + 20, least, x, r, p, w)


@njit(cache=True, nogil=True, fastmath=FAST)
def coordinate_rows(
    indptr, indices, targets, weights, D, gram, ridge, by_count, passes, free, start, X, slopes, rights, A
):
    """``passes`` of coordinate descent with ``x >= 0`` but for the last ``free`` coordinates; arguments as `cg_rows`.

    Cost: ``k^2`` flops an entry and ``passes k^2`` a row.
    """
    q = D.shape[1]
    N, b, w = np.empty((q, q), D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype)
    scaled = np.empty(A.shape if len(weights) else (0, q), D.dtype)
    for j in range(len(X)):
        x = X[j]
        first, count, lift = opened(indptr, start + j, ridge, by_count)
        if count == 0:
            x[:] = 0.0
            slopes[j] = rights[j] = 0.0
            continue
        _normal_matrix(D, indices, A, scaled, targets, weights, first, count, gram, lift, b, N)
        for i in range(q):
            for c in range(i):
                N[c, i] = N[i, c]
        slopes[j], rights[j] = 0.0, dot(b, b)
        for c in range(q):
            w[c] = b[c] - dot(N[c], x)
            if x[c] > 0.0 or w[c] > 0.0 or c >= q - free:
                slopes[j] += w[c] * w[c]
        for _ in range(passes):
            for c in range(q):
                if not N[c, c] > 0.0:
                    continue
                new = x[c] + w[c] / N[c, c]
                if c < q - free and new < 0.0:
                    new = 0.0
                step = new - x[c]
                if step != 0.0:
                    x[c] = new
                    for i in range(q):
                        w[i] -= step * N[c, i]
