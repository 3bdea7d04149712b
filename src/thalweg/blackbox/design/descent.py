"""Descent in the letters of all designs at once: what methods that follow a model's gradient share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from thalweg.blackbox.design.adaptive import AdaptiveEta, moments_step
from thalweg.blackbox.design.encoders import Encoder
from thalweg.blackbox.design.masked import MaskedLetters
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.proxy import Proxy, letters_of, proxy_of, soft_letters
from thalweg.blackbox.design.space import Codes
from thalweg.core import Method, NotFinite, State, Status
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require

#: From a gradient in the features to one in the logits.
Pull = Callable[[Tensor], Tensor]
#: Standard deviation of the logits that designs begin from.
NOISE = 0.01
#: Steps for alphabets of at most so many letters, and for larger ones.
SMALL, STEPS, FEWER_STEPS = 8, 100, 25


@dataclass(kw_only=True)
class LetterState(State):
    """``x`` are the codes of the designs."""

    x: Codes
    theta: Tensor  # (n, length, letters), minus infinity where a letter is forbidden
    first: Tensor
    second: Tensor
    gamma: Tensor  # (n,)
    gamma_first: Tensor
    gamma_second: Tensor
    start_loss: float = np.nan
    seed: int = 0
    steps: int = 0


class Pulled(NamedTuple):
    """The gradient in the logits, each design's loss, and gamma with its moments."""

    gradient: Tensor
    loss: Tensor
    gamma: tuple[Tensor, Tensor, Tensor]
    score: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class LetterDescent(Method[SequenceTable, LetterState]):
    """Base of the methods that move logits of letters by Adam; each design goes its own way.

    Letters are hard in the model and soft in the gradient. All designs begin at the same small draw, with the largest
    logit of each position swapped to the start's letter, so that a design does not depend on those beside it.
    """

    encoder: Encoder = field(default_factory=MaskedLetters)
    steps: int | None = None
    step_size: float | AdaptiveEta = 0.1

    def __post_init__(self) -> None:
        name = type(self).__name__
        require(isinstance(self.encoder, Encoder), f"{name}: encoder is an Encoder", got=self.encoder)
        whole = self.steps is None or (is_whole(self.steps) and self.steps >= 1)
        require(whole, f"{name} needs steps >= 1", got=self.steps)
        usable = isinstance(self.step_size, AdaptiveEta) or (
            is_real(self.step_size) and 0 < self.step_size < np.inf
        )
        require(usable, f"{name} needs step_size > 0, or AdaptiveEta()", got=self.step_size)

    @abstractmethod
    def pulled(
        self, problem: SequenceTable, proxy: Proxy, h: Tensor, pull: Pull, state: LetterState
    ) -> Pulled:
        """Where the logits are to go, from the designs' features."""

    def first_gamma(self) -> float:
        """The weight of the forward loss at the start."""
        return 1.0

    def length(self, problem: SequenceTable) -> int:
        """Steps: 100 for DNA and other small alphabets, 25 for proteins, unless said otherwise."""
        return self.steps or (STEPS if problem.space.letters <= SMALL else FEWER_STEPS)

    def init(self, problem: SequenceTable, seed: int) -> LetterState:
        space, starts = problem.space, problem.starts()
        proxy_of(problem, self.encoder, seed)  # bad encoders are refused before the first step
        drawn = NOISE * generator(seed, 0x05, 5).standard_normal((space.positions, space.letters))
        theta = np.broadcast_to(np.where(space.table, drawn, -np.inf), (len(starts), *drawn.shape)).copy()
        rows, places = np.indices(starts.shape)
        largest = theta.argmax(2)
        held, top = theta[rows, places, starts].copy(), theta[rows, places, largest].copy()
        theta[rows, places, largest], theta[rows, places, starts] = held, top
        logits = torch.from_numpy(theta)
        zeros, ones = torch.zeros_like(logits), torch.ones(len(starts), dtype=logits.dtype)
        gamma = ones * self.first_gamma()
        return LetterState(
            x=starts,
            theta=logits,
            first=zeros,
            second=zeros.clone(),
            gamma=gamma,
            gamma_first=0 * ones,
            gamma_second=0 * ones,
            seed=seed,
        )

    def step(self, problem: SequenceTable, state: LetterState) -> LetterState:
        t, steps = state.steps + 1, self.length(problem)
        proxy = proxy_of(problem, self.encoder, state.seed)
        theta = state.theta.requires_grad_()
        h = proxy.features(soft_letters(theta, torch.from_numpy(state.x)))

        def pull(gradient: Tensor) -> Tensor:
            return torch.autograd.grad(h, theta, gradient.to(h.dtype), retain_graph=True)[0]

        found = self.pulled(problem, proxy, h.detach(), pull, state)
        if not bool(torch.isfinite(found.gradient).all()):
            raise NotFinite(f"A gradient is not finite at step {t}; see the encoder's features.")
        direction, first, second = moments_step(found.gradient, state.first, state.second, t)
        eta: Tensor | float
        if isinstance(self.step_size, AdaptiveEta) and t > 1:
            score = found.score if found.score is not None else pull(proxy.auxiliary_gradient(h)[1])
            eta = self.step_size.length(score, direction)[:, None, None]
        else:
            eta = self.step_size.centre if isinstance(self.step_size, AdaptiveEta) else self.step_size
        theta = theta.detach() - eta * direction
        starts = torch.from_numpy(problem.starts())
        hard = letters_of(theta, problem.space, starts).numpy()
        gamma, gamma_first, gamma_second = found.gamma
        loss = float(found.loss.mean())
        metrics = {
            "loss": loss,
            "gamma": float(gamma.mean()),
            "changed": float((hard != starts.numpy()).sum(1).mean()),
        }
        after = LetterState(
            x=hard,
            theta=theta,
            first=first,
            second=second,
            gamma=gamma,
            gamma_first=gamma_first,
            gamma_second=gamma_second,
            start_loss=loss if t == 1 else state.start_loss,
            seed=state.seed,
            steps=t,
            metrics=metrics,
        )
        if t >= steps:
            after.status, after.message = self._end(problem, after, loss)
        return after

    def _end(self, problem: SequenceTable, state: LetterState, loss: float) -> tuple[Status, str]:
        changed = int((state.x != problem.starts()).any(1).sum())
        told = f"{state.steps} steps done; {changed} of {len(state.x)} designs have left their start."
        if changed and loss < state.start_loss:
            return Status.CONVERGED, told
        return Status.STALLED, f"{told} The loss has not fallen; take another mode, encoder or target."
