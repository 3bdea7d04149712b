"""Newton's method on the optimality conditions, held in check by the exact augmented Lagrangian."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.constrained.curvature import dependent_rows, reduced_curvature, smallest_square, spectral_norm
from thalweg.constrained.problem import DENSE, EqualityConstrained, Point, RankDeficient, residuals
from thalweg.core import Method, State, Status
from thalweg.numerics.operators import is_sparse

Vector = NDArray[np.float64]

#: Squared singular values of the Jacobian under this are taken for zero.
DEFICIENT = 1e-8
#: Where f falls below minus this many times its first size, it has no minimum.
BOTTOM = 1e10


@dataclass(kw_only=True)
class ConstrainedState(State):
    """``x``, the ``multipliers`` lambda, the merit's weights, the accuracy delta; ``calls`` counts points."""

    multipliers: Vector
    seed: int
    eta1: float = 1.0
    eta2: float = 0.1
    delta: float = 0.1
    step: int = 0
    flops: float = 0.0
    projections: int = 0
    first: float = 0.0
    warned: bool = False
    now: Point | None = None

    def tree(self) -> dict[str, Any]:
        """Without ``now``, which is evaluated again."""
        return {name: value for name, value in super().tree().items() if name != "now"}

    def restored(self, tree: dict[str, Any]) -> ConstrainedState:
        """The state of ``tree``, with nothing evaluated yet."""
        return replace(super().restored(tree), now=None)


class Weights(NamedTuple):
    """Of the merit ``L + eta1/2 |c|^2 + eta2/2 |grad_x L|^2``."""

    eta1: float
    eta2: float

    def merit(self, point: Point, multipliers: Vector) -> float:
        """The exact augmented Lagrangian, infinite where anything is not finite."""
        if not point.finite:
            return math.inf
        slope, c = point.lagrangian(multipliers), point.c
        return float(
            point.f + multipliers @ c + 0.5 * self.eta1 * (c @ c) + 0.5 * self.eta2 * (slope @ slope)
        )

    def gradient(self, point: Point, multipliers: Vector, H: Any) -> Vector:
        """In x and lambda; H is the Hessian of the Lagrangian, not modified."""
        slope, c, G = point.lagrangian(multipliers), point.c, point.G
        return np.r_[slope + self.eta2 * (H @ slope) + self.eta1 * (G.T @ c), c + self.eta2 * (G @ slope)]


@dataclass(frozen=True)
class NewtonSystem:
    """``[[B, G'], [G, 0]] z = b`` at a point, ``b = -(grad_x L, c)``, B = H + shift I."""

    A: Any
    b: Vector
    H: Any
    shift: float
    deficient: bool
    #: The smallest squared singular value of G.
    smallest: float

    @classmethod
    def at(cls, problem: EqualityConstrained, point: Point, multipliers: Vector, xi: float) -> NewtonSystem:
        """Assembled, with the Hessian modified where its curvature along the constraints is not positive."""
        H, G = problem.hessian(point.x, multipliers), point.G
        smallest = smallest_square(G)
        shift = 0.0
        if reduced_curvature(H, G) < 1e-6:
            shift = xi + spectral_norm(H)
        n, m = problem.n, problem.m
        if is_sparse(H) or is_sparse(G) or n + m > DENSE:
            B = sp.csr_array(H) + shift * sp.eye_array(n)
            blocks: Any = [[B, sp.csr_array(G).T], [sp.csr_array(G), None]]
            A: Any = sp.csr_array(sp.block_array(blocks))
        else:
            A = np.zeros((n + m, n + m))
            A[:n, :n], A[:n, n:], A[n:, :n] = H, G.T, G
            A.flat[: n * (n + m) : n + m + 1] += shift
        b = -np.r_[point.lagrangian(multipliers), point.c]
        return cls(A, b, H, shift, smallest < DEFICIENT, smallest)


class Direction(NamedTuple):
    """z in x and lambda, the merit's slope along it, the weights it descends with, and delta."""

    z: Vector
    slope: float
    weights: Weights
    delta: float
    steepest: bool = False


def downhill(system: NewtonSystem, point: Point, state: ConstrainedState) -> Direction:
    """The merit's steepest descent with the weights of before: always downhill, never fast."""
    weights = Weights(state.eta1, state.eta2)
    gradient = weights.gradient(point, state.multipliers, system.H)
    return Direction(-gradient, -float(gradient @ gradient), weights, state.delta, steepest=True)


