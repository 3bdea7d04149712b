"""Penalty methods for bilevel problems, from gradients only (Kwon, Kwon, Wright and Nowak, 2024; arXiv 2309.01753).

``psi_s(x) = (min_y [s f + g](x, y) - min_z g(x, z)) / s`` is within O(s) of the bilevel objective, in value and
gradient, where the lower level has the small-error proximal error bound; `lower_error_bound` looks whether it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from thalweg.bilevel.method import BilevelMethod, BilevelState, begun, length
from thalweg.bilevel.penalty_value import outer_gradient
from thalweg.bilevel.problem import Bilevel
from thalweg.bilevel.rates import Decay, Rate, rate, require_rates
from thalweg.core.validation import require, require_counts, require_positive


@dataclass(kw_only=True)
class PenaltyState(BilevelState):
    """As `BilevelState`, y near the solutions of ``s f + g``, with a point near those of g."""

    z: Tensor  # (size of y,)


@dataclass(frozen=True)
class Penalty(BilevelMethod[PenaltyState]):
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
    same of the last inner steps. With exact gradients they are the certificate of `penalty_certificate`.

    Cost per step: ``3 (T + M)`` gradients, no second-order products; memory of x and three y.

    >>> import torch
    >>> from thalweg.bilevel import Bilevel, Penalty
    >>> from thalweg import Stop, solve
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
        require_rates(self, "step_size", "inner_step_size", "penalty")
        require_positive(self, "rho", infinite=True)
        require_counts(self, "inner_steps", "batches")

    def init(self, problem: Bilevel, seed: int) -> PenaltyState:
        first = begun(problem, seed)
        return PenaltyState(**vars(first), z=first.at_y)

    def step(self, problem: Bilevel, state: PenaltyState) -> PenaltyState:
        k, random = state.step, state.stream()
        alpha, gamma, s = (rate(r, k) for r in (self.step_size, self.inner_step_size, self.penalty))
        x, y, z = state.at_x, state.at_y, state.z
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
            total = total + outer_gradient(problem, x, y, z, s, random)
        new_x = problem.project("x", x - alpha * total / self.batches)
        return self.moved(
            problem,
            replace(state, z=z),
            new_x,
            y,
            calls=3 * (self.inner_steps + self.batches),
            metrics={"stationarity": length(new_x - x) / alpha, **gaps},
        )


@dataclass(kw_only=True)
class MomentumPenaltyState(PenaltyState):
    """As `PenaltyState`, with the recursive estimates and the places before; None before the first step.

    Each estimate has three rows: f's gradient at (x, y), g's at (x, y), g's at (x, z).
    """

    inner: Tensor | None = None  # (3, size of y)
    outer: Tensor | None = None  # (3, size of x)
    last_x: Tensor | None = None
    last_y: Tensor | None = None
    last_z: Tensor | None = None


@dataclass(frozen=True)
class MomentumPenalty(BilevelMethod[MomentumPenaltyState]):
    """The single-loop penalty method with recursive momentum: algorithm 2 of Kwon et al. (2024).

    For stochastic gradients: one inner step and one batch a step. Every gradient G has an estimate
    ``d_k = G(w_k; xi_k) + (1 - eta_k) (d_{k-1} - G(w_{k-1}; xi_k))``, the batch the same at both places.

    Args:
        step_size, inner_step_size, penalty: as for `Penalty`. By default they fall as ``k^-2/5, k^-2/5, k^-1/5``, and
            eta as ``k^-4/5``: then s = eps and the momentum's error, ``eta / s^2``, is eps^2 after eps^-5 steps.
        momentum: eta_k in (0, 1]; with 1 it is the plain single-loop method.

    Cost per step: 12 gradients, 6 with ``momentum=1``.

    >>> from thalweg import Stop, solve
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

    def init(self, problem: Bilevel, seed: int) -> MomentumPenaltyState:
        first = begun(problem, seed)
        return MomentumPenaltyState(**vars(first), z=first.at_y)

    def step(self, problem: Bilevel, state: MomentumPenaltyState) -> MomentumPenaltyState:
        k, random = state.step, state.stream()
        alpha, gamma, s = (rate(r, k) for r in (self.step_size, self.inner_step_size, self.penalty))
        eta = rate(self.momentum, k)
        x, y, z = state.at_x, state.at_y, state.z
        last = (state.last_x, state.last_y, state.last_z)
        inner, calls = _recursive(problem, (x, y, z), "y", last, state.inner, eta, random)
        new_y = problem.project("y", y - gamma * (s * inner[0] + inner[1]))
        new_z = problem.project("y", z - gamma * inner[2])
        last = (state.last_x, y, z)
        outer, more = _recursive(problem, (x, new_y, new_z), "x", last, state.outer, eta, random)
        new_x = problem.project("x", x - alpha * (outer[0] + (outer[1] - outer[2]) / s))
        return self.moved(
            problem,
            replace(state, z=new_z, inner=inner, outer=outer, last_x=x, last_y=y, last_z=z),
            new_x,
            new_y,
            calls=calls + more,
            metrics={
                "stationarity": length(new_x - x) / alpha,
                "penalised_gap": length(new_y - y) / gamma,
                "lower_gap": length(new_z - z) / gamma,
            },
        )


def _recursive(
    problem: Bilevel,
    at: tuple[Tensor, Tensor, Tensor],
    wrt: Literal["x", "y"],
    last: tuple[Tensor | None, Tensor | None, Tensor | None],
    estimates: Tensor | None,
    eta: float,
    random: torch.Generator,
) -> tuple[Tensor, int]:
    """Estimates of f's gradient at (x, y), g's at (x, y) and g's at (x, z), and the gradients taken for them."""
    upper, lower = problem.batch("upper", random), problem.batch("lower", random)

    def gradients(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        rows = (
            problem.gradients("upper", x, y, upper, wrt)[0],
            problem.gradients("lower", x, y, lower, wrt)[0],
            problem.gradients("lower", x, z, lower, wrt)[0],
        )
        return torch.stack(rows)

    found = gradients(*at)
    x, y, z = last
    if estimates is None or x is None or y is None or z is None or eta >= 1.0:
        return found, 3
    return found + (1.0 - eta) * (estimates - gradients(x, y, z)), 6
