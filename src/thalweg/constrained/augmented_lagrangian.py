"""The method of multipliers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from thalweg.constrained._arrays import DENSE, Matrix, Vector, adjoint, dense, product
from thalweg.constrained._state import ConstrainedMethod, ConstrainedState
from thalweg.constrained.problem import EqualityConstrained
from thalweg.core.validation import require

#: The penalty grows no further: beyond, rounding in |c|^2 is all that is seen.
MOST = 1e10


@dataclass(kw_only=True)
class MultiplierState(ConstrainedState):
    """As `ConstrainedState`, with the penalty."""

    mu: float  # of L + mu/2 |c|^2


@dataclass(frozen=True)
class AugmentedLagrangian(ConstrainedMethod[MultiplierState]):
    """The method of multipliers (Hestenes, 1969; Powell, 1969): each step minimises ``L + mu/2 |c|^2`` in x by trust
    regions.

    Where ``|c|`` has not fallen to a quarter, mu grows tenfold; the inner accuracy follows ``|c|``.

    Args:
        mu: where the penalty starts.

    Raises:
        InvalidParameter: a penalty that is not positive.

    >>> from thalweg import Stop, solve
    >>> from thalweg.constrained import EqualityConstrained
    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> solve(circle, AugmentedLagrangian(), stop=Stop(below={"kkt": 1e-6})).x.round(4)
    array([-1., -1.])
    """

    mu: float = 10.0

    def __post_init__(self) -> None:
        require(0 < self.mu < math.inf, "AugmentedLagrangian needs mu > 0", got=self.mu)

    def init(self, problem: EqualityConstrained, seed: int) -> MultiplierState:
        return MultiplierState(**vars(self._begin(problem, seed)), mu=self.mu)

    def step(self, problem: EqualityConstrained, state: MultiplierState) -> MultiplierState:
        lam, mu, calls = state.multipliers, state.mu, 0

        def value(x: Vector) -> tuple[float, Vector]:
            nonlocal calls
            calls += 1
            p = problem.at(x)
            f = p.f + float(lam @ p.c) + 0.5 * mu * float(p.c @ p.c)
            return (f, p.lagrangian(lam + mu * p.c)) if p.finite else (math.inf, np.zeros_like(x))

        def curved(x: Vector) -> Matrix:
            return problem.hessian(x, lam + mu * np.asarray(problem.constraints(x), dtype=np.float64))

        def hessian(x: Vector) -> Vector:
            G = dense(problem.jacobian(x))
            return dense(curved(x)) + mu * (G.T @ G)

        def along(x: Vector, v: Vector) -> Vector:
            G = problem.jacobian(x)
            return product(curved(x), v) + mu * adjoint(G, product(G, v))

        before = state.metrics["feasibility"]
        tol, most = max(min(0.1, 0.1 * before), 1e-10), 200
        if problem.n <= DENSE:
            found = minimize(
                value,
                state.x,
                jac=True,
                hess=hessian,
                method="trust-exact",
                options={"gtol": tol, "maxiter": most},
            )
        else:
            found = minimize(
                value,
                state.x,
                jac=True,
                hessp=along,
                method="trust-krylov",
                options={"gtol": tol, "maxiter": most},
            )
        ahead = problem.at(np.asarray(found.x, dtype=np.float64))
        multipliers = lam + mu * ahead.c
        if float(np.linalg.norm(ahead.c)) > 0.25 * before:
            mu *= 10.0
        return self._moved(replace(state, mu=min(mu, MOST)), ahead, multipliers, calls + 1, {})
