"""Sequential quadratic programming with Krylov steps under an exact penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.sparse as sp

from thalweg.constrained._arrays import Matrix, Vector, product
from thalweg.constrained._merit import ADJUSTMENTS
from thalweg.constrained._newton import NewtonSystem, warn_deficient
from thalweg.constrained._state import ConstrainedMethod, ConstrainedState
from thalweg.constrained._verdicts import contradiction
from thalweg.constrained.problem import EqualityConstrained, Point
from thalweg.core.validation import is_real, require
from thalweg.numerics.krylov import gmres, minres


@dataclass(kw_only=True)
class PenaltyState(ConstrainedState):
    """As `ConstrainedState`, with the penalty and the accuracy asked of the solver."""

    mu: float  # of the merit f + mu |c|_1
    kappa: float  # largest residual of a system over |b|, in the 1-norm
    flops: float = 0.0  # of the linear systems so far


@dataclass(frozen=True)
class _Step:
    """A step of the model: z in x and lambda, the merit's slope along it, and what it was found with."""

    z: Vector
    slope: float
    mu: float
    kappa: float
    flops: float


@dataclass(frozen=True)
class InexactSQP(ConstrainedMethod[PenaltyState]):
    """SQP with GMRES or MINRES steps and the merit ``f + mu |c|_1`` (Byrd, Curtis and Nocedal, 2008).

    A step is accepted when the merit's model falls enough. Where it does not, ``adaptive`` raises mu and asks the
    solver for more accuracy until it does; otherwise the accuracy stays and mu is set to what the model asks for.

    Args:
        solver: ``"gmres"`` or ``"minres"``.
        adaptive: as above.
        mu: where the penalty starts.
        kappa: largest residual over ``|b|``, in the 1-norm.
        eta: Armijo's share.
        xi: lifts a Hessian without curvature along the constraints.
        nu: by what mu grows, and kappa falls by its square.

    Raises:
        InvalidParameter: a parameter outside its range.

    >>> from thalweg import Stop, solve
    >>> from thalweg.constrained import EqualityConstrained
    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> solve(circle, InexactSQP(), stop=Stop(below={"kkt": 1e-6})).x.round(4)
    array([-1., -1.])
    """

    solver: Literal["gmres", "minres"] = "gmres"
    adaptive: bool = True
    mu: float = 1.0
    kappa: float = 0.1
    eta: float = 1e-8
    xi: float = 0.1
    nu: float = 1.5

    def __post_init__(self) -> None:
        require(self.solver in ("gmres", "minres"), "InexactSQP.solver is gmres or minres", got=self.solver)
        for name, value in {"mu": self.mu, "xi": self.xi}.items():
            require(is_real(value) and 0 < value < math.inf, f"InexactSQP needs {name} > 0", got=value)
        for name, value in {"kappa": self.kappa, "eta": self.eta}.items():
            require(is_real(value) and 0 < value < 1, f"InexactSQP needs 0 < {name} < 1", got=value)
        require(is_real(self.nu) and 1 < self.nu < math.inf, "InexactSQP needs nu > 1", got=self.nu)

    def init(self, problem: EqualityConstrained, seed: int) -> PenaltyState:
        return PenaltyState(**vars(self._begin(problem, seed)), mu=self.mu, kappa=self.kappa)

    def step(self, problem: EqualityConstrained, state: PenaltyState) -> PenaltyState:
        point = state.point(problem)
        system = NewtonSystem.at(problem, point, state.multipliers, self.xi)
        warned = warn_deficient(system, point, state)
        if system.deficient:
            nearest, why = contradiction(problem, point)
            if why:
                return self._stalled(problem, replace(state, warned=warned), nearest, 1, why)
        found = self._model_step(problem.n, system, point, state)
        alpha, ahead, calls = self._search(problem, point, found)
        flops = state.flops + found.flops
        after = replace(state, mu=found.mu, kappa=found.kappa, flops=flops, warned=warned)
        if ahead is None:
            return self._stalled(problem, after, point, calls)
        if system.shift > 0.0:
            calls += self._looked_ahead(problem, after, ahead)
        multipliers = state.multipliers + alpha * found.z[problem.n :]
        return self._moved(problem, after, ahead, multipliers, calls, {"length": alpha, "flops": flops})

    def _model_step(self, n: int, system: NewtonSystem, point: Point, state: PenaltyState) -> _Step:
        """A step that lowers the merit's model enough, with the penalty and the accuracy that make it do so."""
        mu, kappa, flops = state.mu, state.kappa, 0.0
        away = float(np.abs(point.c).sum())
        for _ in range(ADJUSTMENTS):
            z, spent = self._solve(system, kappa)
            flops += spent
            d = z[:n]
            left = float(np.abs(product(point.G, d) + point.c).sum())
            pull, bend = float(point.g @ d), max(0.5 * _curvature(system, d), 0.0)
            if -pull - bend + mu * (away - left) >= 0.09 * mu * max(away, left - away) or mu > 1e8:
                break
            if self.adaptive or left >= away:
                mu, kappa = mu * self.nu, kappa / self.nu**2
            else:
                mu = max(mu, (pull + bend) / (0.9 * (away - left)) + 1e-4)
                break
        return _Step(z, pull - mu * (away - left), mu, kappa, flops)

    def _search(
        self, problem: EqualityConstrained, point: Point, found: _Step
    ) -> tuple[float, Point | None, int]:
        """Armijo's rule on the merit by halving: the length, the point there (none where it fails), the calls."""
        mu, d = found.mu, found.z[: problem.n]
        before = point.f + mu * float(np.abs(point.c).sum())
        rounding = 10.0 * np.finfo(float).eps * max(1.0, abs(before))
        alpha, calls = 1.0, 0
        while alpha > 1e-14:
            ahead = problem.at(point.x + alpha * d)
            calls += 1
            allowed = before + alpha * self.eta * found.slope + rounding
            if ahead.finite and ahead.f + mu * float(np.abs(ahead.c).sum()) <= allowed:
                return alpha, ahead, calls
            alpha *= 0.5
        return 0.0, None, calls

    def _solve(self, system: NewtonSystem, kappa: float) -> tuple[Vector, float]:
        """z with ``|A z - b|_1 <= kappa |b|_1``, and the flops: products, and GMRES's orthogonalization."""
        A, b = system.A, system.b
        size = len(b)
        rtol = kappa * float(np.abs(b).sum()) / (math.sqrt(size) * float(np.linalg.norm(b)))
        stored = _stored(A)
        if self.solver == "minres":
            found = minres(A, b, rtol=rtol, maxiter=5 * size)
            return found.x, found.iterations * (2.0 * stored + 20.0 * size)
        restart = min(size, 50)
        found = gmres(A, b, rtol=min(rtol, 0.99), restart=restart, maxiter=max(1, 1000 // restart))
        whole, rest = divmod(found.iterations, restart)
        vectors = whole * restart**2 + rest**2
        return found.x, 2.0 * stored * found.iterations + 2.0 * size * vectors


def _curvature(system: NewtonSystem, d: Vector) -> float:
    """``d'B d``."""
    return float(d @ product(system.H, d)) + system.shift * float(d @ d)


def _stored(A: Matrix) -> int:
    """Entries that a product reads."""
    return A.nnz if isinstance(A, sp.csr_array) else A.size
