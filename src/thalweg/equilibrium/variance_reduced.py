"""Methods that sample components about an anchor where the sum is known: variance-reduced extragradient, SVRG."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from thalweg.equilibrium.method import InclusionMethod, InclusionState, anchor_chance, check_options, period
from thalweg.equilibrium.problem import MonotoneInclusion


@dataclass(kw_only=True)
class LooplessState(InclusionState):
    """``x`` is the anchor w, or the average where that was found to be better."""

    anchor: Tensor  # (d,) w
    value: Tensor  # (d,) F(w)
    total: Tensor  # (d,) sum of the half points since the last restart
    count: int  # how many they are
    step_size: float
    batch: int
    restarted_at: float  # residual at the last restart


@dataclass(frozen=True)
class VRExtragradient(InclusionMethod[LooplessState]):
    """Extragradient with variance reduction and a loopless anchor (Alacaoglu and Malitsky, 2022, algorithm 1).

    A step is the life of an anchor: inner steps about it until a coin of probability ``p = 2 batch / n`` renews it.

    For monotone Lipschitz sums of low stable rank (``problem.sampling``), with a restart; of high rank, `PDHG` or
    `Extragradient` evaluate less.

    Args:
        batch: components drawn in an inner step; by default the stable rank, at most the root of n. Up to there a
            larger batch takes no more evaluations.
        step_size: by default ``0.99 sqrt(p)/L`` of a batch.
        restart: start over, from the anchor or the average of the half points, whichever is better, once its residual
            has fallen to this share of what it was at the last start. None for the paper's method. Restarts to the
            average are a heuristic of PDLP (Applegate et al., 2021): four to six times fewer evaluations on bilinear
            games, and no proof.

    The metrics of a step are ``residual``, ``|u - J(u - F(u), 1)|`` at the answer.

    Cost per step: n component evaluations for the anchor, about n more for the differences, half of that where
    components are affine; with a restart n for the average in every third step.

    >>> from thalweg import Stop, solve
    >>> from thalweg.equilibrium import matrix_game
    >>> game = matrix_game([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
    >>> solve(game, VRExtragradient(restart=0.5), stop=Stop(below={"residual": 1e-6})).x[:3].round(decimals=3)
    tensor([0.3330, 0.3330, 0.3330], dtype=torch.float64)
    """

    batch: int | None = None
    step_size: float | None = None
    restart: float | None = None

    #: Anchors between two looks at the average.
    EVERY: ClassVar[int] = 3

    def __post_init__(self) -> None:
        check_options(self, positive=["step_size"], counts=["batch"], shares=["restart"])

    def init(self, problem: MonotoneInclusion, seed: int) -> LooplessState:
        n = problem.count
        b = problem.sampling.batch if self.batch is None else min(self.batch, n)
        tau = self.step_size
        if tau is None:
            tau = 0.99 * math.sqrt(anchor_chance(b, n)) / problem.sampling.of_batch(b)
        u = problem.resolvent(problem.x0, tau)
        value = problem.components.full(u)
        residual = problem.natural_residual(u, value)
        return LooplessState(
            x=u,
            metrics={"residual": residual},
            calls=n,
            seed=seed,
            anchor=u,
            value=value,
            total=torch.zeros_like(u),
            count=0,
            step_size=tau,
            batch=b,
            restarted_at=residual,
        )

    def step(self, problem: MonotoneInclusion, state: LooplessState) -> LooplessState:
        w, value, tau, b = state.anchor, state.value, state.step_size, state.batch
        random, chance = state.stream(), anchor_chance(b, problem.count)
        z, total, calls, life = w, state.total.clone(), state.calls, period(chance, random)
        for _ in range(life):
            start = torch.add(torch.lerp(z, w, chance), value, alpha=-tau)
            half = problem.resolvent(start, tau)
            change, cost = problem.change(half, w, b, random)
            z = problem.resolvent(torch.add(start, change, alpha=-tau), tau)
            total += half
            calls += cost
        z = self.checked(problem, z, state)
        value = problem.components.full(z)
        moved = replace(
            state,
            x=z,
            anchor=z,
            value=value,
            total=total,
            count=state.count + life,
            step=state.step + 1,
            calls=calls + problem.count,
            metrics={"residual": problem.natural_residual(z, value)},
        )
        if self.restart is None or moved.step % self.EVERY:
            return moved
        return self._looked_at(problem, moved, self.restart)

    def _looked_at(self, problem: MonotoneInclusion, state: LooplessState, restart: float) -> LooplessState:
        """Anchor or average, whichever is better; started over from there once the residual has fallen enough."""
        average = state.total / state.count
        value = problem.components.full(average)
        residual = problem.natural_residual(average, value)
        state = replace(state, calls=state.calls + problem.count)
        best = state.anchor, state.value, state.metrics["residual"]
        if residual < best[2]:
            best = average, value, residual
        u, value, residual = best
        state = replace(state, x=u, metrics={"residual": residual})
        if residual > restart * state.restarted_at:
            return state
        return replace(
            state, anchor=u, value=value, total=torch.zeros_like(u), count=0, restarted_at=residual
        )


@dataclass(kw_only=True)
class EpochState(InclusionState):
    """``x`` is the anchor w, renewed after each epoch."""

    value: Tensor  # (d,) F(x)
    step_size: float


@dataclass(frozen=True)
class SVRG(InclusionMethod[EpochState]):
    """``u = J(u - tau (F_S(u) - F_S(w) + F(w)))``, the anchor w renewed after each epoch (Palaniappan and Bach, 2016).

    A step is an epoch.

    Args:
        batch: by default one.
        step_size: tau; by default 1/(6 L) of a batch's L, right for cocoercive components.
        epoch: inner steps to an anchor; by default 2 n / batch.

    Plain forward steps: for cocoercive sums, and for strongly monotone ones with a step short enough (mu / L^2).
    On a bilinear game without regularisation it need not converge; `VRExtragradient` does.

    The metrics of a step are ``residual``, at the anchor. Cost per step: 2 batch component evaluations for each inner
    step, batch where components are affine, and n.
    """

    batch: int = 1
    step_size: float | None = None
    epoch: int | None = None

    def __post_init__(self) -> None:
        check_options(self, positive=["step_size"], counts=["batch", "epoch"])

    def init(self, problem: MonotoneInclusion, seed: int) -> EpochState:
        tau = self.step_size
        if tau is None:
            tau = 1.0 / (6.0 * problem.sampling.of_batch(self.batch))
        u = problem.resolvent(problem.x0, tau)
        value = problem.components.full(u)
        metrics = {"residual": problem.natural_residual(u, value)}
        return EpochState(x=u, metrics=metrics, calls=problem.count, seed=seed, value=value, step_size=tau)

    def step(self, problem: MonotoneInclusion, state: EpochState) -> EpochState:
        w, tau, random, calls = state.x, state.step_size, state.stream(), state.calls
        b, z = min(self.batch, problem.count), w
        for _ in range(self.epoch if self.epoch is not None else math.ceil(2 * problem.count / b)):
            change, cost = problem.change(z, w, b, random)
            z = problem.resolvent(z - tau * (state.value + change), tau)
            calls += cost
        z = self.checked(problem, z, state)
        value = problem.components.full(z)
        return replace(
            state,
            x=z,
            value=value,
            step=state.step + 1,
            calls=calls + problem.count,
            metrics={"residual": problem.natural_residual(z, value)},
        )
