"""Models of the reward: a table, weights of features, an ensemble of networks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional

from thalweg.bilevel.alignment.segments import Array, Segments
from thalweg.core import InvalidProblem
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import as_real, check_finite, is_whole, require

FLOAT = torch.float64


class RewardModel(ABC):
    """A reward ``r_nu(s, a)`` with parameters nu in one vector.

    ``size`` is their number. What is asked of a model of your own: `start` and `steps`; `table` and `pull` follow.
    """

    size: int

    @abstractmethod
    def start(self, seed: int) -> Array:
        """Where training begins, shape (size,)."""

    @abstractmethod
    def members(self, nu: Tensor, segments: Segments) -> Tensor:
        """The reward of each step by each member of an ensemble, shape (members, N, L); one where there is none."""

    def steps(self, nu: Tensor, segments: Segments) -> Tensor:
        """The reward of each lived step, shape (N, L), 0 after the end."""
        return self.members(nu, segments).mean(0) * torch.from_numpy(segments.lived)

    def table(self, nu: Array, states: int, actions: int) -> Array:
        """The reward of each state and action of a world with numbers, shape (S, A)."""
        with torch.no_grad():
            return self._all(torch.from_numpy(nu), states, actions).numpy()

    def pull(self, nu: Array, g: Array) -> Array:
        """``(d table / d nu)' g`` for g of shape (..., S, A): shape (..., size)."""
        at = torch.from_numpy(nu).requires_grad_()
        found = self._all(at, *g.shape[-2:])
        rows = [
            torch.autograd.grad(found, at, torch.from_numpy(np.ascontiguousarray(row)), retain_graph=True)[
                0
            ].numpy()
            for row in g.reshape(-1, *g.shape[-2:])
        ]
        return np.array(rows).reshape(*g.shape[:-2], self.size)

    def _all(self, nu: Tensor, states: int, actions: int) -> Tensor:
        s, a = np.divmod(np.arange(states * actions), actions)
        return self.steps(nu, Segments(s[:, None], a[:, None])).reshape(states, actions)


@dataclass(frozen=True)
class TableReward(RewardModel):
    """A number for each state and action; where it begins: 0.

    >>> TableReward(2, 3).size
    6
    """

    states: int
    actions: int

    def __post_init__(self) -> None:
        for name in ("states", "actions"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"TableReward needs {name} >= 1", got=value)

    @property
    def size(self) -> int:  # type: ignore[override]
        """S A."""
        return self.states * self.actions

    def start(self, seed: int) -> Array:
        """Zeros."""
        return np.zeros(self.size)

    def members(self, nu: Tensor, segments: Segments) -> Tensor:
        """See `RewardModel`."""
        return nu[torch.from_numpy(segments.observations * self.actions + segments.actions)][None]

    def table(self, nu: Array, states: int, actions: int) -> Array:
        """See `RewardModel`."""
        return nu.reshape(states, actions)

    def pull(self, nu: Array, g: Array) -> Array:
        """See `RewardModel`."""
        return g.reshape(*g.shape[:-2], self.size)


@dataclass(frozen=True, eq=False)
class LinearReward(RewardModel):
    """``base + features . nu``; where it begins: 0.

    Args:
        features: shape (S, A, m), or (S, m) for states alone with ``actions=``, for worlds with numbers. Or a function
            ``features(observations, actions)`` of arrays (N, L, ...) that returns (N, L, m), with ``size=m``.
        base: a reward that is there anyway, shape (S, A): the follower's own, or what is to be shaped. Default 0.
        actions: A, where features are of states alone.
        size: m, where features are a function.

    >>> LinearReward(np.eye(4), actions=2).table(np.arange(4.0), 4, 2)[:, 0]
    array([0., 1., 2., 3.])
    """

    features: Array | Callable[[NDArray[np.generic], NDArray[np.generic]], ArrayLike]
    base: Array | None = None
    actions: int | None = None
    size: int = 0

    def __post_init__(self) -> None:
        if callable(self.features):
            fits = is_whole(self.size) and self.size >= 1 and self.base is None
            require(fits, "LinearReward needs size= for a function, and no base", got=self.size)
            return
        phi = as_real("features", self.features)
        fits = self.actions is None or (is_whole(self.actions) and self.actions >= 1)
        require(fits, "LinearReward needs actions >= 1", got=self.actions)
        if phi.ndim == 2 and self.actions is not None:
            phi = np.repeat(phi[:, None], self.actions, axis=1)
        if phi.ndim != 3 or phi.size == 0:
            raise InvalidProblem(
                f"LinearReward: features has shape {phi.shape}; expected (S, A, m), or (S, m) with actions=."
            )
        check_finite("features", phi)
        base = np.zeros(phi.shape[:2]) if self.base is None else as_real("base", self.base)
        if base.shape != phi.shape[:2]:
            raise InvalidProblem(f"LinearReward: base has shape {base.shape}; expected {phi.shape[:2]}.")
        check_finite("base", base)
        for name, value in (("features", phi), ("base", base), ("size", phi.shape[2])):
            object.__setattr__(self, name, value)

    def start(self, seed: int) -> Array:
        """Zeros."""
        return np.zeros(self.size)

    def members(self, nu: Tensor, segments: Segments) -> Tensor:
        """See `RewardModel`."""
        seen, done = segments.observations, segments.actions
        if callable(self.features):
            phi = as_real("features", self.features(seen, done))
            if phi.shape != (*segments.lived.shape, self.size):
                raise InvalidProblem(
                    f"LinearReward: features gave shape {phi.shape}; expected {(*segments.lived.shape, self.size)}."
                )
            return (torch.from_numpy(phi) @ nu)[None]
        base, table = cast(Array, self.base)[seen, done], self.features[seen, done]
        return (torch.from_numpy(base) + torch.from_numpy(table) @ nu)[None]

    def table(self, nu: Array, states: int, actions: int) -> Array:
        """See `RewardModel`."""
        found: Array = cast(Array, self.base) + cast(Array, self.features) @ nu
        return found

    def pull(self, nu: Array, g: Array) -> Array:
        """See `RewardModel`."""
        found: Array = np.einsum("...sa,sam->...m", g, cast(Array, self.features))
        return found


