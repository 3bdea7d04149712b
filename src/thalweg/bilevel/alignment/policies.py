"""Policies with parameters theta in one vector: softmax tables, softmax and Gaussian networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.bilevel.alignment.rewards import FLOAT, check_sizes, count, drawn, encoded, network
from thalweg.bilevel.alignment.segments import Actions, Segments
from thalweg.core.validation import is_real, require


class Policy(ABC):
    """``pi_theta(a | s)``, ``size`` parameters. Logarithms and entropies have the shape (N, L)."""

    size: int

    @abstractmethod
    def start(self, seed: int) -> Tensor:
        """Where training begins, shape (size,)."""

    @abstractmethod
    def log_prob(self, theta: Tensor, segments: Segments) -> Tensor:
        """``ln pi(a_h | s_h)`` of each lived step, 0 after the end."""

    @abstractmethod
    def entropies(self, theta: Tensor, segments: Segments) -> Tensor:
        """Entropy of the policy at each lived step, 0 after the end."""

    @abstractmethod
    def act(self, theta: Tensor, observations: Actions, rng: np.random.Generator) -> Actions:
        """An action for each of n observations."""


class SoftmaxPolicy(Policy):
    """Numbered actions, by the softmax of logits."""

    @abstractmethod
    def logits(self, theta: Tensor, observations: Actions) -> Tensor:
        """Shape (..., A)."""

    def log_prob(self, theta: Tensor, segments: Segments) -> Tensor:
        logs = self.logits(theta, segments.observations).log_softmax(-1)
        found = logs.gather(-1, torch.from_numpy(segments.actions)[..., None])[..., 0]
        return found * torch.from_numpy(segments.lived)

    def entropies(self, theta: Tensor, segments: Segments) -> Tensor:
        logs = self.logits(theta, segments.observations).log_softmax(-1)
        return -(logs.exp() * logs).sum(-1) * torch.from_numpy(segments.lived)

    def act(self, theta: Tensor, observations: Actions, rng: np.random.Generator) -> Actions:
        with torch.no_grad():
            sums = self.logits(theta, observations).softmax(-1).cumsum(-1).numpy()
        found = (rng.random(len(sums))[:, None] * sums[:, -1:] >= sums).sum(1)
        return np.minimum(found, sums.shape[1] - 1).astype(np.int64)


@dataclass(frozen=True)
class TablePolicy(SoftmaxPolicy):
    """Softmax of a number for each state and action; it begins uniform.

    >>> TablePolicy(3, 2).size
    6
    """

    states: int
    actions: int

    def __post_init__(self) -> None:
        check_sizes("TablePolicy", self.states, self.actions)

    @property
    def size(self) -> int:  # type: ignore[override]
        """S A."""
        return self.states * self.actions

    def start(self, seed: int) -> Tensor:
        """Zeros."""
        return torch.zeros(self.size, dtype=FLOAT)

    def logits(self, theta: Tensor, observations: Actions) -> Tensor:
        """See `Policy`."""
        return theta.reshape(self.states, self.actions)[torch.from_numpy(observations)]


@dataclass(frozen=True)
class NetworkPolicy(SoftmaxPolicy):
    """Softmax of a network's outputs.

    Args:
        states: entries of an observation, or numbers of states.
        actions: numbers of actions.
        numbered: whether states are numbers. Default False.
        hidden: units of each hidden layer. Default (32,).

    >>> NetworkPolicy(4, 2).size
    226
    """

    states: int
    actions: int
    numbered: bool = False
    hidden: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        check_sizes("NetworkPolicy", self.states, self.actions, *self.hidden)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of all layers."""
        return (self.states, *self.hidden, self.actions)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Weights and biases."""
        return count(self.widths)

    def start(self, seed: int) -> Tensor:
        """Drawn."""
        return drawn(self.widths, 1, seed)

    def logits(self, theta: Tensor, observations: Actions) -> Tensor:
        """See `Policy`."""
        x = encoded(observations, self.states, self.numbered)
        found = network(theta[None], self.widths, x.reshape(-1, self.states))[0]
        return found.reshape(*x.shape[:-1], self.actions)


@dataclass(frozen=True)
class GaussianPolicy(Policy):
    """Actions that are vectors: normal around a network's outputs, with a spread of its own for each entry.

    Args:
        states: entries of an observation.
        actions: entries of an action.
        scale: the largest size of an action's entry; means are ``scale tanh(...)``, spreads begin at half of it.
        hidden: units of each hidden layer. Default (32,).

    >>> GaussianPolicy(3, 1, scale=2.0).size
    162
    """

    states: int
    actions: int
    scale: float = 1.0
    hidden: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        check_sizes("GaussianPolicy", self.states, self.actions, *self.hidden)
        fits = is_real(self.scale) and 0 < self.scale < math.inf
        require(fits, "GaussianPolicy needs scale > 0", got=self.scale)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of all layers."""
        return (self.states, *self.hidden, self.actions)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Weights, biases and logarithms of spreads."""
        return count(self.widths) + self.actions

    def start(self, seed: int) -> Tensor:
        """Drawn."""
        return torch.cat(
            [drawn(self.widths, 1, seed), torch.full((self.actions,), math.log(0.5), dtype=FLOAT)]
        )

    def _law(self, theta: Tensor, observations: Actions) -> tuple[Tensor, Tensor]:
        x = encoded(observations, self.states, False)
        out = network(theta[None, : -self.actions], self.widths, x.reshape(-1, self.states))[0]
        return self.scale * out.tanh().reshape(*x.shape[:-1], self.actions), theta[
            -self.actions :
        ] + math.log(self.scale)

    def log_prob(self, theta: Tensor, segments: Segments) -> Tensor:
        """See `Policy`."""
        mean, log_spread = self._law(theta, segments.observations)
        z = (torch.from_numpy(segments.actions) - mean) / log_spread.exp()
        found = (-0.5 * z * z - log_spread - 0.5 * math.log(2 * math.pi)).sum(-1)
        return found * torch.from_numpy(segments.lived)

    def entropies(self, theta: Tensor, segments: Segments) -> Tensor:
        """See `Policy`."""
        log_spread = theta[-self.actions :] + math.log(self.scale)
        one = (log_spread + 0.5 * math.log(2 * math.pi * math.e)).sum()
        return one * torch.from_numpy(segments.lived)

    def act(self, theta: Tensor, observations: Actions, rng: np.random.Generator) -> Actions:
        """See `Policy`."""
        with torch.no_grad():
            mean, log_spread = self._law(theta, observations)
        found: Actions = mean.numpy() + log_spread.exp().numpy() * rng.standard_normal(mean.shape)
        return found
