"""Numba loops of a Gaussian process: Matern 5/2 with a lengthscale a coordinate, constant mean, some hundred data.

Rasmussen and Williams (2006), sections 2.2 and 5.4. The model of `GaussianProcess(Matern())`; hyper-parameters are the
logarithms of the lengthscales and, where it is learned, of the noise's variance.

Points are stored by coordinate, shape (d, n) or wider, so that loops run along the data. ``M`` is the inverse of the
Cholesky factor: variances ``1 - |M k|^2`` stay accurate without noise, and one more datum is one more row.
"""

from __future__ import annotations

import math

import numpy as np

from thalweg.numerics.gaussian_process._climb_kernels import (
    SCALED,
    TRIAL,
    TRIAL_SLOPE,
    VALUE,
    X,
    advance,
    begin,
)
from thalweg.numerics.gaussian_process._dense_kernels import (
    cholesky,
    dot,
    exact,
    exp_below,
    gram,
    inverse_lower,
    order_of,
    steady,
    sums,
)

#: Jitter of a matrix that is not positive definite, relative to its diagonal: the first, times what, up to what.
JITTER, MORE_JITTER, MOST_JITTER = 1e-10, 100.0, 1.1e-4
#: Least variance, as in `Posterior.predict`.
LEAST = 1e-14
#: Longest step of a logarithm; steps of all starts before the best go on, and how many those are beyond so many data.
CAP, RACE, KEPT, FEW = 2.0, 6, 2, 60
#: Starts that are worse by this, or as near to a better one as this, do not go on.
WORSE, NEAR = 10.0, 0.05


@steady
def covariances(Z, z, n, k, slope):
    """Covariances k of a scaled point with the first n; ``slope`` times a difference is minus their derivative.

    Cost: n d.
    """
    for j in range(n):
        k[j] = 0.0
    for c in range(len(z)):
        center, row = z[c], Z[c]
        for j in range(n):
            t = row[j] - center
            k[j] += t * t
    for j in range(n):
        square = 5.0 * k[j]
        r = math.sqrt(square)
        decay = exp_below(-r)
        k[j] = (1.0 + r + square * (1.0 / 3.0)) * decay
        slope[j] = (5.0 / 3.0) * (1.0 + r) * decay


@exact
def scaled(points, n, theta, Z):
    """Points over lengthscales, into Z."""
    for c in range(len(points)):
        inverse = math.exp(-theta[c])
        for j in range(n):
            Z[c, j] = points[c, j] * inverse


@exact
def _covariance(Z, n, noise, K, slopes):
    z = np.empty(len(Z))
    for i in range(n):
        for c in range(len(Z)):
            z[c] = Z[c, i]
        covariances(Z, z, i + 1, K[i], slopes[i % len(slopes)])
        K[i, i] = 1.0 + noise


@exact
def _factor(Z, n, noise, K, slopes):
    """The Cholesky factor in K; returns half the log determinant, NaN where no jitter helps, and the jitter."""
    jitter = 0.0
    while True:
        _covariance(Z, n, noise + jitter, K, slopes)
        half_log = cholesky(K, n)
        if half_log == half_log:
            return half_log, jitter
        jitter = JITTER * (1.0 + noise) if jitter == 0.0 else MORE_JITTER * jitter
        if jitter > MOST_JITTER * (1.0 + noise):
            return np.nan, jitter


@exact
def inverse_factor(points, n, theta, noise, M, Z):
    """M of n data, and their scaled points in Z; returns the jitter, NaN where none helps. Cost: 2 n^3/3."""
    scaled(points, n, theta, Z)
    K, slopes = np.zeros((n, n)), np.empty((1, n))
    half_log, jitter = _factor(Z, n, noise, K, slopes)
    if half_log == half_log:
        inverse_lower(K, M, n)
        return jitter
    return np.nan


@sums
def grow(M, Z, n, points, theta, noise):
    """Row n of M and column n of Z for one more point. Cost: n^2."""
    d = len(Z)
    z, k, slope = np.empty(d), np.empty(n), np.empty(n)
    for c in range(d):
        z[c] = points[c, n] * math.exp(-theta[c])
        Z[c, n] = z[c]
    covariances(Z, z, n, k, slope)
    left, out = 1.0 + noise, M[n]
    for j in range(n):
        out[j] = 0.0
    for i in range(n):
        row = M[i]
        w = dot(row, k, i + 1)
        left -= w * w
        for j in range(i + 1):
            out[j] -= w * row[j]
    inverse = 1.0 / math.sqrt(max(left, JITTER))
    for j in range(n):
        out[j] *= inverse
    out[n] = inverse


@sums
def weights(M, y, n, a):
    """The generalised least-squares mean; ``covariance^-1 (y - mean)`` in a. Cost: 2 n^2."""
    top = bottom = 0.0
    white = np.empty((2, n))
    for i in range(n):
        row = M[i]
        one = value = 0.0
        for j in range(i + 1):
            one += row[j]
            value += row[j] * y[j]
        top += one * value
        bottom += one * one
        white[0, i], white[1, i] = one, value
    mean = top / bottom
    for j in range(n):
        a[j] = 0.0
    for i in range(n):
        row, w = M[i], white[1, i] - mean * white[0, i]
        for j in range(i + 1):
            a[j] += w * row[j]
    return mean


