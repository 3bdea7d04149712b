"""A table of actions, each with features, whose rewards are nearly linear in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem, Problem, Stop
from thalweg.core.validation import as_real, check_finite, check_vector, is_real, require

Features = NDArray[np.float64]
Vector = NDArray[np.float64]


#: The largest feature lies between this and its inverse.
SMALL = 1e-100


def as_features(features: object) -> Features:
    """``features`` as a finite float64 array, shape (n, d), of rows that all differ.

    Raises:
        InvalidProblem: no actions, no features, two actions that nobody can tell apart, sizes without a square.
        NotFinite: NaN or infinity.
    """
    rows = as_real("features", features)
    if rows.ndim != 2 or rows.size == 0:
        raise InvalidProblem(
            f"features have shape {rows.shape}; expected (actions, d), at least one of each."
        )
    check_finite("features", rows)
    largest = float(np.abs(rows).max())
    if largest and not SMALL <= largest <= 1 / SMALL:
        raise InvalidProblem(
            f"The largest feature is {largest:.3g}; expected one between {SMALL:g} and {1 / SMALL:g}, so that its "
            "square is a number. Scale them all."
        )
    rows = rows + 0.0  # a copy, in which -0.0 is 0.0: rows are compared by their bytes
    places: dict[bytes, int] = {}
    for i, row in enumerate(rows):
        first = places.setdefault(row.tobytes(), i)
        if first != i:
            raise InvalidProblem(
                f"Actions {first} and {i} have the same features, so that no search can tell them apart. Keep one of "
                "them."
            )
    return rows


@dataclass(frozen=True, eq=False)
class ActionTable(Problem):
    """Actions with features; find one whose reward is nearly the best by few queries.

    Args:
        features: shape (n, d), rows all different. Their size is free: searches take it into account.
        rewards: of every action, shape (n,), known to the judge alone; or a function of an action's number, run at each
            query (a measurement, a program).
        noise: standard deviation of what a query adds to a reward of the table; of what the function's values have
            about their mean, where it is a function. Default 0, exact.

    The answer is an action's number. The metrics are its ``reward`` and its ``gap``, what the best action has more;
    where rewards are a function nobody knows them, and there are none. Searches end by themselves: there is no other
    rule.

    Raises:
        InvalidProblem: no actions, no features, two actions alike, another number of rewards, complex numbers.
        NotFinite: NaN or infinity.
        InvalidParameter: a negative noise.

    >>> table = ActionTable([[1.0, 0.0], [0.0, 1.0]], [0.3, 0.5])
    >>> table.metrics(0)
    {'gap': 0.2, 'reward': 0.3}
    """

    features: Features
    rewards: Vector | Callable[[int], float]
    noise: float

    def __init__(
        self, features: ArrayLike, rewards: ArrayLike | Callable[[int], float], *, noise: float = 0.0
    ) -> None:
        rows = as_features(features)
        require(is_real(noise) and 0 <= noise < np.inf, "ActionTable needs a finite noise >= 0", got=noise)
        known = rewards if callable(rewards) else check_vector("rewards", rewards, len(rows)).copy()
        object.__setattr__(self, "features", rows)
        object.__setattr__(self, "rewards", known)
        object.__setattr__(self, "noise", float(noise))

    @property
    def actions(self) -> int:
        """How many."""
        return len(self.features)

    def draw(self, action: int, rng: np.random.Generator) -> float:
        """What a query of an action brings."""
        if callable(self.rewards):
            return float(self.rewards(action))
        return float(self.rewards[action]) + (
            self.noise * float(rng.standard_normal()) if self.noise else 0.0
        )

    def recommended_stop(self) -> Stop:
        """None: a search knows its end."""
        return Stop(steps=None)

    def metrics(self, x: int) -> dict[str, float]:
        """``gap`` and ``reward`` of an action, where the table knows them."""
        if not 0 <= x < self.actions:
            raise InvalidParameter(f"There is no action {x}; the table has {self.actions}, from 0.")
        if callable(self.rewards):
            return {}
        return {"gap": float(self.rewards.max() - self.rewards[x]), "reward": float(self.rewards[x])}
