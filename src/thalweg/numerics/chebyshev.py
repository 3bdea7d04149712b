"""Chebyshev polynomials of the first kind on an interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.validation import require


def chebyshev_features(
    points: ArrayLike, terms: int, low: float = -1.0, high: float = 1.0
) -> NDArray[np.float64]:
    """``T_0 .. T_{terms-1}`` at ``points`` of [low, high], shape (..., terms).

    Points outside the interval are moved to its nearer end, where the polynomials stay bounded by one.

    >>> chebyshev_features([0.0, 0.5, 1.0], 3, low=0.0, high=1.0)
    array([[ 1., -1.,  1.],
           [ 1.,  0., -1.],
           [ 1.,  1.,  1.]])
    """
    require(terms >= 1, "chebyshev_features needs terms >= 1", got=terms)
    require(low < high, "chebyshev_features needs low < high", got=(low, high))
    points = np.asarray(points, dtype=np.float64)
    scaled = np.minimum(np.maximum((2.0 * points - (low + high)) / (high - low), -1.0), 1.0)
    values = np.empty((*points.shape, terms))
    values[..., 0] = 1.0
    if terms > 1:
        values[..., 1] = scaled
    for j in range(2, terms):
        values[..., j] = 2.0 * scaled * values[..., j - 1] - values[..., j - 2]
    return values


def lipschitz_coefficient_bounds(
    terms: int, bound: float, lipschitz: float, width: float
) -> NDArray[np.float64]:
    """Bounds of the Chebyshev coefficients of a function bounded by ``bound`` with Lipschitz constant
    ``lipschitz`` on an interval of length ``width``: ``bound`` for the constant term,
    ``2 lipschitz width / j`` for the j-th. Shape (terms,).

    Khodak et al. (2024), "Learning to relax", section 4: the box of the contextual regression.
    """
    orders = np.arange(1, terms)
    return np.concatenate([[bound], 2.0 * lipschitz * width / orders])
