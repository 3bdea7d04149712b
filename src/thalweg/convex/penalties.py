"""The l1 penalty's proximal map and subdifferential, and the elastic net's penalty, as solvers ask for them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thalweg.convex.datafits import Index, Vector
from thalweg.core.validation import require


def shrunk(u: Vector, threshold: Vector | float) -> Vector:
    """Each number nearer to zero by ``threshold``, but not beyond: the proximal map of the l1 norm.

    >>> shrunk(np.array([3.0, -0.5]), 1.0)
    array([ 2., -0.])
    """
    found: Vector = np.sign(u) * np.maximum(np.abs(u) - threshold, 0.0)
    return found


def l1_slopes(weight: Vector | float, x: Vector, g: Vector) -> Vector:
    """The element nearest to zero of each ``g_i + weight_i d|x_i|``, shape (n,).

    >>> l1_slopes(1.0, np.array([2.0, 0.0, 0.0]), np.array([-1.0, 0.5, -1.5]))
    array([ 0. ,  0. , -0.5])
    """
    right = g + np.where(x >= 0, weight, -weight)  # one-sided derivatives
    left = g + np.where(x > 0, weight, -weight)
    return np.where(right < 0, right, np.where(left > 0, left, 0.0))


@dataclass(frozen=True)
class ElasticNetPenalty:
    """``l1 |w|_1 + l2/2 |w|^2``.

    Args:
        l1, l2: >= 0, not both zero.

    >>> ElasticNetPenalty(1.0, 2.0).value(np.array([1.0, -1.0]))
    4.0
    """

    l1: float
    l2: float = 0.0

    def __post_init__(self) -> None:
        fits = self.l1 >= 0 and self.l2 >= 0 and self.l1 + self.l2 > 0
        require(fits, "ElasticNetPenalty needs l1, l2 >= 0, not both 0", got=(self.l1, self.l2))

    @property
    def is_sparse(self) -> bool:
        """Whether solutions have exact zeros, so that working sets pay."""
        return self.l1 > 0

    def value(self, w: Vector) -> float:
        """The penalty of w."""
        return self.l1 * float(np.abs(w).sum()) + 0.5 * self.l2 * float(w @ w)

    def conjugate(self, c: Vector) -> float:
        """``sup_w c'w - value(w)``, with ``l2 > 0``: ``|(|c| - l1)_+|^2 / (2 l2)``."""
        excess = np.maximum(np.abs(c) - self.l1, 0.0)
        return float(excess @ excess) / (2.0 * self.l2)

    def slopes(self, w: Vector, g: Vector) -> Vector:
        """The least subgradient of the objective, coordinate by coordinate, where g is the loss's gradient."""
        return l1_slopes(self.l1, w, g + self.l2 * w)

    def support(self, w: Vector) -> Index:
        """The coordinates that are not zero."""
        return np.flatnonzero(w)
