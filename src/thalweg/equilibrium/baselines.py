"""What variance-reduced methods are measured against: extragradient and its kin, primal-dual hybrid gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.equilibrium.operators import Bilinear
from thalweg.equilibrium.problem import InclusionMethod, InclusionState, MonotoneInclusion, estimate_lipschitz


class _Deterministic(InclusionMethod):
    """Base: a step size of ``share / L``, and the residual of every iterate."""

    share: float = 0.9

    def _begin(self, problem: MonotoneInclusion, seed: int, step_size: float | None) -> InclusionState:
        require(
            step_size is None or step_size > 0, f"{type(self).__name__} needs step_size > 0", got=step_size
        )
        tau = step_size if step_size is not None else self.share / estimate_lipschitz(problem, seed=seed)
        u = problem.resolvent(problem.start, tau)
        value = problem.components.full(u)
        extra = {"tau": tau, "value": value, "anchor": u, "before": value}
        metrics = {"residual": problem.natural_residual(u, value)}
        return InclusionState(x=u, metrics=metrics, calls=problem.count, seed=seed, extra=extra)

    def _end(
        self, problem: MonotoneInclusion, state: InclusionState, u: Tensor, evaluations: int, **extra: Any
    ) -> InclusionState:
        value = problem.components.full(u)
        metrics = {"residual": problem.natural_residual(u, value)}
        extra = {**state.extra, "value": value, **extra}
        return self.moved(state, u, calls=evaluations * problem.count, metrics=metrics, extra=extra)


@dataclass(frozen=True)
class Extragradient(_Deterministic):
    """``v = J(u - tau F(u)), u = J(u - tau F(v))`` (Korpelevich, 1976). Two evaluations of F a step.

    >>> from thalweg import Stop, solve
    >>> from thalweg.equilibrium import matrix_game
    >>> game = matrix_game(torch.tensor([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]).double())
    >>> solve(game, Extragradient(), stop=Stop(below={"residual": 1e-8})).x[:3].round(decimals=3)
    tensor([0.3330, 0.3330, 0.3330], dtype=torch.float64)
    """

    step_size: float | None = None

    def init(self, problem: MonotoneInclusion, seed: int) -> InclusionState:
        return self._begin(problem, seed, self.step_size)

    def step(self, problem: MonotoneInclusion, state: InclusionState) -> InclusionState:
        u, tau = state.x, state.extra["tau"]
        v = problem.resolvent(u - tau * state.extra["value"], tau)
        new = problem.resolvent(u - tau * problem.components.full(v), tau)
        return self._end(problem, state, new, 2)


@dataclass(frozen=True)
class ForwardReflectedBackward(_Deterministic):
    """``u = J(u - 2 tau F(u) + tau F(u before))``: optimistic gradients (Malitsky and Tam, 2020). One F a step."""

    share = 0.45
    step_size: float | None = None

    def init(self, problem: MonotoneInclusion, seed: int) -> InclusionState:
        return self._begin(problem, seed, self.step_size)

    def step(self, problem: MonotoneInclusion, state: InclusionState) -> InclusionState:
        u, tau, value = state.x, state.extra["tau"], state.extra["value"]
        new = problem.resolvent(u - tau * (2.0 * value - state.extra["before"]), tau)
        return self._end(problem, state, new, 1, before=value)


@dataclass(frozen=True)
class Halpern(_Deterministic):
    """Halpern for cocoercive F: ``u_{k+1} = J(l_k u_0 + (1 - l_k) u_k - tau F(u_k))``, ``l_k = 2/(k + 4)``.

    `VRHalpern` with all components in every batch, step by step. One evaluation a step.
    """

    share = 0.25
    step_size: float | None = None

    def init(self, problem: MonotoneInclusion, seed: int) -> InclusionState:
        return self._begin(problem, seed, self.step_size)

    def step(self, problem: MonotoneInclusion, state: InclusionState) -> InclusionState:
        pull = 2.0 / (state.step + 4.0)
        tau = state.extra["tau"]
        ahead = pull * state.extra["anchor"] + (1.0 - pull) * state.x - tau * state.extra["value"]
        return self._end(problem, state, problem.resolvent(ahead, tau), 1)


@dataclass(frozen=True)
class AnchoredExtragradient(_Deterministic):
    """Extra-anchored gradient (Yoon and Ryu, 2021): extragradient steps pulled to the start by 1/(k + 2).

    The optimal last-iterate rate O(1/k) of deterministic methods. Two evaluations a step.
    """

    share = 0.35
    step_size: float | None = None

    def init(self, problem: MonotoneInclusion, seed: int) -> InclusionState:
        return self._begin(problem, seed, self.step_size)

    def step(self, problem: MonotoneInclusion, state: InclusionState) -> InclusionState:
        pull, tau = 1.0 / (state.step + 2.0), state.extra["tau"]
        base = pull * state.extra["anchor"] + (1.0 - pull) * state.x
        v = problem.resolvent(base - tau * state.extra["value"], tau)
        new = problem.resolvent(base - tau * problem.components.full(v), tau)
        return self._end(problem, state, new, 2)


@dataclass(frozen=True)
class VRExtragradient(InclusionMethod):
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
        require(self.batch is None or self.batch >= 1, "VRExtragradient needs batch >= 1", got=self.batch)
        require(
            self.step_size is None or self.step_size > 0,
            "VRExtragradient needs step_size > 0",
            got=self.step_size,
        )

    def init(self, problem: MonotoneInclusion, seed: int) -> InclusionState:
        n = problem.count
        b = math.ceil(math.sqrt(n)) if self.batch is None else min(self.batch, n)
        tau = self.step_size
        if tau is None:
            tau = 0.99 * math.sqrt(b / n) / estimate_lipschitz(problem, b, seed=seed)
        u = problem.resolvent(problem.start, tau)
        value = problem.components.full(u)
        extra = {"z": u, "value": value, "tau": tau, "batch": b}
        metrics = {"residual": problem.natural_residual(u, value)}
        return InclusionState(x=u, metrics=metrics, calls=n, seed=seed, extra=extra)

    def step(self, problem: MonotoneInclusion, state: InclusionState) -> InclusionState:
        w, extra, random = state.x, state.extra, state.stream()
        z, value, tau, b = extra["z"], extra["value"], extra["tau"], extra["batch"]
        chance, components = b / problem.count, problem.components
        middle = (1.0 - chance) * z + chance * w
        half = problem.resolvent(middle - tau * value, tau)
        rows, weights = problem.sampled(b, random)
        change = components.weighted(half, rows, weights) - components.weighted(w, rows, weights)
        z = problem.resolvent(middle - tau * (value + change), tau)
        calls, metrics = 2 * b, {}
        if float(torch.rand((), generator=random)) < chance:
            w, value, calls = z, components.full(z), calls + problem.count
            metrics = {"residual": problem.natural_residual(w, value)}
        return self.moved(state, w, calls=calls, metrics=metrics, extra={**extra, "z": z, "value": value})


@dataclass(frozen=True)
class SVRG(InclusionMethod):
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
        require(self.batch >= 1, "SVRG needs batch >= 1", got=self.batch)
        require(self.step_size is None or self.step_size > 0, "SVRG needs step_size > 0", got=self.step_size)
        require(self.epoch is None or self.epoch >= 1, "SVRG needs epoch >= 1", got=self.epoch)

    def init(self, problem: MonotoneInclusion, seed: int) -> InclusionState:
        b = min(self.batch, problem.count)
        tau = self.step_size
        if tau is None:
            tau = 1.0 / (6.0 * estimate_lipschitz(problem, b, seed=seed))
        u = problem.resolvent(problem.start, tau)
        value = problem.components.full(u)
        extra = {"z": u, "value": value, "tau": tau, "since": 0}
        metrics = {"residual": problem.natural_residual(u, value)}
        return InclusionState(x=u, metrics=metrics, calls=problem.count, seed=seed, extra=extra)

    def step(self, problem: MonotoneInclusion, state: InclusionState) -> InclusionState:
        w, extra, random, components = state.x, state.extra, state.stream(), problem.components
        z, value, tau, since = extra["z"], extra["value"], extra["tau"], extra["since"] + 1
        b = min(self.batch, problem.count)
        rows, weights = problem.sampled(b, random)
        change = components.weighted(z, rows, weights) - components.weighted(w, rows, weights)
        z = problem.resolvent(z - tau * (value + change), tau)
        calls, metrics = 2 * b, {}
        if since >= (self.epoch if self.epoch is not None else math.ceil(2 * problem.count / b)):
            w, value, calls, since = z, components.full(z), calls + problem.count, 0
            metrics = {"residual": problem.natural_residual(w, value)}
        extra = {**extra, "z": z, "value": value, "since": since}
        return self.moved(state, w, calls=calls, metrics=metrics, extra=extra)


@dataclass(frozen=True)
class PDHG(InclusionMethod):
    """Primal-dual hybrid gradients (Chambolle and Pock, 2011) of a bilinear game, its averages restarted.

    ``x -= tau A y``, projected; ``y += tau A' (2 x - x before)``, projected; every so often it starts over from the
    average, where that is better (Applegate et al., 2021, the heart of PDLP).

    Args:
        step_size: tau; by default ``0.9/|A|``.
        every: steps between two looks at the average.

    Cost per step: the same products with A as one evaluation of F.
    """

    step_size: float | None = None
    every: int = 50

    def __post_init__(self) -> None:
        require(self.step_size is None or self.step_size > 0, "PDHG needs step_size > 0", got=self.step_size)
        require(self.every >= 1, "PDHG needs every >= 1", got=self.every)

    def init(self, problem: MonotoneInclusion, seed: int) -> InclusionState:
        if not isinstance(problem.components, Bilinear):
            raise InvalidProblem("PDHG is for bilinear games: components has to be Bilinear.")
        A = problem.components.A
        tau = self.step_size if self.step_size is not None else 0.9 / float(torch.linalg.matrix_norm(A, 2))
        u = problem.resolvent(problem.start, tau)
        residual = problem.natural_residual(u)
        extra = {"u": u, "sum": torch.zeros_like(u), "count": 0, "tau": tau, "last": residual}
        return InclusionState(
            x=u, metrics={"residual": residual}, calls=problem.count, seed=seed, extra=extra
        )

    def step(self, problem: MonotoneInclusion, state: InclusionState) -> InclusionState:
        assert isinstance(problem.components, Bilinear)
        A, extra = problem.components.A, state.extra
        u, tau, m = extra["u"], extra["tau"], len(A)
        ahead = torch.cat([u[:m] - tau * (A @ u[m:]), u[m:]])
        x = problem.resolvent(ahead, tau)[:m]
        y = problem.resolvent(torch.cat([x, u[m:] + tau * ((2.0 * x - u[:m]) @ A)]), tau)[m:]
        new = torch.cat([x, y])
        total, count = extra["sum"] + new, extra["count"] + 1
        extra = {**extra, "u": new, "sum": total, "count": count}
        x_now, metrics, calls = new, {}, problem.count
        if count % self.every == 0:
            average = total / count
            ways = {problem.natural_residual(v): v for v in (new, average)}
            best = min(ways)
            x_now, metrics, calls = ways[best], {"residual": best}, calls + 2 * problem.count
            if best <= 0.5 * extra["last"]:
                extra |= {"u": x_now, "sum": torch.zeros_like(new), "count": 0, "last": best}
        return self.moved(state, x_now, calls=calls, metrics=metrics, extra=extra)
