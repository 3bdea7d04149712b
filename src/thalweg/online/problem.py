"""Rounds whose losses are known to the judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.validation import as_real, check_finite, check_vector


@dataclass(frozen=True, eq=False)
class LossTable(Problem):
    """Rounds in which one of several arms is chosen, with every arm's loss known to the judge alone.

    Args:
        losses: shape (rounds, arms), finite and >= 0.
        contexts: a number known before each round, shape (rounds,), for policies that need one.

    The answer is the arms played, shape (rounds,), -1 for rounds to come. The metrics are ``loss``, its mean over the
    rounds played, ``regret``, what the best single arm in hindsight would have saved in total, and ``left``, the rounds
    to come: a run has converged when all are played.

    Raises:
        InvalidProblem: no rounds, no arms, a negative loss, contexts of another length.
        NotFinite: NaN or infinity in the losses or the contexts.

    >>> table = LossTable([[0.0, 1.0], [0.5, 0.0]])
    >>> table.metrics(np.array([1, 1]))
    {'loss': 0.5, 'regret': 0.5, 'left': 0.0}
    """

    losses: NDArray[np.float64]
    contexts: NDArray[np.float64] | None = None

    def __init__(self, losses: ArrayLike, contexts: ArrayLike | None = None) -> None:
        table = as_real("losses", losses).copy()
        if table.ndim != 2 or table.size == 0:
            raise InvalidProblem(f"LossTable: losses have shape {table.shape}; expected (rounds, arms).")
        check_finite("losses", table)
        if (table < 0).any():
            where = np.argwhere(table < 0)[0]
            raise InvalidProblem(
                f"LossTable: the loss of arm {where[1]} in round {where[0]} is {table[tuple(where)]:g}, below zero. "
                "Add a constant to all losses."
            )
        object.__setattr__(self, "losses", table)
        known = None if contexts is None else check_vector("contexts", contexts, len(table))
        object.__setattr__(self, "contexts", known)

    @property
    def rounds(self) -> int:
        """How many."""
        return len(self.losses)

    @property
    def arms(self) -> int:
        """How many."""
        return self.losses.shape[1]

    def recommended_stop(self) -> Stop:
        """The last round."""
        return Stop(below={"left": 0.0}, steps=self.rounds)

    def metrics(self, x: NDArray[np.int64]) -> dict[str, float]:
        """``loss`` and ``regret`` of the rounds played, and the rounds ``left``."""
        played = np.flatnonzero(np.asarray(x) >= 0)
        left = float(self.rounds - played.size)
        if played.size == 0:
            return {"loss": 0.0, "regret": 0.0, "left": left}
        mine, best = self.losses[played, x[played]].sum(), self.losses[played].sum(0).min()
        return {"loss": float(mine) / played.size, "regret": float(mine - best), "left": left}
