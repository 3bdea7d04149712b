"""scikit-learn estimators of sparse linear models, solved to a certified duality gap.

Problems and parameters are scikit-learn's, so one can take the other's place.
"""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy.special import expit, logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.utils import Tags, check_array
from sklearn.utils._param_validation import Interval
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg.convex.datafits import Index, LogLoss, SoftmaxLoss, SquaredError, Vector
from thalweg.convex.losses import MatrixLike
from thalweg.convex.penalties import ElasticNetPenalty
from thalweg.convex.working_set import Columns, Fit, fit_penalized
from thalweg.core.validation import require

#: What scikit-learn checks each parameter against.
Rules = dict[str, list[Any]]

_COMMON: Rules = {
    "fit_intercept": ["boolean"],
    "tol": [Interval(Real, 0, None, closed="neither")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "warm_start": ["boolean"],
}


def _unconverged(fit: Fit, tol: float) -> None:
    warnings.warn(
        f"The duality gap is {fit.gap / fit.scale:.2g} of the loss at zero; {tol:.2g} was asked for. Raise max_iter, "
        "or scale the columns.",
        ConvergenceWarning,
        stacklevel=3,
    )


class ElasticNet(RegressorMixin, BaseEstimator):
    """Least squares with l1 and l2 penalty: ``|y - X w|^2 / (2 n) + alpha (r |w|_1 + (1 - r)/2 |w|^2)``.

    Args:
        alpha: strength. Default 1.
        l1_ratio: r, in [0, 1]. Default 0.5.
        fit_intercept: default True.
        tol: duality gap to reach, as a share of ``|y - mean|^2 / 2``. Default 1e-6.
        max_iter: most working sets. Default 100.
        warm_start: start from the last fit.

    Attributes ``coef_``, ``intercept_``, ``dual_gap_`` (absolute, in the units of the objective above), ``n_iter_``
    (sweeps).

    >>> model = ElasticNet(alpha=0.1).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    >>> model.coef_.round(3)
    array([0.86])
    """

    _parameter_constraints: ClassVar[Rules] = {
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        **_COMMON,
    }

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.5,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 100,
        warm_start: bool = False,
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: MatrixLike, y: ArrayLike) -> Self:
        """Fit to X, dense or sparse, shape (n, features), and y, shape (n,)."""
        checked, target = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, y_numeric=True, ensure_min_samples=2
        )
        data, offsets, mean = _centred(checked, target, self.fit_intercept)
        start: Fit | None = None
        if self.warm_start and hasattr(self, "coef_"):
            start = Fit(self.coef_, float(self.intercept_ + offsets @ self.coef_ - mean))
        samples, ratio = data.rows, self.l1_ratio
        fit = fit_penalized(
            data,
            SquaredError(np.asarray(target - mean, dtype=np.float64)),
            ElasticNetPenalty(samples * self.alpha * ratio, samples * self.alpha * (1.0 - ratio)),
            has_intercept=self.fit_intercept and sp.issparse(checked),
            start=start,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        if not fit.converged:
            _unconverged(fit, self.tol)
        self.coef_: Vector = fit.w
        self.intercept_: float = float(mean + fit.intercept - offsets @ fit.w)
        self.dual_gap_ = fit.gap / samples
        self.n_iter_ = max(fit.sweeps, 1)
        return self

    def predict(self, X: MatrixLike) -> Vector:
        """Predictions, shape (n,)."""
        check_is_fitted(self)
        checked = validate_data(self, X, accept_sparse="csr", dtype=np.float64, reset=False)
        return np.asarray(checked @ self.coef_) + self.intercept_

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class Lasso(ElasticNet):
    """Least squares with an l1 penalty: ``|y - X w|^2 / (2 n) + alpha |w|_1``. Arguments as `ElasticNet`.

    >>> Lasso(alpha=0.1).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0]).coef_
    array([0.85])
    """

    _parameter_constraints: ClassVar[Rules] = {
        name: rule for name, rule in ElasticNet._parameter_constraints.items() if name != "l1_ratio"
    }
    l1_ratio = 1.0

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        fit_intercept: bool = True,
        tol: float = 1e-6,
        max_iter: int = 100,
        warm_start: bool = False,
    ) -> None:
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start


