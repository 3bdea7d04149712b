"""Sparse linear models to a certified duality gap: working sets, gap-safe screening, Anderson acceleration.

Massias, Gramfort and Salmon (2018), "Celer: a fast solver for the lasso with dual extrapolation", for the working sets;
Ndiaye, Fercoq, Gramfort and Salmon (2017), "Gap safe screening rules for sparsity enforcing penalties"; Bertrand and
Massias (2021), "Anderson acceleration of coordinate descent".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from thalweg.convex import _path_kernels as kernels
from thalweg.convex.datafits import NOTHING, Index, PointwiseDatafit, Vector
from thalweg.convex.losses import MatrixLike
from thalweg.convex.penalties import ElasticNetPenalty

#: Most growth of a working set from one to the next, where so many columns violate optimality.
GROWTH = 2
#: Coordinates of the first working set; sweeps between two extrapolations, and between two looks at the gap.
FIRST, ANDERSON, LOOK = 100, 5, 10


class Columns:
    """A dense or sparse matrix, shape (rows, n), as the kernels take it.

    Args:
        X: float64; dense ones are made Fortran-contiguous, sparse ones CSC, without a copy where they are already.
    """

    def __init__(self, X: MatrixLike) -> None:
        self.data: Vector
        self.indices: NDArray[np.int32]
        self.indptr: Index
        self.rows: int
        self.n: int
        if sp.issparse(X):
            csc = cast(sp.csc_array, sp.csc_array(cast(sp.csc_array, X))).astype(np.float64, copy=False)
            self.data, self.indices = csc.data, csc.indices.astype(np.int32, copy=False)
            self.indptr = csc.indptr.astype(np.int64, copy=False)
            self.rows, self.n = csc.shape
        else:
            dense = np.asfortranarray(cast(ArrayLike, X), dtype=np.float64)
            self.data = dense.ravel(order="K")
            self.indices, self.indptr = np.empty(0, np.int32), np.empty(0, np.int64)
            self.rows, self.n = dense.shape
        self.parts = (self.data, self.indices, self.indptr)

    def correlations(self, v: Vector, columns: Index) -> Vector:
        """``X_j . v`` for each of ``columns``."""
        out = np.empty(len(columns))
        kernels.correlations(*self.parts, columns, v, out)
        return out

    def curvatures(self, h: Vector, columns: Index) -> Vector:
        """``sum_i h_i X_ij^2``; empty h for ones."""
        out = np.empty(len(columns))
        kernels.curvatures(*self.parts, columns, h, self.rows, out)
        return out

    def centred(self, h: Vector, columns: Index) -> tuple[Vector, Vector]:
        """``sum_i h_i (X_ij - m_j)^2`` with m the weighted means, and ``sum_i h_i X_ij``; empty h for ones."""
        sums, out = np.empty(len(columns)), np.empty(len(columns))
        h_sum = float(h.sum()) if len(h) else float(self.rows)
        kernels.centred(*self.parts, columns, h, h_sum, self.rows, sums, out)
        return out, sums

    def product(self, w: Vector, intercept: float, columns: Index) -> Vector:
        """``X w + intercept``, where w is zero outside ``columns``."""
        z = np.empty(self.rows)
        kernels.predict(*self.parts, w, columns, intercept, z)
        return z


@dataclass
class Fit:
    """A model in progress, or done.

    Args:
        w: coefficients, shape (n,).
        intercept: zero where there is none.
        gap: certified distance of the objective from its minimum.
        scale: the objective at zero coefficients, which the tolerance is relative to.
        sweeps: rounds over working sets.
        screened: columns proven to be zero.
        converged: whether gap <= tol * scale.
    """

    w: Vector
    intercept: float
    gap: float = np.inf
    scale: float = 1.0
    sweeps: int = 0
    screened: int = 0
    converged: bool = False


@dataclass(frozen=True)
class Model:
    """What is minimised: ``datafit(X w + b) + penalty(w)``, with an intercept b or without one."""

    X: Columns
    datafit: PointwiseDatafit
    penalty: ElasticNetPenalty
    has_intercept: bool = False

    def gap(self, z: Vector, slope: Vector, c: Vector, w: Vector, alive: Index) -> tuple[float, Vector]:
        """Duality gap, and the correlations of the dual point over l1; screened columns cannot bind.

        Args:
            z: predictions; slope: of the datafit there.
            c: gradient of the smooth part, ridge included, of the coordinates ``alive``.
            w: coefficients, zero where not alive.
        """
        l1, l2 = self.penalty.l1, self.penalty.l2
        primal = self.datafit.value(z) + self.penalty.value(w)
        if l1 > 0 and (l2 == 0.0 or self.datafit.is_quadratic):
            # Ridge is as so many more rows of squares, and what c exceeds l1 by is scaled away.
            largest = float(np.abs(c).max(initial=0.0))
            limit = l1 / largest if largest > 0 else np.inf
            dual, s = self.datafit.dual(slope, l2 * float(w @ w), limit)
            return primal - dual, s * c / l1
        # With ridge every dual point is feasible.
        raw = c - l2 * w[alive]
        dual = -self.datafit.conjugate(slope) - self.penalty.conjugate(raw)
        # A ball for screening needs |X_j'u| <= l1 at a feasible point of the problem without ridge's columns; with
        # ridge the optimality |X_j'u| < l1 at zero coefficients takes its place.
        return primal - dual, raw / l1 if l1 > 0 else raw

    def curvatures(self, h: Vector, columns: Index) -> tuple[Vector, Vector]:
        """What `kernels.sweep` has to know of columns: their curvatures and, with an intercept, their sums."""
        return self.X.centred(h, columns) if self.has_intercept else (self.X.curvatures(h, columns), NOTHING)

    def radius(self, gap: float) -> float:
        """How far the correlations over l1 are from the optimal ones: the dual is strongly concave."""
        return float(np.sqrt(2.0 * max(gap, 0.0) * self.datafit.smoothness)) / self.penalty.l1


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
        start: a fit to start from, as along a path.
        tol: of the gap. Default 1e-6.
        max_iter: working sets tried; the fit then says that it did not converge.

    Cost: one pass over the columns not yet screened for each working set, sweeps over the set alone between them.

    >>> from thalweg.convex.datafits import SquaredError
    >>> fit_penalized(Columns(np.eye(2)), SquaredError(np.array([3.0, 0.5])), ElasticNetPenalty(1.0)).w
    array([2., 0.])
    """
    model = Model(X, datafit, penalty, has_intercept)
    fit = Fit(np.zeros(X.n), 0.0) if start is None else Fit(start.w.copy(), start.intercept)
    if not has_intercept:
        fit.intercept = 0.0
    alive = np.arange(X.n)
    norms = np.sqrt(model.curvatures(NOTHING, alive)[0] + penalty.l2)
    empty = datafit.best_intercept(np.zeros(X.rows), 0.0) if has_intercept else 0.0
    fit.scale = datafit.value(np.full(X.rows, empty)) or 1.0
    z = X.product(fit.w, fit.intercept, penalty.support(fit.w))
    size = max(FIRST, 2 * len(penalty.support(fit.w)))
    for _ in range(max_iter):
        if has_intercept:
            moved = datafit.best_intercept(z, fit.intercept) - fit.intercept
            z += moved
            fit.intercept += moved
        slope = datafit.slope(z)
        c = X.correlations(slope, alive) + penalty.l2 * fit.w[alive]
        fit.gap, theta = model.gap(z, slope, c, fit.w, alive)
        if fit.gap <= tol * fit.scale:
            fit.converged = True
            break
        support, chosen = penalty.support(fit.w), alive
        if penalty.is_sparse:
            distance = (1.0 - np.abs(theta)) / np.maximum(norms[alive], 1e-300)
            safe = (distance > model.radius(fit.gap)) & (fit.w[alive] == 0.0)
            alive, distance, c = alive[~safe], distance[~safe], c[~safe]
            fit.screened = X.n - len(alive)
            if not len(alive):
                continue
            violators = min(int((np.abs(c) > penalty.l1).sum()), GROWTH * size)
            size = min(max(size, 2 * len(support), violators), len(alive))
            chosen = _nearest(alive, np.where(fit.w[alive] != 0, -1.0, distance), size)
        if datafit.is_quadratic:
            z = _swept(model, fit, z, chosen, tol)
        else:
            z = _newton(model, fit, z, chosen)
        kept = len(penalty.support(fit.w))
        size = max(FIRST, 2 * kept, size if kept > len(support) else 2 * size)
    return fit


