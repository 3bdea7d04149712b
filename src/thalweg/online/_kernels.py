"""Numba loops of the bandits: a root, and small box-constrained least squares."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def tsallis_root(losses, eta):
    """The x with ``sum 4 / (eta (losses - x))^2 = 1`` below ``min losses``, to machine precision.

    Newton on ``1/sqrt(sum p) - 1``, which is nearly linear in x and concave, so that steps stay on one side;
    bisection takes over whenever a step leaves the bracket.
    """
    d, least = len(losses), losses.min()
    low, high = -2.0 * np.sqrt(d) / eta, -2.0 / eta  # of x - least
    y = low
    for _ in range(100):
        total, slope = 0.0, 0.0
        for loss in losses:
            inverse = 1.0 / (loss - least - y)
            total += inverse * inverse
            slope += inverse * inverse * inverse
        total *= 4.0 / (eta * eta)
        slope *= 8.0 / (eta * eta)
        if total > 1.0:
            high = y
        else:
            low = y
        step = 2.0 * total * (np.sqrt(total) - 1.0) / slope
        new = y - step
        if not (low <= new <= high):
            new = 0.5 * (low + high)
        if abs(new - y) <= 4e-16 * abs(y):
            return least + new
        y = new
    return least + y


@njit(cache=True)
def tsallis_weights(losses, eta):
    """``4 / (eta (losses - x))^2`` at the root, normalised against the last rounding."""
    x = tsallis_root(losses, eta)
    p = 4.0 / (eta * (losses - x)) ** 2
    return p / p.sum()


@njit(cache=True)
def box_least_squares(gram, moment, bound, start):
    """Minimise ``theta' gram theta - 2 moment' theta`` with ``|theta| <= bound``, elementwise.

    The least-norm minimiser when it lies in the box, else coordinate descent from the clipped ``start``.
    """
    m = len(moment)
    values, vectors = np.linalg.eigh(gram)
    theta = np.zeros(m)
    for k in range(m):
        if values[k] > 1e-12 * values[m - 1]:
            theta += (vectors[:, k] @ moment) / values[k] * vectors[:, k]
    if (np.abs(theta) <= bound).all():
        return theta, False
    theta = np.minimum(np.maximum(start, -bound), bound)
    for _ in range(100):
        change = 0.0
        for j in range(m):
            if gram[j, j] <= 0.0:
                continue
            new = theta[j] + (moment[j] - gram[j] @ theta) / gram[j, j]
            new = min(max(new, -bound[j]), bound[j])
            change = max(change, abs(new - theta[j]) / bound[j])
            theta[j] = new
        if change < 1e-7:
            break
    return theta, True
