"""Estimates of Q for all states and actions of a layer, from the one that was played.

Dai, Luo, Wei and Zimmert (2023), algorithms 1 and 2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, check_vector, is_whole, require
from thalweg.online.mdp import _kernels as kernels

Array = NDArray[np.float64]


def plain_estimates(features: ArrayLike, inverse: ArrayLike, played: int, loss: float) -> Array:
    """``u loss`` with ``u = phi^T S phi_played``, S the inverse covariance: shape (n,).

    Its mean is ``Q - gamma phi^T S theta``: nearly unbiased. One estimate can be as low as ``-loss/gamma``.

    Args:
        features: of all states and actions of the layer, shape (n, d).
        inverse: S, shape (d, d).
        played: the row that was.
        loss: what was lost from this layer to the end.

    Raises:
        InvalidProblem: shapes that do not fit. NotFinite: NaN or infinity. InvalidParameter: no such row.

    Cost: O(n d + d^2).

    >>> plain_estimates(np.eye(2), np.diag([2.0, 4.0]), 1, 0.5)
    array([0., 2.])
    """
    rows, S = _checked(features, inverse, played, loss)
    return _estimates(rows, S, played, loss, 0.0, np.zeros(len(rows)), reduced=False)


def reduced_estimates(
    features: ArrayLike, inverse: ArrayLike, played: int, loss: float, most: float, mean: ArrayLike
) -> Array:
    """``u loss - most (u)_- + most mean``, with ``(u)_- = min(u, 0)``: the magnitude-reduced estimates, shape (n,).

    The same mean as `plain_estimates`, and none below ``-most |phi|_S``, so not below ``-most/sqrt(gamma)``.

    Args:
        most: the largest loss that was possible from this layer to the end, H in the paper.
        mean: the expectation of ``(u)_-``, shape (n,); `negative_mean` has it.
        features, inverse, played, loss: as `plain_estimates`.

    Raises:
        InvalidProblem: shapes that do not fit, a loss above the largest. NotFinite, InvalidParameter: as above.

    Cost: O(n d + d^2).

    >>> reduced_estimates([[1.0], [-1.0]], [[1.0]], 0, 0.5, 1.0, [-0.5, -0.5])
    array([0., 0.])
    """
    rows, S = _checked(features, inverse, played, loss)
    require(
        0 <= loss <= most, "reduced_estimates needs 0 <= loss <= most", got=(loss, most), error=InvalidProblem
    )
    return _estimates(rows, S, played, loss, most, check_vector("mean", mean, len(rows)), reduced=True)


def negative_mean(features: ArrayLike, inverse: ArrayLike, weights: ArrayLike) -> Array:
    """``sum_i weights_i min(phi_j^T S phi_i, 0)`` for each row j, shape (n,).

    With the policy's own chances the exact expectation; with shares of fresh samples an estimate of it. Never below
    ``-|phi_j|_S`` in expectation.

    Cost: O(n^2 d).

    >>> negative_mean([[1.0], [-1.0]], [[1.0]], [0.5, 0.5])
    array([-0.5, -0.5])
    """
    rows, S = _checked(features, inverse, 0, 0.0)
    return np.asarray(kernels.negative_mean(rows, S, check_vector("weights", weights, len(rows))))


def _estimates(
    rows: Array, S: Array, played: int, loss: float, most: float, mean: Array, *, reduced: bool
) -> Array:
    found = np.empty(len(rows))
    kernels.estimates(rows, S, int(played), float(loss), float(most), reduced, mean, found)
    return found


def _checked(features: ArrayLike, inverse: ArrayLike, played: int, loss: float) -> tuple[Array, Array]:
    rows, S = as_real("features", features), as_real("inverse", inverse)
    if rows.ndim != 2 or rows.size == 0 or S.shape != (rows.shape[1],) * 2:
        raise InvalidProblem(
            f"features has shape {rows.shape} and inverse {S.shape}; expected (n, d) and (d, d)."
        )
    check_finite("features", rows)
    check_finite("inverse", S)
    check_finite("loss", loss)
    fits = is_whole(played) and 0 <= played < len(rows)
    require(fits, f"played is a row, 0 .. {len(rows) - 1}", got=played)
    return rows, S
