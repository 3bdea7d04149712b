"""Smooth convex losses plus simple separable terms: what is given, and how good an answer is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.convex._kernels import box_l1_block
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.losses import Loss
from thalweg.convex.penalties import l1_slopes, shrunk
from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.validation import as_real, check_vector, require

SWEEPS = 10_000  # most passes over a block's own coordinates


@dataclass(frozen=True, eq=False)
class Penalized(Problem):
    """``min f(x) + sum_i l1_i |x_i|`` subject to ``low <= x <= high``, f a `Loss`.

    Args:
        loss: f; its ridge, where it has one, is part of it.
        l1: a number, or one for each coordinate, >= 0. Default 0.
        low, high: numbers or one for each coordinate; default none. ``low=0`` is non-negativity.
        x0: where iterations start; by default zero, moved into the box.

    Metrics: ``objective``, F(x); ``violation``, the largest distance of zero from a coordinate's subdifferential, zero
    at solutions; ``active``, how many coordinates are zero or at a bound.

    >>> from thalweg.convex.losses import LeastSquares
    >>> problem = Penalized(LeastSquares(np.eye(2), np.array([3.0, 0.5])), l1=1.0)
    >>> problem.metrics(np.array([2.0, 0.0]))
    {'objective': 2.625, 'violation': 0.0, 'active': 1.0}
    """

    objective: ClassVar[str | None] = "violation"

    loss: Loss
    l1: ArrayLike = 0.0
    low: ArrayLike = -np.inf
    high: ArrayLike = np.inf
    x0: ArrayLike | None = None

    def __post_init__(self) -> None:
        n = self.loss.n
        for name in ("l1", "low", "high"):
            given = getattr(self, name)
            value = as_real(f"Penalized: {name}", given).reshape(np.shape(given))
            if value.ndim and value.shape != (n,):
                raise InvalidProblem(
                    f"Penalized: {name} has shape {value.shape}; expected a number or ({n},)."
                )
            require(not np.isnan(value).any(), f"Penalized: {name} holds NaN", error=InvalidProblem)
            object.__setattr__(self, name, np.broadcast_to(value, n).copy())
        bad = self.weight[~((self.weight >= 0) & (self.weight < np.inf))]
        if bad.size:
            raise InvalidProblem(f"Penalized needs a finite l1 >= 0; got {bad[0]:g}.")
        require(bool((self.lower <= self.upper).all()), "Penalized needs low <= high", error=InvalidProblem)
        if self.x0 is not None:
            object.__setattr__(self, "x0", check_vector("x0", self.x0, n))

    @cached_property
    def weight(self) -> Vector:
        """l1, shape (n,)."""
        return np.asarray(self.l1)

    @cached_property
    def lower(self) -> Vector:
        """Lower bounds, shape (n,)."""
        return np.asarray(self.low)

    @cached_property
    def upper(self) -> Vector:
        """Upper bounds, shape (n,)."""
        return np.asarray(self.high)

    @cached_property
    def is_smooth(self) -> bool:
        """Whether there is neither l1 nor a bound."""
        return (
            not self.weight.any() and not np.isfinite(self.lower).any() and not np.isfinite(self.upper).any()
        )

    def start(self) -> Vector:
        """A fresh starting point inside the box."""
        x = np.zeros(self.loss.n) if self.x0 is None else np.array(self.x0)
        return np.clip(x, self.lower, self.upper)

    @property
    def lipschitz(self) -> Vector:
        """For each coordinate, the curvature along all that is chosen together with it: along itself; (n,)."""
        return self.loss.lipschitz

    @property
    def units(self) -> int:
        """How many things a variable block is put together from: coordinates, or groups."""
        return self.loss.n

    def unit_sums(self, values: Vector) -> Vector:
        """Values of coordinates, (n,), added up within each unit, (units,)."""
        return values

    def members(self, units: Index) -> Index:
        """The coordinates of some units."""
        return units

    def count_units(self, block: Index) -> int:
        """How many units a block holds."""
        return len(block)

    def require_whole(self, block: Index) -> None:
        """Refuse a block that cuts a unit in two."""

    def penalties(self, x: Vector, block: Index | slice = slice(None)) -> Vector:
        """``l1_i |x_i|`` of a block's coordinates, x of its shape."""
        return self.weight[block] * np.abs(x)

    def penalty_change(self, x: Vector, new: Vector, block: Index | slice = slice(None)) -> Vector:
        """``penalties(new) - penalties(x)``, without cancellation."""
        return self.weight[block] * (np.abs(new) - np.abs(x))

    def penalty(self, x: Vector) -> float:
        """``sum l1_i |x_i|``."""
        return 0.0 if self.is_smooth else float(self.penalties(x).sum())

    def prox(self, u: Vector, step: Vector, block: Index | slice = slice(None)) -> Vector:
        """Nearest points to u in the metric 1/step, with penalty and box: shrink, then clip."""
        return np.clip(shrunk(u, self.weight[block] * step), self.lower[block], self.upper[block])

    def block_minimum(self, H: Vector, g: Vector, x: Vector, block: Index) -> Vector:
        """The d that minimises ``g'd + d'H d/2`` and the penalty of ``x + d`` over a block's coordinates."""
        if self.is_smooth:
            return -np.asarray(np.linalg.solve(H, g))
        parts = (x, self.lower[block], self.upper[block], self.weight[block])
        d: Vector = box_l1_block(H, g, *parts, rounding_of(H, g, x), SWEEPS)
        return d

    def slopes(self, x: Vector, g: Vector) -> Vector:
        """The element nearest to zero of each coordinate's subdifferential, shape (n,)."""
        if self.is_smooth:
            return g
        found = l1_slopes(self.weight, x, g)
        stuck = ((x <= self.lower) & (found > 0)) | ((x >= self.upper) & (found < 0))
        return np.where(stuck, 0.0, found)

    def active(self, x: Vector) -> NDArray[np.bool_]:
        """Coordinates at a kink of the penalty, or at a bound."""
        return ((x == 0) & (self.weight > 0)) | (x == self.lower) | (x == self.upper)

    def rooms(self, x: Vector, g: Vector) -> Vector:
        """How far inside its subdifferential zero is, for each active coordinate; infinite for the others."""
        w = self.weight
        room = np.full(len(g), np.inf)
        kink = (x == 0) & (w > 0)
        room[kink] = w[kink] - np.abs(g[kink])
        # at a bound the slope (with the penalty's where the bound is no kink) pushes outwards
        slope = g + w * np.sign(x)
        at_low, at_high = x == self.lower, x == self.upper
        room[at_low] = np.where(kink, g + w, slope)[at_low]
        room[at_high] = np.where(kink, w - g, -slope)[at_high]
        return room

    def recommended_stop(self) -> Stop:
        """Optimality violated by at most 1e-8 of the largest slope at zero."""
        zero = np.zeros(self.loss.n)
        steepest = float(np.abs(self.loss.gradient(zero, self.loss.keep(zero))).max(initial=0.0))
        return Stop(below={"violation": 1e-8 * (steepest or 1.0)})

    def metrics(self, x: Vector) -> dict[str, float]:
        z = self.loss.keep(x)
        slopes = self.slopes(x, self.loss.gradient(x, z))
        return {
            "objective": self.loss.value(x, z) + self.penalty(x),
            "violation": float(np.abs(slopes).max()),
            "active": float(self.active(x).sum()),
        }