def _centred(X: Vector | sp.csc_array, y: Vector, fit_intercept: bool) -> tuple[Columns, Vector, float]:
    """Dense columns less their means (a copy), sparse ones as they are; the means, and y's."""
    if not fit_intercept or not isinstance(X, np.ndarray):
        return Columns(X), np.zeros(X.shape[1]), 0.0
    means = X.mean(0)
    return Columns(np.asfortranarray(X - means)), means, float(y.mean())


def lasso_path(
    X: MatrixLike,
    y: ArrayLike,
    *,
    alphas: ArrayLike | int = 100,
    eps: float = 1e-3,
    l1_ratio: float = 1.0,
    tol: float = 1e-6,
) -> tuple[Vector, Vector, Vector]:
    """Elastic net solutions along decreasing strengths, each started from the one before; no intercept.

    Args:
        X: shape (n, features); y: shape (n,).
        alphas: strengths, or how many; then spaced evenly in the logarithm from the smallest that gives zero, to
            ``eps`` of it.
        l1_ratio: in (0, 1].
        tol: duality gap, as a share of ``|y|^2 / 2``.

    Returns:
        alphas, descending, shape (k,); coefficients, shape (features, k); duality gaps, shape (k,).

    >>> alphas, coefs, gaps = lasso_path(np.eye(3), [3.0, 2.0, 1.0], alphas=[0.5])
    >>> coefs.ravel()
    array([1.5, 0.5, 0. ])
    """
    checked = check_array(X, accept_sparse="csc", dtype=np.float64)
    target = np.asarray(check_array(y, ensure_2d=False, dtype=np.float64))
    require(0 < l1_ratio <= 1, "lasso_path needs 0 < l1_ratio <= 1", got=l1_ratio)
    data, datafit = Columns(checked), SquaredError(target)
    samples = data.rows
    if isinstance(alphas, Integral):
        require(0 < eps < 1, "lasso_path needs 0 < eps < 1", got=eps)
        largest = float(np.abs(checked.T @ target).max()) / (samples * l1_ratio)
        strengths = np.geomspace(largest, eps * largest, int(alphas))
    else:
        strengths = np.sort(np.asarray(alphas, dtype=np.float64))[::-1]
    coefs, gaps = np.empty((data.n, len(strengths)), order="F"), np.empty(len(strengths))
    fit = None
    for k, alpha in enumerate(strengths):
        total = samples * float(alpha)
        penalty = ElasticNetPenalty(total * l1_ratio, total * (1.0 - l1_ratio))
        fit = fit_penalized(data, datafit, penalty, start=fit, tol=tol)
        coefs[:, k], gaps[k] = fit.w, fit.gap / samples
    return strengths, coefs, gaps


