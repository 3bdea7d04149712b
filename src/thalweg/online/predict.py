"""Playing a stream in groups: a learner a group, combined; and one learner for all.

Acharya, Arunachaleswaran, Kannan, Roth and Ziani (2024), algorithm 1, and the baseline of their section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thalweg.core import Method, State
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require
from thalweg.online.experts import log_prior
from thalweg.online.groups import Mask
from thalweg.online.learners import GroupLearners, Vector
from thalweg.online.stream import GroupedStream

Base = Literal["ridge", "vaw", "gradient", "logistic"]


@dataclass(kw_only=True)
class GroupedState(State):
    """``x`` holds the predictions, NaN for rounds to come."""

    learners: GroupLearners
    rng: np.random.Generator
    total: float = 0.0  # of the losses so far


@dataclass(frozen=True)
class Groupwise(Method[GroupedStream, GroupedState]):
    """A learner for each group; those of the groups that a row is in are combined by AdaNormalHedge.

    Use it where groups overlap and differ. `OneForAll` is as good where one model fits all, and costs less.

    Args:
        base: "ridge" (default), "vaw", "gradient" or "logistic"; `GroupwiseRegressor` says more, and takes objects.
        combine: "mean" (default), "draw", "mixable" or "smallest".
        alpha: of the ridge. Default 1.
        radius: of the ball of gradients. Default 10.
        block: rounds a step, so that Python's loop costs nothing. Default 256. Predictions do not depend on it.

    Raises:
        InvalidParameter: an option out of range.

    Cost per step: O(d^2) for each row and each group that it is in.

    >>> from thalweg import solve
    >>> rng = np.random.default_rng(0)
    >>> X = np.column_stack([rng.random(400), np.ones(400)])
    >>> first = rng.random(400) < 0.5
    >>> stream = GroupedStream(X, np.where(first, X[:, 0], 1 - X[:, 0]), np.column_stack([first, ~first]))
    >>> ours, one = solve(stream, Groupwise()).metrics, solve(stream, OneForAll()).metrics
    >>> ours["worst"] < 3 < 10 < one["worst"]
    True
    """

    in_place = True

    base: Base = "ridge"
    combine: Literal["mean", "draw", "mixable", "smallest"] = "mean"
    alpha: float = 1.0
    radius: float = 10.0
    block: int = 256

    def __post_init__(self) -> None:
        require(is_whole(self.block) and self.block >= 1, "Groupwise needs block >= 1", got=self.block)
        GroupLearners(1, self.base, self.combine, self.alpha, self.radius)

    def mask(self, problem: GroupedStream) -> Mask:
        """The groups that have a learner."""
        return problem.groups

    def init(self, problem: GroupedStream, seed: int) -> GroupedState:
        groups = self.mask(problem).shape[1]
        learners = GroupLearners(problem.X.shape[1], self.base, self.combine, self.alpha, self.radius)
        learners.grow(log_prior(None, groups, "Groupwise"), np.zeros(groups, dtype=np.int64))
        x = np.full(problem.rounds, np.nan)
        return GroupedState(x=x, learners=learners, rng=generator(seed))

    def step(self, problem: GroupedStream, state: GroupedState) -> GroupedState:
        start = state.learners.rows
        rows = slice(start, start + self.block)
        X: NDArray[np.float64] = problem.X[rows]
        labels: Vector = problem.labels[rows]
        found = state.learners.run(X, labels, self.mask(problem)[rows], state.rng, learns=True)
        state.x[rows] = problem.low + (problem.high - problem.low) * found.played
        state.total += float(np.square(found.played - labels).sum())
        done = state.learners.rows
        state.metrics = {"loss": state.total / max(done, 1), "left": float(problem.rounds - done)}
        return state


@dataclass(frozen=True)
class OneForAll(Groupwise):
    """One learner for all rows, whatever their groups: the baseline that groups have to beat.

    Options as `Groupwise`; ``combine`` does nothing.

    >>> OneForAll(alpha=0.1).alpha
    0.1
    """

    def mask(self, problem: GroupedStream) -> Mask:
        """Everyone alone."""
        return problem.groups[:, problem.everyone : problem.everyone + 1].copy()
