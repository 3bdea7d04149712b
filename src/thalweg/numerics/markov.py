"""Markov chains and decision processes in tables: chances that are checked, squares to walk in, Gymnasium's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, SupportsFloat, SupportsInt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core.errors import InvalidProblem, MissingExtra
from thalweg.core.validation import as_real, check_finite, is_whole

Array = NDArray[np.float64]

#: What rounding may add to chances that sum to one.
ROUNDING = 1e-6

#: state -> action -> (chance, next state, reward, whether it ends), as Gymnasium's toy texts have it.
Table = Mapping[int, Mapping[int, Sequence[tuple[float, int, float, bool]]]]


class Environment(Protocol):
    """What is asked of a Gymnasium environment."""

    def reset(self, *, seed: int | None = None) -> tuple[SupportsInt, object]:
        """Begin an episode."""

    def step(self, action: int) -> tuple[SupportsInt, SupportsFloat, bool, bool, object]:
        """Take an action: next state, reward, whether it has ended, whether it was cut, anything."""


def check_chances(name: str, chances: Array) -> None:
    """Not negative, and summing to one along the last axis; else `InvalidProblem` with the first place."""
    off = np.abs(chances.sum(-1) - 1.0)
    wrong = (off > ROUNDING) | ~np.isfinite(off) | (chances < 0).any(-1)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InvalidProblem(
            f"The chances of {name} at {where} sum to {float(chances[where].sum()):.6g}, the least is "
            f"{float(chances[where].min()):.6g}; expected none below zero, and a sum of one."
        )


def start_chances(who: str, start: int | ArrayLike, states: int) -> Array:
    """A first state, or the chances of each, as chances of shape (states,).

    >>> start_chances("Walk", 1, 3)
    array([0., 1., 0.])
    """
    if isinstance(start, int | np.integer) and not isinstance(start, bool):
        if not 0 <= start < states:
            raise InvalidProblem(f"{who}: start is {start}; expected a state in 0 .. {states - 1}.")
        return np.eye(1, states, int(start)).ravel()
    chances = as_real("start", start)
    if chances.shape != (states,):
        raise InvalidProblem(
            f"{who}: start has shape {chances.shape}; expected a state, or chances ({states},)."
        )
    check_finite("start", chances)
    check_chances("start", chances)
    return chances


def square_moves(side: int, slip: float) -> Array:
    """Transitions (side^2, 4, side^2) of a square, walked north, east, south, west; walls stop.

    ``slip`` is the chance that a step goes in a direction drawn anew.

    >>> square_moves(3, 0.0)[0].argmax(-1)  # from the north-western corner
    array([0, 1, 3, 0])
    """
    sure = np.zeros((side * side, 4, side * side))
    for s in range(side * side):
        row, column = divmod(s, side)
        for a, (down, right) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
            to = (min(max(row + down, 0), side - 1), min(max(column + right, 0), side - 1))
            sure[s, a, to[0] * side + to[1]] = 1.0
    mixed: Array = (1.0 - slip) * sure + slip * sure.mean(1, keepdims=True)
    return mixed


def made_environment(name: str) -> Environment:
    """Gymnasium's environment of a name; `MissingExtra` where Gymnasium is not installed, `InvalidProblem` where it
    has none of that name.
    """
    try:
        import gymnasium
    except ImportError:
        raise MissingExtra("gymnasium", "gym") from None
    try:
        found: Environment = gymnasium.make(name)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise InvalidProblem(
            f"Gymnasium makes no environment {name!r}: {str(error).splitlines()[0]}"
        ) from None
    return found


def discrete_size(environment: Environment, name: str) -> int:
    """The n of a space ``Discrete(n)`` that counts from 0, else `InvalidProblem`."""
    space = getattr(environment, name, None)
    n, first = getattr(space, "n", None), getattr(space, "start", 0)
    if not is_whole(n) or first != 0:
        raise InvalidProblem(f"The environment's {name} is {space}; expected numbers from 0, Discrete(n).")
    return int(n)


def environment_table(environment: Environment) -> Table | None:
    """The table of transitions that Gymnasium's toy texts hold, where there is one."""
    found: Table | None = getattr(getattr(environment, "unwrapped", environment), "P", None)
    return found


def table_chances(table: Table, states: int, actions: int) -> tuple[Array, Array]:
    """Transitions (S + 1, A, S + 1) and mean rewards (S + 1, A); the last state is where what has ended waits."""
    moves, rewards = np.zeros((states + 1, actions, states + 1)), np.zeros((states + 1, actions))
    moves[states, :, states] = 1.0
    for s in range(states):
        for a in range(actions):
            for chance, after, reward, ended in table[s][a]:
                moves[s, a, states if ended else after] += chance
                rewards[s, a] += chance * reward
    return moves, rewards
