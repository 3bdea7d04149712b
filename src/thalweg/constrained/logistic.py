"""Logistic regression whose weights are held to linear equations and to the unit sphere."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, log_expit

from thalweg.constrained._arrays import Vector
from thalweg.constrained.problem import EqualityConstrained
from thalweg.core import InvalidProblem
from thalweg.core.validation import check_vector


def constrained_logistic(X: ArrayLike, y: ArrayLike, A: ArrayLike, b: ArrayLike) -> EqualityConstrained:
    """Minimise ``mean log(1 + exp(-y_i x_i'w))`` with ``A w = b`` and ``|w|^2 = 1``.

    Args:
        X: shape (examples, n).
        y: labels -1 and 1, shape (examples,).
        A, b: shape (m, n) and (m,); m may be 0.

    Source: the second experiment of arXiv 2305.18379.

    >>> p = constrained_logistic(np.eye(2), [1, -1], np.zeros((0, 2)), [])
    >>> p.n, p.m
    (2, 1)
    """
    X, A = np.ascontiguousarray(X, dtype=np.float64), np.ascontiguousarray(A, dtype=np.float64)
    if X.ndim != 2 or A.ndim != 2 or A.shape[1] != X.shape[1]:
        raise InvalidProblem(f"X has shape {X.shape} and A {A.shape}; both need a column for each weight.")
    labels, right = check_vector("y", y, len(X)), check_vector("b", b, len(A))
    if not np.isin(labels, (-1.0, 1.0)).all():
        raise InvalidProblem("Labels have to be -1 and 1.")
    signed, count, n = X * labels[:, None], len(X), X.shape[1]

    def value(w: Vector) -> float:
        return -float(log_expit(signed @ w).mean())

    def gradient(w: Vector) -> Vector:
        return np.asarray(-(expit(-(signed @ w)) @ signed) / count)

    def constraints(w: Vector) -> Vector:
        return np.r_[A @ w - right, w @ w - 1.0]

    def jacobian(w: Vector) -> Vector:
        return np.vstack([A, 2.0 * w])

    def hessian(w: Vector, multipliers: Vector) -> Vector:
        chance = expit(signed @ w)
        curved: Vector = (signed.T * (chance * (1.0 - chance) / count)) @ signed
        curved.flat[:: n + 1] += 2.0 * multipliers[-1]
        return curved

    x0 = np.full(n, n**-0.5)
    return EqualityConstrained(value, gradient, constraints, jacobian, hessian, x0)
