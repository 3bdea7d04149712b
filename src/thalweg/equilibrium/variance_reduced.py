"""Methods that sample components about an anchor where the sum is known: variance-reduced extragradient, SVRG."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.equilibrium.method import InclusionMethod, InclusionState, check_options
from thalweg.equilibrium.problem import MonotoneInclusion, estimate_lipschitz


def period(chance: float, random: torch.Generator) -> int:
    """Steps until the anchor is renewed, when each renews it with this chance; at least one."""
    if chance >= 1.0:
        return 1
    u = 1.0 - float(torch.rand((), generator=random, dtype=torch.float64))  # in (0, 1]
    return 1 + int(math.log(u) / math.log1p(-chance))


@dataclass(kw_only=True)
class LooplessState(InclusionState):
    """``x`` is the anchor w; the iterate is where the next period begins."""

    z: Tensor  # (d,) the iterate
    value: Tensor  # (d,) F(x)
    step_size: float
    batch: int
    chance: float  # p, of a new anchor
    total: Tensor  # (d,) sum of the half points since the last restart
    count: int  # how many they are
    restarted_at: float  # residual at the last restart


@dataclass(frozen=True)
class VRExtragradient(InclusionMethod[LooplessState]):
    """Extragradient with variance reduction and a loopless anchor (Alacaoglu and Malitsky, 2022, algorithm 1).

    For matrix games and other sums of low stable rank, see `MonotoneInclusion.sampling`. A step of the method is a
    period: all steps about one anchor, until it is renewed.

    Args:
        batch: by default the stable rank, at most the root of n.
        step_size: by default ``0.9 sqrt(p)/L``, L of a batch, p the anchor's chance: as a batch's evaluations to n.
        restart: start over once the residual has fallen to this share of what it was at the last start, from the anchor
            or the average of the half points, whichever is better; looked at every third period. A heuristic taken
            from PDLP (Applegate et al., 2021), not part of the paper. None for the plain method.

    The metric of a step is ``residual``, at the anchor. Cost per step: about 2 n component evaluations, half of them
    in batches.

    >>> from thalweg import Stop, solve
    >>> from thalweg.equilibrium import matrix_game, random_game
    >>> game = matrix_game(random_game(40, 40))
    >>> solve(game, VRExtragradient(restart=0.5), stop=Stop(below={"residual": 1e-3})).converged
    True
    """

    batch: int | None = None
    step_size: float | None = None
    restart: float | None = None

    def __post_init__(self) -> None:
        check_options(self, positive=["step_size"], counts=["batch"], shares=["restart"])

    def init(self, problem: MonotoneInclusion, seed: int) -> LooplessState:
        b, chance, tau = drawn(problem, self.batch, self.step_size, 0.9, seed)
        u = problem.resolvent(problem.x0, tau)
        value = problem.components.full(u)
        residual = problem.natural_residual(u, value)
        return LooplessState(
            x=u,
            metrics={"residual": residual},
            calls=problem.count,
            seed=seed,
            z=u,
            value=value,
            step_size=tau,
            batch=b,
            chance=chance,
            total=torch.zeros_like(u),
            count=0,
            restarted_at=residual,
        )

    def step(self, problem: MonotoneInclusion, state: LooplessState) -> LooplessState:
        w, z, tau, p, random = state.x, state.z, state.step_size, state.chance, state.stream()
        length, total = period(p, random), state.total.clone()
        for _ in range(length):
            forward = torch.lerp(z, w, p) - tau * state.value
            half = problem.resolvent(forward, tau)
            z = problem.resolvent(forward - tau * problem.change(half, w, state.batch, random), tau)
            total += half
        value = problem.components.full(self.checked(problem, z, state))
        moved = replace(
            state,
            x=z,
            z=z,
            value=value,
            total=total,
            count=state.count + length,
            step=state.step + 1,
            calls=state.calls + length * problem.evaluations(state.batch) + problem.count,
            metrics={"residual": problem.natural_residual(z, value)},
        )
        if self.restart is None or moved.step % 3 != 0:
            return moved
        return _looked_at(problem, moved, self.restart)


def _looked_at(problem: MonotoneInclusion, state: LooplessState, restart: float) -> LooplessState:
    """Started over from the anchor or the average, whichever is better, where the residual has fallen enough."""
    average = state.total / state.count
    value = problem.components.full(average)
    residual = problem.natural_residual(average, value)
    state = replace(state, calls=state.calls + problem.count)
    ways = [(state.metrics["residual"], state.x, state.value), (residual, average, value)]
    residual, best, value = min(ways, key=lambda way: way[0])
    if residual > restart * state.restarted_at:
        return state
    return replace(
        state,
        x=best,
        z=best,
        value=value,
        total=torch.zeros_like(best),
        count=0,
        restarted_at=residual,
        metrics={"residual": residual},
    )


def drawn(
    problem: MonotoneInclusion, batch: int | None, step_size: float | None, share: float, seed: int
) -> tuple[int, float, float]:
    """Batch, chance of a new anchor, and step ``share sqrt(p)/L``: what is not given follows from the stable rank.

    A batch of the stable rank is the largest that costs nothing, and evaluations are fewest when anchors take as many
    as batches.
    """
    if batch is not None and step_size is not None:
        b, tau = min(batch, problem.count), step_size
        return b, _chance(problem, b), tau
    sampling = problem.sampling(seed)
    b = sampling.batch if batch is None else min(batch, problem.count)
    chance = _chance(problem, b)
    return b, chance, share * math.sqrt(chance) / sampling.lipschitz(b) if step_size is None else step_size


def _chance(problem: MonotoneInclusion, batch: int) -> float:
    return min(problem.evaluations(batch) / problem.count, 1.0)


@dataclass(kw_only=True)
class EpochState(InclusionState):
    """``x`` is the anchor w, where the next epoch begins."""

    value: Tensor  # (d,) F(x)
    step_size: float


@dataclass(frozen=True)
class SVRG(InclusionMethod[EpochState]):
    """``u = J(u - tau (F_S(u) - F_S(w) + F(w)))``, the anchor w renewed after each epoch (Palaniappan and Bach, 2016).

    Args:
        batch: by default one.
        step_size: tau; by default 1/(6 L) of a batch's L, right for cocoercive components.
        epoch: sampled steps to an anchor; by default 2 n / batch.

    Plain forward steps: for cocoercive sums, and for strongly monotone ones with a step short enough (mu / L^2).
    On a bilinear game without regularisation it need not converge; `VRExtragradient` does.

    A step of the method is an epoch. Its metric is ``residual``, at the new anchor. Cost per step: n component
    evaluations, and those of ``epoch`` batches: one or two a component, see `MonotoneInclusion.evaluations`.
    """

    batch: int = 1
    step_size: float | None = None
    epoch: int | None = None

    def __post_init__(self) -> None:
        check_options(self, positive=["step_size"], counts=["batch", "epoch"])

    def init(self, problem: MonotoneInclusion, seed: int) -> EpochState:
        b = min(self.batch, problem.count)
        tau = self.step_size
        if tau is None:
            tau = 1.0 / (6.0 * estimate_lipschitz(problem, b, seed=seed))
        u = problem.resolvent(problem.x0, tau)
        value = problem.components.full(u)
        metrics = {"residual": problem.natural_residual(u, value)}
        return EpochState(x=u, metrics=metrics, calls=problem.count, seed=seed, value=value, step_size=tau)

    def step(self, problem: MonotoneInclusion, state: EpochState) -> EpochState:
        z, w, tau, random = state.x, state.x, state.step_size, state.stream()
        b = min(self.batch, problem.count)
        epoch = self.epoch if self.epoch is not None else math.ceil(2 * problem.count / b)
        for _ in range(epoch):
            z = problem.resolvent(z - tau * (state.value + problem.change(z, w, b, random)), tau)
        value = problem.components.full(self.checked(problem, z, state))
        return replace(
            state,
            x=z,
            value=value,
            step=state.step + 1,
            calls=state.calls + epoch * problem.evaluations(b) + problem.count,
            metrics={"residual": problem.natural_residual(z, value)},
        )
