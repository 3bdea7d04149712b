"""Methods that sample components about an anchor where the sum is known: variance-reduced extragradient, SVRG."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from thalweg.equilibrium.method import InclusionMethod, InclusionState, check_options
from thalweg.equilibrium.problem import MonotoneInclusion, estimate_lipschitz


@dataclass(kw_only=True)
class LooplessState(InclusionState):
    """``x`` is the anchor w; the iterate runs ahead of it."""

    z: Tensor  # (d,) the iterate
    value: Tensor  # (d,) F(x)
    step_size: float
    batch: int


@dataclass(frozen=True)
class VRExtragradient(InclusionMethod[LooplessState]):
    """Extragradient with variance reduction and a loopless anchor (Alacaoglu and Malitsky, 2022, algorithm 1).

    Args:
        batch: by default the root of n.
        step_size: by default ``0.99 sqrt(p)/L`` of a batch, p = batch/n the anchor's probability.

    The metrics of a step hold ``residual``, at the anchor, in the steps that renew it. Cost per step: 2 batch component
    evaluations, and n with probability p.
    """

    batch: int | None = None
    step_size: float | None = None

    def __post_init__(self) -> None:
        check_options(self, positive=["step_size"], counts=["batch"])

    def init(self, problem: MonotoneInclusion, seed: int) -> LooplessState:
        n = problem.count
        b = math.ceil(math.sqrt(n)) if self.batch is None else min(self.batch, n)
        tau = self.step_size
        if tau is None:
            tau = 0.99 * math.sqrt(b / n) / estimate_lipschitz(problem, b, seed=seed)
        u = problem.resolvent(problem.x0, tau)
        value = problem.components.full(u)
        metrics = {"residual": problem.natural_residual(u, value)}
        return LooplessState(
            x=u, metrics=metrics, calls=n, seed=seed, z=u, value=value, step_size=tau, batch=b
        )

    def step(self, problem: MonotoneInclusion, state: LooplessState) -> LooplessState:
        w, tau, b, random = state.x, state.step_size, state.batch, state.stream()
        chance, components = b / problem.count, problem.components
        middle = (1.0 - chance) * state.z + chance * w
        half = problem.resolvent(middle - tau * state.value, tau)
        rows, weights = problem.sampled(b, random)
        change = components.weighted(half, rows, weights) - components.weighted(w, rows, weights)
        z = self.checked(problem, problem.resolvent(middle - tau * (state.value + change), tau), state)
        moved = replace(state, z=z, step=state.step + 1, calls=state.calls + 2 * b, metrics={})
        if float(torch.rand((), generator=random)) < chance:
            return _renewed(problem, moved)
        return moved


@dataclass(kw_only=True)
class EpochState(InclusionState):
    """``x`` is the anchor w of the epoch; the iterate runs ahead of it."""

    z: Tensor  # (d,) the iterate
    value: Tensor  # (d,) F(x)
    step_size: float
    since: int  # steps since the anchor was renewed


@dataclass(frozen=True)
class SVRG(InclusionMethod[EpochState]):
    """``u = J(u - tau (F_S(u) - F_S(w) + F(w)))``, the anchor w renewed after each epoch (Palaniappan and Bach, 2016).

    Args:
        batch: by default one.
        step_size: tau; by default 1/(6 L) of a batch's L, right for cocoercive components.
        epoch: steps to an anchor; by default 2 n / batch.

    Plain forward steps: for cocoercive sums, and for strongly monotone ones with a step short enough (mu / L^2).
    On a bilinear game without regularisation it need not converge; `VRExtragradient` does.

    The metrics of a step hold ``residual``, at the anchor, in the steps that renew it. Cost per step: 2 batch component
    evaluations, and n once an epoch.
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
        return EpochState(
            x=u, metrics=metrics, calls=problem.count, seed=seed, z=u, value=value, step_size=tau, since=0
        )

    def step(self, problem: MonotoneInclusion, state: EpochState) -> EpochState:
        z, w, tau, since = state.z, state.x, state.step_size, state.since + 1
        b, components = min(self.batch, problem.count), problem.components
        rows, weights = problem.sampled(b, state.stream())
        change = components.weighted(z, rows, weights) - components.weighted(w, rows, weights)
        z = self.checked(problem, problem.resolvent(z - tau * (state.value + change), tau), state)
        moved = replace(state, z=z, since=since, step=state.step + 1, calls=state.calls + 2 * b, metrics={})
        if since >= (self.epoch if self.epoch is not None else math.ceil(2 * problem.count / b)):
            return replace(_renewed(problem, moved), since=0)
        return moved


S = TypeVar("S", LooplessState, EpochState)


def _renewed(problem: MonotoneInclusion, state: S) -> S:
    """The state with its anchor moved to the iterate, F and the residual known there."""
    value = problem.components.full(state.z)
    metrics = {"residual": problem.natural_residual(state.z, value)}
    return replace(state, x=state.z, value=value, calls=state.calls + problem.count, metrics=metrics)
