"""The exact augmented Lagrangian, and Newton steps that have to lower it."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from thalweg.constrained._arrays import Matrix, Vector, adjoint, product
from thalweg.constrained._newton import NewtonSystem, warn_deficient
from thalweg.constrained._state import ConstrainedMethod, ConstrainedState
from thalweg.constrained._verdicts import contradiction
from thalweg.constrained.problem import EqualityConstrained, Point
from thalweg.core.validation import is_real, require

#: Most changes of weights in one step; with nu above 1.1 the weights' own bounds come first.
ADJUSTMENTS = 200


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

    def gradient(self, point: Point, multipliers: Vector, H: Matrix) -> Vector:
        """In x and lambda; H is the Hessian of the Lagrangian, not modified."""
        slope, c, G = point.lagrangian(multipliers), point.c, point.G
        of_x = slope + self.eta2 * product(H, slope) + self.eta1 * adjoint(G, c)
        return np.r_[of_x, c + self.eta2 * product(G, slope)]


@dataclass(kw_only=True)
class MeritState(ConstrainedState):
    """As `ConstrainedState`, with the merit's weights."""

    eta1: float
    eta2: float
    flops: float = 0.0  # of the linear systems so far

    @property
    def weights(self) -> Weights:
        """Of the merit."""
        return Weights(self.eta1, self.eta2)

    def spent(self) -> dict[str, float]:
        """What the steps so far have cost, for the metrics."""
        return {"flops": self.flops}


class Direction(NamedTuple):
    """z in x and lambda, the merit's slope along it, and the weights that it descends with."""

    z: Vector  # (n + m,)
    slope: float
    weights: Weights
    steepest: bool = False


def downhill(system: NewtonSystem, point: Point, state: MeritState) -> Direction:
    """The merit's steepest descent with the weights of before: always downhill, never fast."""
    gradient = state.weights.gradient(point, state.multipliers, system.H)
    return Direction(-gradient, -float(gradient @ gradient), state.weights, steepest=True)


S = TypeVar("S", bound=MeritState)


class MeritNewton(ConstrainedMethod[S]):
    """Newton steps under the exact augmented Lagrangian; how the system is solved is for `_direction` to say."""

    xi: float
    beta: float

    @abstractmethod
    def _direction(self, system: NewtonSystem, point: Point, state: S) -> tuple[Direction, S]:
        """A direction that descends, and the state with what it has cost."""

    def step(self, problem: EqualityConstrained, state: S) -> S:
        point = state.point(problem)
        system = NewtonSystem.at(problem, point, state.multipliers, self.xi)
        warned = warn_deficient(system, point, state)
        if system.deficient:
            nearest, why = contradiction(problem, point)
            if why:
                return self._stalled(problem, replace(state, warned=warned), nearest, 1, why)
        found, after = self._direction(system, point, state)
        alpha, ahead, calls = self._search(problem, point, state.multipliers, found)
        if ahead is None and not found.steepest:
            found = downhill(system, point, state)
            alpha, ahead, more = self._search(problem, point, state.multipliers, found)
            calls += more
        after = replace(after, eta1=found.weights.eta1, eta2=found.weights.eta2, warned=warned)
        if ahead is None:
            return self._stalled(problem, after, point, calls)
        if system.shift > 0.0:
            calls += self._looked_ahead(problem, after, ahead)
        multipliers = state.multipliers + alpha * found.z[problem.n :]
        return self._moved(problem, after, ahead, multipliers, calls, {"length": alpha} | after.spent())

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


def check_merit(name: str, *, eta1: float, eta2: float, xi: float, beta: float, nu: float) -> None:
    """Refuse constants with which steps would not descend, or a step would not end."""
    for what, value in {"eta1": eta1, "eta2": eta2, "xi": xi}.items():
        require(is_real(value) and 0 < value < math.inf, f"{name} needs {what} > 0", got=value)
    require(is_real(beta) and 0 < beta < 0.5, f"{name} needs 0 < beta < 1/2", got=beta)
    require(is_real(nu) and 1 < nu < math.inf, f"{name} needs nu > 1", got=nu)
