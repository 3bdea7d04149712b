"""Penalty methods for bilevel problems, from gradients only (Kwon, Kwon, Wright and Nowak, 2024; arXiv 2309.01753).

``psi_s(x) = (min_y [s f + g](x, y) - min_z g(x, z)) / s`` is within O(s) of the bilevel objective, in value and
gradient, where the lower level has the small-error proximal error bound; `error_bound` looks whether it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.bilevel.inner import Composite, ProximalGradient
from thalweg.bilevel.problem import (
    Bilevel,
    BilevelMethod,
    BilevelState,
    Decay,
    Rate,
    length,
    rate,
    require_rates,
)
from thalweg.core import InvalidProblem, Status, Stop, solve
from thalweg.core.validation import require


@dataclass(frozen=True)
class Penalty(BilevelMethod):
    """The double-loop penalty method: algorithm 1 of Kwon et al. (2024).

    For lower levels that may be constrained, not strongly convex, with many solutions, and where second derivatives are
    dear. Not where the lower level has a quick exact solver: then differentiate it (`custom_root`).

    Args:
        step_size: alpha_k, of x.
        inner_step_size: gamma_k, of y and z; at most one over the curvature of ``s f + g``.
        penalty: s_k. Its gradient is off by O(s); the noise of stochastic gradients is multiplied by 1/s.
            By default ``max((1 + k/10)^(-1/3), 0.01)``, from the deterministic rate O(eps^-3) with s = O(eps).
        inner_steps: T_k, gradient steps on y and on z each.
        batches: M_k, over how many batches the outer gradient is averaged.
        rho: of the proximal term ``|y - y_k|^2/(2 rho)`` of the inner problems; infinity leaves it out. A finite one
            makes lower levels that are not convex tractable.

    The metrics of a step are ``stationarity``, ``|x_{k+1} - x_k|/alpha``, and ``penalised_gap`` and ``lower_gap``, the
    same of the last inner steps. With exact gradients they are the certificate of `certificate`.

    Cost per step: ``3 (T + M)`` gradients, no second-order products; memory of x and three y.

    >>> y = torch.tensor(0.0, dtype=torch.float64)
    >>> problem = Bilevel(lambda x, y: (y - 1).square() + x * x, lambda x, y: (y - x).square(), y, y)
    >>> found = solve(problem, Penalty(0.2, 0.2, penalty=0.01), stop=Stop(below={"stationarity": 1e-6}))
    >>> round(float(found.x.x), 2)
    0.5
    """

    step_size: Rate = 0.1
    inner_step_size: Rate = 0.1
    penalty: Rate = Decay(1.0, 1.0 / 3.0, 10.0, 0.01)
    inner_steps: int = 10
    batches: int = 1
    rho: float = math.inf

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size", "penalty", "rho")
        require(self.inner_steps >= 1, "Penalty needs inner_steps >= 1", got=self.inner_steps)
        require(self.batches >= 1, "Penalty needs batches >= 1", got=self.batches)

    def begin(self, problem: Bilevel, state: BilevelState) -> dict[str, Any]:
        return {"z": state.at_y}

    def step(self, problem: Bilevel, state: BilevelState) -> BilevelState:
        k, random = state.step, state.stream()
        alpha, gamma, s = (rate(r, k) for r in (self.step_size, self.inner_step_size, self.penalty))
        x, y, z = state.at_x, state.at_y, state.extra["z"]
        y_k, z_k = y, z
        for _ in range(self.inner_steps):
            upper, lower = problem.batch("upper", random), problem.batch("lower", random)
            (f_y,) = problem.gradients("upper", x, y, upper, "y")
            (g_y,) = problem.gradients("lower", x, y, lower, "y")
            (g_z,) = problem.gradients("lower", x, z, lower, "y")
            new_y = problem.project("y", y - gamma * (s * f_y + g_y + (y - y_k) / self.rho))
            new_z = problem.project("y", z - gamma * (g_z + (z - z_k) / self.rho))
            gaps = {"penalised_gap": length(new_y - y) / gamma, "lower_gap": length(new_z - z) / gamma}
            y, z = new_y, new_z
        total = torch.zeros_like(x)
        for _ in range(self.batches):
            total = total + _outer(problem, x, y, z, s, random)
        new_x = problem.project("x", x - alpha * total / self.batches)
        return self.moved(
            problem,
            state,
            new_x,
            y,
            calls=3 * (self.inner_steps + self.batches),
            metrics={"stationarity": length(new_x - x) / alpha, **gaps},
            extra={"z": z},
        )


@dataclass(frozen=True)
class MomentumPenalty(BilevelMethod):
    """The single-loop penalty method with recursive momentum: algorithm 2 of Kwon et al. (2024).

    For stochastic gradients: one inner step and one batch a step. Every gradient G has an estimate
    ``d_k = G(w_k; xi_k) + (1 - eta_k) (d_{k-1} - G(w_{k-1}; xi_k))``, the batch the same at both places.

    Args:
        step_size, inner_step_size, penalty: as for `Penalty`. By default they fall as ``k^-2/5, k^-2/5, k^-1/5``, and
            eta as ``k^-4/5``: then s = eps and the momentum's error, ``eta / s^2``, is eps^2 after eps^-5 steps.
        momentum: eta_k in (0, 1]; with 1 it is the plain single-loop method.

    Cost per step: 12 gradients, 6 with ``momentum=1``.

    >>> x = torch.tensor(0.0, dtype=torch.float64)
    >>> problem = Bilevel(lambda x, y: (y - 1).square() + x * x, lambda x, y: (y - x).square(), x, x)
    >>> method = MomentumPenalty(0.1, 0.2, penalty=0.02, momentum=0.5)
    >>> round(float(solve(problem, method, stop=Stop(steps=500)).x.x), 2)
    0.5
    """

    step_size: Rate = Decay(0.1, 0.4, 10.0)
    inner_step_size: Rate = Decay(0.1, 0.4, 10.0)
    penalty: Rate = Decay(1.0, 0.2, 10.0)
    momentum: Rate = Decay(1.0, 0.8, 10.0)

    def __post_init__(self) -> None:
        require_rates(self, "step_size", "inner_step_size", "penalty", "momentum")
        first = rate(self.momentum, 0)
        require(first <= 1.0, "MomentumPenalty needs momentum <= 1", got=first)

    def begin(self, problem: Bilevel, state: BilevelState) -> dict[str, Any]:
        return {"z": state.at_y, "inner": None, "outer": None}

    def step(self, problem: Bilevel, state: BilevelState) -> BilevelState:
        k, random = state.step, state.stream()
        alpha, gamma, s = (rate(r, k) for r in (self.step_size, self.inner_step_size, self.penalty))
        eta = rate(self.momentum, k)
        x, y, z = state.at_x, state.at_y, state.extra["z"]
        inner = _recursive(problem, (x, y, z), "y", state.extra["inner"], eta, random)
        f_y, g_y, g_z = inner["estimates"]
        new_y = problem.project("y", y - gamma * (s * f_y + g_y))
        new_z = problem.project("y", z - gamma * g_z)
        outer = _recursive(problem, (x, new_y, new_z), "x", state.extra["outer"], eta, random)
        f_x, g_x, g_x_low = outer["estimates"]
        new_x = problem.project("x", x - alpha * (f_x + (g_x - g_x_low) / s))
        return self.moved(
            problem,
            state,
            new_x,
            new_y,
            calls=inner.pop("calls") + outer.pop("calls"),
            metrics={
                "stationarity": length(new_x - x) / alpha,
                "penalised_gap": length(new_y - y) / gamma,
                "lower_gap": length(new_z - z) / gamma,
            },
            extra={"z": new_z, "inner": inner, "outer": outer},
        )


def _recursive(
    problem: Bilevel,
    at: tuple[Tensor, Tensor, Tensor],
    wrt: str,
    before: dict[str, Any] | None,
    eta: float,
    random: torch.Generator,
) -> dict[str, Any]:
    """Estimates of f's gradient at (x, y), g's at (x, y) and g's at (x, z)."""
    upper, lower = problem.batch("upper", random), problem.batch("lower", random)

    def gradients(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
        return [
            problem.gradients("upper", x, y, upper, wrt)[0],
            problem.gradients("lower", x, y, lower, wrt)[0],
            problem.gradients("lower", x, z, lower, wrt)[0],
        ]

    found, calls = gradients(*at), 3
    if before is not None and eta < 1.0:
        old = gradients(*before["at"])
        calls += 3
        found = [g + (1.0 - eta) * (d - o) for g, d, o in zip(found, before["estimates"], old, strict=True)]
    return {"estimates": found, "at": at, "calls": calls}


def _outer(
    problem: Bilevel, x: Tensor, y: Tensor, z: Tensor, s: float, random: torch.Generator | None
) -> Tensor:
    """``grad_x f(x, y) + (grad_x g(x, y) - grad_x g(x, z)) / s``."""
    upper, lower = problem.batch("upper", random), problem.batch("lower", random)
    (f_x,) = problem.gradients("upper", x, y, upper, "x")
    (g_x,) = problem.gradients("lower", x, y, lower, "x")
    (g_x_low,) = problem.gradients("lower", x, z, lower, "x")
    return f_x + (g_x - g_x_low) / s


@dataclass(frozen=True)
class Certificate:
    """How far from stationary a point of the penalised problem is; all zero at a solution.

    Args:
        stationarity: ``|x - P_X(x - a grad psi_s)| / a``.
        penalised_gap: the same of ``s f + g`` in y.
        lower_gap: the same of g in z.
    """

    stationarity: float
    penalised_gap: float
    lower_gap: float


def certificate(
    problem: Bilevel, x: Tensor, y: Tensor, z: Tensor, penalty: float, step: float = 1e-3
) -> Certificate:
    """The certificate of three vectors, on all the data, with steps of ``step``. Cost: six gradients."""
    require(penalty > 0, "certificate needs penalty > 0", got=penalty)
    upper, lower = problem.batch("upper", None), problem.batch("lower", None)
    (f_y,) = problem.gradients("upper", x, y, upper, "y")
    (g_y,) = problem.gradients("lower", x, y, lower, "y")
    (g_z,) = problem.gradients("lower", x, z, lower, "y")

    def gap(name: Any, at: Tensor, slope: Tensor) -> float:
        return length(problem.project(name, at - step * slope) - at) / step

    return Certificate(
        gap("x", x, _outer(problem, x, y, z, penalty, None)),
        gap("y", y, penalty * f_y + g_y),
        gap("y", z, g_z),
    )


@dataclass(frozen=True)
class PenaltyValue:
    """``psi_s`` at x: its value and gradient, and the solutions of ``s f + g`` and of g that they are made of."""

    value: float
    gradient: Tensor
    y: Tensor
    z: Tensor


def penalty_value(
    problem: Bilevel, x: Tensor, penalty: float, y: Tensor | None = None, stop: Stop | None = None
) -> PenaltyValue:
    """``psi_s`` and its gradient, by solving both inner problems accurately with FISTA on all the data.

    Args:
        x: a vector.
        y: where the inner solvers start; by default the problem's y.
        stop: of the inner solvers; by default at a residual of 1e-10, or after 20 000 steps.

    Raises:
        InvalidProblem: an inner problem has no minimum that the solver could find.
    """
    require(penalty > 0, "penalty_value needs penalty > 0", got=penalty)
    start = problem.start("y") if y is None else y
    y_s = inner_solution(problem, x, penalty, start, stop)
    z = inner_solution(problem, x, 0.0, start, stop)
    lower = problem.batch("lower", None)
    with torch.no_grad():
        f = problem.value("upper", x, y_s, problem.batch("upper", None))
        rise = problem.value("lower", x, y_s, lower) - problem.value("lower", x, z, lower)
    gradient = _outer(problem, x, y_s, z, penalty, None)
    return PenaltyValue(float(f + rise / penalty), gradient, y_s, z)


def inner_solution(
    problem: Bilevel, x: Tensor, penalty: float, start: Tensor, stop: Stop | None = None
) -> Tensor:
    """The minimiser of ``penalty f + g`` at x, accurately, from a starting point."""
    upper, lower = problem.batch("upper", None), problem.batch("lower", None)

    def f(y: Tensor, _: Any) -> Tensor:
        value = problem.value("lower", x, y, lower)
        return value + penalty * problem.value("upper", x, y, upper) if penalty else value

    inner = Composite(f, start, prox=lambda y, _, scale: problem.project("y", y))
    found = solve(
        inner,
        ProximalGradient(),
        stop=stop if stop is not None else Stop(below={"residual": 1e-10}, steps=20_000),
        progress=False,
    )
    if found.status is Status.DIVERGED or not bool(torch.isfinite(found.x).all()):
        raise InvalidProblem("The lower level is unbounded below: its minimisation diverged.")
    return torch.as_tensor(found.x)
