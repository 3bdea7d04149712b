"""Halpern iteration with variance reduction, for components cocoercive on average (Cai et al., 2024, algorithm 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.equilibrium.method import InclusionMethod, InclusionState, check_options
from thalweg.equilibrium.problem import MonotoneInclusion


@dataclass(kw_only=True)
class HalpernState(InclusionState):
    """The iterate where F was last evaluated wholly, its anchor, and the best point so far."""

    anchor: Tensor  # (d,)
    value: Tensor  # (d,) F(x)
    k: int  # iterations since the anchor was set
    iterations: int  # of the whole run
    step_size: float
    least_step: float  # which the safeguard does not go below
    restarted_at: float  # residual at the anchor
    best: Tensor  # (d,)
    best_value: Tensor  # (d,) F there
    best_residual: float


@dataclass(frozen=True)
class VRHalpern(InclusionMethod[HalpernState]):
    """``u_{k+1} = J(l_k u_0 + (1 - l_k) u_k - eta Ft_k)`` with ``l_k = 2/(k + 4)`` and the PAGE estimator Ft.

    A step runs up to the next evaluation of all of F, which comes with probability ``max(4/(k + 6), b'/n)`` after each
    iteration; k counts from the beginning of the run.

    Args:
        step_size: eta; by default ``1.4/(L_F + L/b')``, L_F of F and L of single components (``problem.sampling``):
            batches average most of the components' noise out. No proof covers it, the paper's is of 1/(4 L). So
            there is a safeguard: where the residual is more than twice the best, eta is halved, not below 1/(4 L), and
            the run starts over from the best point. A step of one's own is kept.
        batch: b', of the differences; by default the root of n. With all n it is deterministic.
        restart: start over, from the point reached, once the residual has fallen to this share of what it was at the
            last start: linear convergence for strongly monotone and sharp problems. None for the plain method.

    For gradients of convex functions and other cocoercive operators; a bilinear game is none (`InexactHalpern`). Of a
    smooth, strongly convex sum `SVRG` needs fewer evaluations.

    The metrics of a step are ``residual``, ``|F(u_k) + g_k|`` with g_k in G(u_k) from the resolvent.

    Cost per step: n component evaluations, and 2 b' (b' for affine components) in each iteration before, up to n/b'.

    Source: Cai, Alacaoglu and Diakonikolas (2024), arXiv 2310.02987; Li et al. (2021) for PAGE.

    >>> import torch
    >>> from thalweg.equilibrium import MonotoneInclusion, VRHalpern
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
        eta = least = self.step_size
        if eta is None or least is None:
            told = problem.sampling
            least = 1.0 / (4.0 * told.average)
            eta = max(1.4 / (told.whole + told.average / self._batch(problem)), least)
        u = problem.resolvent(problem.x0, eta)
        value, g = problem.components.full(u), (problem.x0 - u) / eta
        residual = float(torch.linalg.vector_norm(value + g))
        return HalpernState(
            x=u,
            metrics={"residual": residual},
            calls=problem.count,
            seed=seed,
            anchor=u,
            value=value,
            k=0,
            iterations=0,
            step_size=eta,
            least_step=least,
            restarted_at=residual,
            best=u,
            best_value=value,
            best_residual=residual,
        )

    def step(self, problem: MonotoneInclusion, state: HalpernState) -> HalpernState:
        u, estimate, eta, k, calls = state.x, state.value, state.step_size, state.k, state.calls
        n, b, random = problem.count, self._batch(problem), state.stream()
        iterations = state.iterations
        while True:
            pull = 2.0 / (k + 4.0)
            ahead = pull * state.anchor + (1.0 - pull) * u - eta * estimate
            before, u = u, problem.resolvent(ahead, eta)
            chance = max(4.0 / (iterations + 6.0), b / n)
            k, iterations = k + 1, iterations + 1
            if b >= n or float(torch.rand((), generator=random)) < chance:
                break
            change, cost = problem.change(u, before, b, random)
            estimate = estimate + change
            calls += cost
        value = problem.components.full(self.checked(problem, u, state))
        residual = float(torch.linalg.vector_norm(value + (ahead - u) / eta))
        moved = replace(
            state,
            x=u,
            value=value,
            k=k,
            iterations=iterations,
            step=state.step + 1,
            calls=calls + n,
            metrics={"residual": residual},
        )
        return self._restarted(moved, residual)

    def _batch(self, problem: MonotoneInclusion) -> int:
        return math.ceil(math.sqrt(problem.count)) if self.batch is None else min(self.batch, problem.count)

    def _restarted(self, state: HalpernState, residual: float) -> HalpernState:
        """The state; with a shorter step from the best point, or a new anchor, where it is time for one."""
        if residual < state.best_residual:
            state = replace(state, best=state.x, best_value=state.value, best_residual=residual)
        elif residual > 2.0 * state.best_residual and state.step_size > state.least_step:
            return replace(
                state,
                x=state.best,
                value=state.best_value,
                metrics={"residual": state.best_residual},
                anchor=state.best,
                k=0,
                step_size=max(0.5 * state.step_size, state.least_step),
                restarted_at=state.best_residual,
            )
        if self.restart is not None and residual <= self.restart * state.restarted_at:
            return replace(state, anchor=state.x, k=0, restarted_at=residual)
        return state
