"""Numba loops of expected improvement: its logarithm with gradient, averaged over worlds, and where it is largest.

Ament, Daulton, Eriksson, Balandat and Bakshy (2023), "Unexpected improvements to expected improvement"; Letham, Karrer,
Ottoni and Bakshy (2019), "Constrained Bayesian optimization with noisy experiments". `LogEI` and `NoisyEI` are the same
in torch.

A world is what the n visited points may truly be worth: all have one covariance, and so one M; each has its own
weights, a row of W, and its own best value. Without noise there is one.
"""

from __future__ import annotations

import math

import numpy as np

from thalweg.numerics.gaussian_process._climb_kernels import (
    FALL,
    STEPS,
    TRIAL,
    TRIAL_SLOPE,
    VALUE,
    X,
    advance,
    begin,
)
from thalweg.numerics.gaussian_process._dense_kernels import copy, dot, exact, order_of, sums
from thalweg.numerics.gaussian_process._process_kernels import LEAST, covariances

#: Rows of M after which a bound of a point's worth is looked at again.
BLOCK = 32
#: Starts looked among for each climb; their least distance, and that at which two climbs are one, in lengthscales.
POOL, APART, SAME_CLIMB = 3, 0.1, 0.02
#: A climb ends that is so much below the best after so many steps, and so many times what it expects to rise.
BEHIND, PATIENCE, HOPE = 0.5, 4, 5.0


#: Coefficients of rational approximations of ``exp(x^2) erfc(x)``, W. J. Cody (1969), Math. Comp. 23: up to 4, beyond.
_TOP = np.array(
    [
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e0,
        6.61191906371416295e1,
        2.98635138197400131e2,
        8.81952221241769090e2,
        1.71204761263407058e3,
        2.05107837782607147e3,
        1.23033935479799725e3,
    ]
)
_BOTTOM = np.array(
    [
        1.0,
        1.57449261107098347e1,
        1.17693950891312499e2,
        5.37181101862009858e2,
        1.62138957456669019e3,
        3.29079923573345963e3,
        4.36261909014324716e3,
        3.43936767414372164e3,
        1.23033935480374942e3,
    ]
)
_FAR_TOP = np.array(
    [
        1.63153871373020978e-2,
        3.05326634961232344e-1,
        3.60344899949804439e-1,
        1.25781726111229246e-1,
        1.60837851487422766e-2,
        6.58749161529837803e-4,
    ]
)
_FAR_BOTTOM = np.array(
    [
        1.0,
        2.56852019228982242e0,
        1.87295284992346725e0,
        5.27905102951428412e-1,
        6.05183413124413191e-2,
        2.33520497626869185e-3,
    ]
)


@exact
def _ratio(top, bottom, x):
    above, below = top[0], bottom[0]
    for i in range(1, len(top)):
        above, below = above * x + top[i], below * x + bottom[i]
    return above / below


@exact
def _erfcx(x):
    """``exp(x^2) erfc(x)`` for x >= 0.47."""
    if x <= 4.0:
        return _ratio(_TOP, _BOTTOM, x)
    y = 1.0 / (x * x)
    return (5.6418958354775628695e-1 - y * _ratio(_FAR_TOP, _FAR_BOTTOM, y)) / x


@exact
def log_improvement(u):
    """``log(phi(u) + u Phi(u))``, and ``Phi`` and ``phi`` over ``phi + u Phi``, for every u."""
    if u > -1.0:
        density = 0.3989422804014327 * math.exp(-0.5 * u * u)
        below = 0.5 * math.erfc(-u * 0.7071067811865476)
        h = density + u * below
        return math.log(h), below / h, density / h
    if u > -60.0:
        ratio = 1.2533141373155001 * _erfcx(-u * 0.7071067811865476)
        rest = 1.0 + u * ratio
    else:  # the asymptotic series: nothing cancels
        square = 1.0 / (u * u)
        rest = square * (1.0 - 3.0 * square * (1.0 - 5.0 * square))
        ratio = (rest - 1.0) / u
    return math.log(rest) - 0.5 * u * u - 0.9189385332046727, ratio / rest, 1.0 / rest


