"""The method of multipliers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from thalweg.constrained._arrays import DENSE, Vector, adjoint, dense, product
from thalweg.constrained._state import BOTTOM, ConstrainedMethod, ConstrainedState, unbounded
from thalweg.constrained._verdicts import MET, lowest_seen
from thalweg.constrained.problem import EqualityConstrained
from thalweg.core.validation import is_real, require

#: The penalty grows no further: beyond, rounding in |c|^2 is all that is seen.
MOST = 1e10
#: Curvature of a function that falls out of the range of numbers.
BEYOND = 1e100


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
        mu: where the penalty starts; it grows to 1e10 at most.

    Raises:
        InvalidParameter: a penalty that is not in (0, 1e10].

    >>> from thalweg import Stop, solve
    >>> from thalweg.constrained import EqualityConstrained
    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> solve(circle, AugmentedLagrangian(), stop=Stop(below={"kkt": 1e-6})).x.round(4)
    array([-1., -1.])
    """

    mu: float = 10.0

    def __post_init__(self) -> None:
        fits = is_real(self.mu) and 0 < self.mu <= MOST
        require(fits, f"AugmentedLagrangian needs 0 < mu <= {MOST:g}", got=self.mu)

    def init(self, problem: EqualityConstrained, seed: int) -> MultiplierState:
        return MultiplierState(**vars(self._begin(problem, seed)), mu=self.mu)

    def step(self, problem: EqualityConstrained, state: MultiplierState) -> MultiplierState:
        found, calls = self._minimised(problem, state)
        ahead = problem.at(found)
        low = not ahead.f >= -BOTTOM * state.scale
        if not ahead.finite or (low and float(np.linalg.norm(ahead.c)) > MET):
            return self._tightened(problem, state, found, calls + 1)  # L falls, which tells nothing of f
        multipliers, mu = state.multipliers + state.mu * ahead.c, state.mu
        if float(np.linalg.norm(ahead.c)) > 0.25 * state.metrics["feasibility"]:
            mu *= 10.0
        calls += 1 + self._looked_ahead(problem, state, ahead)
        return self._moved(problem, replace(state, mu=min(mu, MOST)), ahead, multipliers, calls, {})

    def _minimised(self, problem: EqualityConstrained, state: MultiplierState) -> tuple[Vector, int]:
        """Where trust regions on the augmented Lagrangian end, and the calls."""
        lam, mu, calls, last = state.multipliers, state.mu, 0, state.x

        def value(x: Vector) -> tuple[float, Vector]:
            nonlocal calls
            calls += 1
            p = problem.at(x)
            f = p.f + float(lam @ p.c) + 0.5 * mu * float(p.c @ p.c)
            return (f, p.lagrangian(lam + mu * p.c)) if p.finite else (math.inf, np.zeros_like(x))

        def hessian(x: Vector) -> Vector:
            p = problem.at(x)
            G = dense(p.G)
            return dense(problem.curvature(x, lam + mu * p.c)) + mu * (G.T @ G)

        def along(x: Vector, v: Vector) -> Vector:
            p = problem.at(x)
            return product(problem.curvature(x, lam + mu * p.c), v) + mu * adjoint(p.G, product(p.G, v))

        def accepted(x: Vector) -> None:
            nonlocal last
            last = np.array(x, dtype=np.float64)

        curved = {"hess": hessian} if problem.n <= DENSE else {"hessp": along}
        options = {"gtol": max(min(0.1, 0.1 * state.metrics["feasibility"]), 1e-10), "maxiter": 200}
        method = "trust-exact" if problem.n <= DENSE else "trust-krylov"
        try:
            with np.errstate(all="ignore"):
                minimize(  # type: ignore[call-overload]
                    value, state.x, jac=True, method=method, options=options, callback=accepted, **curved
                )
        except (ValueError, np.linalg.LinAlgError):
            # SciPy's subproblem overflows where f does; anything else is an error of the functions given.
            if problem.at(last).finite and np.abs(dense(problem.curvature(last, lam))).max() < BEYOND:
                raise
        return last, calls

    def _tightened(
        self, problem: EqualityConstrained, state: MultiplierState, far: Vector, calls: int
    ) -> MultiplierState:
        """The state with a larger penalty, where the Lagrangian fell without end; `Unbounded` where f does."""
        point = state.point(problem)
        lowest, more = lowest_seen(
            problem, point, (far - state.x) / max(float(np.linalg.norm(far - state.x)), 1e-300)
        )
        if lowest is not None:
            raise unbounded(problem.unit * lowest)
        if state.mu >= MOST:
            return self._stalled(problem, state, point, calls + more)
        return self._moved(
            problem, replace(state, mu=min(10.0 * state.mu, MOST)), point, state.multipliers, calls + more, {}
        )
