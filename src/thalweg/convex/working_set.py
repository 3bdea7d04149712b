"""Sparse linear models to a certified duality gap: working sets, gap-safe screening, Anderson acceleration.

Massias, Gramfort and Salmon (2018), "Celer: a fast solver for the lasso with dual extrapolation", for the working sets;
Ndiaye, Fercoq, Gramfort and Salmon (2017), "Gap safe screening rules for sparsity enforcing penalties"; Bertrand and
Massias (2021), "Anderson acceleration of coordinate descent".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.special import expit, xlogy

from thalweg.convex import _path_kernels as kernels
from thalweg.core.validation import require

Vector = NDArray[np.float64]
NOTHING = np.empty(0)

#: Most growth of a working set from one to the next, where so many columns violate optimality.
GROWTH = 2
#: Coordinates of the first working set; sweeps between two extrapolations, and between two looks at the gap.
FIRST, ANDERSON, LOOK = 100, 5, 10


_CSC: Any = sp.csc_array  # its types take no matrix of unknown format


class Columns:
    """A dense or sparse matrix, shape (rows, n), as the kernels take it.

    Args:
        X: float64; dense ones are made Fortran-contiguous, sparse ones CSC, without a copy where they are already.
    """

    def __init__(self, X: Any) -> None:
        if sp.issparse(X):
            csc: Any = _CSC(X)
            X = csc.astype(np.float64, copy=False)
            self.data, self.indices, self.indptr = X.data, X.indices.astype(np.int32, copy=False), X.indptr
        else:
            X = np.asfortranarray(X, dtype=np.float64)
            self.data = X.ravel(order="K")
            self.indices, self.indptr = np.empty(0, np.int32), np.empty(0, np.int32)
        self.indptr = self.indptr.astype(np.int64, copy=False)
        self.rows, self.n = X.shape
        self.parts = (self.data, self.indices, self.indptr)

    def correlations(self, v: Vector, columns: NDArray[np.int64]) -> Vector:
        """``X_j . v`` for each of ``columns``."""
        out = np.empty(len(columns))
        kernels.correlations(*self.parts, columns, v, out)
        return out

    def curvatures(self, h: Vector, columns: NDArray[np.int64]) -> Vector:
        """``sum_i h_i X_ij^2``; empty h for ones."""
        out = np.empty(len(columns))
        kernels.curvatures(*self.parts, columns, h, self.rows, out)
        return out

    def product(self, w: Vector, intercept: float, columns: NDArray[np.int64]) -> Vector:
        """``X w + intercept``, where w is zero outside ``columns``."""
        z = np.empty(self.rows)
        kernels.predict(*self.parts, w, columns, intercept, z)
        return z


@dataclass(frozen=True)
class Squares:
    """``1/2 |z - y|^2``."""

    y: Vector

    def value(self, z: Vector) -> float:
        r = z - self.y
        return 0.5 * float(r @ r)

    def slope(self, z: Vector) -> Vector:
        """Derivative in each prediction."""
        return z - self.y

    def dual(self, slope: Vector, w: Vector, l2: float, limit: float) -> tuple[float, float]:
        """The dual's value at the best multiple of the residuals, at most ``limit`` in size, and that multiple."""
        squares = float(slope @ slope) + l2 * float(w @ w)
        along = -float(slope @ self.y)
        s = min(max(along / squares, -limit), limit) if squares > 0 else 1.0
        return s * along - 0.5 * s * s * squares, s


@dataclass(frozen=True)
class LogLoss:
    """``sum log(1 + exp(-y (z + offset)))``, y = 1 or -1."""

    y: Vector
    offset: Vector | float = 0.0

    def value(self, z: Vector) -> float:
        return float(np.logaddexp(0.0, -self.y * (z + self.offset)).sum())

    def slope(self, z: Vector) -> Vector:
        return -self.y * expit(-self.y * (z + self.offset))

    def curvature(self, z: Vector) -> Vector:
        """Second derivative in each prediction."""
        p = expit(z + self.offset)
        return p * (1.0 - p)

    def dual(self, slope: Vector, limit: float) -> float:
        """The entropy at the probabilities of being wrong, times ``limit <= 1``; ridge's part is the caller's."""
        v = limit * slope
        u = np.clip(-self.y * v, 0.0, 1.0)
        return float((v * self.offset).sum()) - float((xlogy(u, u) + xlogy(1.0 - u, 1.0 - u)).sum())


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


