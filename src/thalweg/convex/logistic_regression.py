"""Logistic regression as a scikit-learn estimator, solved to a certified duality gap."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from thalweg.convex._scaled import Units, in_units, weighted_rows
from thalweg.convex.datafits import Index, LogLoss, SoftmaxLoss, Vector
from thalweg.convex.estimators import COMMON, Rules, warn_of_gap
from thalweg.convex.losses import MatrixLike
from thalweg.convex.penalties import ElasticNetPenalty
from thalweg.convex.working_set import Columns, Fit, fit_penalized
from thalweg.core import InvalidParameter, InvalidProblem


@dataclass(frozen=True)
class _Parts:
    """What the problems of all classes have in common."""

    data: Columns
    penalty: ElasticNetPenalty
    has_intercept: bool
    weights: Vector

    def solved(self, signs: Vector, offset: Vector | float, start: Fit, tol: float, max_iter: int) -> Fit:
        """One class (signs 1) against the others (-1)."""
        return fit_penalized(
            self.data,
            LogLoss(signs, offset, self.weights),
            self.penalty,
            has_intercept=self.has_intercept,
            start=start,
            tol=tol,
            max_iter=max_iter,
        )

    def violation(self, slopes: Vector, coef: Vector) -> float:
        """The largest violation of optimality, from slopes (classes, n) and coefficients (classes, features)."""
        worst = 0.0
        for slope, w in zip(slopes, coef, strict=True):
            off = np.abs(self.penalty.slopes(w, self.data.correlations(slope, np.arange(self.data.n))))
            worst = max(worst, float(off.max()), abs(float(slope.sum())) if self.has_intercept else 0.0)
        return worst


class LogisticRegression(LinearClassifierMixin, ClassifierMixin, BaseEstimator):
    """Logistic regression with l1 and l2 penalty: ``C sum log-loss + r |w|_1 + (1 - r)/2 |w|^2``; softmax for more
    than two classes.

    Two classes: working sets and proximal Newton steps, with l2 alone truncated Newton steps, to a certified duality
    gap. More: the classes are blocks, each of whose problems is a two-class one with offsets, solved in turn.

    Args:
        C: inverse strength. Default 1. There is no unpenalised fit: separable data would have none.
        l1_ratio: r, in [0, 1]; 0, the default, is ridge, 1 the lasso.
        fit_intercept: default True; not penalised.
        tol: duality gap as a share of the loss at zero coefficients; for more classes, the largest violation of
            optimality as a share of its value there. Default 1e-6.
        max_iter: most working sets, or rounds over the classes. Default 200.
        class_weight: factor of each class's losses by its label, as a dict; ``"balanced"`` for equal sums of all
            classes; default: ones.
        warm_start: start from the last fit.

    Attributes as scikit-learn's: ``coef_`` (1 or classes, features), ``intercept_``, ``classes_``, ``n_iter_``.

    >>> model = LogisticRegression().fit([[-1.0], [-0.5], [0.5], [1.0]], ["a", "a", "b", "b"])
    >>> model.predict([[-2.0], [2.0]]).tolist()
    ['a', 'b']
    """

    _parameter_constraints: ClassVar[Rules] = {
        "C": [Interval(Real, 0, None, closed="neither")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        "class_weight": [dict, StrOptions({"balanced"}), None],
        **COMMON,
    }

    def __init__(
        self,
        C: float = 1.0,
        *,
        l1_ratio: float = 0.0,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 200,
        warm_start: bool = False,
        class_weight: dict[Any, float] | Literal["balanced"] | None = None,
    ) -> None:
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.class_weight = class_weight

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: MatrixLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to X, dense or sparse, shape (n, features), and labels y, shape (n,).

        ``sample_weight``, shape (n,), not negative, counts as so many copies of each sample.
        """
        checked, target = validate_data(self, X, y, accept_sparse="csc", dtype=np.float64)
        kept, target, weights = weighted_rows(checked, target, sample_weight)
        before = (self.coef_, self.intercept_) if self.warm_start and hasattr(self, "coef_") else None
        try:
            check_classification_targets(target)
            self.classes_, labels = np.unique(target, return_inverse=True)
        except TypeError:
            kinds = sorted({type(label).__name__ for label in target})
            raise InvalidProblem(f"Labels of one kind are needed; y holds {', '.join(kinds)}.") from None
        kept, power = in_units(kept)
        data, units = Columns(kept), Units(power)
        weights = self._by_class(labels, weights)
        model = _Parts(data, self._penalty(units), self.fit_intercept, weights)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
                f"{self.classes_[0]!r}"
            )
        rows = 1 if count == 2 else count
        coef, intercept = np.zeros((rows, data.n)), np.zeros(rows)
        if before is not None and before[0].shape == coef.shape:
            coef, intercept = units.solvers(before[0]), np.array(before[1])
        if count == 2:
            start = Fit(coef[0], float(intercept[0]))
            fit = model.solved(np.where(labels == 1, 1.0, -1.0), 0.0, start, self.tol, self.max_iter)
            if not fit.converged:
                warn_of_gap(fit, self.tol)
            coef[0], intercept[0], self.n_iter_ = fit.w, fit.intercept, max(fit.sweeps, 1)
        else:
            self.n_iter_ = self._softmax(model, labels, coef, intercept)
        self.coef_: Vector = units.coefficients(coef)
        self.intercept_: Vector = intercept
        return self

    def _penalty(self, units: Units) -> ElasticNetPenalty:
        return ElasticNetPenalty(*units.penalties(self.l1_ratio / self.C, (1.0 - self.l1_ratio) / self.C))

    def _by_class(self, labels: Index, weights: Vector) -> Vector:
        """The samples' weights times those of their classes; empty for ones."""
        if self.class_weight is None:
            return weights
        if isinstance(self.class_weight, dict):
            unknown = sorted(map(repr, set(self.class_weight) - set(self.classes_.tolist())))
            if unknown:
                raise InvalidParameter(f"class_weight names {', '.join(unknown)}; y has no such label.")
            factors = np.array([float(self.class_weight.get(label, 1.0)) for label in self.classes_.tolist()])
        else:
            sums = np.bincount(labels, weights if len(weights) else None)
            factors = sums.sum() / (len(sums) * sums)
        if not (np.isfinite(factors).all() and (factors > 0).all()):
            raise InvalidParameter(
                f"class_weight has to be finite and > 0 for each class; got {self.class_weight}."
            )
        return factors[labels] * weights if len(weights) else factors[labels]

    def _softmax(self, model: _Parts, labels: Index, coef: Vector, intercept: Vector) -> int:
        """Solve for one class after another with the others held, in place; the rounds done."""
        data = model.data
        count, columns = len(intercept), np.arange(data.n)
        Z = np.stack(
            [data.product(w, float(b), columns) for w, b in zip(coef, intercept, strict=True)]
        )  # (classes, n)
        wanted, together = np.arange(count)[:, None] == labels, SoftmaxLoss(labels, model.weights)
        first = worst = 0.0
        for done in range(1, self.max_iter + 1):
            worst = model.violation(together.slope(Z.T).T, coef)
            first = max(first, worst)
            if worst <= self.tol * first:
                return done
            for k in range(count):
                offset = -logsumexp(np.delete(Z, k, 0), axis=0)
                start = Fit(coef[k].copy(), float(intercept[k]))
                tol = 1e-3 * min(1.0, (worst / first) ** 2)
                fit = model.solved(np.where(wanted[k], 1.0, -1.0), offset, start, tol, 3)
                coef[k], intercept[k] = fit.w, fit.intercept
                Z[k] = data.product(fit.w, fit.intercept, columns)
        warnings.warn(
            f"The violation is {worst / first:.2g} of its value at the start; {self.tol:.2g} was asked for. Raise "
            "max_iter, or scale the columns.",
            ConvergenceWarning,
            stacklevel=3,
        )
        return self.max_iter

    def predict_proba(self, X: MatrixLike) -> Vector:
        """Probabilities, shape (n, classes)."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            p = expit(scores)
            return np.stack([1.0 - p, p], axis=1)
        return np.asarray(softmax(scores, axis=1))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
