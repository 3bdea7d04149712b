"""Rows of a half-step by conjugate gradients that a sketch of each row's design preconditions."""

from __future__ import annotations

import numpy as np
from numba import njit

from thalweg.matrix._conjugate_kernels import conjugate
from thalweg.matrix._row_kernels import FAST, dot, gather, opened, product, residual
from thalweg.numerics._sketch_kernels import householder, osnap


@njit(cache=True, nogil=True, fastmath=FAST)
def _solve_upper(R, x):
    """``x = R^-1 x``."""
    for i in range(len(x) - 1, -1, -1):
        s = x[i]
        for c in range(i + 1, len(x)):
            s -= R[i, c] * x[c]
        x[i] = s / R[i, i]


@njit(cache=True, nogil=True, fastmath=FAST)
def _solve_upper_transposed(R, x):
    """``x = R^-T x``."""
    for i in range(len(x)):
        x[i] /= R[i, i]
        s = x[i]
        for c in range(i + 1, len(x)):
            x[c] -= R[i, c] * s


@njit(cache=True, nogil=True, fastmath=FAST)
def _sketch_row(D, indices, A, weights, first, count, lift, seed, B):
    """A sketch of a row's design and the ridge's rows into B, or the design where it is no longer; rows of B used.

    It depends on the row's own entries alone, wherever they lie.
    """
    q = D.shape[1]
    limit = len(B) - q
    size, held = len(A), -1
    exact = count <= limit
    rows = count if exact else limit
    B[: rows + q] = 0.0
    for piece in range(0, count, size):
        n = min(size, count - piece)
        gather(D, indices, first + piece, n, A)
        held = piece
        if not exact:
            osnap(A, n, weights, first + piece, seed, piece, B[:rows])
            continue
        for e in range(n):
            root = np.sqrt(weights[first + piece + e]) if len(weights) else 1.0
            for c in range(q):
                B[piece + e, c] = root * A[e, c]
    root = np.sqrt(lift)
    for c in range(q):
        B[rows + c, c] = root
    return rows + q, held


@njit(cache=True, nogil=True, fastmath=FAST)
def _preconditioned(D, indices, A, held, weights, first, count, lift, R, steps, least, x, r, p, w, z, gram):
    """Conjugate gradients on ``R^-T N R^-1`` from x, with r = R^-T (b - N x) in place."""
    q = len(x)
    rr = dot(r, r)
    p[:] = r
    z[:] = 0.0  # R times the step so far
    goal = least * rr
    step = np.empty(q, x.dtype)
    for _ in range(steps):
        if rr <= goal or rr == 0.0:
            break
        step[:] = p
        _solve_upper(R, step)
        held = product(D, indices, A, held, weights, first, count, gram, lift, step, w)
        _solve_upper_transposed(R, w)
        along = dot(p, w)
        if along <= 0.0:
            break
        a = rr / along
        for c in range(q):
            z[c] += a * p[c]
            r[c] -= a * w[c]
        new = dot(r, r)
        b = new / rr
        rr = new
        for c in range(q):
            p[c] = r[c] + b * p[c]
    _solve_upper(R, z)
    for c in range(q):
        x[c] += z[c]


@njit(cache=True, nogil=True, fastmath=FAST)
def sketched_rows(
    indptr, indices, targets, weights, D, gram, ridge, by_count, steps, shrink, rows, only, seed, start, X, slopes,
    rights, A,
):  # fmt: skip
    """Conjugate gradients preconditioned by a sketch of each row's design; arguments as `cg_rows`.

    The sketch has ``rows`` rows; a row ends after ``steps`` or when its residual has shrunk to ``shrink`` of what it
    was, in the preconditioned norm. Rows with ``only[j]`` False are left alone, ``only`` empty means all. Where R is
    singular, plain conjugate gradients give the solution of least norm. Cost: ``2 k`` flops an entry,
    ``2 rows k^2`` a row, and ``4 k`` an entry and step.
    """
    q = D.shape[1]
    r, p, w, b = np.empty(q, D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype)
    z, B = np.empty(q, D.dtype), np.empty((rows + q, q), D.dtype)
    rounding = np.finfo(D.dtype).eps
    for j in range(len(X)):
        if len(only) and not only[j]:
            continue
        x = X[j]
        first, count, lift = opened(indptr, start + j, ridge, by_count)
        if count == 0:
            x[:] = 0.0
            slopes[j] = rights[j] = 0.0
            continue
        held = residual(D, indices, A, targets, weights, first, count, gram, lift, x, b, w, r)
        if not len(only):
            slopes[j], rights[j] = dot(r, r), dot(b, b)
        used, held = _sketch_row(D, indices, A, weights, first, count, lift, seed, B)
        householder(B, used)
        largest, smallest = 0.0, np.inf
        for c in range(q):
            largest, smallest = max(largest, abs(B[c, c])), min(smallest, abs(B[c, c]))
        if used >= q and smallest > q * rounding * largest:
            _solve_upper_transposed(B[:q], r)
            parts = (B[:q], steps, shrink * shrink, x, r, p, w, z, gram)
            _preconditioned(D, indices, A, held, weights, first, count, lift, *parts)
        else:
            x[:] = 0.0
            r[:] = b
            least = (16.0 * rounding) ** 2 * dot(b, b)
            conjugate(D, indices, A, held, weights, first, count, gram, lift, 4 * q + 20, least, x, r, p, w)
