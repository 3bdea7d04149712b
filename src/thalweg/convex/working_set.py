"""Sparse linear models to a certified duality gap: working sets, gap-safe screening, Newton steps on the support.

Massias, Gramfort and Salmon (2018), "Celer: a fast solver for the lasso with dual extrapolation", for the working sets;
Ndiaye, Fercoq, Gramfort and Salmon (2017), "Gap safe screening rules for sparsity enforcing penalties".
"""

from __future__ import annotations

import numpy as np

from thalweg.convex import _path_kernels as kernels
from thalweg.convex.columns import Columns, Correlations
from thalweg.convex.datafits import Index, PointwiseDatafit, Vector
from thalweg.convex.fits import Fit
from thalweg.convex.penalties import ElasticNetPenalty
from thalweg.convex.ridge import fit_ridge
from thalweg.convex.sets import WorkingSet

__all__ = ["Columns", "Fit", "LinearModel", "fit_penalized"]

#: A round's own gap, as a share of the whole one, of the tolerance, and, at a larger penalty, of the objective.
SHARE, FINAL, LOOSE = 0.1, 0.3, 0.03
#: A model's gap falls at least to this share of what it is at the start; proximal Newton's go no further.
MODEL = 0.5
#: A round that leaves more than this of the gap is a slow one.
SLOW = 1.0 / 3.0
#: Halvings of a Newton step.
HALVINGS = 30


def fit_penalized(
    X: Columns,
    datafit: PointwiseDatafit,
    penalty: ElasticNetPenalty,
    *,
    has_intercept: bool = False,
    start: Fit | None = None,
    tol: float = 1e-6,
    max_iter: int = 100,
) -> Fit:
    """Minimise ``datafit(X w + b) + penalty(w)`` to a gap of ``tol`` times the datafit at 0.

    Args:
        X: the data.
        datafit: of the predictions; what is asked of it: value, slope, curvature, conjugate, smoothness.
        penalty: l1, l2, or both.
        has_intercept: whether there is a b, not penalised.
        start: a fit to start from.
        tol: of the gap. Default 1e-6.
        max_iter: working sets tried; the fit then says that it did not converge.

    Cost: a pass over the columns whose correlations are not known to be small, for each working set; sweeps and Newton
    steps over the set alone between them.

    >>> from thalweg.convex.datafits import SquaredError
    >>> fit_penalized(Columns(np.eye(2)), SquaredError(np.array([3.0, 0.5])), ElasticNetPenalty(1.0)).w
    array([2., 0.])
    """
    return LinearModel(X, datafit, has_intercept).fit(penalty, start=start, tol=tol, max_iter=max_iter)


