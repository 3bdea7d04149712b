"""Learning without transitions and without a simulator: an epoch's episodes, under one policy, are its samples.

After Dai, Luo, Wei and Zimmert (2023), algorithm 3, with a share of the uniform policy in place of its policy cover.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from thalweg.core import Method, State
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.online.mdp import _kernels as kernels
from thalweg.online.mdp.constants import Constants, Which, log_barrier_schedule
from thalweg.online.mdp.features import FeatureLearner, Rollouts, check_sizes
from thalweg.online.mdp.learner import check_known, with_options
from thalweg.online.mdp.problem import AdversarialMDP, Array


class EpochLearner(FeatureLearner):
    """The log-barrier by features alone, where neither transitions nor a simulator are there.

    An episode is ``a = learner.act(features)`` and ``learner.learn(loss)``, H times. The policy stays the same for an
    epoch of episodes. Covariances and the bonus come from one half of them, estimates from the other. It is for linear
    MDPs. Where transitions are known, `EpisodeLearner` has less regret; where they can be simulated, `LinearLearner`.

    Args:
        dimension, actions, layers: d, A and H.
        episodes: K.
        method: `SimulatorFree` with the options that are not its defaults.
        seed: names the stream that actions are drawn from.

    Raises:
        InvalidProblem: features of other shapes or longer than one. InvalidParameter: rounds out of order, losses
            outside [0, 1]. NotFinite: NaN or infinity.

    Cost of an episode: O(H A d^2); memory O(epoch H A d). No rate is known for it as it stands here.

    >>> learner = EpochLearner(4, 4, 2, episodes=100)
    >>> for _ in range(200):
    ...     action = learner.act(np.eye(4)); learner.learn(0.2 * action)
    >>> int(learner.probabilities(np.eye(4)).argmax())
    0
    """

    def __init__(
        self,
        dimension: int,
        actions: int,
        layers: int,
        episodes: int,
        *,
        method: SimulatorFree | None = None,
        seed: int = 0,
    ) -> None:
        check_sizes("EpochLearner", dimension=dimension, actions=actions, layers=layers, episodes=episodes)
        known = SimulatorFree() if method is None else method
        self.epoch = known.epoch_of(episodes)
        constants = known.constants_of(episodes, actions, dimension, layers)
        super().__init__(dimension, actions, layers, episodes, constants, known.explore, seed)
        self._seen: Array = np.zeros((self.epoch, layers, actions, dimension))
        self._taken: NDArray[np.int64] = np.zeros((self.epoch, layers), dtype=np.int64)
        self._lost: Array = np.zeros((self.epoch, layers))

    def made(self) -> str:
        return f"{super().made()}, epoch={self.epoch}"

    def _end(self) -> None:
        at = self.episode % self.epoch
        self._seen[at], self._taken[at], self._lost[at] = self._features, self._actions, self._losses
        if at < self.epoch - 1:
            return
        features = self._seen[0::2].swapaxes(0, 1)
        chances = np.array([self.policy(h, rows) for h, rows in enumerate(features)])
        weights = np.full(features.shape[1], 1.0 / features.shape[1])
        rollouts = Rollouts(features, chances, self._taken[0::2].T, weights)
        paths = np.take_along_axis(self._seen[1::2], self._taken[1::2, :, None, None], axis=2)[:, :, 0]
        self.take_in(rollouts, paths, self._lost[1::2], times=self.epoch)


@dataclass(kw_only=True)
class EpochsState(State):
    """``x`` holds the policies played, NaN for episodes to come; the sums make the regret of a step cheap."""

    learner: EpochLearner
    world: np.random.Generator  # draws next states
    total: float = 0.0  # expected losses of the episodes so far
    sums: Array  # (H, S, A) of the losses so far


@dataclass(frozen=True)
class SimulatorFree(Method[AdversarialMDP, EpochsState]):
    """The log-barrier that is told nothing of transitions: `EpochLearner`, played on a problem that has them.

    Use it to see what not knowing transitions costs. Its regret lies between that of `LogBarrier` and of `LuoWeiLee` on
    random linear MDPs of 2000 episodes.

    Args:
        constants: "practical" (default) or "theory", as of `LogBarrier`.
        eta, beta: in place of theirs.
        gamma: by default one over the epoch, as few samples need.
        epoch: episodes under one policy, an even number; about ``sqrt(K)`` by default.
        explore: the share of the uniform policy in each state, which keeps covariances from vanishing. Default 0.02.
        block: episodes a step. Default 20. What is played does not depend on it.

    Raises:
        InvalidParameter: an option out of range.

    Cost of an episode: O(H S A d^2), of which this judge's look at every state is the most; some 0.3 milliseconds.

    Source: after Dai, Luo, Wei and Zimmert (2023), algorithm 3.

    >>> SimulatorFree().epoch_of(2000)
    44
    """

    in_place = True

    constants: Which = "practical"
    eta: float | None = None
    gamma: float | None = None
    beta: float | None = None
    epoch: int | None = None
    explore: float = 0.02
    block: int = 20

    def __post_init__(self) -> None:
        check_known("constants", self.constants, get_args(Which))
        with_options(log_barrier_schedule(self.constants), self.eta, self.gamma, self.beta)
        fits = self.epoch is None or (is_whole(self.epoch) and self.epoch >= 2 and self.epoch % 2 == 0)
        require(fits, "epoch is an even number >= 2, or None", got=self.epoch)
        require(is_real(self.explore) and 0 <= self.explore <= 1, "explore lies in [0, 1]", got=self.explore)
        require(is_whole(self.block) and self.block >= 1, "Episodes need block >= 1", got=self.block)

    def epoch_of(self, episodes: int) -> int:
        """Episodes under one policy."""
        return self.epoch or max(2 * round(math.sqrt(episodes) / 2), 2)

    def constants_of(self, episodes: int, actions: int, dimension: int, layers: int) -> Constants:
        """Learning rate, gamma and bonus."""
        schedule = with_options(log_barrier_schedule(self.constants), self.eta, None, self.beta)
        own = 1.0 / self.epoch_of(episodes) if self.gamma is None else self.gamma
        return dataclasses.replace(schedule(episodes, actions, dimension, layers), gamma=own)

    def init(self, problem: AdversarialMDP, seed: int) -> EpochsState:
        d = problem.dynamics
        learner = EpochLearner(d.dimension, d.actions, d.layers, problem.episodes, method=self, seed=seed)
        x, sums = np.full(problem.losses.shape, np.nan), np.zeros(problem.losses.shape[1:])
        return EpochsState(x=x, learner=learner, world=generator(seed, 1), sums=sums)

    def step(self, problem: AdversarialMDP, state: EpochsState) -> EpochsState:
        rows = slice(state.learner.episode, state.learner.episode + self.block)
        d, losses = problem.dynamics, problem.losses[rows]
        for policy, lost in zip(state.x[rows], losses, strict=True):
            self._play(problem, lost, state, policy)
        expected = np.empty(len(losses))
        kernels.expected_losses(d.packed_transitions, d.start, state.x[rows], losses, expected)
        state.total, state.sums = state.total + float(expected.sum()), state.sums + losses.sum(axis=0)
        state.metrics = problem.so_far(state.total, state.sums, state.learner.episode)
        return state

    def _play(self, problem: AdversarialMDP, losses: Array, state: EpochsState, policy: Array) -> None:
        d, learner = problem.dynamics, state.learner
        for h in range(d.layers):
            policy[h] = learner.policy(h, d.features[h])
        at = int(kernels.choose(state.world, d.start))
        for h in range(d.layers):
            action = learner.act(d.features[h, at])
            loss = float(losses[h, at, action])
            if h < d.layers - 1:
                at = int(kernels.draw(state.world, d.sums[h, at, action]))
            learner.learn(loss)
