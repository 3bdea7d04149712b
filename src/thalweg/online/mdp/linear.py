"""A learner for worlds of any size that have a simulator: states are known by the features of their actions alone.

Dai, Luo, Wei and Zimmert (2023), algorithm 1. What all episodes so far have taught is held in three sums a layer.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import CheckpointMismatch, InvalidProblem, NotFinite
from thalweg.core.seeding import generator
from thalweg.core.tree import require_alike
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require
from thalweg.online.mdp import _kernels as kernels
from thalweg.online.mdp.covariance import samples_needed
from thalweg.online.mdp.methods import LogBarrier
from thalweg.online.mdp.problem import ROUNDING, Array, Dynamics


class FeatureWorld(Protocol):
    """A simulator of many episodes at once; a state is what features its actions have."""

    def reset(self, count: int, rng: np.random.Generator) -> ArrayLike:
        """Begin ``count`` episodes: the features of the actions in their first states, shape (count, A, d)."""

    def step(self, actions: NDArray[np.int64], rng: np.random.Generator) -> ArrayLike:
        """Take actions, shape (count,): the features in the next states, shape (count, A, d)."""


class SimulatedWorld:
    """A `FeatureWorld` of dynamics that are known.

    >>> from thalweg.online.mdp import random_linear_mdp
    >>> SimulatedWorld(random_linear_mdp()).reset(5, np.random.default_rng(0)).shape
    (5, 4, 4)
    """

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics = dynamics
        self.layer = 0
        self.states: NDArray[np.int64] = np.zeros(0, dtype=np.int64)

    def reset(self, count: int, rng: np.random.Generator) -> Array:
        """Begin episodes."""
        self.layer = 0
        self.states = _drawn(np.cumsum(self.dynamics.start)[None].repeat(count, 0), rng)
        return self.dynamics.features[0, self.states]

    def step(self, actions: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Take an action in each."""
        self.states = _drawn(self.dynamics.sums[self.layer, self.states, actions], rng)
        self.layer += 1
        return self.dynamics.features[self.layer, self.states]


@dataclass(frozen=True)
class Rollouts:
    """Episodes under one policy, each with a weight; the weights sum to one.

    ``features`` (H, M, A, d) of the actions in the states met, ``probabilities`` (H, M, A) and the ``actions`` taken
    (H, M), ``weights`` (M,).
    """

    features: Array
    probabilities: Array
    actions: NDArray[np.int64]
    weights: Array

    @property
    def taken(self) -> Array:
        """Features of the actions taken, shape (H, M, d)."""
        return np.take_along_axis(self.features, self.actions[..., None, None], axis=2)[:, :, 0]


