"""Rows of a half-step by conjugate gradients."""

from __future__ import annotations

import numpy as np
from numba import njit

from thalweg.matrix._row_kernels import FAST, dot, opened, product, residual


@njit(cache=True, nogil=True, fastmath=FAST)
def conjugate(D, indices, A, held, weights, first, count, gram, lift, steps, least, x, r, p, w):
    """Conjugate gradients from x with residual r in place; returns ``|r|^2`` at the end.

    A direction along which there is next to no curvature is left alone: of a singular system only rounding remains.
    """
    rr, steepest = dot(r, r), 0.0
    for c in range(len(x)):
        p[c] = r[c]
    for _ in range(steps):
        if rr <= least:
            break
        held = product(D, indices, A, held, weights, first, count, gram, lift, p, w)
        along = dot(p, w)
        slope = along / dot(p, p)
        steepest = max(steepest, slope)
        if not slope > 32.0 * np.finfo(x.dtype).eps * steepest:
            break
        a = rr / along
        for c in range(len(x)):
            x[c] += a * p[c]
            r[c] -= a * w[c]
        new = dot(r, r)
        b = new / rr
        rr = new
        for c in range(len(x)):
            p[c] = r[c] + b * p[c]
    return rr


@njit(cache=True, nogil=True, fastmath=FAST)
def cg_rows(indptr, indices, targets, weights, D, gram, ridge, by_count, steps, start, X, slopes, rights, A):
    """``steps`` of conjugate gradients a row from where X stands; X[j] is row ``start + j``.

    ``slopes`` and ``rights`` get ``|b - N x|^2`` before and ``|b|^2``. Cost: ``4 (steps + 1) k`` flops an entry.
    """
    q = D.shape[1]
    r, p, w, b = np.empty(q, D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype), np.empty(q, D.dtype)
    rounding = np.finfo(D.dtype).eps
    for j in range(len(X)):
        x = X[j]
        first, count, lift = opened(indptr, start + j, ridge, by_count)
        if count == 0:
            x[:] = 0.0
            slopes[j] = rights[j] = 0.0
            continue
        held = residual(D, indices, A, targets, weights, first, count, gram, lift, x, b, w, r)
        slopes[j], rights[j] = dot(r, r), dot(b, b)
        least = (16.0 * rounding) ** 2 * rights[j]
        conjugate(D, indices, A, held, weights, first, count, gram, lift, steps, least, x, r, p, w)
