"""Optimal control of a semilinear elliptic equation on the unit square: a large sparse constrained problem."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from thalweg.constrained._arrays import Vector
from thalweg.constrained.problem import EqualityConstrained
from thalweg.core import InvalidProblem
from thalweg.core.validation import check_finite, require_counts, require_positive
from thalweg.numerics.operators import FivePointStencil


@dataclass(frozen=True, eq=False)
class PoissonControl:
    """Find the source u whose state y comes closest to a target: ``-Laplace y + reaction y^3 = u``.

    Minimised is ``1/2 |y - target|^2 + weight/2 |u|^2`` over the interior points of a square grid, five-point
    differences, y = 0 on the boundary. The unknowns are ``x = (y, sqrt(weight) u)`` and the equation is multiplied by
    ``sqrt(weight)``: then all blocks of the Newton system are of comparable size, which projections need.

    Args:
        target: shape (side, side).
        weight: the price of control; 1e-6 by default. The larger it is, the further points of the grid depend on
            each other.
        reaction: >= 0; zero makes the problem quadratic.
        patch: side of the square patches of points whose equations are solved together, and a quarter of it their
            overlap.

    Raises:
        InvalidProblem: a target that is not a square grid.

    >>> control = PoissonControl(np.ones((8, 8)))
    >>> control.problem.n, control.problem.m
    (128, 64)
    """

    target: ArrayLike
    weight: float = 1e-6
    reaction: float = 1.0
    patch: int = 12
    side: int = field(init=False)
    problem: EqualityConstrained = field(init=False)

    def __post_init__(self) -> None:
        target = np.asarray(self.target, dtype=np.float64)
        if target.ndim != 2 or target.shape[0] != target.shape[1] or target.size == 0:
            raise InvalidProblem(f"PoissonControl needs a square grid as target; got shape {target.shape}.")
        check_finite("target", target)
        require_positive(self, "weight")
        require_positive(self, "reaction", zero=True)
        require_counts(self, "patch")
        object.__setattr__(self, "side", len(target))
        object.__setattr__(self, "problem", self._stated(target.ravel()))

    def state(self, x: Vector) -> Vector:
        """y on the grid, shape (side, side)."""
        return x[: self.side**2].reshape(self.side, self.side)

    def control(self, x: Vector) -> Vector:
        """u on the grid, shape (side, side)."""
        return x[self.side**2 :].reshape(self.side, self.side) / np.sqrt(self.weight)

    def _stated(self, target: Vector) -> EqualityConstrained:
        n, root, cubic = self.side**2, np.sqrt(self.weight), self.reaction
        laplace = sp.csr_array(
            FivePointStencil(self.side, self.side).to_csr() * (root * (self.side + 1) ** 2)
        )
        nothing, minus = np.zeros(n), -sp.eye_array(n, format="csr")

        def value(x: Vector) -> float:
            return 0.5 * float(((x[:n] - target) ** 2).sum() + (x[n:] ** 2).sum())

        def gradient(x: Vector) -> Vector:
            return np.r_[x[:n] - target, x[n:]]

        def constraints(x: Vector) -> Vector:
            return np.asarray(laplace @ x[:n] + (root * cubic) * x[:n] ** 3 - x[n:])

        def jacobian(x: Vector) -> sp.csr_array:
            slope = laplace + sp.diags_array((3.0 * root * cubic) * x[:n] ** 2)
            return sp.csr_array(sp.hstack([slope, minus]))

        def hessian(x: Vector, multipliers: Vector) -> sp.csr_array:
            bend = (6.0 * root * cubic) * x[:n] * multipliers
            return sp.csr_array(sp.diags_array(np.r_[1.0 + bend, np.ones(n)]))

        return EqualityConstrained(
            value, gradient, constraints, jacobian, hessian, np.r_[nothing, nothing], blocks=self._patches()
        )

    def _patches(self) -> list[NDArray[np.int64]]:
        """The equations of y, u and lambda at the points of overlapping squares."""
        side, step, overlap = self.side, self.patch, max(self.patch // 4, 1)
        points = np.arange(side * side, dtype=np.int64).reshape(side, side)
        cuts = [slice(max(k - overlap, 0), k + step + overlap) for k in range(0, side, step)]
        squares = [points[a, b].ravel() for a in cuts for b in cuts]
        return [np.concatenate([square + k * side * side for k in range(3)]) for square in squares]