class LogisticRegression(LinearClassifierMixin, ClassifierMixin, BaseEstimator):
    """Logistic regression with l1 and l2 penalty: ``C sum log-loss + r |w|_1 + (1 - r)/2 |w|^2``; softmax for more
    than two classes.

    Two classes: working sets and proximal Newton steps to a certified duality gap. More: the classes are blocks, each
    of whose problems is a two-class one with offsets, solved in turn.

    Args:
        C: inverse strength. Default 1. There is no unpenalised fit: separable data would have none.
        l1_ratio: r, in [0, 1]; 0, the default, is ridge, 1 the lasso.
        fit_intercept: default True; not penalised.
        tol: duality gap as a share of the loss at zero coefficients; for more classes, the largest violation of
            optimality as a share of its value there. Default 1e-6.
        max_iter: most working sets, or rounds over the classes. Default 200.
        warm_start: start from the last fit.

    Attributes as scikit-learn's: ``coef_`` (1 or classes, features), ``intercept_``, ``classes_``, ``n_iter_``.

    >>> model = LogisticRegression().fit([[-1.0], [-0.5], [0.5], [1.0]], ["a", "a", "b", "b"])
    >>> model.predict([[-2.0], [2.0]]).tolist()
    ['a', 'b']
    """

    _parameter_constraints: ClassVar[Rules] = {
        "C": [Interval(Real, 0, None, closed="neither")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        **_COMMON,
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
    ) -> None:
        self.C = C
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: MatrixLike, y: ArrayLike) -> Self:
        """Fit to X, dense or sparse, shape (n, features), and labels y, shape (n,)."""
        checked, target = validate_data(self, X, y, accept_sparse="csc", dtype=np.float64)
        check_classification_targets(target)
        before = (self.coef_, self.intercept_) if self.warm_start and hasattr(self, "coef_") else None
        self.classes_, labels = np.unique(target, return_inverse=True)
        data = Columns(checked)
        count = len(self.classes_)
        if count < 2:
            raise ValueError(
                "This solver needs samples of at least 2 classes in the data, but the data contains only one class: "
                f"{self.classes_[0]!r}"
            )
        rows = 1 if count == 2 else count
        coef, intercept = np.zeros((rows, data.n)), np.zeros(rows)
        if before is not None and before[0].shape == coef.shape:
            coef, intercept = before[0].copy(), np.array(before[1])
        if count == 2:
            start = Fit(coef[0], float(intercept[0]))
            datafit = LogLoss(np.where(labels == 1, 1.0, -1.0))
            fit = self._part(data, datafit, start, self.tol, self.max_iter)
            if not fit.converged:
                _unconverged(fit, self.tol)
            coef[0], intercept[0], self.n_iter_ = fit.w, fit.intercept, max(fit.sweeps, 1)
        else:
            self.n_iter_ = self._softmax(data, labels, coef, intercept)
        self.coef_: Vector = coef
        self.intercept_: Vector = intercept
        return self

    @property
    def _penalty(self) -> ElasticNetPenalty:
        return ElasticNetPenalty(self.l1_ratio / self.C, (1.0 - self.l1_ratio) / self.C)

    def _part(self, data: Columns, datafit: LogLoss, start: Fit, tol: float, max_iter: int) -> Fit:
        return fit_penalized(
            data,
            datafit,
            self._penalty,
            has_intercept=self.fit_intercept,
            start=start,
            tol=tol,
            max_iter=max_iter,
        )

    def _softmax(self, data: Columns, labels: Index, coef: Vector, intercept: Vector) -> int:
        """Solve for one class after another with the others held, in place; the rounds done."""
        count, columns = len(intercept), np.arange(data.n)
        Z = np.stack([data.product(w, float(b), columns) for w, b in zip(coef, intercept)])  # (classes, n)
        wanted, together = np.arange(count)[:, None] == labels, SoftmaxLoss(labels)
        first = worst = 0.0
        for done in range(1, self.max_iter + 1):
            worst = self._violation(data, together.slope(Z.T).T, coef)
            first = max(first, worst)
            if worst <= self.tol * first:
                return done
            for k in range(count):
                offset = -logsumexp(np.delete(Z, k, 0), axis=0)
                datafit = LogLoss(np.where(wanted[k], 1.0, -1.0), offset)
                start = Fit(coef[k].copy(), float(intercept[k]))
                fit = self._part(data, datafit, start, 1e-3 * min(1.0, (worst / first) ** 2), 3)
                coef[k], intercept[k] = fit.w, fit.intercept
                Z[k] = data.product(fit.w, fit.intercept, columns)
        warnings.warn(
            f"The violation is {worst / first:.2g} of its value at the start; {self.tol:.2g} was asked for. Raise "
            "max_iter, or scale the columns.",
            ConvergenceWarning,
            stacklevel=3,
        )
        return self.max_iter

    def _violation(self, data: Columns, slopes: Vector, coef: Vector) -> float:
        worst = 0.0
        for slope, w in zip(slopes, coef):
            off = np.abs(self._penalty.slopes(w, data.correlations(slope, np.arange(data.n))))
            worst = max(worst, float(off.max()), abs(float(slope.sum())) if self.fit_intercept else 0.0)
        return worst

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