def fit_penalized(
    X: Columns,
    loss: Squares | LogLoss,
    l1: float,
    l2: float = 0.0,
    *,
    has_intercept: bool = False,
    start: Fit | None = None,
    tol: float = 1e-6,
    max_iter: int = 100,
) -> Fit:
    """Minimise ``loss(X w + b) + l1 |w|_1 + l2/2 |w|^2`` to a gap of ``tol`` times the loss at 0.

    Args:
        X: the data.
        l1, l2: >= 0, not both zero.
        start: a fit to start from, as along a path.
        max_iter: working sets tried; the fit then says that it did not converge.

    Cost: one pass over the columns not yet screened for each working set, sweeps over the set alone between them.
    """
    require(l1 >= 0 and l2 >= 0 and l1 + l2 > 0, "fit_penalized needs l1, l2 >= 0, not both 0", got=(l1, l2))
    fit = Fit(np.zeros(X.n), 0.0) if start is None else Fit(start.w.copy(), start.intercept)
    if not has_intercept:
        fit.intercept = 0.0
    alive = np.arange(X.n)
    norms = np.sqrt(X.curvatures(NOTHING, alive) + l2)
    empty = _best_intercept(loss, np.zeros(X.rows), 0.0) if has_intercept else 0.0
    fit.scale = loss.value(np.full(X.rows, empty)) or 1.0
    support = np.flatnonzero(fit.w)
    z = X.product(fit.w, fit.intercept, support)
    size = max(FIRST, 2 * len(support))
    for _ in range(max_iter):
        if has_intercept:
            moved = _best_intercept(loss, z, fit.intercept) - fit.intercept
            z += moved
            fit.intercept += moved
        slope = loss.slope(z)
        c = X.correlations(slope, alive) + l2 * fit.w[alive]
        fit.gap, theta = _gap(loss, z, slope, c, fit.w, alive, l1, l2)
        if fit.gap <= tol * fit.scale:
            fit.converged = True
            break
        distance = np.zeros(len(alive))
        if l1 > 0:
            # the dual's strong concavity: 1 for squares, 4 for the log loss
            radius = np.sqrt(2.0 * max(fit.gap, 0.0) / (1.0 if isinstance(loss, Squares) else 4.0)) / l1
            distance = (1.0 - np.abs(theta)) / np.maximum(norms[alive], 1e-300)
            safe = (distance > radius) & (fit.w[alive] == 0.0)
            alive, distance, c = alive[~safe], distance[~safe], c[~safe]
            fit.screened = X.n - len(alive)
            if not len(alive):
                continue
        support = np.flatnonzero(fit.w)
        if l1 > 0:
            distance = np.where(fit.w[alive] != 0, -1.0, distance)
            violators = min(int((np.abs(c) > l1).sum()), GROWTH * size)
            size = min(max(size, 2 * len(support), violators), len(alive))
            chosen = np.sort(
                alive if size == len(alive) else alive[np.argpartition(distance, size - 1)[:size]]
            )
        else:
            chosen = alive
        if isinstance(loss, Squares):
            z = _least_squares(X, loss, fit, z, chosen, l1, l2, has_intercept, tol)
        else:
            z = _newton(X, loss, fit, z, chosen, l1, l2, has_intercept)
        kept = int(np.count_nonzero(fit.w))
        size = max(FIRST, 2 * kept, size if kept > len(support) else 2 * size)
    return fit


def _best_intercept(loss: Any, z: Vector, intercept: float) -> float:
    """The intercept that minimises the loss with the other coefficients held; Newton's method in one variable."""
    base = z - intercept
    if isinstance(loss, Squares):
        return float((loss.y - base).mean())
    for _ in range(100):
        now = base + intercept
        step = float(loss.slope(now).sum()) / max(float(loss.curvature(now).sum()), 1e-12)
        size = min(abs(step), 2.0)
        intercept -= size * np.sign(step)
        if size <= 1e-14 * (1.0 + abs(intercept)):
            break
    return float(intercept)


def _gap(
    loss: Any, z: Vector, slope: Vector, c: Vector, w: Vector, alive: Any, l1: float, l2: float
) -> tuple[float, Vector]:
    """Duality gap, and the correlations of the dual point over l1; screened columns cannot bind."""
    primal = loss.value(z) + l1 * float(np.abs(w).sum()) + 0.5 * l2 * float(w @ w)
    largest = float(np.abs(c).max(initial=0.0))
    if isinstance(loss, Squares) and l1 > 0:
        dual, s = loss.dual(slope, w, l2, l1 / largest if largest > 0 else np.inf)
        return primal - dual, s * c / l1
    if isinstance(loss, LogLoss) and l2 == 0.0:
        limit = min(1.0, l1 / largest) if largest > 0 else 1.0
        return primal - loss.dual(slope, limit), limit * c / l1
    # With ridge every dual point is feasible; its conjugate is |(|X'u| - l1)_+|^2 / (2 l2).
    raw = c - l2 * w[alive]
    excess = np.maximum(np.abs(raw) - l1, 0.0)
    if isinstance(loss, Squares):
        dual = -float(slope @ loss.y) - 0.5 * float(slope @ slope)
    else:
        dual = loss.dual(slope, 1.0)
    dual -= float(excess @ excess) / (2.0 * l2)
    # A ball for screening needs |X_j'u| <= l1 at a feasible point of the problem without ridge's columns; with ridge
    # the optimality |X_j'u| < l1 at zero coefficients takes its place.
    return primal - dual, raw / l1 if l1 > 0 else raw