class LinearModel:
    """``datafit(X w + b)``, with an intercept b or without one, to be fitted under one penalty after another.

    What is known of the data (lengths of columns, correlations, a Gram matrix) is kept from fit to fit.

    Args:
        X, datafit, has_intercept: as of `fit_penalized`.
    """

    def __init__(self, X: Columns, datafit: PointwiseDatafit, has_intercept: bool = False) -> None:
        self.X, self.datafit, self.has_intercept = X, datafit, has_intercept
        self._empty = datafit.best_intercept(np.zeros(X.rows), 0.0) if has_intercept else 0.0
        self._scale = datafit.value(np.full(X.rows, self._empty)) or 1.0
        self._correlations: Correlations | None = None
        self._set = WorkingSet(X, datafit, has_intercept)

    def fit(
        self, penalty: ElasticNetPenalty, *, start: Fit | None = None, tol: float = 1e-6, max_iter: int = 100
    ) -> Fit:
        """Minimise under a penalty; arguments as of `fit_penalized`."""
        fit = Fit(np.zeros(self.X.n), self._empty) if start is None else Fit(start.w.copy(), start.intercept)
        fit.intercept = fit.intercept if self.has_intercept else 0.0
        fit.scale = self._scale
        if penalty.is_sparse:
            self._fit_sparse(penalty, fit, tol, max_iter)
        else:
            shape = (self.X, self.datafit, penalty.l2, fit)
            fit_ridge(*shape, has_intercept=self.has_intercept, target=tol * fit.scale, max_iter=max_iter)
            fit.converged = fit.gap <= tol * fit.scale
        return fit

    def _fit_sparse(self, penalty: ElasticNetPenalty, fit: Fit, tol: float, max_iter: int) -> None:
        datafit, l1 = self.datafit, penalty.l1
        alive, before, is_slow = np.arange(self.X.n), np.inf, False
        for _ in range(max_iter):
            z = self._predictions(fit, penalty.support(fit.w))
            slope = datafit.slope(z)
            known = self._correlations_of(slope)
            lengths, c = known.lengths, known.at(slope, fit.w, l1, alive)
            idle = (lengths == 0.0) & (fit.w != 0.0)
            if idle.any():
                fit.w[idle] = 0.0
                continue
            fit.gap, theta = self._gap(penalty, z, slope, c, fit.w, alive)
            if fit.gap <= tol * fit.scale:
                fit.converged = True
                return
            radius = np.sqrt(2.0 * max(fit.gap, 0.0) * datafit.smoothness) / l1
            alive = kernels.unscreened(alive, c, fit.w, lengths, penalty.l2, theta, radius)
            fit.screened = self.X.n - len(alive)
            if not len(alive):
                continue
            stronger = self._set.grow(alive, np.abs(c), lengths, fit.w, l1)
            is_slow = is_slow or (stronger == l1 and fit.gap > SLOW * before)
            before = fit.gap if stronger == l1 else np.inf
            enough = FINAL * tol * fit.scale
            if stronger > l1:
                enough = max(enough, LOOSE * (datafit.value(z) + penalty.value(fit.w)))
            self._improve(ElasticNetPenalty(stronger, penalty.l2), fit, z, slope, enough, is_slow)

    def _predictions(self, fit: Fit, support: Index) -> Vector:
        """Of the coefficients themselves, the intercept at its minimum; no error is carried on."""
        z = self.X.product(fit.w, fit.intercept, support)
        if self.has_intercept:
            moved = self.datafit.best_intercept(z, 0.0)  # of all of z, which keeps the digits of large means
            z += moved
            fit.intercept += moved
        return z

    def _correlations_of(self, slope: Vector) -> Correlations:
        if self._correlations is None:
            self._correlations = Correlations(self.X, slope, self.has_intercept)
        return self._correlations

    def _gap(
        self, penalty: ElasticNetPenalty, z: Vector, slope: Vector, c: Vector, w: Vector, alive: Index
    ) -> tuple[float, float]:
        """Duality gap, and what correlations are multiplied by to be those of the dual point over l1."""
        l1, l2, datafit = penalty.l1, penalty.l2, self.datafit
        primal = datafit.value(z) + penalty.value(w)
        raw = c[alive]
        if l2 == 0.0 or datafit.is_quadratic:
            # Ridge is as so many more rows of squares, and what c exceeds l1 by is scaled away.
            largest = float(np.abs(raw + l2 * w[alive]).max(initial=0.0))
            limit = l1 / largest if largest > 0 else np.inf
            dual, s = datafit.dual(slope, l2 * float(w @ w), limit)
            return primal - dual, s / l1
        # With ridge every dual point is feasible. A ball for screening needs |X_j'u| <= l1 at a feasible point of the
        # problem without ridge's columns; with ridge the optimality |X_j'u| < l1 at zero coefficients takes its place.
        return primal + datafit.conjugate(slope) + penalty.conjugate(raw), 1.0 / l1

    def _improve(
        self, penalty: ElasticNetPenalty, fit: Fit, z: Vector, slope: Vector, enough: float, is_slow: bool
    ) -> None:
        """One quadratic model on the working set: exact for squares, else a Newton step with a line search."""
        datafit, known = self.datafit, self._correlations_of(slope)
        model, columns = self._set.model(z, slope, fit.w, known, penalty.l1, is_slow)
        old, part = model.v.copy(), MODEL * model.gap(penalty.l1, penalty.l2)
        share = SHARE * fit.gap if datafit.is_quadratic else part
        model.minimise(penalty.l1, penalty.l2, min(max(share, enough), part))
        fit.sweeps += model.sweeps
        w = fit.w.copy()
        w[columns] = model.v
        intercept = fit.intercept + self._set.intercept_of(model.v - old)
        if datafit.is_quadratic:
            fit.w, fit.intercept = w, intercept
            return
        new = self.X.product(w, intercept, penalty.support(w))
        before = datafit.value(z) + penalty.value(fit.w)
        promised = float(slope @ (new - z)) + penalty.value(w) - penalty.value(fit.w)
        size = 1.0
        for _ in range(HALVINGS):
            there, at = fit.w + size * (w - fit.w), z + size * (new - z)
            enough = before + 0.01 * size * min(promised, 0.0) + 1e-14 * abs(before)
            if datafit.value(at) + penalty.value(there) <= enough:
                fit.w, fit.intercept = there, fit.intercept + size * (intercept - fit.intercept)
                return
            size *= 0.5
