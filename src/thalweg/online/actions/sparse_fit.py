"""Sparse parameters from few answers: the shortest that fits, the Lasso, a refit, and how far to trust them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from thalweg.core import InvalidProblem
from thalweg.online.actions.problem import Features, Vector

#: Supports drawn to look for a bad direction of a design.
SUPPORTS = 200


def shortest_fit(features: Features, rewards: Vector, eps: float) -> Vector | None:
    """``argmin |theta|_1`` with ``|features theta - rewards|_inf <= eps``, shape (d,); None where nothing fits.

    A linear program in 2 d variables and 2 rows an answer, solved by HiGHS.

    >>> shortest_fit(np.array([[1.0, 0.5]]), np.array([1.0]), 0.1).round(6).tolist()
    [0.9, 0.0]
    """
    rows, rewards, unit = _scaled(features, rewards, eps)
    rows, eps = np.hstack([rows, -rows]), eps / unit[1]
    found = linprog(
        np.ones(rows.shape[1]),
        A_ub=np.vstack([rows, -rows]),
        b_ub=np.concatenate([rewards + eps, eps - rewards]),
        bounds=(0, None),
        method="highs",
    )
    if found.status == 2:
        return None
    x = _solution(found.status, found.x, found.message)
    return np.asarray(x[: features.shape[1]] - x[features.shape[1] :]) * (unit[1] / unit[0])


def closest_fit(features: Features, rewards: Vector) -> tuple[Vector, float]:
    """The theta with the least ``|features theta - rewards|_inf``, and that: a linear program.

    >>> theta, off = closest_fit(np.ones((2, 1)), np.array([0.0, 1.0]))
    >>> theta.tolist(), off
    ([0.5], 0.5)
    """
    features, rewards, unit = _scaled(features, rewards)
    n, d = features.shape
    found = linprog(
        np.r_[np.zeros(d), 1.0],
        A_ub=np.block([[features, -np.ones((n, 1))], [-features, -np.ones((n, 1))]]),
        b_ub=np.concatenate([rewards, -rewards]),
        bounds=[(None, None)] * d + [(0, None)],
        method="highs",
    )
    x = _solution(found.status, found.x, found.message)
    return x[:d] * (unit[1] / unit[0]), float(x[d]) * unit[1]


def _scaled(
    features: Features, rewards: Vector, eps: float = 0.0
) -> tuple[Features, Vector, tuple[float, float]]:
    """Both with a largest entry of one, for solvers whose tolerances are absolute; and the two units."""
    unit = float(np.abs(features).max()) or 1.0, max(float(np.abs(rewards).max()), eps) or 1.0
    return features / unit[0], rewards / unit[1], unit


def _solution(status: int, x: Vector | None, message: str) -> Vector:
    if status != 0 or x is None:
        raise InvalidProblem(f"The linear program of a fit was not solved: {message}")
    return np.asarray(x)


def lasso_fit(features: Features, rewards: Vector, weight: float) -> Vector:
    """``argmin |rewards - features theta|^2 / (2 n) + weight |theta|_1``, shape (d,), by scikit-learn.

    >>> lasso_fit(np.eye(2), np.array([1.0, 0.0]), 0.1).round(6).tolist()
    [0.8, 0.0]
    """
    from sklearn.linear_model import Lasso

    rows, targets, unit = _scaled(features, rewards)
    alpha = weight / (unit[0] * unit[1])
    if alpha >= np.abs(rows.T @ targets).max() / len(rows):
        return np.zeros(rows.shape[1])  # by its optimality condition; the solver overflows far above
    model = Lasso(alpha=alpha, fit_intercept=False, max_iter=100_000, tol=1e-8)
    return np.asarray(model.fit(rows, targets).coef_ * (unit[1] / unit[0]))


def support_of(theta: Vector, sparsity: int) -> NDArray[np.int64]:
    """The places of the largest entries, at most ``sparsity`` and none that is zero, in rising order.

    >>> support_of(np.array([0.1, 0.0, -2.0, 0.5]), 2).tolist()
    [2, 3]
    """
    order = np.argsort(-np.abs(theta), kind="stable")[:sparsity]
    return np.sort(order[theta[order] != 0])


def refitted(features: Features, rewards: Vector, theta: Vector, sparsity: int) -> Vector:
    """Least squares on the largest entries of ``theta`` alone: without the shrinking that found them.

    >>> refitted(np.eye(3), np.array([1.0, 0.1, 0.0]), np.array([0.5, 0.1, 0.0]), 1).tolist()
    [1.0, 0.0, 0.0]
    """
    places, found = support_of(theta, sparsity), np.zeros(len(theta))
    found[places] = np.linalg.lstsq(features[:, places], rewards, rcond=None)[0]
    return found


def restricted_eigenvalue(
    features: Features, sparsity: int, rng: np.random.Generator, near: NDArray[np.int64] | None = None
) -> float:
    """The smallest singular value over ``sqrt(n)`` that was found among supports of ``2 sparsity`` columns.

    The exact one, over a cone, is hard to compute; this one is an upper bound of it, right to some eight digits of the
    features, from `SUPPORTS` supports drawn at random, half of them with the columns ``near`` among them. A design with
    a small one cannot be trusted; one with a large one most likely can.

    >>> round(restricted_eigenvalue(np.eye(4) * 2, 1, np.random.default_rng(0)), 6)
    1.0
    """
    n, d = features.shape
    size = min(2 * max(sparsity, 1), d)
    if size > n:
        return 0.0
    held = np.zeros(0, dtype=np.int64) if near is None else near[:size]
    rest = np.setdiff1d(np.arange(d), held)
    places = np.empty((SUPPORTS, size), dtype=np.int64)
    for k in range(SUPPORTS):
        if k % 2 and len(held):
            places[k] = np.concatenate([held, rng.choice(rest, size - len(held), replace=False)])
        else:
            places[k] = rng.choice(d, size, replace=False)
    moments = features.T @ features / n
    values = np.linalg.eigvalsh(moments[places[:, :, None], places[:, None, :]])
    return math.sqrt(max(float(values[:, 0].min()), 0.0))
