"""The fit of ``a exp(-rate t) + c`` to a series, compiled: some hundred exponentials of the series a round.

Arrays are float64, shape (n,): the times in [0, 1], the losses y.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

#: Residuals of a normal distribution have this many median absolute deviations in a standard deviation.
MAD = 1.4826
#: Tukey's biweight: residuals of more standard deviations than this have no say; rounds of reweighting.
TUKEY, REWEIGHTINGS = 4.685, 12
#: Share of the points that judges a start of the search.
TRUSTED = 0.9
#: How far a refinement looks around a rate, in its logarithm: three points of the grid; and how exactly.
REACH, EXACT = 0.2, 1e-9
#: Of the golden section.
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0
#: For sums that may be zero.
TINY = 1e-300

compiled = njit(cache=True, nogil=True, error_model="numpy")


@compiled
def fit(rates, shape, y, floor):
    """Rate, a and c >= floor: least absolute residuals over a grid of rates, then Tukey's biweight around the best."""
    rate, a, c = _least_absolute(rates, shape, y, floor)
    most, n = 1.0, len(y)
    for k in range(n):
        most = max(most, abs(y[k]))
    size, weights = np.empty(n), np.empty(n)
    for _ in range(REWEIGHTINGS):
        for k in range(n):
            size[k] = abs(y[k] - a * math.exp(-rate * shape[k]) - c)
        spread = MAD * np.median(size)
        if spread <= 1e-13 * most:
            break
        for k in range(n):
            weights[k] = max(1.0 - (size[k] / (TUKEY * spread)) ** 2, 0.0) ** 2
        rate, a, c = _weighted(rate, shape, y, weights, floor)
    return rate, a, c


@compiled
def _least_absolute(rates, shape, y, floor):
    """The fit for each rate, of the rate with the least sum of its smaller residuals.

    Outliers do not lead it astray, not even the first point.
    """
    n = len(y)
    basis, weights, size = np.empty(n), np.empty(n), np.empty(n)
    trusted = math.ceil(TRUSTED * n)
    best, found = np.inf, (rates[0], 0.0, 0.0)
    for rate in rates:
        for k in range(n):
            basis[k] = math.exp(-rate * shape[k])
        weights[:] = 1.0
        for _ in range(REWEIGHTINGS):
            a, c = _amplitudes(basis, y, weights, floor)
            total = 0.0
            for k in range(n):
                size[k] = abs(y[k] - a * basis[k] - c)
                total += size[k]
            least = 1e-2 * total / n + TINY
            for k in range(n):
                weights[k] = 1.0 / max(size[k], least)
        inner = np.sort(size)[:trusted].sum()
        if inner < best:
            best, found = inner, (rate, a, c)
    return found


@compiled
def _weighted(rate, shape, y, weights, floor):
    """Of least weighted squares, the rate searched for around ``rate`` by golden sections."""
    basis = np.empty(len(y))
    low, high = math.log(rate) - REACH, math.log(rate) + REACH
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_left = _squares(math.exp(left), shape, y, weights, floor, basis)[0]
    at_right = _squares(math.exp(right), shape, y, weights, floor, basis)[0]
    while high - low > EXACT:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - GOLDEN * (high - low)
            at_left = _squares(math.exp(left), shape, y, weights, floor, basis)[0]
        else:
            low, left, at_left = left, right, at_right
            right = low + GOLDEN * (high - low)
            at_right = _squares(math.exp(right), shape, y, weights, floor, basis)[0]
    found = math.exp(0.5 * (low + high))
    _, a, c = _squares(found, shape, y, weights, floor, basis)
    return found, a, c


@compiled
def _squares(rate, shape, y, weights, floor, basis):
    """The weighted squares that are left with the best a and c, and these."""
    for k in range(len(y)):
        basis[k] = math.exp(-rate * shape[k])
    a, c = _amplitudes(basis, y, weights, floor)
    total = 0.0
    for k in range(len(y)):
        total += weights[k] * (y[k] - a * basis[k] - c) ** 2
    return total, a, c


@compiled
def _amplitudes(basis, y, weights, floor):
    """The best a and c >= floor by weighted least squares."""
    total = mean = target = 0.0
    for k in range(len(y)):
        total += weights[k]
        mean += weights[k] * basis[k]
        target += weights[k] * y[k]
    mean, target = mean / total, target / total
    across = along = 0.0
    for k in range(len(y)):
        gap = basis[k] - mean
        across += weights[k] * gap * (y[k] - target)
        along += weights[k] * gap * gap
    a = across / max(along, TINY)
    c = target - a * mean
    if c < floor:
        across = along = 0.0
        for k in range(len(y)):
            across += weights[k] * basis[k] * (y[k] - floor)
            along += weights[k] * basis[k] * basis[k]
        a, c = across / max(along, TINY), floor
    return a, c