def _nearest(columns: Index, distance: Vector, size: int) -> Index:
    """The ``size`` of the columns with the least distances, ascending."""
    if size == len(columns):
        return np.sort(columns)
    return np.sort(columns[np.argpartition(distance, size - 1)[:size]])


def _swept(model: Model, fit: Fit, z: Vector, chosen: Index, tol: float) -> Vector:
    """Sweeps on the chosen columns of a quadratic model until their own gap is a third of the whole one's.

    Each look at the gap is followed by one sweep over all chosen columns, and extrapolated sweeps over those that are
    not zero after it.
    """
    X, datafit, l1, l2 = model.X, model.datafit, model.penalty.l1, model.penalty.l2
    h = datafit.weights
    curvature, sums = model.curvatures(h, chosen)
    v, target = datafit.slope(z), max(0.3 * fit.gap, 0.1 * tol * fit.scale)
    rows = 0.0
    if model.has_intercept:
        rows = float(h.sum()) if len(h) else float(X.rows)
    for look in range(1000):
        fit.intercept, _ = kernels.sweep(
            *X.parts, h, curvature, sums, fit.w, v, chosen, l1, l2, fit.intercept, rows
        )
        kept = fit.w[chosen] != 0.0
        inner, bend, bias = chosen[kept], curvature[kept], sums[kept] if len(sums) else sums
        points = np.empty((ANDERSON + 1, len(inner) + 1))
        points[0, :-1], points[0, -1] = fit.w[inner], fit.intercept
        sweeps = LOOK if look else LOOK // 3  # easy sets are done by then
        for t in range(1, sweeps + 1):
            fit.intercept, _ = kernels.sweep(
                *X.parts, h, bend, bias, fit.w, v, inner, l1, l2, fit.intercept, rows
            )
            at = t % (ANDERSON + 1)
            points[at, :-1], points[at, -1] = fit.w[inner], fit.intercept
            if at == ANDERSON:
                v = _extrapolated(model, fit, v, inner, points, t)
                points[0, :-1], points[0, -1] = fit.w[inner], fit.intercept
        fit.sweeps += sweeps + 1
        c = X.correlations(v, chosen) + l2 * fit.w[chosen]
        gap, _ = model.gap(datafit.prediction(v), v, c, fit.w, chosen)
        if gap <= target:
            break
    return datafit.prediction(v)


