"""Gymnasium's environments as worlds that are played in, whose reward only the teacher sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, SupportsFloat

import numpy as np

from thalweg.bilevel.alignment.policies import GaussianPolicy, NetworkPolicy, Policy
from thalweg.bilevel.alignment.segments import Actions, Array, Segments
from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.validation import is_real, is_whole, require
from thalweg.numerics.markov import made_environment


class Played(Protocol):
    """What is asked of an environment; its spaces are ``Discrete`` or ``Box`` of one axis."""

    def reset(self, *, seed: int | None = None) -> tuple[object, object]:
        """Begin an episode."""

    def step(self, action: object) -> tuple[object, SupportsFloat, bool, bool, object]:
        """Take an action: observation, reward, whether it has ended, whether it was cut, anything."""


class Episodes:
    """Episodes of a Gymnasium environment of at most ``horizon`` steps.

    Args:
        environment: a name (needs ``gymnasium``), or a function without arguments that makes one.
        horizon: most steps of an episode; steps after an early end are not lived and have no reward.
        discount: gamma, in [0, 1]. Default 0.99.

    Raises:
        MissingExtra: a name is given, and gymnasium is not installed.
        InvalidProblem: spaces other than ``Discrete(n)`` and ``Box`` with one axis; actions that are unbounded.

    >>> world = Episodes("CartPole-v1", horizon=50)
    >>> world.states, world.actions, world.numbered_states, world.numbered_actions
    (4, 2, False, True)
    """

    def __init__(self, environment: str | Callable[[], Played], horizon: int, discount: float = 0.99) -> None:
        named = isinstance(environment, str) or callable(environment)
        require(named, "Episodes needs a name, or a function that makes an environment", got=environment)
        require(is_whole(horizon) and horizon >= 1, "Episodes needs a horizon >= 1", got=horizon)
        require(is_real(discount) and 0 <= discount <= 1, "Episodes needs a discount in [0, 1]", got=discount)
        self.environment, self.horizon, self.discount = environment, horizon, discount
        self._copies: list[Played] = []
        first = self._copy(0)
        self.states, self.numbered_states, _ = _size(first, "observation_space")
        self.actions, self.numbered_actions, self.low, self.high = (
            *_size(first, "action_space")[:2],
            *_bounds(first),
        )

    def tree(self) -> dict[str, object]:
        """What makes it what it is, for fingerprints."""
        return {"environment": self.environment, "horizon": self.horizon, "discount": self.discount}

    def _copy(self, k: int) -> Played:
        while len(self._copies) <= k:
            made = (
                made_environment(self.environment)
                if isinstance(self.environment, str)
                else self.environment()
            )
            self._copies.append(made)  # type: ignore[arg-type]
        return self._copies[k]

    def policy(self) -> Policy:
        """One that fits: a softmax network for numbered actions, a Gaussian one for vectors."""
        if self.numbered_actions:
            return NetworkPolicy(self.states, self.actions, self.numbered_states)
        if self.numbered_states:
            raise InvalidProblem("Episodes: numbered states with actions that are vectors are not supported.")
        return GaussianPolicy(self.states, self.actions, float(np.abs([self.low, self.high]).max()))

    def rollouts(
        self, act: Callable[[Actions, np.random.Generator], Actions], n: int, rng: np.random.Generator
    ) -> tuple[Segments, Array]:
        """``n`` episodes played side by side: the segments, (n, horizon) steps, and the true rewards of the steps.

        All randomness comes from ``rng``, which also seeds the environments, so that no state outlives the call.
        """
        alive, H = np.ones(n, dtype=bool), self.horizon
        now = np.array([self._copy(k).reset(seed=int(rng.integers(2**31)))[0] for k in range(n)])
        seen = _blank((n, H, *now.shape[1:]), self.numbered_states)
        done = _blank((n, H) if self.numbered_actions else (n, H, self.actions), self.numbered_actions)
        lived, rewards = np.zeros((n, H), dtype=bool), np.zeros((n, H))
        for h in range(H):
            running = np.flatnonzero(alive)
            if not len(running):
                break
            seen[running, h], lived[running, h] = now[running], True
            done[running, h] = act(seen[running, h], rng)
            for k in running:
                action = (
                    int(done[k, h]) if self.numbered_actions else np.clip(done[k, h], self.low, self.high)
                )
                after, paid, ended, cut, _ = self._copies[k].step(action)
                now[k], rewards[k, h], alive[k] = after, float(paid), not (ended or cut)
        if not (np.isfinite(rewards).all() and np.isfinite(seen).all()):
            raise NotFinite("The environment gave rewards or observations that are NaN or infinite.")
        return Segments(seen, done, lived), rewards


def _blank(shape: tuple[int, ...], numbered: bool) -> Actions:
    return np.zeros(shape, dtype=np.int64) if numbered else np.zeros(shape)


def _size(environment: Played, name: str) -> tuple[int, bool, object]:
    space = getattr(environment, name, None)
    n, shape = getattr(space, "n", None), getattr(space, "shape", None)
    if is_whole(n) and getattr(space, "start", 0) == 0 and shape == ():
        return int(n), True, space
    if hasattr(space, "low") and shape is not None and len(shape) == 1 and shape[0] >= 1:
        return int(shape[0]), False, space
    raise InvalidProblem(
        f"Episodes: the environment's {name} is {space}; expected Discrete(n) from 0, or a Box with one axis. Wrap "
        "it, for instance by gymnasium.wrappers.FlattenObservation."
    )


def _bounds(environment: Played) -> tuple[Array, Array]:
    space = getattr(environment, "action_space", None)
    if not hasattr(space, "low"):
        return np.zeros(0), np.zeros(0)
    low, high = (np.asarray(getattr(space, name), dtype=np.float64) for name in ("low", "high"))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise InvalidProblem(
            f"Episodes: the environment's action_space is {space}; expected bounded actions."
        )
    return low, high
