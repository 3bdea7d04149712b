"""Numba loops that make worlds: what the visited points may truly be worth, and the pending ones turn out.

`noisy_ei` and `pending_ei` are the same in torch.
"""

from __future__ import annotations

import numpy as np

from thalweg.numerics.gaussian_process._dense_kernels import cholesky, copy, dot, exact, gram, sums
from thalweg.numerics.gaussian_process._process_kernels import JITTER, MORE_JITTER, MOST_JITTER, covariances

#: Added to the covariance that fantasies are drawn with, as in `noisy_ei`.
NUGGET = 1e-8


@sums
def _joint(Z, n, pending, M, a, trend, noise, noisy, fitted, means, C):
    """Mean and the lower part of the covariance of the visited points, where they count, and the pending ones.

    Of the visited ones it is ``noise I - noise^2 K^-1``. Cost: n^3/3 with noise, n^2 a pending point.
    """
    first = n if noisy else 0
    if noisy:
        gram(M, C, n)
        for i in range(n):
            means[i] = fitted[i]
            for j in range(i + 1):
                C[i, j] *= -noise * noise
            C[i, i] += noise
    z, k, slope = np.empty(len(Z)), np.empty(n + pending), np.empty(n + pending)
    white = np.zeros((pending, n))
    for q in range(pending):
        for c in range(len(Z)):
            z[c] = Z[c, n + q]
        covariances(Z, z, n + q + 1, k, slope)
        means[first + q] = trend + dot(a, k, n)
        out, v = C[first + q], white[q]
        for i in range(n):
            row = M[i]
            v[i] = dot(row, k, i + 1)
            if noisy:
                for j in range(i + 1):
                    out[j] += noise * v[i] * row[j]
        for r in range(q + 1):
            out[first + r] = k[n + r] - dot(v, white[r], n)


@exact
def _factor(C):
    """The Cholesky factor in C, with the least jitter that makes it exist; False if none does."""
    size, n = 0.0, len(C)
    for i in range(n):
        size += C[i, i] / n
    kept, jitter = C.copy(), 0.0
    while True:
        half_log = cholesky(C, n)
        if half_log == half_log:
            return True
        jitter = JITTER if jitter == 0.0 else MORE_JITTER * jitter
        if jitter > MOST_JITTER:
            return False
        for i in range(n):
            copy(kept[i], C[i])
            C[i, i] += jitter * size


@sums
def worlds(Z, n, pending, M, Mw, a, trend, noise, noisy, y, fitted, normals):
    """Weights of each world, shape (worlds, n + pending), its best value, and whether they could be drawn.

    Args:
        Z: scaled points, visited and then pending.
        M, a, trend: of the posterior given the n values y, standardised; ``fitted`` its means there.
        Mw: of the worlds, which know all values; its covariance is theirs.
        noise: variance of an observation.
        noisy: whether the visited points' values are drawn too; otherwise they are y.
        normals: standard normal numbers, shape (worlds, n + pending) or wider.

    Cost: `_joint`, (n + pending)^3/3, and (n + pending)^2 a world.
    """
    m, first, count = n + pending, n if noisy else 0, len(normals)
    size = first + pending
    means, C = np.empty(size), np.zeros((size, size))
    _joint(Z, n, pending, M, a, trend, noise, noisy, fitted, means, C)
    for i in range(size):
        C[i, i] += NUGGET if noisy else NUGGET + noise
    W, best = np.zeros((count, m)), np.full(count, -np.inf)
    if not _factor(C):
        return W, best, False
    drawn, white = np.zeros((m, count)), np.zeros((m, count))  # worlds run fastest
    for f in range(count):
        if not noisy:
            for i in range(n):
                drawn[i, f] = y[i] - trend
        for i in range(size):
            value = means[i] + dot(C[i], normals[f], i + 1)
            drawn[m - size + i, f] = value - trend
            best[f] = max(best[f], value)
    for i in range(m):
        row, out = Mw[i], white[i]
        for j in range(i + 1):
            share, source = row[j], drawn[j]
            for f in range(count):
                out[f] += share * source[f]
    for i in range(m):
        for f in range(count):
            drawn[i, f] = 0.0
    for i in range(m):
        row, source = Mw[i], white[i]
        for j in range(i + 1):
            share, out = row[j], drawn[j]
            for f in range(count):
                out[f] += share * source[f]
    for f in range(count):
        for j in range(m):
            W[f, j] = drawn[j, f]
    return W, best, True