def rounding_of(H: Vector, g: Vector, x: Vector) -> float:
    """Changes of a block's coordinates, times the root of their curvature, that are none."""
    roots = np.sqrt(np.diag(H))
    sizes = np.abs(x) * roots + np.divide(np.abs(g), roots, out=np.zeros_like(g), where=roots > 0)
    return 1e-14 * float(sizes.max(initial=0.0))


def nondegeneracy(problem: Penalized, solution: Vector) -> float:
    """delta: how far inside their subdifferentials the active coordinates of a solution are, at least; 0 if degenerate.

    Nutini et al. (2022), section 6. Infinite where nothing is active.

    >>> from thalweg.convex.losses import LeastSquares
    >>> problem = Penalized(LeastSquares(np.eye(2), np.array([3.0, 0.5])), l1=1.0)
    >>> nondegeneracy(problem, np.array([2.0, 0.0]))
    0.5
    """
    g = problem.loss.gradient(solution, problem.loss.keep(solution))
    return float(max(problem.rooms(solution, g).min(initial=np.inf), 0.0))


def identification_radius(problem: Penalized, solution: Vector) -> float:
    """``delta / (2 L)``: within this distance of the solution, every proximal coordinate step finds its bound or kink.

    Nutini, Schmidt and Hare (2019), lemma 1, with L the largest eigenvalue of the Hessian's bound.
    """
    n = problem.loss.n
    bound = problem.loss.bound(np.arange(n))
    return nondegeneracy(problem, solution) / (2.0 * float(np.linalg.eigvalsh(bound)[-1]))
