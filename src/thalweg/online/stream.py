"""Rows in order, each in some of several groups, whose labels are known to the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.validation import as_real, check_finite, check_vector
from thalweg.online.groups import EVERYONE, Mask
from thalweg.online.ledger import Hindsight, regret_curve

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GroupedStream(Problem):
    """Rows to predict in their order, each in some of several groups.

    Args:
        X: features, shape (rounds, d).
        y: labels, shape (rounds,).
        groups: truth values, shape (rounds, groups), a column a group. A group that all rows are in is added, last,
            where there is none.
        names: of the groups, in their order; "group 0", ... by default.
        low, high: range of the labels; that of ``y`` by default. Losses are squared errors in units of
            ``(high - low)^2``.

    The answer is the predictions, shape (rounds,), NaN for rounds to come. The metrics are ``loss``, its mean over the
    rounds played; ``regret``, the sum of losses less that of the best linear model in hindsight; ``worst``, the
    largest such regret of a group, against the best model for that group alone; and ``left``, the rounds to come: a run
    has converged when all are played. `ledger` has every group.

    The models in hindsight are linear in X: give a column of ones where they should have an intercept.

    Raises:
        InvalidProblem: no rounds, other shapes, a group without rows, labels outside the range.
        NotFinite: NaN or infinity.

    >>> stream = GroupedStream([[1.0], [1.0]], [0.0, 1.0], [[True], [False]])
    >>> stream.names
    ('group 0', 'everyone')
    >>> {name: round(value, 9) for name, value in stream.metrics(np.array([0.5, 0.3])).items() if value}
    {'loss': 0.37, 'regret': 0.24, 'worst': 0.25}
    """

    X: NDArray[np.float64]
    y: Vector
    groups: Mask
    names: tuple[str, ...]
    low: float
    high: float

    def __init__(
        self,
        X: ArrayLike,
        y: ArrayLike,
        groups: ArrayLike | None = None,
        *,
        names: Sequence[str] | None = None,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        rows = as_real("X", X)
        if rows.ndim != 2 or rows.size == 0:
            raise InvalidProblem(f"GroupedStream: X has shape {rows.shape}; expected (rounds, d).")
        check_finite("X", rows)
        labels = check_vector("y", y, len(rows))
        mask = np.zeros((len(rows), 0), dtype=bool) if groups is None else np.asarray(groups)
        if mask.ndim != 2 or len(mask) != len(rows) or mask.dtype != bool:
            raise InvalidProblem(
                f"GroupedStream: groups has shape {mask.shape} of {mask.dtype}; expected ({len(rows)}, groups) of "
                "truth values."
            )
        known = [f"group {i}" for i in range(mask.shape[1])] if names is None else [str(n) for n in names]
        if len(known) != mask.shape[1] or len(set(known)) != len(known):
            raise InvalidProblem(
                f"GroupedStream: {len(known)} names for {mask.shape[1]} groups; expected one for each, all different."
            )
        empty = np.flatnonzero(~mask.any(axis=0))
        if len(empty):
            raise InvalidProblem(
                f"GroupedStream: no row is in {known[int(empty[0])]!r}. Leave that group out."
            )
        if not mask.all(axis=0).any():
            mask = np.column_stack([mask, np.ones(len(rows), dtype=bool)])
            known.append(EVERYONE)
        ends = (
            float(labels.min()) if low is None else float(low),
            float(labels.max()) if high is None else float(high),
        )
        if ends[0] == ends[1] and low is None and high is None:
            ends = (ends[0] - 0.5, ends[1] + 0.5)
        if not (ends[0] < ends[1] and np.isfinite(ends[1] - ends[0])):
            raise InvalidProblem(
                f"GroupedStream: the labels' range is {ends}; expected low < high, both finite."
            )
        outside = np.flatnonzero((labels < ends[0]) | (labels > ends[1]))
        if len(outside):
            raise InvalidProblem(
                f"GroupedStream: y[{int(outside[0])}] is {labels[outside[0]]:g}, outside [{ends[0]:g}, {ends[1]:g}]. "
                "Widen low and high."
            )
        for name, value in (("X", rows), ("y", labels), ("groups", mask), ("names", tuple(known))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "low", ends[0])
        object.__setattr__(self, "high", ends[1])

    @property
    def rounds(self) -> int:
        """How many."""
        return len(self.X)

    @cached_property
    def labels(self) -> Vector:
        """The labels in [0, 1], shape (rounds,)."""
        return np.clip((self.y - self.low) / (self.high - self.low), 0.0, 1.0)

    @cached_property
    def everyone(self) -> int:
        """The number of a group that all rows are in."""
        return int(np.flatnonzero(self.groups.all(axis=0))[0])

    def recommended_stop(self) -> Stop:
        """The last round."""
        return Stop(below={"left": 0.0}, steps=self.rounds)

    def losses(self, x: NDArray[np.float64]) -> Vector:
        """Squared errors in units of the range, shape (rounds,), NaN for rounds to come."""
        return np.square((np.asarray(x) - self.low) / (self.high - self.low) - self.labels)

    def metrics(self, x: NDArray[np.float64]) -> dict[str, float]:
        """``loss``, ``regret`` and ``worst`` of the rounds played, and the rounds ``left``."""
        losses = self.losses(x)
        played = np.isfinite(losses)
        left = float(self.rounds - played.sum())
        if not played.any():
            return {"loss": 0.0, "regret": 0.0, "worst": 0.0, "left": left}
        regrets = self.ledger(x)
        return {
            "loss": float(losses[played].mean()),
            "regret": regrets[self.names[self.everyone]],
            "worst": max(regrets.values()),
            "left": left,
        }

    def ledger(self, x: NDArray[np.float64]) -> dict[str, float]:
        """Regret of each group over its rounds played, against the best linear model for it in hindsight."""
        losses = self.losses(x)
        found = {}
        for g, name in enumerate(self.names):
            rows = np.flatnonzero(self.groups[:, g] & np.isfinite(losses))
            best = Hindsight(self.X.shape[1])
            best.add(self.X[rows], self.labels[rows])
            found[name] = float(losses[rows].sum() - best.loss())
        return found

    def curve(
        self, x: NDArray[np.float64], group: str, points: int = 100
    ) -> tuple[NDArray[np.int64], Vector]:
        """Rows of a group played so far, and its regret after each of these numbers."""
        losses = self.losses(x)
        rows = np.flatnonzero(self.groups[:, self.names.index(group)] & np.isfinite(losses))
        return regret_curve(self.X[rows], self.labels[rows], losses[rows], points)
