"""Halpern iteration with variance reduction, for components cocoercive on average (Cai et al., 2024, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core.validation import require
from thalweg.equilibrium.problem import InclusionMethod, InclusionState, MonotoneInclusion, estimate_lipschitz


@dataclass(frozen=True)
class VRHalpern(InclusionMethod):
    """``u_{k+1} = J(l_k u_0 + (1 - l_k) u_k - eta Ft_k)`` with ``l_k = 2/(k + 4)`` and the PAGE estimator Ft.

    Args:
        step_size: eta; by default 1/(4 L).
        batch: b', of the differences; by default the root of n. With all n it is deterministic.
        restart: start over, from the point reached, once the residual has fallen to this share of what it was at the
            last start: linear convergence for strongly monotone and sharp problems. None for the plain method.

    For gradients of convex functions and other cocoercive operators; a bilinear game is none (`InexactHalpern`).

    The metrics of a step are ``estimate``, ``|Ft_k + g_k|`` with g_k in G(u_k) from the resolvent, and ``residual``,
    ``|F(u_k) + g_k|``, in the steps that evaluate F wholly, about 4/(k + 5) of them.

    Cost per step: 2 b' component evaluations, n in those steps.

    Source: Cai, Alacaoglu and Diakonikolas (2024), arXiv 2310.02987; Li et al. (2021) for PAGE.

    >>> from thalweg import Stop, solve
    >>> from thalweg.equilibrium import Functions
    >>> targets = torch.arange(100.0)[:, None]
    >>> problem = MonotoneInclusion(Functions(lambda u, rows: u - targets[rows], 100), torch.zeros(1), lipschitz=1.0)
    >>> found = solve(problem, VRHalpern(restart=0.5), stop=Stop(below={"residual": 1e-3}))
    >>> round(float(found.x), 1)
    49.5
    """

    step_size: float | None = None
    batch: int | None = None
    restart: float | None = None

    def __post_init__(self) -> None:
        require(
            self.step_size is None or self.step_size > 0, "VRHalpern needs step_size > 0", got=self.step_size
        )
        require(self.batch is None or self.batch >= 1, "VRHalpern needs batch >= 1", got=self.batch)
        require(
            self.restart is None or 0 < self.restart < 1, "VRHalpern needs 0 < restart < 1", got=self.restart
        )

    def init(self, problem: MonotoneInclusion, seed: int) -> InclusionState:
        eta = self.step_size
        if eta is None:
            L = (
                problem.lipschitz
                if problem.lipschitz is not None
                else estimate_lipschitz(problem, 1, seed=seed)
            )
            eta = 1.0 / (4.0 * L)
        u = problem.resolvent(problem.start, eta)
        value, g = problem.components.full(u), (problem.start - u) / eta
        residual = _norm(value + g)
        extra = {"anchor": u, "k": 0, "estimate": value, "eta": eta, "first": residual}
        metrics = {"estimate": residual, "residual": residual}
        return InclusionState(x=u, metrics=metrics, calls=problem.count, seed=seed, extra=extra)

    def step(self, problem: MonotoneInclusion, state: InclusionState) -> InclusionState:
        u, extra, random = state.x, state.extra, state.stream()
        k, eta, estimate = extra["k"], extra["eta"], extra["estimate"]
        pull = 2.0 / (k + 4.0)
        ahead = pull * extra["anchor"] + (1.0 - pull) * u - eta * estimate
        new = problem.resolvent(ahead, eta)
        g = (ahead - new) / eta
        n = problem.count
        b = math.ceil(math.sqrt(n)) if self.batch is None else min(self.batch, n)
        whole = b >= n or float(torch.rand((), generator=random)) < 4.0 / (k + 6.0)
        if whole:
            estimate, calls = problem.components.full(new), n
        else:
            rows, weights = problem.sampled(b, random)
            change = problem.components.weighted(new, rows, weights) - problem.components.weighted(
                u, rows, weights
            )
            estimate, calls = estimate + change, 2 * b
        size = _norm(estimate + g)
        metrics = {"estimate": size} | ({"residual": size} if whole else {})
        extra = {**extra, "k": k + 1, "estimate": estimate}
        if self.restart is not None and whole and size <= self.restart * extra["first"]:
            extra |= {"anchor": new, "k": 0, "first": size}
        return self.moved(state, new, calls=calls, metrics=metrics, extra=extra)


def _norm(v: Tensor) -> float:
    return float(torch.linalg.vector_norm(v))