def _least_squares(
    X: Columns,
    loss: Squares,
    fit: Fit,
    z: Vector,
    chosen: Any,
    l1: float,
    l2: float,
    has_intercept: bool,
    tol: float,
) -> Vector:
    """Sweeps on the chosen columns until their own gap is a third of the whole one's.

    Each look at the gap is followed by one sweep over all chosen columns, and extrapolated sweeps over those that are
    not zero after it.
    """
    curvature = X.curvatures(NOTHING, chosen)
    v, target = z - loss.y, max(0.3 * fit.gap, 0.1 * tol * fit.scale)
    rows = float(X.rows) if has_intercept else 0.0
    for look in range(1000):
        fit.intercept, _ = kernels.sweep(
            *X.parts, NOTHING, curvature, fit.w, v, chosen, l1, l2, fit.intercept, rows
        )
        kept = fit.w[chosen] != 0.0
        inner, bend = chosen[kept], curvature[kept]
        points = np.empty((ANDERSON + 1, len(inner) + 1))
        points[0, :-1], points[0, -1] = fit.w[inner], fit.intercept
        sweeps = LOOK if look else LOOK // 3  # easy sets are done by then
        for t in range(1, sweeps + 1):
            fit.intercept, _ = kernels.sweep(
                *X.parts, NOTHING, bend, fit.w, v, inner, l1, l2, fit.intercept, rows
            )
            at = t % (ANDERSON + 1)
            points[at, :-1], points[at, -1] = fit.w[inner], fit.intercept
            if at == ANDERSON:
                v = _extrapolated(X, loss, fit, v, inner, points, t, l1, l2)
                points[0, :-1], points[0, -1] = fit.w[inner], fit.intercept
        fit.sweeps += sweeps + 1
        c = X.correlations(v, chosen) + l2 * fit.w[chosen]
        gap, _ = _gap(loss, v + loss.y, v, c, fit.w, chosen, l1, l2)
        if gap <= target:
            break
    return v + loss.y


def _extrapolated(
    X: Columns, loss: Squares, fit: Fit, v: Vector, chosen: Any, points: Vector, t: int, l1: float, l2: float
) -> Vector:
    """Anderson's combination of the last points where it lowers the objective; returns the residuals there."""
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
    w = np.zeros(X.n)
    w[chosen] = guess[:-1]
    z = X.product(w, float(guess[-1]), chosen)

    def objective(w: Vector, v: Vector) -> float:
        kept = w[chosen]
        return 0.5 * float(v @ v) + l1 * float(np.abs(kept).sum()) + 0.5 * l2 * float(kept @ kept)

    if objective(w, z - loss.y) < objective(fit.w, v):
        fit.w[chosen], fit.intercept = guess[:-1], float(guess[-1])
        return z - loss.y
    return v


def _newton(
    X: Columns, loss: LogLoss, fit: Fit, z: Vector, chosen: Any, l1: float, l2: float, has_intercept: bool
) -> Vector:
    """Proximal Newton steps on the chosen columns, each model minimised by sweeps, with a line search."""
    first = np.inf
    for outer in range(50):
        h, v = np.maximum(loss.curvature(z), 1e-12), loss.slope(z)
        curvature = X.curvatures(h, chosen)
        w, intercept = fit.w.copy(), fit.intercept
        total = float(h.sum()) if has_intercept else 0.0
        start = 0.0
        for inner in range(100):
            intercept, worst = kernels.sweep(*X.parts, h, curvature, w, v, chosen, l1, l2, intercept, total)
            fit.sweeps += 1
            start = worst if inner == 0 else start
            if worst <= 0.05 * start:
                break
        first = start if outer == 0 else first
        new = X.product(w, intercept, chosen)
        z = _searched(loss, fit, z, w, intercept, new, l1, l2)
        if outer and start <= 0.1 * first:
            break
    return z


def _searched(
    loss: LogLoss, fit: Fit, z: Vector, w: Vector, intercept: float, new: Vector, l1: float, l2: float
) -> Vector:
    """The first of halved steps towards the model's minimum that lowers the objective enough."""

    def penalty(w: Vector) -> float:
        return l1 * float(np.abs(w).sum()) + 0.5 * l2 * float(w @ w)

    before = loss.value(z) + penalty(fit.w)
    promised = float(loss.slope(z) @ (new - z)) + penalty(w) - penalty(fit.w)
    size = 1.0
    for _ in range(30):
        there = fit.w + size * (w - fit.w)
        at = z + size * (new - z)
        if loss.value(at) + penalty(there) <= before + 0.01 * size * min(promised, 0.0) + 1e-14 * abs(before):
            fit.w, fit.intercept = there, fit.intercept + size * (intercept - fit.intercept)
            return at
        size *= 0.5
    return z
