"""Inexact Halpern iteration on the resolvent, for monotone Lipschitz sums (Cai et al., 2024, algorithm 3)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from thalweg.core.validation import require
from thalweg.equilibrium.method import InclusionMethod, InclusionState, anchor_chance, check_options, period
from thalweg.equilibrium.problem import MonotoneInclusion

#: The resolvent's eta, as a multiple of n tau / batch.
LONGER = 7.0


@dataclass(kw_only=True)
class InexactState(InclusionState):
    """``x`` is the last resolvent found, the answer; the iterate u is between it and the anchor."""

    anchor: Tensor  # (d,)
    u: Tensor  # (d,) the iterate, whose resolvent comes next
    k: int  # steps since the anchor was set
    step_size: float  # tau, of the inner loop
    eta: float
    batch: int
    first_move: float | None  # length of the first step from the anchor; None before it
    restarted_at: float  # residual at the anchor


@dataclass(frozen=True)
class InexactHalpern(InclusionMethod[InexactState]):
    """``u_{k+1} = l_k u_0 + (1 - l_k) J~(u_k)``, ``l_k = 1/(k + 2)``, ``J~`` near the resolvent of ``eta (F + G)``.

    The resolvent is a strongly monotone inclusion, solved by a variance-reduced inner loop until it is within
    ``c/(k + 2)^2``: whenever F is evaluated wholly there, the distance is at most about eta times the inner residual.

    Args:
        inner: ``"extragradient"`` or ``"forb"``, forward-reflected-backward: one resolvent a step, not two, at half the
            length. Both with a loopless anchor (Alacaoglu and Malitsky, 2022, algorithms 1 and 4).
        batch: components sampled; by default the stable rank (``problem.sampling``), at most the root of n: up to
            there a larger batch takes no more evaluations.
        eta: of the resolvent; by default ``7 n tau / batch``. The paper's, ``sqrt(n)/L`` for batches of one, is about a
            tenth of it: more resolvents, each with full evaluations that a longer one saves. It is halved, and the
            anchor set anew, where an inner loop gives up.
        inexactness: c, as a share of the first move: larger is looser. The bound is loose by about n over the batch,
            and so is the default, 100.
        restart: as for `VRHalpern`.
        step_size: tau, of the inner loop; by default ``0.9 sqrt(p)/L`` of a batch (0.45 with ``"forb"``),
            ``p = 2 batch / n`` the chance of a new inner anchor.

    The metrics of a step are ``residual``, ``|u - J(u - F(u), 1)|`` at the answer, and ``inner``, the inner steps.

    Cost per step: O(n) component evaluations times a logarithm.

    Source: arXiv 2310.02987.

    >>> from thalweg import Stop, solve
    >>> from thalweg.equilibrium import matrix_game
    >>> game = matrix_game(torch.tensor([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]).double())
    >>> solve(game, InexactHalpern(), stop=Stop(below={"residual": 1e-6})).x[:3].round(decimals=3)
    tensor([0.3330, 0.3330, 0.3330], dtype=torch.float64)
    """

    inner: Literal["extragradient", "forb"] = "extragradient"
    batch: int | None = None
    eta: float | None = None
    inexactness: float = 100.0
    restart: float | None = None
    step_size: float | None = None

    def __post_init__(self) -> None:
        known = self.inner in ("extragradient", "forb")
        require(known, "InexactHalpern knows 'extragradient' and 'forb'", got=self.inner)
        positive = ["eta", "inexactness", "step_size"]
        check_options(self, positive=positive, counts=["batch"], shares=["restart"])

    def init(self, problem: MonotoneInclusion, seed: int) -> InexactState:
        n = problem.count
        b = problem.sampling.batch if self.batch is None else min(self.batch, n)
        tau = self.step_size
        if tau is None:
            share = 0.9 if self.inner == "extragradient" else 0.45
            tau = share * math.sqrt(anchor_chance(b, n)) / problem.sampling.of_batch(b)
        eta = self.eta if self.eta is not None else LONGER * n * tau / b
        u = problem.resolvent(problem.x0, 1.0)
        residual = problem.natural_residual(u)
        return InexactState(
            x=u,
            metrics={"residual": residual, "inner": 0.0},
            calls=n,
            seed=seed,
            anchor=u,
            u=u,
            k=0,
            step_size=tau,
            eta=eta,
            batch=b,
            first_move=None,
            restarted_at=residual,
        )

    def step(self, problem: MonotoneInclusion, state: InexactState) -> InexactState:
        k, u = state.k, state.u
        loop = _Loop(problem, state, self.inner)
        z, value, done = loop.run(self.inexactness / (k + 2.0) ** 2)
        self.checked(problem, z, state)
        first_move = state.first_move
        if first_move is None:
            first_move = max(float(torch.linalg.vector_norm(z - u)), 1e-300)
        pull = 1.0 / (k + 2.0)
        residual = problem.natural_residual(z, value)
        moved = replace(
            state,
            x=z,
            u=pull * state.anchor + (1.0 - pull) * z,
            k=k + 1,
            first_move=first_move,
            step=state.step + 1,
            calls=state.calls + loop.calls,
            metrics={"residual": residual, "inner": float(loop.steps)},
        )
        if not done:
            return replace(moved, eta=0.5 * state.eta, anchor=z, u=z, k=0, first_move=None)
        if self.restart is not None and residual <= self.restart * state.restarted_at:
            return replace(moved, anchor=z, u=z, k=0, first_move=None, restarted_at=residual)
        return moved


class _Loop:
    """The inner loop: ``0 in F(z) + G(z) + (z - u)/eta``, its quadratic in the resolvent, w a loopless anchor."""

    #: Lives of an inner anchor, of mean length, after which the loop gives up.
    MOST = 200

    def __init__(self, problem: MonotoneInclusion, state: InexactState, kind: str) -> None:
        self.problem, self.kind, self.random = problem, kind, state.stream()
        self.begin, self.u, self.first_move = state.x, state.u, state.first_move
        self.tau, self.eta, self.batch = state.step_size, state.eta, state.batch
        self.chance = anchor_chance(self.batch, problem.count)
        self.shrink = 1.0 + self.tau / self.eta
        self.calls = self.steps = 0

    def ahead(self, value: Tensor) -> Tensor:
        """What ``(v - tau value + (tau/eta) u) / shrink`` holds beside ``v / shrink``."""
        return (self.tau / self.eta * self.u - self.tau * value) / self.shrink

    def resolved(self, v: Tensor) -> Tensor:
        """The resolvent of ``tau G / shrink``: with `ahead` that of ``tau (G + (. - u)/eta)``."""
        return self.problem.resolvent(v, self.tau / self.shrink)

    def full(self, z: Tensor) -> Tensor:
        self.calls += self.problem.count
        return self.problem.components.full(z)

    def change(self, at: Tensor, w: Tensor) -> Tensor:
        """``F_S(at) - F_S(w)`` of a batch, or of all."""
        change, cost = self.problem.change(at, w, self.batch, self.random)
        self.calls += cost
        return change

    def distance(self, w: Tensor, value: Tensor) -> float:
        """How far w may be from the solution: a step's length over tau, times eta, strong monotonicity being 1/eta."""
        step = w - self.resolved(self.ahead(value) + w / self.shrink)
        return self.eta / self.tau * float(torch.linalg.vector_norm(step))

    def run(self, share: float) -> tuple[Tensor, Tensor, bool]:
        """The solution within ``share`` of the first move, F there, and whether it was found."""
        z = w = self.begin
        before = w  # forward-reflected-backward compares with the last anchor
        value = self.full(w)
        while self.steps < self.MOST / self.chance:
            ahead = self.ahead(value)
            for _ in range(period(self.chance, self.random)):
                self.steps += 1
                middle = torch.lerp(z, w, self.chance)
                start = torch.add(ahead, middle, alpha=1.0 / self.shrink)
                if self.kind == "extragradient":
                    change = self.change(self.resolved(start), w)
                else:
                    change, before = self.change(z, before), w
                z = self.resolved(torch.add(start, change, alpha=-self.tau / self.shrink))
            w = z
            value = self.full(w)
            move = self.first_move
            goal = share * (float(torch.linalg.vector_norm(w - self.u)) if move is None else move)
            if self.distance(w, value) <= max(goal, 1e-15):
                return w, value, True
        return w, value, False
