"""Losses of predictions, beside the labels that they are measured against: what every solver asks of the data's side.

A solver knows a loss by what it says of itself (value, slope, curvature, conjugate) and not by its name, so that a new
one needs no new solver. Bertrand et al. (2022), "Beyond L1: faster and better sparse models with skglm".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax, xlogy

Vector: TypeAlias = NDArray[np.float64]
Index: TypeAlias = NDArray[np.int64]

#: Stands for ones, where there are no weights.
NOTHING: Vector = np.empty(0)


class Datafit(ABC):
    """A smooth convex loss of the predictions z of all samples."""

    @property
    @abstractmethod
    def smoothness(self) -> float:
        """Bound of the second derivative in a prediction."""

    @abstractmethod
    def value(self, z: Vector) -> float:
        """The loss, summed over the samples."""

    @abstractmethod
    def slope(self, z: Vector) -> Vector:
        """Derivative in each prediction, of z's shape."""


class PointwiseDatafit(Datafit):
    """A loss of one prediction a sample, z of shape (samples,), with its conjugate."""

    #: Whether the second derivative is the same everywhere, so that a quadratic model of the loss is exact.
    is_quadratic: ClassVar[bool] = False
    #: Of the samples, positive, shape (samples,); empty for ones.
    weights: Vector = NOTHING

    @property
    def heaviest(self) -> float:
        """The largest weight."""
        return float(self.weights.max(initial=0.0)) or 1.0

    def weighted(self, values: Vector) -> Vector:
        """Values of the samples times their weights."""
        return self.weights * values if len(self.weights) else values

    def unweighted(self, values: Vector) -> Vector:
        """Inverse of `weighted`."""
        return values / self.weights if len(self.weights) else values

    @abstractmethod
    def curvature(self, z: Vector) -> Vector:
        """Second derivative in each prediction, shape (samples,)."""

    def bends(self, z: Vector) -> tuple[Vector, Vector]:
        """`slope` and `curvature`."""
        return self.slope(z), self.curvature(z)

    @abstractmethod
    def conjugate(self, u: Vector) -> float:
        """``sup_z u'z - value(z)``, u a slope."""

    def dual(self, slope: Vector, ridge: float, limit: float) -> tuple[float, float]:
        """The best of ``-conjugate(s slope) - s^2 ridge/2`` over multiples s no larger than ``limit``, and that s.

        Here s is 1 or the limit: where the slope is no larger than it may be, it is the best multiple at the solution.
        """
        s = min(1.0, limit)
        return -self.conjugate(s * slope) - 0.5 * s * s * ridge, s

    def best_intercept(self, z: Vector, intercept: float) -> float:
        """The intercept that minimises the loss, z being predictions with ``intercept`` in them.

        Newton's method in one variable, its steps at most 2 long.
        """
        base = z - intercept
        for _ in range(100):
            slope, curvature = self.bends(base + intercept)
            step = float(slope.sum()) / max(float(curvature.sum()), 1e-12 * self.heaviest)
            size = min(abs(step), 2.0)
            intercept -= size * np.sign(step)
            if size <= 1e-8 * (1.0 + abs(intercept)):  # what is left is of the order of its square
                break
        return float(intercept)


@dataclass(frozen=True, eq=False)
class SquaredError(PointwiseDatafit):
    """``1/2 sum weights (z - y)^2``.

    Args:
        y: targets, shape (samples,).
        weights: positive, shape (samples,). Default: ones.

    >>> SquaredError(np.array([1.0, 2.0])).slope(np.zeros(2))
    array([-1., -2.])
    """

    is_quadratic: ClassVar[bool] = True

    y: Vector
    weights: Vector = field(default_factory=lambda: NOTHING)

    @property
    def smoothness(self) -> float:
        return self.heaviest

    def value(self, z: Vector) -> float:
        r = z - self.y
        return 0.5 * float(r @ self.weighted(r))

    def slope(self, z: Vector) -> Vector:
        return self.weighted(z - self.y)

    def curvature(self, z: Vector) -> Vector:
        return self.weighted(np.ones_like(z))

    def conjugate(self, u: Vector) -> float:
        return float(u @ self.y) + 0.5 * float(u @ self.unweighted(u))

    def dual(self, slope: Vector, ridge: float, limit: float) -> tuple[float, float]:
        """The maximiser of a parabola in s, at most ``limit`` in size."""
        squares = float(slope @ self.unweighted(slope)) + ridge
        along = -float(slope @ self.y)
        s = min(max(along / squares, -limit), limit) if squares > 0 else 1.0
        return s * along - 0.5 * s * s * squares, s

    def best_intercept(self, z: Vector, intercept: float) -> float:
        weights = self.weights if len(self.weights) else None
        return float(np.average(self.y - (z - intercept), weights=weights))


