"""A scikit-learn classifier for tables whose rows of use differ from the rows with labels."""

from __future__ import annotations

from numbers import Integral, Real
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from thalweg.adaptation.adapt import COMBINERS, Adapt
from thalweg.adaptation.alignment import BASES
from thalweg.adaptation.problem import AdaptationTask, Adapted, predicted
from thalweg.core import InvalidProblem, solve
from thalweg.core.validation import as_real, check_finite


class AdaptedClassifier(ClassifierMixin, BaseEstimator):
    """A network of two layers, trained on a labelled table for use on another table without labels.

    Use it where columns are alike and their laws are not: another sensor, another year. Without ``X_target`` it is a
    plain classifier. Columns are scaled, each table by its own mean and spread where both are given.

    Args:
        hidden: widths of the two layers. Default 64 and 32.
        base, combiner, rate, ramp: see `Adapt`. Default 0.03 and 100, for fresh small networks.
        steps, batch_size: default 500 and 64.
        random_state: a whole number, default 0.

    Attributes:
        classes_: the labels, sorted.
        doubt_: of held-out target rows, see `AdaptationTask`; NaN without a target.
        n_iter_: steps done.

    >>> import numpy as np
    >>> from thalweg.adaptation import AdaptedClassifier
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.standard_normal((120, 3)), np.arange(120) % 2
    >>> X[:, 0] += 4.0 * y
    >>> model = AdaptedClassifier(steps=100).fit(X, y, X_target=X * 2.0 + 1.0)
    >>> model.score(X * 2.0 + 1.0, y) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[object]]] = {
        "hidden": [tuple],
        "base": [StrOptions(set(BASES))],
        "combiner": [StrOptions(set(COMBINERS))],
        "rate": [Interval(Real, 0, None, closed="neither")],
        "ramp": [Interval(Real, 0, None, closed="neither")],
        "steps": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        hidden: tuple[int, int] = (64, 32),
        *,
        base: str = "dann",
        combiner: str = "preference",
        rate: float = 0.03,
        ramp: float = 100.0,
        steps: int = 500,
        batch_size: int = 64,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.base = base
        self.combiner = combiner
        self.rate = rate
        self.ramp = ramp
        self.steps = steps
        self.batch_size = batch_size
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike, y: ArrayLike, X_target: ArrayLike | None = None) -> Self:
        """Train; ``X_target``, shape (m, d), are unlabelled rows of where it will be used.

        Raises:
            InvalidProblem: a target with other columns, or fewer than four rows; one class.
        """
        table, labelled = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labelled)
        self.classes_, labels = np.unique(labelled, return_inverse=True)
        if len(self.classes_) < 2:
            raise InvalidProblem("AdaptedClassifier needs two classes or more; y has 1 class.")
        target = table if X_target is None else as_real("X_target", X_target)
        if target.ndim != 2 or target.shape[1] != table.shape[1]:
            raise InvalidProblem(
                f"X_target has shape {target.shape}; expected (rows, {table.shape[1]}), the columns of X."
            )
        check_finite("X_target", target)
        self._source_unit, self._unit = _unit(table), _unit(target)
        self.n_iter_, self.doubt_ = int(self.steps), float("nan")
        source = _tensor(table, self._source_unit), torch.from_numpy(labels.astype(np.int64))
        rows = _tensor(target, self._unit)
        widths = (table.shape[1], *self.hidden)
        method, alone = (
            Adapt(self.base, self.combiner, rate=self.rate, ramp=self.ramp, hidden=64),
            X_target is None,
        )
        if alone:
            method = Adapt("source-only", "linear", refining="none", rate=self.rate)
        task = AdaptationTask(
            lambda: nn.Sequential(nn.Linear(*widths[:2]), nn.ReLU(), nn.Linear(*widths[1:]), nn.ReLU()),
            lambda: nn.Linear(widths[-1], len(self.classes_)),
            source,
            (rows,),
            (rows,) if alone else None,
            int(self.steps),
            int(self.batch_size),
        )
        found = solve(task, method, seed=int(self.random_state), progress=False)
        self.model_: Adapted = found.x
        if not alone:
            self.doubt_ = found.metrics["doubt"]
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probabilities of the classes for rows of the target, shape (n, K)."""
        check_is_fitted(self, "model_")
        rows = _tensor(validate_data(self, X, dtype=np.float64, reset=False), self._unit)
        logits = torch.cat(list(predicted(self.model_, (rows,), "cpu")))
        return np.asarray(logits.double().softmax(1).numpy())

    def predict(self, X: ArrayLike) -> NDArray[np.generic]:
        """The likeliest label of each row."""
        check_is_fitted(self, "model_")
        return np.asarray(self.classes_[self.predict_proba(X).argmax(1)])


def _unit(X: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    largest = np.abs(X).max(0)
    own = np.where(largest > 0, largest, 1.0)  # so that no square overflows or vanishes
    spread = (X / own).std(0)
    varies = spread > 10 * np.finfo(float).eps  # the deviation of a constant column is rounding
    return (X / own).mean(0) * own, np.where(varies, spread * own, 1.0)


def _tensor(X: NDArray[np.float64], unit: tuple[NDArray[np.float64], NDArray[np.float64]]) -> torch.Tensor:
    return torch.from_numpy(((X - unit[0]) / unit[1]).astype(np.float32))
