"""A Gymnasium environment with numbered states and actions, and learners that play in it."""

from __future__ import annotations

import numpy as np

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_whole, require
from thalweg.numerics.markov import (
    Environment,
    discrete_size,
    environment_table,
    made_environment,
    table_chances,
)
from thalweg.online.mdp.environments import tabular
from thalweg.online.mdp.learner import EpisodeLearner
from thalweg.online.mdp.problem import Array, Dynamics


class GymnasiumWorld:
    """Gymnasium's environment as layers of states: episodes are cut after so many steps, and what ends early waits.

    It is for environments whose states and actions are numbers and whose transitions are in a table
    ``environment.unwrapped.P``, as FrozenLake, CliffWalking and Taxi. One state more than theirs, the last, is where
    episodes that have ended wait, at the loss of a reward of zero. Features are unit vectors.

    Args:
        environment: a name (needs ``gymnasium``), or an object with its interface.
        layers: H, steps of an episode.
        start: the first state, or its chances; the environment's ``initial_state_distrib`` by default.

    ``dynamics`` and ``losses``, shape (H, S + 1, A), are its own: the reward r is the loss
    ``(high - r) / (high - low)``, with ``low`` and ``high`` the smallest and largest reward there is, zero included.
    Others' losses go with the same dynamics.

    Raises:
        MissingExtra: a name is given, and gymnasium is not installed.
        InvalidProblem: states or actions that are no numbers, no table, episodes that are cut before ``layers`` steps.

    >>> world = GymnasiumWorld("FrozenLake-v1", layers=20)
    >>> world.dynamics.states, world.dynamics.actions, world.losses.shape
    (17, 4, (20, 17, 4))
    """

    def __init__(self, environment: str | Environment, layers: int, start: int | Array | None = None) -> None:
        require(is_whole(layers) and layers >= 1, "GymnasiumWorld needs layers >= 1", got=layers)
        self.environment = made_environment(environment) if isinstance(environment, str) else environment
        self.layers = layers
        inner = getattr(self.environment, "unwrapped", self.environment)
        states, actions = (
            discrete_size(self.environment, name) for name in ("observation_space", "action_space")
        )
        table = environment_table(self.environment)
        if table is None:
            raise InvalidProblem(
                f"{type(inner).__name__} has no table P of its transitions. Count those of a simulator with "
                "measured_dynamics."
            )
        begins = getattr(inner, "initial_state_distrib", None) if start is None else start
        if begins is None:
            raise InvalidProblem(f"{type(inner).__name__} does not say where it starts; give start=.")
        moves, rewards = table_chances(table, states, actions)
        if not is_whole(begins):
            begins = np.append(np.asarray(begins, dtype=np.float64), 0.0)
        self.dynamics: Dynamics = tabular(moves, layers=layers, start=begins)
        paid = [float(way[2]) for row in table.values() for ways in row.values() for way in ways]
        self.low, self.high = min(0.0, *paid), max(0.0, *paid)
        self.losses: Array = np.broadcast_to(
            np.clip((self.high - rewards) / self._spread, 0.0, 1.0), (layers, states + 1, actions)
        ).copy()

    @property
    def _spread(self) -> float:
        return self.high - self.low or 1.0

    def loss(self, reward: float) -> float:
        """The reward as a loss in [0, 1]."""
        return min(max((self.high - reward) / self._spread, 0.0), 1.0)

    def play(self, learner: EpisodeLearner, episodes: int, seed: int = 0) -> Array:
        """Let a learner play in the environment; returns the sum of rewards of each episode, shape (episodes,).

        ``seed`` is the environment's.
        """
        require(is_whole(episodes) and episodes >= 1, "play needs episodes >= 1", got=episodes)
        if learner.dynamics is not self.dynamics:
            raise InvalidProblem("play: the learner was made for another world; give it this one's dynamics.")
        rewards, waits = np.zeros(episodes), self.dynamics.states - 1
        for k in range(episodes):
            first, _ = self.environment.reset(seed=seed) if k == 0 else self.environment.reset()
            state = int(first)
            for h in range(self.layers):
                action, reward = learner.act(state), 0.0
                if state != waits:
                    after, paid, ended, cut, _ = self.environment.step(action)
                    state, reward = waits if ended else int(after), float(paid)
                    if cut and not ended and h < self.layers - 1:
                        raise InvalidProblem(
                            f"The environment cut an episode after {h + 1} steps; expected {self.layers}. Make it with "
                            "a larger max_episode_steps, or take fewer layers."
                        )
                learner.learn(self.loss(reward))
                rewards[k] += reward
        return rewards