def _extrapolated(model: Model, fit: Fit, v: Vector, chosen: Index, points: Vector, t: int) -> Vector:
    """Anderson's combination of the last points where it lowers the objective; returns the slopes there."""
    order = [(t + 1 + k) % (ANDERSON + 1) for k in range(ANDERSON + 1)]
    steps = np.diff(points[order], axis=0)
    gram = steps @ steps.T
    try:
        weights = np.linalg.solve(gram + 1e-12 * np.trace(gram) * np.eye(ANDERSON), np.ones(ANDERSON))
    except np.linalg.LinAlgError:
        return v
    total = weights.sum()
    if not abs(total) > 1e-300:
        return v
    guess = (weights / total) @ points[order[1:]]
    w = np.zeros(model.X.n)
    w[chosen] = guess[:-1]
    z = model.X.product(w, float(guess[-1]), chosen)

    def objective(z: Vector, w: Vector) -> float:
        return model.datafit.value(z) + model.penalty.value(w[chosen])

    if objective(z, w) < objective(model.datafit.prediction(v), fit.w):
        fit.w[chosen], fit.intercept = guess[:-1], float(guess[-1])
        return model.datafit.slope(z)
    return v


def _newton(model: Model, fit: Fit, z: Vector, chosen: Index) -> Vector:
    """Proximal Newton steps on the chosen columns, each model minimised by sweeps, with a line search."""
    X, datafit, l1, l2 = model.X, model.datafit, model.penalty.l1, model.penalty.l2
    first = np.inf
    for outer in range(50):
        h, v = np.maximum(datafit.curvature(z), 1e-12 * datafit.heaviest), datafit.slope(z)
        curvature, sums = model.curvatures(h, chosen)
        w, intercept = fit.w.copy(), fit.intercept
        total = float(h.sum()) if model.has_intercept else 0.0
        start = 0.0
        for inner in range(100):
            intercept, worst = kernels.sweep(
                *X.parts, h, curvature, sums, w, v, chosen, l1, l2, intercept, total
            )
            fit.sweeps += 1
            start = worst if inner == 0 else start
            if worst <= 0.05 * start:
                break
        first = start if outer == 0 else first
        z = _searched(model, fit, z, w, intercept, X.product(w, intercept, chosen))
        if outer and start <= 0.1 * first:
            break
    return z


def _searched(model: Model, fit: Fit, z: Vector, w: Vector, intercept: float, new: Vector) -> Vector:
    """The first of halved steps towards the model's minimum, w, that lowers the objective enough."""
    datafit, penalty = model.datafit, model.penalty
    before = datafit.value(z) + penalty.value(fit.w)
    promised = float(datafit.slope(z) @ (new - z)) + penalty.value(w) - penalty.value(fit.w)
    size = 1.0
    for _ in range(30):
        there = fit.w + size * (w - fit.w)
        at = z + size * (new - z)
        enough = before + 0.01 * size * min(promised, 0.0) + 1e-14 * abs(before)
        if datafit.value(at) + penalty.value(there) <= enough:
            fit.w, fit.intercept = there, fit.intercept + size * (intercept - fit.intercept)
            return at
        size *= 0.5
    return z
