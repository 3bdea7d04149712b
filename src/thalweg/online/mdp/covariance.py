"""Inverses of ``gamma I + E[phi phi^T]``: exact, from samples, and by matrix geometric resampling.

Dai, Luo, Wei and Zimmert (2023) use the last, of Neu and Olkhovskaya (2020). The mean of samples with one inverse is
nearer at the same number of samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require
from thalweg.online.mdp import _kernels as kernels

Array = NDArray[np.float64]


def inverse_covariance(features: ArrayLike, gamma: float, weights: ArrayLike | None = None) -> Array:
    """``(gamma I + sum_i weights_i phi_i phi_i^T)^-1``, shape (d, d).

    Args:
        features: shape (n, d).
        gamma: > 0; it makes directions that are never seen finite.
        weights: chances of each row, shape (n,): exact. Without, rows are samples that count alike.

    Raises:
        InvalidProblem: shapes that do not fit, a weight below zero. NotFinite: NaN or infinity, a covariance that is
            singular to rounding.
        InvalidParameter: gamma <= 0.

    Cost: O(n d^2 + d^3).

    >>> inverse_covariance([[1.0, 0.0], [0.0, 1.0]], 0.5)
    array([[1., 0.],
           [0., 1.]])
    """
    rows = _rows(features, 2, "(n, d)")
    _check_gamma(gamma)
    chances = np.full(len(rows), 1.0 / len(rows)) if weights is None else as_real("weights", weights)
    if chances.shape != (len(rows),):
        raise InvalidProblem(f"weights has shape {chances.shape}; expected ({len(rows)},).")
    check_finite("weights", chances)
    require(
        bool((chances >= 0.0).all()),
        "inverse_covariance needs weights >= 0",
        error=InvalidProblem,
        got=weights,
    )
    try:
        return np.asarray(kernels.inverse_covariance(rows, chances, float(gamma)))
    except np.linalg.LinAlgError:
        raise NotFinite(
            f"The covariance of features is singular to rounding with gamma = {gamma:g}. Take a larger gamma."
        ) from None


def geometric_resampling(features: ArrayLike, gamma: float) -> Array:
    """The mean over repetitions of ``c sum_{n=0}^N prod_{j<=n} (I - c (gamma I + phi_j phi_j^T))``, c = 1/2.

    Its mean is the Neumann sum of the inverse, cut after N terms. It never inverts a matrix, which matters where d is
    large and samples are free; elsewhere `inverse_covariance` of the same samples is nearer.

    Args:
        features: independent samples no longer than one, shape (repetitions, N, d).
        gamma: > 0.

    Raises:
        InvalidProblem: another shape. NotFinite: NaN or infinity. InvalidParameter: gamma <= 0.

    Cost: O(repetitions N d^2).

    >>> geometric_resampling(np.zeros((1, 200, 1)), 0.5).round(9)
    array([[2.]])
    """
    samples = _rows(features, 3, "(repetitions, N, d)")
    _check_gamma(gamma)
    return np.asarray(np.mean([kernels.geometric_resampling(rows, float(gamma)) for rows in samples], axis=0))


def samples_needed(gamma: float, dimension: int, layers: int, episodes: int) -> int:
    """How many samples keep the inverse within a constant factor of the exact one: ``ceil(8/gamma ln(d H K))``.

    By a Bernstein bound on the relative error, in all K episodes with high probability.

    >>> samples_needed(0.01, 4, 4, 1000)
    7745
    """
    _check_gamma(gamma)
    return math.ceil(8.0 / gamma * math.log(max(dimension * layers * episodes, 2)))


def resampling_length(gamma: float, accuracy: float = 0.5) -> int:
    """The N of geometric resampling whose cut costs ``accuracy``: ``ceil(2/gamma ln(1/(accuracy gamma)))``.

    >>> resampling_length(0.1)
    60
    """
    _check_gamma(gamma)
    require(is_real(accuracy) and 0 < accuracy < 1, "resampling_length needs 0 < accuracy < 1", got=accuracy)
    return max(math.ceil(2.0 / gamma * math.log(1.0 / (accuracy * min(gamma, 1.0)))), 1)


def _rows(features: ArrayLike, axes: int, shape: str) -> Array:
    rows = as_real("features", features)
    if rows.ndim != axes or rows.size == 0:
        raise InvalidProblem(f"features has shape {rows.shape}; expected {shape}, none empty.")
    check_finite("features", rows)
    return rows


def _check_gamma(gamma: float) -> None:
    require(is_real(gamma) and 0 < gamma < np.inf, "A covariance needs gamma > 0", got=gamma)


def check_samples(samples: int | None) -> None:
    """Refuse a number of samples that is none."""
    fits = samples is None or (is_whole(samples) and samples >= 1)
    require(fits, "samples is a whole number >= 1, or None", got=samples)
