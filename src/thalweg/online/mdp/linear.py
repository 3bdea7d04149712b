"""A learner for worlds of any size that have a simulator."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.validation import require
from thalweg.online.mdp.covariance import samples_needed
from thalweg.online.mdp.features import FeatureLearner, Rollouts, check_sizes, drawn
from thalweg.online.mdp.methods import LogBarrier
from thalweg.online.mdp.problem import Array, Dynamics


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
        self.states = drawn(np.cumsum(self.dynamics.start)[None].repeat(count, 0), rng)
        return self.dynamics.features[0, self.states]

    def step(self, actions: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Take an action in each."""
        self.states = drawn(self.dynamics.sums[self.layer, self.states, actions], rng)
        self.layer += 1
        return self.dynamics.features[self.layer, self.states]


class LinearLearner(FeatureLearner):
    """`LogBarrier` by features alone, with a simulator: a query costs O(A d^2), however many states there are.

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
            The default number of samples is theory's; a hundred do as well on random linear MDPs, in a twentieth of the
            time.
        seed: names the stream that actions and simulated episodes are drawn from.

    Raises:
        InvalidProblem: features of other shapes or longer than one. InvalidParameter: rounds out of order, losses
            outside [0, 1]. NotFinite: NaN or infinity.

    Cost of an episode: the simulator's, and O(samples H A d^2).

    Source: Dai, Luo, Wei and Zimmert (2023), algorithm 1, in a linear MDP.

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
        check_sizes("LinearLearner", dimension=dimension, actions=actions, layers=layers, episodes=episodes)
        known = LogBarrier() if method is None else method
        require(isinstance(known, LogBarrier), f"LinearLearner plays LogBarrier; got {type(known).__name__}.")
        require(
            not known.doubling and known.covariance != "resampling",
            "LinearLearner has no doubling and no resampling; leave these options out",
        )
        constants = known.rule.schedule(episodes, actions, dimension, layers)
        super().__init__(dimension, actions, layers, episodes, constants, 0.0, seed)
        self.world = world
        self.samples = known.samples or samples_needed(constants.gamma, dimension, layers, episodes)

    def rollouts(self) -> Rollouts:
        """``samples`` simulated episodes under the policy of the episode at hand."""
        found: list[tuple[Array, Array, NDArray[np.int64]]] = []
        for h in range(self.sizes["layers"]):
            if found:
                seen = self.world.step(found[-1][2], self._rng)
            else:
                seen = self.world.reset(self.samples, self._rng)
            rows = self.checked(seen, (self.samples,), "The simulator's features")
            p = self.policy(h, rows)
            found.append((rows, p, drawn(np.cumsum(p, axis=1), self._rng)))
        features, chances, actions = (np.array(part) for part in zip(*found, strict=True))
        return Rollouts(features, chances, actions, np.full(self.samples, 1.0 / self.samples))

    def _end(self) -> None:
        path = self._features[np.arange(self.sizes["layers"]), self._actions]
        self.take_in(self.rollouts(), path[None], self._losses[None])
