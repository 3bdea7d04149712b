"""scikit-learn estimators of sparse linear regression, solved to a certified duality gap.

Objectives, and the parameters that are here, are scikit-learn's.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags, check_array
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data

from thalweg.convex._scaled import Matrix, Units, in_units, weighted_rows
from thalweg.convex.datafits import NOTHING, SquaredError, Vector
from thalweg.convex.losses import MatrixLike
from thalweg.convex.penalties import ElasticNetPenalty
from thalweg.convex.working_set import Columns, Fit, LinearModel, fit_penalized
from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import as_real, is_real, is_whole, require
from thalweg.numerics.scaling import balancing

#: What scikit-learn checks each parameter against.
Rules = dict[str, list[Any]]
#: The strength that a path of a target of zeros is given, as by scikit-learn.
NOTHING_TO_FIT = 1e-15

COMMON: Rules = {
    "fit_intercept": ["boolean"],
    "tol": [Interval(Real, 0, None, closed="neither")],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "warm_start": ["boolean"],
}


def warn_of_gap(fit: Fit, tol: float) -> None:
    """Say that a fit did not reach its tolerance."""
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

    Columns of any mean cost the same: dense ones are centred, sparse ones as if they were.

    Attributes ``coef_``, ``intercept_``, ``dual_gap_`` (absolute, in the units of the objective above), ``n_iter_``
    (sweeps).

    >>> model = ElasticNet(alpha=0.1).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
    >>> model.coef_.round(3)
    array([0.86])
    """

    _parameter_constraints: ClassVar[Rules] = {
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "l1_ratio": [Interval(Real, 0, 1, closed="both")],
        **COMMON,
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
    def fit(self, X: MatrixLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Fit to X, dense or sparse, shape (n, features), and y, shape (n,).

        ``sample_weight``, shape (n,), not negative, counts as so many copies of each sample; only its ratios matter.
        """
        checked, target = validate_data(self, X, y, accept_sparse="csc", dtype=np.float64, y_numeric=True)
        samples, ratio = len(target), self.l1_ratio
        kept, target, weights = weighted_rows(checked, np.asarray(target, dtype=np.float64), sample_weight)
        if len(weights):
            weights = weights / weights.max()
            weights *= samples / weights.sum()
        kept, power = in_units(kept)
        units = Units(power, balancing(target))
        target = np.ldexp(target, -units.y)
        data, target, means = _centred(kept, target, weights, self.fit_intercept)
        start: Fit | None = None
        if self.warm_start and hasattr(self, "coef_") and len(self.coef_) == data.n:
            before = units.solvers(self.coef_)
            start = Fit(before, float(np.ldexp(self.intercept_, -units.y) + means.X @ before - means.y))
        fit = fit_penalized(
            data,
            SquaredError(target, NOTHING if isinstance(kept, np.ndarray) else weights),
            ElasticNetPenalty(
                *units.penalties(samples * self.alpha * ratio, samples * self.alpha * (1.0 - ratio))
            ),
            has_intercept=self.fit_intercept and sp.issparse(kept),
            start=start,
            tol=self.tol,
            max_iter=self.max_iter,
        )
        if not fit.converged:
            warn_of_gap(fit, self.tol)
        self.coef_: Vector = units.coefficients(fit.w)
        self.intercept_: float = float(np.ldexp(means.y + fit.intercept - means.X @ fit.w, units.y))
        self.dual_gap_ = float(np.ldexp(fit.gap / samples, 2 * units.y))
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


@dataclass(frozen=True)
class Means:
    """Of the columns and of the target, zero where the solver finds the intercept itself or there is none."""

    X: Vector
    y: float


def _centred(X: Matrix, y: Vector, weights: Vector, fit_intercept: bool) -> tuple[Columns, Vector, Means]:
    """Dense columns less their means and with the weights' roots as factors (a copy); sparse ones as they are."""
    none = Means(np.zeros(X.shape[1]), 0.0)
    if not isinstance(X, np.ndarray) or not (fit_intercept or len(weights)):
        return Columns(X), y, none
    means = none
    if fit_intercept:
        share = weights if len(weights) else None
        means = Means(np.average(X, axis=0, weights=share), float(np.average(y, weights=share)))
    X, y = X - means.X, y - means.y
    if len(weights):
        roots = np.sqrt(weights)
        X, y = X * roots[:, None], y * roots
    return Columns(np.asfortranarray(X)), y, means


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
        tol: duality gap, as a share of ``|y|^2 / 2``. Default 1e-6, a hundredth of scikit-learn's, because each
            strength starts from the one before and the last digits cost little; its certificate is returned.

    Raises:
        InvalidProblem: y is not one target for each row of X.
        InvalidParameter: strengths that are not positive, or none.
        ValueError: scikit-learn's, for complex or missing values, and for no rows.

    Returns:
        alphas, descending, shape (k,); coefficients, shape (features, k); duality gaps, shape (k,).

    >>> alphas, coefs, gaps = lasso_path(np.eye(3), [3.0, 2.0, 1.0], alphas=[0.5])
    >>> coefs.ravel()
    array([1.5, 0.5, 0. ])
    """
    require(is_real(l1_ratio) and 0 < l1_ratio <= 1, "lasso_path needs 0 < l1_ratio <= 1", got=l1_ratio)
    require(is_real(tol) and tol > 0, "lasso_path needs tol > 0", got=tol)
    checked = check_array(X, accept_sparse="csc", dtype=np.float64)
    target = np.asarray(check_array(y, ensure_2d=False, dtype=np.float64))
    if target.shape != checked.shape[:1]:
        raise InvalidProblem(
            f"lasso_path: y has shape {target.shape}; expected ({checked.shape[0]},), one target for each row of X."
        )
    scaled, power = in_units(checked)
    units = Units(power, balancing(target))
    target = np.ldexp(target, -units.y)
    data = Columns(scaled)
    model, samples = LinearModel(data, SquaredError(target)), data.rows
    if is_whole(alphas):
        require(alphas >= 1, "lasso_path needs one strength or more", got=alphas)
        require(is_real(eps) and 0 < eps < 1, "lasso_path needs 0 < eps < 1", got=eps)
        largest = float(np.abs(scaled.T @ target).max()) / (samples * l1_ratio)
        largest = float(np.ldexp(largest, units.x + units.y)) or NOTHING_TO_FIT
        strengths = np.geomspace(largest, eps * largest, alphas)
    else:
        strengths = np.sort(as_real("alphas", alphas))[::-1] if np.ndim(alphas) == 1 else NOTHING
        if not len(strengths) or not (np.isfinite(strengths).all() and strengths[-1] > 0):
            raise InvalidParameter(
                f"lasso_path: alphas is how many, or a list of numbers > 0; got {alphas!r}."
            )
    coefs, gaps = np.empty((data.n, len(strengths)), order="F"), np.empty(len(strengths))
    fit = None
    for k, alpha in enumerate(strengths):
        total = samples * float(alpha)
        penalty = ElasticNetPenalty(*units.penalties(total * l1_ratio, total * (1.0 - l1_ratio)))
        fit = model.fit(penalty, start=fit, tol=tol)
        if not fit.converged:
            warn_of_gap(fit, tol)
        coefs[:, k], gaps[k] = units.coefficients(fit.w), np.ldexp(fit.gap / samples, 2 * units.y)
    return strengths, coefs, gaps