@dataclass(frozen=True)
class NetworkReward(RewardModel):
    """An ensemble of networks of state and action, LeakyReLU inside and tanh at the end; the reward is their mean.

    Args:
        states: numbers of states, or entries of an observation.
        actions: numbers of actions, or entries of one.
        numbered_states, numbered_actions: whether they are numbers, which networks see as unit vectors. Default True.
        hidden: units of each hidden layer. Default three of 256, as PEBBLE has them; two of 32 do for small worlds.
        networks: members of the ensemble. Default 3.

    Cost: members x layers products of matrices, in one batch.

    >>> NetworkReward(4, 2, hidden=(8,), networks=2).size
    130
    """

    states: int
    actions: int
    numbered_states: bool = True
    numbered_actions: bool = True
    hidden: tuple[int, ...] = (256, 256, 256)
    networks: int = 3

    def __post_init__(self) -> None:
        check_sizes("NetworkReward", self.states, self.actions, self.networks, *self.hidden)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of all layers."""
        return (self.states + self.actions, *self.hidden, 1)

    @property
    def size(self) -> int:  # type: ignore[override]
        """Parameters of all members."""
        return self.networks * count(self.widths)

    def start(self, seed: int) -> Array:
        """Drawn, each member by itself."""
        return drawn(self.widths, self.networks, seed).numpy()

    def members(self, nu: Tensor, segments: Segments) -> Tensor:
        """See `RewardModel`."""
        x = torch.cat(
            [
                encoded(segments.observations, self.states, self.numbered_states),
                encoded(segments.actions, self.actions, self.numbered_actions),
            ],
            -1,
        )
        N, L = segments.lived.shape
        flat = network(nu.reshape(self.networks, -1), self.widths, x.reshape(N * L, -1))
        return torch.tanh(flat).reshape(self.networks, N, L)


def check_sizes(who: str, *sizes: int) -> None:
    """Refuse numbers of states, actions or units that are none."""
    require(all(is_whole(n) and n >= 1 for n in sizes), f"{who} needs sizes >= 1", got=sizes)


def encoded(values: NDArray[np.generic], size: int, numbered: bool) -> Tensor:
    """Numbers as unit vectors, vectors as they are: shape (..., size)."""
    if numbered:
        return functional.one_hot(torch.from_numpy(values.astype(np.int64)), size).to(FLOAT)
    return torch.from_numpy(values.astype(np.float64))


def count(widths: Sequence[int]) -> int:
    """Weights and biases of a network."""
    return sum((a + 1) * b for a, b in pairwise(widths))


def drawn(widths: Sequence[int], members: int, seed: int) -> Tensor:
    """Parameters of ``members`` networks, uniform within ``1/sqrt(inputs)``, one after the other."""
    generator = torch_generator(seed, 0x3E7)
    rows = []
    for _ in range(members):
        for a, b in pairwise(widths):
            rows.append(
                (2.0 * torch.rand((a + 1) * b, generator=generator, dtype=FLOAT) - 1.0) / math.sqrt(a)
            )
    return torch.cat(rows)


def network(parameters: Tensor, widths: Sequence[int], x: Tensor) -> Tensor:
    """Outputs (E, n, out) of E networks, parameters (E, p), on inputs (n, in)."""
    at, out = 0, x.expand(len(parameters), *x.shape)
    for k, (a, b) in enumerate(pairwise(widths)):
        weight = parameters[:, at : at + a * b].reshape(-1, a, b)
        out = torch.baddbmm(parameters[:, None, at + a * b : at + (a + 1) * b], out, weight)
        at += (a + 1) * b
        if k < len(widths) - 2:
            out = functional.leaky_relu(out)
    return out
