"""What sketched Newton is measured against: direct and Krylov Newton steps, and the method of multipliers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray
from scipy.optimize import minimize

from thalweg.constrained._merit import (
    ConstrainedMethod,
    ConstrainedState,
    Direction,
    MeritNewton,
    NewtonSystem,
    Weights,
    downhill,
    warn_deficient,
)
from thalweg.constrained.problem import DENSE, EqualityConstrained, Point
from thalweg.core.validation import require
from thalweg.numerics.krylov import gmres, minres
from thalweg.numerics.operators import factor_flops, is_sparse

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class NewtonSQP(MeritNewton):
    """`SketchedNewton` with its systems solved to the end, by a dense or sparse factorization.

    The first choice for small problems, and where a sparse factorization is cheap. Arguments as there.

    >>> from thalweg import Stop, solve
    >>> from thalweg.constrained import EqualityConstrained
    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> solve(circle, NewtonSQP(), stop=Stop(below={"kkt": 1e-10})).x.round(6)
    array([-1., -1.])
    """

    eta1: float = 1.0
    eta2: float = 0.1
    xi: float = 0.1
    beta: float = 0.1
    nu: float = 1.5

    def init(self, problem: EqualityConstrained, seed: int) -> ConstrainedState:
        return self._begin(problem, seed, eta1=self.eta1, eta2=self.eta2)

    def _direction(
        self, system: NewtonSystem, point: Point, state: ConstrainedState
    ) -> tuple[Direction, float, int]:
        size = float(system.b @ system.b)
        z, flops = _direct(system.A, system.b)
        weights = Weights(state.eta1, state.eta2)
        while True:
            slope = float(weights.gradient(point, state.multipliers, system.H) @ z)
            spent = weights.eta1 > 1e8 or weights.eta2 < 1e-8
            if slope <= -0.5 * weights.eta2 * size or (spent and slope < 0.0):
                return Direction(z, slope, weights, state.delta), flops, 0
            if spent:
                return downhill(system, point, state), flops, 0
            weights = Weights(weights.eta1 * self.nu**2, weights.eta2 / self.nu)


@dataclass(frozen=True)
class InexactSQP(ConstrainedMethod):
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

    def init(self, problem: EqualityConstrained, seed: int) -> ConstrainedState:
        return self._begin(problem, seed, eta1=self.mu, delta=self.kappa)

    def step(self, problem: EqualityConstrained, state: ConstrainedState) -> ConstrainedState:
        point = problem.at(state.x) if state.now is None else state.now
        system = NewtonSystem.at(problem, point, state.multipliers, self.xi)
        warned = warn_deficient(system, point, state)
        mu, kappa, n, flops = state.eta1, state.delta, problem.n, 0.0
        away = float(np.abs(point.c).sum())
        while True:
            z, spent = self._solve(system, kappa)
            flops += spent
            d = z[:n]
            left = float(np.abs(point.G @ d + point.c).sum())
            pull, bend = float(point.g @ d), max(0.5 * float(d @ (system.A[:n, :n] @ d)), 0.0)
            if -pull - bend + mu * (away - left) >= 0.09 * mu * max(away, left - away) or mu > 1e8:
                break
            if self.adaptive or left >= away:
                mu, kappa = mu * self.nu, kappa / self.nu**2
            else:
                mu = max(mu, (pull + bend) / (0.9 * (away - left)) + 1e-4)
                break
        slope = pull - mu * (away - left)
        before, alpha, calls, ahead = point.f + mu * away, 1.0, 0, None
        while ahead is None and alpha > 1e-14:
            there = problem.at(point.x + alpha * d)
            calls += 1
            allowed = before + alpha * self.eta * slope + 10.0 * np.finfo(float).eps * max(1.0, abs(before))
            if there.finite and there.f + mu * float(np.abs(there.c).sum()) <= allowed:
                ahead = there
            else:
                alpha *= 0.5
        kept: dict[str, Any] = {"eta1": mu, "delta": kappa, "flops": state.flops + flops, "warned": warned}
        if ahead is None:
            return self._stalled(state, point, calls, **kept)
        extra = {"length": alpha, "flops": kept["flops"]}
        return self._moved(state, ahead, state.multipliers + alpha * z[n:], calls, extra, **kept)

    def _solve(self, system: NewtonSystem, kappa: float) -> tuple[Vector, float]:
        """z with ``|A z - b|_1 <= kappa |b|_1``, and the flops: products, and GMRES's orthogonalization."""
        A, b = system.A, system.b
        size = len(b)
        rtol = kappa * float(np.abs(b).sum()) / (math.sqrt(size) * float(np.linalg.norm(b)))
        stored = A.nnz if is_sparse(A) else A.size
        if self.solver == "minres":
            found = minres(A, b, rtol=rtol, maxiter=5 * size)
            return found.x, found.iterations * (2.0 * stored + 20.0 * size)
        restart = min(size, 50)
        found = gmres(A, b, rtol=min(rtol, 0.99), restart=restart, maxiter=max(1, 1000 // restart))
        whole, rest = divmod(found.iterations, restart)
        vectors = whole * restart**2 + rest**2
        return found.x, 2.0 * stored * found.iterations + 2.0 * size * vectors


@dataclass(frozen=True)
class AugmentedLagrangian(ConstrainedMethod):
    """The method of multipliers (Hestenes, 1969; Powell, 1969): each step minimises ``L + mu/2 |c|^2`` in x by trust
    regions.

    Where ``|c|`` has not fallen to a quarter, mu grows tenfold; the inner accuracy follows ``|c|``.

    Args:
        mu: where the penalty starts.

    >>> from thalweg import Stop, solve
    >>> from thalweg.constrained import EqualityConstrained
    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> solve(circle, AugmentedLagrangian(), stop=Stop(below={"kkt": 1e-6})).x.round(4)
    array([-1., -1.])
    """

    mu: float = 10.0

    def init(self, problem: EqualityConstrained, seed: int) -> ConstrainedState:
        return self._begin(problem, seed, eta1=self.mu)

    def step(self, problem: EqualityConstrained, state: ConstrainedState) -> ConstrainedState:
        lam, mu, calls = state.multipliers, state.eta1, 0

        def value(x: Vector) -> tuple[float, Vector]:
            nonlocal calls
            calls += 1
            p = problem.at(x)
            f = p.f + float(lam @ p.c) + 0.5 * mu * float(p.c @ p.c)
            return (f, p.lagrangian(lam + mu * p.c)) if p.finite else (math.inf, np.zeros_like(x))

        def hessian(x: Vector) -> Any:
            G = problem.jacobian(x)
            return problem.hessian(x, lam + mu * np.asarray(problem.constraints(x))) + mu * (G.T @ G)

        before = state.metrics["feasibility"]
        accuracy = max(min(0.1, 0.1 * before), 1e-10)
        dense = problem.n <= DENSE
        curved: dict[str, Any] = {"hess": hessian} if dense else {"hessp": lambda x, v: hessian(x) @ v}
        found = minimize(
            value, state.x, jac=True, method="trust-exact" if dense else "trust-krylov",
            options={"gtol": accuracy, "maxiter": 200}, **curved,
        )  # fmt: skip
        ahead: Point = problem.at(np.asarray(found.x, dtype=np.float64))
        multipliers = lam + mu * ahead.c
        if float(np.linalg.norm(ahead.c)) > 0.25 * before:
            mu *= 10.0
        return self._moved(state, ahead, multipliers, calls + 1, {}, eta1=min(mu, 1e10))


def _direct(A: Any, b: Vector) -> tuple[Vector, float]:
    """The solution, of least norm where A is singular, and the flops."""
    if is_sparse(A):
        factor = spla.splu(sp.csc_array(A))
        return factor.solve(b), factor_flops(factor) + 2.0 * (factor.L.nnz + factor.U.nnz)
    try:
        z = np.linalg.solve(A, b)
        if np.isfinite(z).all() and np.linalg.norm(A @ z - b) <= 1e-6 * np.linalg.norm(b):
            return z, 2.0 * len(b) ** 3 / 3.0
    except np.linalg.LinAlgError:
        pass
    return np.asarray(np.linalg.lstsq(A, b)[0], dtype=np.float64), 4.0 * len(b) ** 3
