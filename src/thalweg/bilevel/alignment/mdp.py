"""Worlds in tables: how states follow one another, and the reward that a teacher has in mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.bilevel.alignment.segments import Array, Segments
from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require
from thalweg.numerics.markov import (
    Environment,
    check_chances,
    discrete_size,
    environment_table,
    made_environment,
    square_moves,
    start_chances,
    table_chances,
)


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """A Markov decision process in tables.

    Args:
        transitions: chances of the next state, shape (S, A, S).
        start: a state, or the chances of each, shape (S,).
        discount: gamma, in [0, 1) for lives without end, in [0, 1] with a ``horizon``.
        horizon: H, steps of a life; None, the default, for lives without end.
        reward: what the teacher has in mind, shape (S, A) or (S,). Methods never look at it: scripted teachers and the
            judge do.

    Raises:
        InvalidProblem: shapes that do not fit, chances that are none, a discount of one without end. NotFinite: NaN.

    >>> world = TabularMDP(np.full((2, 3, 2), 0.5), reward=[0.0, 1.0])
    >>> world.states, world.actions, round(world.value(np.full((2, 3), 1 / 3), world.reward), 6)
    (2, 3, 4.5)
    """

    transitions: Array
    start: Array = 0  # type: ignore[assignment]  # chances from here on
    discount: float = 0.9
    horizon: int | None = None
    reward: Array | None = None

    def __post_init__(self) -> None:
        moves = as_real("transitions", self.transitions)
        if moves.ndim != 3 or moves.shape[0] != moves.shape[2] or moves.size == 0:
            raise InvalidProblem(
                f"TabularMDP: transitions has shape {moves.shape}; expected (S, A, S), none empty."
            )
        check_finite("transitions", moves)
        check_chances("the transitions", moves)
        endless = self.horizon is None
        require(
            endless or (is_whole(self.horizon) and self.horizon >= 1),
            "TabularMDP needs a horizon >= 1, or None",
            got=self.horizon,
            error=InvalidProblem,
        )
        fits = is_real(self.discount) and 0 <= self.discount <= 1 and not (endless and self.discount == 1)
        require(
            fits,
            "TabularMDP needs a discount in [0, 1), or up to 1 with a horizon",
            got=self.discount,
            error=InvalidProblem,
        )
        object.__setattr__(self, "transitions", moves)
        object.__setattr__(self, "start", start_chances("TabularMDP", self.start, len(moves)))
        if self.reward is not None:
            object.__setattr__(self, "reward", self.checked_table("reward", self.reward))

    def checked_table(self, name: str, values: ArrayLike) -> Array:
        """A number for each state and action, from one of shape (S, A) or (S,)."""
        table = as_real(name, values)
        if table.shape == (self.states,):
            table = np.repeat(table[:, None], self.actions, axis=1)
        if table.shape != (self.states, self.actions):
            raise InvalidProblem(
                f"TabularMDP: {name} has shape {table.shape}; expected ({self.states}, {self.actions}), or "
                f"({self.states},)."
            )
        check_finite(name, table)
        return table

    @property
    def states(self) -> int:
        """S."""
        return int(self.transitions.shape[0])

    @property
    def actions(self) -> int:
        """A."""
        return int(self.transitions.shape[1])

    @cached_property
    def _sums(self) -> Array:
        return np.cumsum(self.transitions, axis=-1)

    def value(self, policy: Array, reward: Array) -> float:
        """Expected discounted sum of rewards of a policy, shape (S, A), from the start."""
        r = (policy * reward).sum(1)
        moves = np.einsum("sa,sat->st", policy, self.transitions)
        if self.horizon is None:
            return float(self.start @ np.linalg.solve(np.eye(self.states) - self.discount * moves, r))
        after = np.zeros(self.states)
        for _ in range(self.horizon):
            after = r + self.discount * moves @ after
        return float(self.start @ after)

    def best_value(self, reward: Array) -> float:
        """The largest discounted sum of rewards from the start, in a world with a horizon."""
        after = np.zeros(self.states)
        for _ in range(self.horizon or 0):
            after = (reward + self.discount * self.transitions @ after).max(1)
        return float(self.start @ after)

    def rollouts(self, policy: Array, n: int, length: int, rng: np.random.Generator) -> Segments:
        """``n`` lives of ``length`` steps from the start under a policy, shape (S, A). O(n length (S + A))."""
        states, actions = np.empty((n, length), dtype=np.int64), np.empty((n, length), dtype=np.int64)
        chosen = np.cumsum(policy, axis=1)
        at = _drawn(np.broadcast_to(np.cumsum(self.start), (n, self.states)), rng)
        for h in range(length):
            states[:, h] = at
            actions[:, h] = _drawn(chosen[at], rng)
            at = _drawn(self._sums[at, actions[:, h]], rng)
        return Segments(states, actions)


def _drawn(sums: Array, rng: np.random.Generator) -> NDArray[np.int64]:
    """An index for each row of running sums of chances."""
    found = (rng.random(len(sums))[:, None] * sums[:, -1:] >= sums).sum(1)
    return np.minimum(found, sums.shape[1] - 1)


def gridworld(
    side: int = 5,
    traps: int | Sequence[int] = 5,
    *,
    slip: float = 0.1,
    discount: float = 0.9,
    horizon: int | None = None,
    seed: int = 0,
) -> TabularMDP:
    """A square with a goal in the south-eastern corner (+1 a step) and traps (-1 a step), from the north-western one.

    Args:
        side: states are ``side`` x ``side``, numbered row by row; actions north, east, south, west.
        traps: how many, in places drawn by ``seed``; or the states where they are.
        slip: the chance that a step goes in a direction drawn anew.
        discount, horizon: as `TabularMDP`.

    >>> gridworld(4, traps=[5, 6]).reward[:, 0].tolist()[5:8]
    [-1.0, -1.0, 0.0]
    """
    require(is_whole(side) and side >= 2, "gridworld needs side >= 2", got=side)
    require(is_real(slip) and 0 <= slip <= 1, "gridworld needs slip in [0, 1]", got=slip)
    n = side * side
    if is_whole(traps):
        require(0 <= traps <= n - 2, f"gridworld has room for 0 to {n - 2} traps", got=traps)
        where = 1 + generator(seed, 0x62).permutation(n - 2)[: int(traps)]
    else:
        given = list(traps)  # type: ignore[arg-type]  # a number is the case above
        fits = all(is_whole(state) and 0 <= state < n - 1 for state in given)
        require(fits, f"gridworld's traps are states 0 to {n - 2}; {n - 1} is the goal", got=traps)
        where = np.array(given, dtype=np.int64)
    reward = np.zeros(n)
    reward[where] = -1.0
    reward[-1] = 1.0
    return TabularMDP(square_moves(side, slip), np.eye(1, n).ravel(), discount, horizon, reward)


def tabular_gymnasium(
    environment: str | Environment, *, discount: float = 0.99, horizon: int | None = None
) -> TabularMDP:
    """A Gymnasium environment that holds its transitions in a table ``P`` (FrozenLake, CliffWalking, Taxi).

    One state more than theirs, the last, is where episodes that have ended wait, without reward.

    Raises:
        MissingExtra: a name is given, and gymnasium is not installed.
        InvalidProblem: spaces that are no numbers, or no table: `Episodes` takes such environments.

    >>> tabular_gymnasium("FrozenLake-v1").states
    17
    """
    made = made_environment(environment) if isinstance(environment, str) else environment
    states, actions = (discrete_size(made, name) for name in ("observation_space", "action_space"))
    table = environment_table(made)
    inner = getattr(made, "unwrapped", made)
    if table is None:
        raise InvalidProblem(f"{type(inner).__name__} has no table P of its transitions; take Episodes.")
    moves, reward = table_chances(table, states, actions)
    begins = getattr(inner, "initial_state_distrib", None)
    if begins is None:
        raise InvalidProblem(
            f"{type(inner).__name__} does not say where it starts: no initial_state_distrib."
        )
    start = np.append(np.asarray(begins, dtype=np.float64), 0.0)
    return TabularMDP(moves, start, discount, horizon, reward)