@exact
def _over_worlds(mean, best, std, work, slope):
    """The log of the mean improvement and its derivative by std; by each mean in ``slope``."""
    log_std, worlds = math.log(std), len(best)
    if worlds == 1:
        value, by_mean, by_std = log_improvement((mean[0] - best[0]) / std)
        slope[0] = by_mean / std
        return value + log_std, by_std / std
    largest = -np.inf
    for f in range(worlds):
        value, by_mean, by_std = log_improvement((mean[f] - best[f]) / std)
        work[0, f], work[1, f], work[2, f] = value, by_mean, by_std
        largest = max(largest, value)
    total = spread = 0.0
    for f in range(worlds):
        share = math.exp(work[0, f] - largest)
        total += share
        slope[f] = share * work[1, f]
        spread += share * work[2, f]
    for f in range(worlds):
        slope[f] /= total * std
    return largest + math.log(total / worlds) + log_std, spread / (total * std)


@sums
def worth(x, inverse, Z, n, M, W, trend, best, space, work, gradient):
    """Minus the log expected improvement at x, and its gradient.

    Args:
        inverse: one over the lengthscales, shape (d,).
        Z: scaled points, (d, n) or wider. M: shape (n, n) or larger. W: shape (worlds, n).
        space: room for four vectors of length n, (4, n). work: for five of the worlds, (5, worlds).

    Cost: n^2 + n worlds.
    """
    d, k, slope, v, z = len(x), space[0], space[1], space[2], space[3]
    mean, by_mean = work[3], work[4]
    for c in range(d):
        z[c] = x[c] * inverse[c]
    covariances(Z, z[:d], n, k, slope)
    for f in range(len(best)):
        mean[f] = trend + dot(W[f], k, n)
    variance = 1.0
    for j in range(n):
        v[j] = 0.0
    for i in range(n):
        row = M[i]
        w = dot(row, k, i + 1)
        variance -= w * w
        for j in range(i + 1):
            v[j] += w * row[j]
    std = math.sqrt(max(variance, LEAST))
    value, by_std = _over_worlds(mean, best, std, work, by_mean)
    share = -by_std / std
    for j in range(n):
        v[j] *= share
    for f in range(len(best)):
        row, w = W[f], by_mean[f]
        for j in range(n):
            v[j] += w * row[j]
    for j in range(n):
        v[j] *= slope[j]
    for c in range(d):
        row, center, total = Z[c], z[c], 0.0
        for j in range(n):
            total += v[j] * (center - row[j])
        gradient[c] = total * inverse[c]
    return -value


@exact
def _nearest_bound(k, n, noise):
    """The standard deviation given the datum of largest covariance alone: that given all is no larger."""
    largest = 0.0
    for j in range(n):
        largest = max(largest, k[j])
    return math.sqrt(max(1.0 - largest * largest / (1.0 + noise), LEAST))


@exact
def _worth_bound(mean, best, std):
    """The log improvement in the best of the worlds: no mean over them is larger."""
    gap = -np.inf
    for f in range(len(best)):
        gap = max(gap, mean[f] - best[f])
    value, _, _ = log_improvement(gap / std)
    return value + math.log(std)


@exact
def _std_unless_dropped(k, n, M, mean, best, least):
    """The standard deviation, or -1 as soon as what is known of it puts the worth at ``least`` or below."""
    variance = 1.0
    for i in range(n):
        w = dot(M[i], k, i + 1)
        variance -= w * w
        looked_at = i % BLOCK == BLOCK - 1 and least > -np.inf
        if looked_at and _worth_bound(mean, best, math.sqrt(max(variance, LEAST))) <= least:
            return -1.0
    return math.sqrt(max(variance, LEAST))


@exact
def look(looked, inverse, Z, n, M, W, trend, best, noise, keep):
    """Indices of the ``keep`` points of largest log improvement, best first, and their values.

    Improvement rises with the standard deviation, and that falls with every row of M: points are visited by a bound,
    and left when a bound is below what is kept. Nothing is approximate. Cost: m n worlds, and part of m n^2 / 2.
    """
    m, d = looked.shape
    k, means, bounds = np.empty((m, n)), np.empty((m, len(best))), np.empty(m)
    slope, z, work = np.empty(n), np.empty(d), np.empty((5, len(best)))
    for b in range(m):
        for c in range(d):
            z[c] = looked[b, c] * inverse[c]
        covariances(Z, z, n, k[b], slope)
        for f in range(len(best)):
            means[b, f] = trend + dot(W[f], k[b], n)
        bounds[b] = -_worth_bound(means[b], best, _nearest_bound(k[b], n, noise))
    kept, values = np.full(keep, -1), np.full(keep, -np.inf)
    for b in order_of(bounds):
        least = values[keep - 1]
        if -bounds[b] <= least:
            break
        std = _std_unless_dropped(k[b], n, M, means[b], best, least)
        if std < 0.0:
            continue
        value, _ = _over_worlds(means[b], best, std, work, work[4])
        if value <= least:
            continue
        at = keep - 1
        while at > 0 and values[at - 1] < value:
            values[at], kept[at] = values[at - 1], kept[at - 1]
            at -= 1
        values[at], kept[at] = value, b
    return kept, values


