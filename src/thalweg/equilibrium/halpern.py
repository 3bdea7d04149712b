"""Halpern iteration with variance reduction, for components cocoercive on average (Cai et al., 2024, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.equilibrium.method import InclusionMethod, InclusionState, check_options
from thalweg.equilibrium.problem import MonotoneInclusion

#: Iterations after which F is evaluated wholly, whatever chance says.
MOST = 100_000


@dataclass(kw_only=True)
class HalpernState(InclusionState):
    """The iterate, its anchor, and what is known of F at the iterate."""

    anchor: Tensor  # (d,)
    estimate: Tensor  # (d,) Ft, near F(x)
    k: int  # iterations since the anchor was set
    iterations: int  # and since the beginning
    step_size: float
    batch: int
    restarted_at: float  # residual at the anchor
    best: Tensor  # (d,) where the residual was smallest, among the points where F was evaluated wholly
    best_value: Tensor  # (d,) F there
    best_residual: float


@dataclass(frozen=True)
class VRHalpern(InclusionMethod[HalpernState]):
    """``u_{k+1} = J(l_k u_0 + (1 - l_k) u_k - eta Ft_k)`` with ``l_k = 2/(k + 4)`` and the PAGE estimator Ft.

    Args:
        step_size: eta; by default ``1.4 / (L_F + L/b')``, L_F the constant of F and L that of a component, of
            `MonotoneInclusion.sampling`: batches average the components out. No theorem covers more than the paper's
            1/(4 L), so it is watched: where F is evaluated wholly and the residual is twice the smallest so far, eta
            is halved and the method starts over from there.
        batch: b', of the differences; by default the root of n. With all n it is deterministic.
        restart: start over, from the point reached, once the residual has fallen to this share of what it was at the
            last start: linear convergence for strongly monotone and sharp problems. None for the plain method.

    For gradients of convex functions and other cocoercive operators; a bilinear game is none (`InexactHalpern`).

    A step of the method is a period: iterations with sampled differences until F is evaluated wholly, which each does
    with the chance ``4/(k + 5)``, no less than b'/n, k counted from the beginning and not from a restart. Its metric is
    ``residual``, ``|F(u) + g|`` with g in G(u) from the resolvent.

    Cost per step: n component evaluations, and about ``min(k/4, n/b')`` differences of a batch, see
    `MonotoneInclusion.evaluations`.

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
        n, eta = problem.count, self.step_size
        b = math.ceil(math.sqrt(n)) if self.batch is None else min(self.batch, n)
        if eta is None:
            sampling = problem.sampling(seed)
            eta = 1.4 / (sampling.whole + (sampling.single / b if b < n else 0.0))
        u = problem.resolvent(problem.x0, eta)
        value, g = problem.components.full(u), (problem.x0 - u) / eta
        residual = float(torch.linalg.vector_norm(value + g))
        return HalpernState(
            x=u,
            metrics={"residual": residual},
            calls=n,
            seed=seed,
            anchor=u,
            estimate=value,
            k=0,
            iterations=0,
            step_size=eta,
            batch=b,
            restarted_at=residual,
            best=u,
            best_value=value,
            best_residual=residual,
        )

    def step(self, problem: MonotoneInclusion, state: HalpernState) -> HalpernState:
        u, eta, b, n = state.x, state.step_size, state.batch, problem.count
        estimate, k, iterations = state.estimate, state.k, state.iterations
        random = state.stream() if b < n else None
        for _ in range(MOST):
            pull = 2.0 / (k + 4.0)
            ahead = pull * state.anchor + (1.0 - pull) * u - eta * estimate
            u, before = problem.resolvent(ahead, eta), u
            k, iterations = k + 1, iterations + 1
            chance = max(4.0 / (iterations + 5.0), b / n)
            if random is None or float(torch.rand((), generator=random)) < chance:
                break
            estimate = estimate + problem.change(u, before, b, random)
        value = problem.components.full(self.checked(problem, u, state))
        residual = float(torch.linalg.vector_norm(value + (ahead - u) / eta))
        sampled = iterations - state.iterations - 1
        moved = replace(
            state,
            x=u,
            estimate=value,
            k=k,
            iterations=iterations,
            step=state.step + 1,
            calls=state.calls + sampled * problem.evaluations(b) + n,
            metrics={"residual": residual},
        )
        return self._judged(moved, residual)

    def _judged(self, state: HalpernState, residual: float) -> HalpernState:
        """What follows from a residual that is known: the best so far, a restart, a step found too long."""
        if self.step_size is None and not residual <= 2.0 * state.best_residual:
            return replace(
                state,
                x=state.best,
                anchor=state.best,
                estimate=state.best_value,
                k=0,
                step_size=0.5 * state.step_size,
                restarted_at=state.best_residual,
                metrics={"residual": state.best_residual},
            )
        if residual < state.best_residual:
            state = replace(state, best=state.x, best_value=state.estimate, best_residual=residual)
        if self.restart is not None and residual <= self.restart * state.restarted_at:
            return replace(state, anchor=state.x, k=0, restarted_at=residual)
        return state
