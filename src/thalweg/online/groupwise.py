"""Predictions that are good on every group at once, though groups overlap.

Acharya, Arunachaleswaran, Kannan, Roth and Ziani (2024), "Oracle-efficient algorithms for groupwise regret",
algorithm 1, with AdaNormalHedge over the groups' learners.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_vector, is_real
from thalweg.online.experts import log_prior
from thalweg.online.groups import Group, Mask, Membership
from thalweg.online.learners import Combine, Round, Vector, learners
from thalweg.online.policy import OutsideRange


class GroupwiseRegressor(RegressorMixin, BaseEstimator):
    """Online regression whose regret is small on every group, at the cost of one learner a group.

    Each group has a learner of its own; those of the groups that a row is in propose, and AdaNormalHedge combines them.
    Use it for people or things in overlapping groups that differ in how the target depends on the features, or whose
    mix drifts. Where groups do not differ, one model for all is as good; where there are no groups and no drift, use
    `sklearn.linear_model.Ridge`.

    Rows come in order. ``partial_fit(X, y, groups)`` predicts each before it sees its label (``predictions_``) and
    learns from it; after a first one, ``predict(X, groups)`` then ``update(y)`` is the same for labels that come later.

    Args:
        groups: rules that sort rows into groups by X, a list of `By`, `Where` and `TimeIntervals`. None, the default,
            takes them with the rows: truth values, a column a group, or columns of labels.
        base: "ridge" (default), "vaw" (Vovk-Azoury-Warmuth: a sharper bound, often worse), "gradient", "logistic", an
            estimator with ``partial_fit``, or an object with ``predict_one`` and ``learn_one`` (river's models).
        combine: "mean" of the proposals (default; its loss is never above the drawn one's in a round of the same
            weights), "draw" one of them (the paper's: regrets are of the expected loss), "mixable" (the aggregating
            algorithm: a smaller bound for square loss), or "smallest", the proposal of the group with the fewest rows,
            without combining: a baseline.
        alpha: ridge of "ridge" and "vaw". Default 1, as in the paper; the intercept has it, too.
        radius: of the ball that "gradient" and "logistic" stay in. Default 10.
        fit_intercept: a column of ones is added. Default True.
        low, high: range of the target. None, the default, takes that of the first call's labels; give both where rows
            come one by one. Labels outside count as the nearest end, with a warning (`OutsideRange`).
        everyone: a group that all rows are in. Default True.
        prior: positive weights of groups by name; 1 for those that are not named. None: all alike.
        random_state: of "draw". Default 0.

    Attributes ``group_names_``; ``counts_``, labels each group's learner has seen; ``regrets_``, what each learner
    alone would have saved on its group, in units of ``(high - low)^2``; ``bounds_``, what these cannot exceed;
    ``predictions_`` and ``losses_`` of the last labels, the latter in units of ``(high - low)^2``.

    Guarantee, for "mean" and "draw" and labels within the range: the regret to each group's learner is at most
    ``sqrt(3 C_g (ln N + ln(2.5 + 1.5 ln(1 + T))))``, C_g at most the rows of the group.

    Raises:
        InvalidParameter: a range out of order, another base or combination, groups given twice.
        InvalidProblem: groups of another number of rows or columns.

    Cost per row: O(d^2) for each group that it is in; d^2 numbers kept for each group. Some 2 microseconds a group
    for d = 25.

    >>> import numpy as np
    >>> from thalweg.online import GroupwiseRegressor
    >>> X = np.arange(20.0)[:, None] / 20
    >>> sign = np.where(np.arange(20) % 2 == 0, 1.0, -1.0)  # two groups, two slopes
    >>> model = GroupwiseRegressor(low=-1.0, high=1.0).partial_fit(X, sign * X[:, 0], groups=sign[:, None] > 0)
    >>> model.group_names_
    ['everyone', 'group 0']
    """

    def __init__(
        self,
        groups: Sequence[Group] | None = None,
        *,
        base: object = "ridge",
        combine: Combine = "mean",
        alpha: float = 1.0,
        radius: float = 10.0,
        fit_intercept: bool = True,
        low: float | None = None,
        high: float | None = None,
        everyone: bool = True,
        prior: dict[str, float] | None = None,
        random_state: int = 0,
    ) -> None:
        self.groups = groups
        self.base = base
        self.combine = combine
        self.alpha = alpha
        self.radius = radius
        self.fit_intercept = fit_intercept
        self.low = low
        self.high = high
        self.everyone = everyone
        self.prior = prior
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike, groups: object = None) -> Self:
        """Begin anew, and learn from rows in their order."""
        for name in [n for n in vars(self) if n.endswith("_") and not n.startswith("_")]:
            delattr(self, name)
        return self.partial_fit(X, y, groups)

    def partial_fit(self, X: ArrayLike, y: ArrayLike, groups: object = None) -> Self:
        """Predict each row, then learn from its label, in order; ``predictions_`` keeps what was predicted.

        Args:
            X: shape (rows, columns), dense numbers, or a table of them.
            y: shape (rows,).
            groups: as the class says, for each row.
        """
        first = not hasattr(self, "group_names_")
        checked, target = validate_data(self, X, y, dtype=np.float64, y_numeric=True, reset=first)
        labels = np.asarray(target, dtype=np.float64)
        if first:
            self._begin(labels)
        mask = self._membership.mask(_table(X), groups, grow=True)
        self._grow()
        found = self._learners.run(self._rows(checked), self._scaled(labels), mask, self._rng, learns=True)
        self._asked.clear()
        return self._told(found)

    def predict(self, X: ArrayLike, groups: object = None) -> Vector:
        """Predictions, shape (rows,); `update` then takes their labels.

        Labels of groups never seen before count for nothing: such a row is in its other groups only.
        """
        check_is_fitted(self, "group_names_")
        checked = validate_data(self, X, dtype=np.float64, reset=False)
        mask = self._membership.mask(_table(X), groups, grow=False)
        rows = self._rows(checked)
        found = self._learners.run(rows, np.zeros(len(rows)), mask, self._rng, learns=False)
        self._asked[:] = [(rows, mask, found)]
        return self._unscaled(found.played)

    def update(self, y: ArrayLike) -> Self:
        """Learn from the labels of the rows that the last `predict` was asked about, in their order.

        Raises:
            InvalidProblem: another number of labels, labels that are no finite numbers, or no `predict` since the
                last `update`. Nothing is learned then.
        """
        check_is_fitted(self, "group_names_")
        if not self._asked:
            raise InvalidProblem(
                "update takes the labels of the rows that predict was asked about last; there are none."
            )
        ((rows, mask, found),) = self._asked
        labels = self._scaled(check_vector("update: y", np.atleast_1d(as_real("y", y)), len(rows)))
        for i in range(len(rows)):
            found.losses[i] = self._learners.learn(
                rows[i], float(labels[i]), mask[i], float(found.played[i]), found.proposed[i]
            )
        self._asked.clear()
        return self._told(found)

    def _begin(self, target: Vector) -> None:
        """Check the settings, and learn the range."""
        ends = []
        for name, seen in (("low", target.min()), ("high", target.max())):
            value = getattr(self, name)
            if value is not None and not (is_real(value) and np.isfinite(value)):
                raise InvalidParameter(
                    f"GroupwiseRegressor: {name} is a finite number or None; got {value!r}."
                )
            ends.append(float(seen if value is None else value))
        low, high = ends
        if not low < high:
            if self.low is not None or self.high is not None:
                raise InvalidParameter(
                    f"GroupwiseRegressor: the target's range is [{low:g}, {high:g}]; low and high must be in order "
                    "and have the labels between them."
                )
            if len(target) == 1:
                raise InvalidParameter(
                    "Training on one sample (n_samples=1) says nothing of the target's range: give low and high."
                )
            low, high = low - 0.5, high + 0.5  # all labels alike
        if not (low < high and np.isfinite(high - low)):
            raise InvalidParameter(
                f"The target's range, {low:g} to {high:g}, is beyond floating point. Scale it."
            )
        columns = self.n_features_in_ + bool(self.fit_intercept)
        self._learners = learners(columns, self.base, self.combine, self.alpha, self.radius)
        self._membership = Membership(tuple(self.groups or ()), bool(self.everyone))
        self._rng = generator(self.random_state)
        self._asked: list[tuple[NDArray[np.float64], Mask, Round]] = []
        self.range_ = (low, high)

    def _grow(self) -> None:
        """Make room for groups that are new."""
        names = self._membership.names
        if not names:
            raise InvalidParameter("There is no group: set everyone=True, or give groups.")
        weights = [1.0 if self.prior is None else self.prior.get(name, 1.0) for name in names]
        prior = log_prior(weights, len(names), "GroupwiseRegressor")
        self._learners.grow(prior, np.array(self._membership.periods, dtype=np.int64))
        self.group_names_ = list(names)

    def _rows(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        rows = np.column_stack([X, np.ones(len(X))]) if self.fit_intercept else X
        return np.ascontiguousarray(rows)

    def _scaled(self, y: Vector) -> Vector:
        low, high = self.range_
        outside = np.flatnonzero((y < low) | (y > high))
        if len(outside):
            warnings.warn(
                f"{len(outside)} labels lie outside [{low:g}, {high:g}] (the first: {y[outside[0]]:g}); they count as "
                "the nearest end, and the bound does not hold for them. Give low and high.",
                OutsideRange,
                stacklevel=3,
            )
        return np.clip((y - low) / (high - low), 0.0, 1.0)

    def _unscaled(self, played: Vector) -> Vector:
        low, high = self.range_
        return low + (high - low) * played

    def _told(self, found: Round) -> Self:
        self.predictions_: Vector = self._unscaled(found.played)
        self.losses_: Vector = found.losses
        self.rows_ = self._learners.rows
        self.counts_: NDArray[np.int64] = self._learners.counts.copy()
        self.regrets_: Vector = self._learners.hedge[0].copy()
        self.bounds_: Vector = self._learners.bounds
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "group_names_")


def _table(X: object) -> Any:  # noqa: ANN401 -- pandas is loaded when groups are sorted
    import pandas as pd

    return X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