@exact
def _distance(a, b, reach):
    far = 0.0
    for c in range(len(reach)):
        far = max(far, abs(a[c] - b[c]) / reach[c])
    return far


@exact
def _is_futile(vectors, numbers, found, values, count, reach):
    """Whether a climb is behind the best for good, or where another has ended."""
    if count == 0 or numbers[STEPS] < PATIENCE:
        return False
    short = numbers[VALUE] - values[0]
    if short > BEHIND and short > HOPE * numbers[FALL]:
        return True
    nearest = np.inf
    for other in range(count):
        nearest = min(nearest, _distance(vectors[X], found[other], reach))
    return nearest < SAME_CLIMB


@exact
def search(looked, low, high, theta, Z, n, M, W, trend, best, noise, climbs, steps, tol, flat):
    """Where the log improvement is largest in a box: where climbs began, ended, best first, and the values there.

    Args:
        looked: points to begin with, shape (m, d).
        theta: its first d entries are the logarithms of the lengthscales.
        noise: variance that M counts with.
        climbs, steps: climbs from the best of them that are apart, and steps of each, at most.

    Cost: `look`, and some twenty times `worth` a climb.
    """
    d = looked.shape[1]
    inverse, reach, cap = np.empty(d), np.empty(d), np.empty(d)
    for c in range(d):
        length = math.exp(theta[c])
        inverse[c], reach[c] = 1.0 / length, min(length, 1.0)
        cap[c] = max(0.5 * reach[c], 1e-3)
    kept, _ = look(looked, inverse, Z, n, M, W, trend, best, noise, min(POOL * climbs, len(looked)))
    found, values = np.empty((climbs, d)), np.full(climbs, np.inf)
    starts, H = np.empty((climbs, d)), np.empty((d, d))
    vectors, numbers = np.empty((8, d)), np.zeros(6)
    space, work = np.empty((4, max(n, d))), np.empty((5, len(best)))
    count = 0
    for b in kept:
        if b < 0 or count == climbs:
            break
        near = False
        for other in range(count):
            near = near or _distance(looked[b], starts[other], reach) < APART
        if near:
            continue
        copy(looked[b], starts[count])
        for i in range(d):
            for j in range(d):
                H[i, j] = 0.25 * reach[i] * reach[i] if i == j else 0.0
        numbers[:] = 0.0
        begin(starts[count], low, high, vectors, numbers)
        going = True
        while going:
            value = worth(vectors[TRIAL], inverse, Z, n, M, W, trend, best, space, work, vectors[TRIAL_SLOPE])
            going = advance(value, vectors, H, low, high, cap, numbers, steps, tol, flat)
            going = going and not _is_futile(vectors, numbers, found, values, count, reach)
        at = count
        while at > 0 and values[at - 1] > numbers[VALUE]:
            values[at] = values[at - 1]
            copy(found[at - 1], found[at])
            at -= 1
        values[at] = numbers[VALUE]
        copy(vectors[X], found[at])
        count += 1
    return starts[:count], found[:count], -values[:count]


@exact
def log_improvements(queries, theta, Z, n, M, W, trend, best):
    """The log expected improvement at each of the queries, shape (m, d)."""
    m, d = queries.shape
    inverse, values, gradient = np.empty(d), np.empty(m), np.empty(d)
    space, work = np.empty((4, max(n, d))), np.empty((5, len(best)))
    for c in range(d):
        inverse[c] = math.exp(-theta[c])
    for b in range(m):
        values[b] = -worth(queries[b], inverse, Z, n, M, W, trend, best, space, work, gradient)
    return values