class LinearLearner:
    """`LogBarrier` without tables: a query costs O(A d^2), however many states there are.

    An episode is ``a = learner.act(features)``, the features of the state's actions, shape (A, d), and
    ``learner.learn(loss)``, H times. After it the simulator plays ``samples`` episodes under the same policy, from
    which covariances and the bonus are had. It is for linear MDPs: what comes after an action is linear in its
    features.

    Magnitude-reduced estimates are not linear in the features, and cannot be summed so: `EpisodeLearner` has them.

    Args:
        world: the simulator.
        dimension, actions, layers: d, A and H.
        episodes: K.
        method: with the options that are not its defaults: ``constants``, ``eta``, ``gamma``, ``beta``, ``samples``.
        seed: names the stream that actions and simulated episodes are drawn from.

    Raises:
        InvalidProblem: features of other shapes or longer than one. InvalidParameter: rounds out of order, losses
            outside [0, 1]. NotFinite: NaN or infinity.

    Cost of an episode: the simulator's, and O(samples H A d^2).

    >>> from thalweg.online.mdp import random_linear_mdp
    >>> world = SimulatedWorld(random_linear_mdp())
    >>> learner = LinearLearner(world, 4, 4, 4, episodes=100, method=LogBarrier(samples=200))
    >>> for _ in range(4):
    ...     action = learner.act(np.eye(4)); learner.learn(0.5)
    >>> learner.probabilities(np.eye(4)).sum().round(9)
    np.float64(1.0)
    """

    def __init__(
        self,
        world: FeatureWorld,
        dimension: int,
        actions: int,
        layers: int,
        episodes: int,
        *,
        method: LogBarrier | None = None,
        seed: int = 0,
    ) -> None:
        sizes = {"dimension": dimension, "actions": actions, "layers": layers, "episodes": episodes}
        for name, value in sizes.items():
            require(is_whole(value) and value >= 1, f"LinearLearner needs {name} >= 1", got=value)
        known = LogBarrier() if method is None else method
        require(isinstance(known, LogBarrier), f"LinearLearner plays LogBarrier; got {type(known).__name__}.")
        rule = known.rule
        self.world, self.sizes = world, sizes
        self.constants = rule.schedule(episodes, actions, dimension, layers)
        self.samples = rule.samples or samples_needed(self.constants.gamma, dimension, layers, episodes)
        self.episode = 0
        self.estimates: Array = np.zeros((layers, dimension))  # sum of S phi L
        self.squares: Array = np.zeros((layers, dimension, dimension))  # beta sum of S
        self.bonuses: Array = np.zeros(
            (layers, dimension)
        )  # sum of what the bonus of later layers is linear by
        self._rng = generator(seed)
        self._layer, self._acted = 0, False
        self._path: Array = np.zeros((layers, dimension))
        self._losses: Array = np.zeros(layers)

    def cumulative(self, layer: int, features: Array) -> Array:
        """``sum of (Q - B)`` up to a constant a state: features (..., A, d), returns (..., A)."""
        linear = features @ (self.estimates[layer] - self.bonuses[layer])
        return np.asarray(linear - ((features @ self.squares[layer]) * features).sum(-1))

    def probabilities(self, features: ArrayLike) -> Array:
        """Of the actions of a state of the layer that comes, shape (A,)."""
        return self._policy(self._layer, self._checked(features, (), "features"))

    def act(self, features: ArrayLike) -> int:
        """Draw an action where they have these features, shape (A, d)."""
        require(not self._acted, "act: tell the loss of the last action first, with learn(loss)")
        rows = self._checked(features, (), "features")
        action = int(kernels.draw(self._rng, np.cumsum(self._policy(self._layer, rows))))
        self._path[self._layer], self._acted = rows[action], True
        return action

    def learn(self, loss: float) -> None:
        """Take in the loss of the action drawn; after the last layer's, the episode is learned from."""
        require(self._acted, "learn: draw an action first, with act(features)")
        check_finite("loss", loss)
        fits = is_real(loss) and 0 <= loss <= 1
        require(fits, f"The loss of layer {self._layer} lies in [0, 1]: shift and scale all losses", got=loss)
        self._losses[self._layer] = loss
        self._layer, self._acted = self._layer + 1, False
        if self._layer == self.sizes["layers"]:
            self._layer = 0
            self.take_in(self.rollouts(), self._path, self._losses)

    def rollouts(self) -> Rollouts:
        """``samples`` simulated episodes under the policy of the episode at hand."""
        found: list[tuple[Array, Array, NDArray[np.int64]]] = []
        for h in range(self.sizes["layers"]):
            seen = (
                self.world.step(found[-1][2], self._rng)
                if found
                else self.world.reset(self.samples, self._rng)
            )
            rows = self._checked(seen, (self.samples,), "The simulator's features")
            p = self._policy(h, rows)
            found.append((rows, p, _drawn(np.cumsum(p, axis=1), self._rng)))
        features, chances, actions = (np.array(part) for part in zip(*found, strict=True))
        return Rollouts(features, chances, actions, np.full(self.samples, 1.0 / self.samples))

    def take_in(self, rollouts: Rollouts, path: Array, losses: Array) -> None:
        """Learn from an episode: features of the actions taken (H, d), losses (H,), and others under its policy."""
        layers, (_, gamma, beta) = self.sizes["layers"], vars(self.constants).values()
        taken, ahead = rollouts.taken, np.zeros(len(rollouts.weights))
        tails = np.cumsum(losses[::-1])[::-1]
        for h in range(layers - 1, -1, -1):
            S = kernels.inverse_covariance(np.ascontiguousarray(taken[h]), rollouts.weights, gamma)
            self.estimates[h] += S @ path[h] * tails[h]
            self.squares[h] += beta * S
            self.bonuses[h] += S @ (taken[h].T @ (rollouts.weights * ahead))
            norms = ((rollouts.features[h] @ S) * rollouts.features[h]).sum(-1)
            own = np.take_along_axis(norms, rollouts.actions[h][:, None], axis=1)[:, 0]
            local = beta * (own + (rollouts.probabilities[h] * norms).sum(-1))
            ahead = (1.0 + 1.0 / layers) * (local + ahead)
        if not np.isfinite(self.estimates).all():
            raise NotFinite(f"Estimates are no longer finite after {self.episode} episodes.")
        self.episode += 1

    def state_dict(self) -> dict[str, object]:
        """All that was learned, the episode under way, and the random stream; the world's own state is not in it."""
        return copy.deepcopy(self._held())

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from ``state``; `CheckpointMismatch` if it is of a learner of other sizes."""
        held = self._held()
        if set(state) != set(held) or state["sizes"] != self.sizes:
            raise CheckpointMismatch(
                f"The saved learner has {state.get('sizes')}; expected a LinearLearner with {self.sizes}."
            )
        for name, value in held.items():
            require_alike(f"learner's {name}", value, state[name])
        vars(self).update(copy.deepcopy(state))

    def _held(self) -> dict[str, object]:
        return {n: v for n, v in vars(self).items() if n not in ("world", "constants", "samples")}

    def _policy(self, layer: int, features: Array) -> Array:
        cumulative = self.cumulative(layer, features)
        found = np.empty_like(cumulative)
        rows, width = cumulative.reshape(-1, self.sizes["actions"]), self.sizes["actions"]
        kernels.leaders(kernels.LOG_BARRIER, rows, self.constants.eta, found.reshape(-1, width))
        return found

    def _checked(self, features: ArrayLike, leading: tuple[int, ...], name: str) -> Array:
        rows = as_real(name, features)
        expected = (*leading, self.sizes["actions"], self.sizes["dimension"])
        if rows.shape != expected:
            raise InvalidProblem(f"{name} has shape {rows.shape}; expected {expected}.")
        check_finite(name, rows)
        longest = float(np.sqrt(np.einsum("...d,...d->...", rows, rows).max()))
        if longest > 1.0 + ROUNDING:
            raise InvalidProblem(
                f"{name} has a row of length {longest:.6g}; expected at most 1. Scale all of them."
            )
        return rows


def _drawn(sums: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """A number for each row of running sums of chances, shape (rows, n)."""
    uniforms = rng.random(len(sums))[:, None] * sums[:, -1:]
    return np.asarray(np.minimum((sums <= uniforms).sum(1), sums.shape[1] - 1), dtype=np.int64)