class ConstrainedMethod(Method[EqualityConstrained, ConstrainedState]):
    """Base of the area's methods: the books."""

    def _begin(self, problem: EqualityConstrained, seed: int, **values: Any) -> ConstrainedState:
        assert problem.multipliers is not None
        now = problem.at(problem.start)
        metrics = residuals(now, problem.multipliers) | {"value": now.f}
        first = 1.0 + abs(now.f)
        return ConstrainedState(
            x=problem.start, metrics=metrics, calls=1, multipliers=problem.multipliers, seed=seed, first=first,
            now=now, **values,
        )  # fmt: skip

    def _moved(
        self, state: ConstrainedState, ahead: Point, multipliers: Vector,
        calls: int, extra: dict[str, float], **values: Any,
    ) -> ConstrainedState:  # fmt: skip
        metrics = residuals(ahead, multipliers) | {"value": ahead.f} | extra
        status, message = None, ""
        if ahead.f < -BOTTOM * state.first:
            status = Status.DIVERGED
            message = f"f has fallen to {ahead.f:.3g}: it seems to have no minimum on the constraints."
        elif extra.get("length", 1.0) < 1e-6 and (hopeless := _cannot_be_met(ahead)):
            status, message = Status.STALLED, hopeless
        return ConstrainedState(
            x=ahead.x, metrics=metrics, calls=state.calls + calls, status=status, message=message,
            multipliers=multipliers, seed=state.seed, step=state.step + 1, first=state.first, now=ahead, **values,
        )  # fmt: skip

    def _stalled(self, state: ConstrainedState, point: Point, calls: int, **values: Any) -> ConstrainedState:
        """No length is short enough: either done to rounding, or stuck where the constraints cannot be met."""
        message = (
            _cannot_be_met(point) or "No step lowers the merit any more: this is as near as rounding allows."
        )
        return ConstrainedState(
            x=state.x, metrics=dict(state.metrics), calls=state.calls + calls, status=Status.STALLED,
            message=message, multipliers=state.multipliers, seed=state.seed, step=state.step + 1,
            first=state.first, now=point, **values,
        )  # fmt: skip


class MeritNewton(ConstrainedMethod):
    """Newton steps under the exact augmented Lagrangian; how the system is solved is for `_direction` to say."""

    xi: float
    beta: float

    @abstractmethod
    def _direction(
        self, system: NewtonSystem, point: Point, state: ConstrainedState
    ) -> tuple[Direction, float, int]:
        """A direction that descends, the flops and the projections it took."""

    def step(self, problem: EqualityConstrained, state: ConstrainedState) -> ConstrainedState:
        point = problem.at(state.x) if state.now is None else state.now
        system = NewtonSystem.at(problem, point, state.multipliers, self.xi)
        warned = warn_deficient(system, point, state)
        found, flops, projections = self._direction(system, point, state)
        alpha, ahead, calls = self._search(problem, point, state.multipliers, found)
        if ahead is None and not found.steepest:
            found = downhill(system, point, state)
            alpha, ahead, more = self._search(problem, point, state.multipliers, found)
            calls += more
        kept: dict[str, Any] = {"eta1": found.weights.eta1, "eta2": found.weights.eta2, "delta": found.delta}
        kept |= {
            "flops": state.flops + flops,
            "projections": state.projections + projections,
            "warned": warned,
        }
        if ahead is None:
            return self._stalled(state, point, calls, **kept)
        multipliers = state.multipliers + alpha * found.z[problem.n :]
        extra = {"length": alpha, "projections": float(kept["projections"]), "flops": kept["flops"]}
        return self._moved(state, ahead, multipliers, calls, extra, **kept)

    def _search(
        self, problem: EqualityConstrained, point: Point, multipliers: Vector, found: Direction
    ) -> tuple[float, Point | None, int]:
        """Armijo's rule on the merit by halving: the length, the point there (none where it fails), the calls."""
        n, z = problem.n, found.z
        before = found.weights.merit(point, multipliers)
        rounding = 10.0 * np.finfo(float).eps * max(1.0, abs(before))
        alpha, calls = 1.0, 0
        while alpha > 1e-14:
            ahead = problem.at(point.x + alpha * z[:n])
            calls += 1
            after = found.weights.merit(ahead, multipliers + alpha * z[n:])
            if after <= before + alpha * self.beta * found.slope + rounding:
                return alpha, ahead, calls
            alpha *= 0.5
        return 0.0, None, calls


def _cannot_be_met(point: Point) -> str:
    """What to say where |c| has a minimum that is not zero; nothing elsewhere."""
    away, pull = float(np.linalg.norm(point.c)), float(np.linalg.norm(point.G.T @ point.c))
    if away <= 1e-6 or pull > 1e-4 * away:
        return ""
    return (
        f"The constraints cannot be met near here: |c| = {away:.3g} has a minimum (|G'c| = {pull:.3g}). "
        "Check them, or start elsewhere."
    )


def warn_deficient(system: NewtonSystem, point: Point, state: ConstrainedState) -> bool:
    """Tell, once a run, which constraints depend on the others. Returns whether that has been told."""
    if not system.deficient or state.warned:
        return state.warned
    rows = dependent_rows(point.G) if max(point.G.shape) <= DENSE else []
    named = f" (constraints {', '.join(str(i) for i in rows)} follow from the others)" if rows else ""
    warnings.warn(
        f"Step {state.step}: the Jacobian's smallest squared singular value is {system.smallest:.2g}{named}. "
        "Multipliers are not unique here; those of least norm are taken.",
        RankDeficient,
        stacklevel=6,
    )
    return True
