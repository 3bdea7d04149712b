"""Rows of texts that come one by one: encoded, predicted, learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real
from thalweg.online.encoding import RowEncoder
from thalweg.online.experts import log_prior
from thalweg.online.groups import By
from thalweg.online.learners import GroupLearners

Vector = NDArray[np.float64]


class RowLearner:
    """Groupwise prediction of rows of texts, one at a time, as they come out of a program or a file that grows.

    Args:
        groups: rules that name columns.
        low, high: range of the labels.
        combine, alpha: as `GroupwiseRegressor`.
        seed: of "draw".

    Raises:
        InvalidParameter: a range out of order.

    Cost per row: O(d^2) for each of its groups, some tens of microseconds of Python beside.

    >>> learner = RowLearner(low=0.0, high=1.0)
    >>> for x in ("0.2", "0.4", "0.6", "0.8"):
    ...     played = learner.play({"x": x}, float(x))
    >>> round(learner.play({"x": "0.5"}), 2)
    0.43
    """

    def __init__(
        self,
        groups: Sequence[By] = (),
        low: float = 0.0,
        high: float = 1.0,
        *,
        combine: str = "mean",
        alpha: float = 1.0,
        seed: int = 0,
    ) -> None:
        right = is_real(low) and is_real(high) and low < high and np.isfinite(high - low)
        if not right:
            raise InvalidParameter(f"RowLearner needs low < high, both finite; got {low!r} and {high!r}.")
        self.low, self.high = float(low), float(high)
        self._rows = RowEncoder(tuple(groups))
        self._learners = GroupLearners(1, "ridge", combine, alpha, 1.0)
        self._rng = generator(seed)
        self._sums: Vector = np.zeros((3, 0))  # rows, our losses and the one model's, by group

    def play(self, row: Mapping[str, str], label: float | None = None) -> float:
        """The prediction for a row, made before its label is looked at; without a label nothing is learned.

        The first ones are ``low``: a ridge begins with zeros, and predicts in units of the range above it.

        Raises:
            NotFinite: an empty cell, or a number that is not finite.
            InvalidProblem: a label outside [low, high], or a word in a column that began with a number. Nothing is
                learned then.
        """
        if label is not None and not self.low <= label <= self.high:
            raise InvalidProblem(
                f"the label is {label:g}; expected a number in [{self.low:g}, {self.high:g}]."
            )
        x, mask = self._rows.encode(row)
        names, known = self._rows.member.names, len(self._learners.counts)
        self._learners.widen(len(x))
        if len(names) > known:
            self._learners.grow(
                log_prior(None, len(names), "RowLearner"), np.zeros(len(names), dtype=np.int64)
            )
            self._sums = np.pad(self._sums, ((0, 0), (0, len(names) - known)))
        scaled = 0.0 if label is None else (label - self.low) / (self.high - self.low)
        learns = label is not None
        found = self._learners.run(x[None], np.array([scaled]), mask[None], self._rng, learns=learns)
        if learns:
            one = (found.proposed[0, 0] - scaled) ** 2
            self._sums += np.outer([1.0, found.losses[0], one], mask)
        return self.low + (self.high - self.low) * float(found.played[0])

    def summary(self) -> list[str]:
        """A line a group: rows, mean squared error in units of the range, and that of one model for all."""
        names = self._rows.member.names
        width = max(len("group"), *map(len, names))
        lines = [f"{'group':{width}}    rows  mean loss  one model for all"]
        for name, (rows, ours, one) in zip(names, self._sums.T, strict=False):
            share = max(rows, 1.0)
            lines.append(f"{name:{width}} {int(rows):7d} {ours / share:10.3g}  {one / share:10.3g}")
        return lines