def _sigmoid(z: Vector) -> Vector:
    """``1 / (1 + exp(-z))``; NumPy's vector exponential takes a part of the time of SciPy's ``expit``."""
    small = np.exp(-np.abs(z))
    return np.asarray(np.where(z < 0.0, small, 1.0) / (1.0 + small))


@dataclass(frozen=True, eq=False)
class LogLoss(PointwiseDatafit):
    """``sum weights log(1 + exp(-y (z + offset)))``.

    Args:
        y: 1 or -1, shape (samples,).
        offset: of the predictions, a number or shape (samples,). Default 0.
        weights: positive, shape (samples,). Default: ones.

    >>> round(LogLoss(np.array([1.0])).value(np.zeros(1)), 6)
    0.693147
    """

    y: Vector
    offset: Vector | float = 0.0
    weights: Vector = field(default_factory=lambda: NOTHING)

    @property
    def smoothness(self) -> float:
        return 0.25 * self.heaviest

    def value(self, z: Vector) -> float:
        margin = self.y * (z + self.offset)
        return float(self.weighted(np.log1p(np.exp(-np.abs(margin))) + np.maximum(-margin, 0.0)).sum())

    def slope(self, z: Vector) -> Vector:
        return self.weighted(-self.y * _sigmoid(-self.y * (z + self.offset)))

    def curvature(self, z: Vector) -> Vector:
        p = _sigmoid(z + self.offset)
        return self.weighted(p * (1.0 - p))

    def bends(self, z: Vector) -> tuple[Vector, Vector]:
        wrong = _sigmoid(-self.y * (z + self.offset))
        return self.weighted(-self.y * wrong), self.weighted(wrong * (1.0 - wrong))

    def conjugate(self, u: Vector) -> float:
        """Minus the entropy of the probabilities of being wrong, ``-y u``."""
        p = np.asarray(np.clip(-self.y * self.unweighted(u), 0.0, 1.0), dtype=np.float64)
        entropies = np.asarray(xlogy(p, p) + xlogy(1.0 - p, 1.0 - p), dtype=np.float64)
        return float(self.weighted(entropies).sum()) - float((u * self.offset).sum())


@dataclass(frozen=True, eq=False)
class SoftmaxLoss(Datafit):
    """``sum_i -weights_i log softmax(z_i)[y_i]``, z of shape (samples, classes).

    Args:
        y: class of each sample, 0, 1, ..., shape (samples,).
        weights: positive, shape (samples,). Default: ones.

    >>> SoftmaxLoss(np.array([1])).slope(np.zeros((1, 2)))
    array([[ 0.5, -0.5]])
    """

    y: Index
    weights: Vector = field(default_factory=lambda: NOTHING)

    @property
    def smoothness(self) -> float:
        return 0.25 * (float(self.weights.max(initial=0.0)) or 1.0)

    def value(self, z: Vector) -> float:
        logs = log_softmax(z, axis=1)[np.arange(len(z)), self.y]
        return -float(logs @ self.weights if len(self.weights) else logs.sum())

    def probabilities(self, z: Vector) -> Vector:
        """Of each class, shape (samples, classes)."""
        p: Vector = softmax(z, axis=1)
        return p

    def slope(self, z: Vector) -> Vector:
        p = self.probabilities(z)
        p[np.arange(len(z)), self.y] -= 1.0
        return p * self.weights[:, None] if len(self.weights) else p