@sums
def _slopes(Z, n, precision, slopes, a, gradient):
    """Derivatives by the lengthscales, from the differences themselves; ``slopes`` is overwritten. Cost: d n^2 / 2."""
    for c in range(len(Z)):
        gradient[c] = 0.0
    for i in range(1, n):
        ai, p, g = a[i], precision[i], slopes[i]
        for j in range(i):
            g[j] *= p[j] - ai * a[j]
        for c in range(len(Z)):
            row, total = Z[c], 0.0
            center = row[i]
            for j in range(i):
                t = row[j] - center
                total += g[j] * t * t
            gradient[c] += total


@exact
def energy(theta, points, n, y, learn, means, stds, Z, K, slopes, M, a, gradient):
    """`GaussianProcess.energy` of one model: the negative log posterior density with its gradient, eq. (5.8) and (5.9).

    Infinite where the covariance has no factor. Cost: n^3 + d n^2.
    """
    noise = math.exp(theta[len(points)]) if learn else 0.0
    scaled(points, n, theta, Z)
    value, _ = _factor(Z, n, noise, K, slopes)
    if value != value:
        for c in range(len(theta)):
            gradient[c] = 0.0
        return np.inf
    inverse_lower(K, M, n)
    mean = weights(M, y, n, a)
    value += 0.5 * n * math.log(2.0 * math.pi)
    for i in range(n):
        value += 0.5 * (y[i] - mean) * a[i]
    gram(M, K, n)
    _slopes(Z, n, K, slopes, a, gradient)
    if learn:
        trace = 0.0
        for i in range(n):
            trace += K[i, i] - a[i] * a[i]
        gradient[len(points)] = 0.5 * noise * trace
    for c in range(len(theta)):
        gap = (theta[c] - means[c]) / stds[c]
        value += 0.5 * gap * gap
        gradient[c] += gap / stds[c]
    return value


@exact
def fit(starts, metrics, known, points, y, learn, means, stds, low, high, steps, tol, flat):
    """The most probable hyper-parameters from several starts, shape (m, p): returns them, their metric and the energy.

    All starts climb a few steps, the best of them to the end.

    Args:
        metrics: inverse Hessians to begin with, shape (m, p, p); overwritten, as the starts are.
        known: whether each has its scale.
        points: shape (d, n).
        steps: at most.
    """
    m, p = starts.shape
    d, n = points.shape
    Z, a = np.empty((d, n)), np.empty(n)
    K, slopes, M = np.zeros((n, n)), np.zeros((n, n)), np.zeros((n, n))
    vectors, numbers, cap = np.empty((m, 8, p)), np.zeros((m, 6)), np.empty(p)
    for c in range(p):
        cap[c] = CAP
    going, order, reached = np.ones(m, np.bool_), np.arange(m), np.empty(m)
    for b in range(m):
        begin(starts[b], low, high, vectors[b], numbers[b])
        numbers[b, SCALED] = known[b]
    for leg in range(2):
        most = RACE if leg == 0 and m > 1 else steps
        for b in order:
            while going[b]:
                value = energy(
                    vectors[b, TRIAL],
                    points,
                    n,
                    y,
                    learn,
                    means,
                    stds,
                    Z,
                    K,
                    slopes,
                    M,
                    a,
                    vectors[b, TRIAL_SLOPE],
                )
                going[b] = advance(value, vectors[b], metrics[b], low, high, cap, numbers[b], most, tol, flat)
        if leg == 0:
            for b in range(m):
                reached[b] = numbers[b, VALUE]
            order = order_of(reached)
            for r in range(m):
                going[order[r]] = (
                    m > 1 and (r < KEPT or n < FEW) and _is_apart(vectors, numbers, order[0], order[r])
                )
                begin(vectors[order[r], X], low, high, vectors[order[r]], numbers[order[r]])
    best = 0
    for b in range(m):
        if numbers[b, VALUE] < numbers[best, VALUE]:
            best = b
    return vectors[best, X].copy(), metrics[best].copy(), numbers[best, VALUE]


@exact
def _is_apart(vectors, numbers, best, other):
    """Whether a start is worth going on with beside the best."""
    if other == best:
        return True
    far = 0.0
    for c in range(vectors.shape[2]):
        far = max(far, abs(vectors[other, X, c] - vectors[best, X, c]))
    return far >= NEAR and numbers[other, VALUE] <= numbers[best, VALUE] + WORSE


@sums
def predict(queries, theta, Z, n, M, a, trend, mean, variance):
    """Mean and variance at each of the queries, shape (m, d). Cost: n^2 a query."""
    d = queries.shape[1]
    z, k, slope = np.empty(d), np.empty(n), np.empty(n)
    for b in range(len(queries)):
        for c in range(d):
            z[c] = queries[b, c] * math.exp(-theta[c])
        covariances(Z, z, n, k, slope)
        mean[b], left = trend + dot(a, k, n), 1.0
        for i in range(n):
            w = dot(M[i], k, i + 1)
            left -= w * w
        variance[b] = max(left, LEAST)
