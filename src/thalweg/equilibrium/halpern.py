"""Halpern iteration with variance reduction, for components cocoercive on average (Cai et al., 2024, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.equilibrium.method import InclusionMethod, InclusionState, check_options
from thalweg.equilibrium.problem import MonotoneInclusion, estimate_lipschitz


@dataclass(kw_only=True)
class HalpernState(InclusionState):
    """The iterate, its anchor, and what is known of F at the iterate."""

    anchor: Tensor  # (d,)
    estimate: Tensor  # (d,) Ft, near F(x)
    k: int  # steps since the anchor was set
    step_size: float
    restarted_at: float  # residual at the anchor


@dataclass(frozen=True)
class VRHalpern(InclusionMethod[HalpernState]):
    """``u_{k+1} = J(l_k u_0 + (1 - l_k) u_k - eta Ft_k)`` with ``l_k = 2/(k + 4)`` and the PAGE estimator Ft.

    Args:
        step_size: eta; by default 1/(4 L), L the problem's ``lipschitz`` where that is given, and estimated otherwise.
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
        check_options(self, positive=["step_size"], counts=["batch"], shares=["restart"])

    def init(self, problem: MonotoneInclusion, seed: int) -> HalpernState:
        eta = self.step_size
        if eta is None:
            known = problem.lipschitz
            eta = 1.0 / (4.0 * (known if known is not None else estimate_lipschitz(problem, 1, seed=seed)))
        u = problem.resolvent(problem.x0, eta)
        value, g = problem.components.full(u), (problem.x0 - u) / eta
        residual = _norm(value + g)
        return HalpernState(
            x=u,
            metrics={"estimate": residual, "residual": residual},
            calls=problem.count,
            seed=seed,
            anchor=u,
            estimate=value,
            k=0,
            step_size=eta,
            restarted_at=residual,
        )

    def step(self, problem: MonotoneInclusion, state: HalpernState) -> HalpernState:
        u, eta, random = state.x, state.step_size, state.stream()
        pull = 2.0 / (state.k + 4.0)
        ahead = pull * state.anchor + (1.0 - pull) * u - eta * state.estimate
        new = self.checked(problem, problem.resolvent(ahead, eta), state)
        g = (ahead - new) / eta
        n, components = problem.count, problem.components
        b = math.ceil(math.sqrt(n)) if self.batch is None else min(self.batch, n)
        whole = b >= n or float(torch.rand((), generator=random)) < 4.0 / (state.k + 6.0)
        if whole:
            estimate, calls = components.full(new), n
        else:
            rows, weights = problem.sampled(b, random)
            change = components.weighted(new, rows, weights) - components.weighted(u, rows, weights)
            estimate, calls = state.estimate + change, 2 * b
        size = _norm(estimate + g)
        moved = replace(
            state,
            x=new,
            estimate=estimate,
            k=state.k + 1,
            step=state.step + 1,
            calls=state.calls + calls,
            metrics={"estimate": size} | ({"residual": size} if whole else {}),
        )
        if self.restart is not None and whole and size <= self.restart * state.restarted_at:
            return replace(moved, anchor=new, k=0, restarted_at=size)
        return moved


def _norm(v: Tensor) -> float:
    return float(torch.linalg.vector_norm(v))
