"""Smooth linear models with an l2 penalty alone, to a certified duality gap: truncated Newton steps.

Dembo, Eisenstat and Steihaug (1982), "Inexact Newton methods"; Lin, Weng and Keerthi (2008), "Trust region Newton
method for large-scale logistic regression", for conjugate gradients on the products with the data alone.
"""

from __future__ import annotations

import numpy as np

from thalweg.convex.columns import Columns
from thalweg.convex.datafits import PointwiseDatafit, Vector
from thalweg.convex.fits import Fit

#: A step's residual as a share of the gradient, conjugate gradients in a step, and halvings of a step.
FORCING, ITERATIONS, HALVINGS = 0.3, 500, 30


def fit_ridge(
    X: Columns,
    datafit: PointwiseDatafit,
    l2: float,
    fit: Fit,
    *,
    has_intercept: bool,
    target: float,
    max_iter: int,
) -> None:
    """Minimise ``datafit(X w + b) + l2/2 |w|^2``, b at its minimum all the time, until the gap is the target.

    The slopes u of the predictions sum to zero then, so that they are a dual point, and its gap is
    ``|X'u + l2 w|^2 / (2 l2)``.

    Cost: two products with the data for each conjugate gradient, one for each Newton step; no matrix is formed.
    """
    base = X.full_product(fit.w) if fit.w.any() else np.zeros(X.rows)
    before: float | None = None
    steps = 0
    if has_intercept:
        fit.intercept = datafit.best_intercept(base + fit.intercept, fit.intercept)
    first = None
    while True:
        z = base + fit.intercept
        u, h = datafit.bends(z)
        g = X.all_correlations(u) + l2 * fit.w
        fit.gap = float(g @ g) / (2.0 * l2)
        if fit.gap <= target or steps >= max_iter:
            return
        first = fit.gap if first is None else first
        enough = 0.0 if datafit.is_quadratic else FORCING**2 * min(1.0, np.sqrt(fit.gap / first))
        step = _Step(X, np.maximum(h, 1e-12 * datafit.heaviest), l2, has_intercept)
        d, along, done = step.solved(g, max(enough * float(g @ g), l2 * target))
        fit.sweeps += 2 * done
        before = datafit.value(z) + 0.5 * l2 * float(fit.w @ fit.w) if before is None else before
        slope = float(g @ d)
        size = 1.0
        for _ in range(HALVINGS):
            w, ahead = fit.w + size * d, base + size * along
            b = 0.0
            if has_intercept:
                b = (
                    fit.intercept - size * float(step.h @ along) / step.total
                )  # where the quadratic model has it
                b = datafit.best_intercept(ahead + b, b)
            value = datafit.value(ahead + b) + 0.5 * l2 * float(w @ w)
            if value <= before + 1e-4 * size * slope + 1e-13 * abs(before):
                break
            size *= 0.5
        fit.w, fit.intercept, base, before = w, b, ahead, value
        steps += 1


class _Step:
    """Newton's equations ``(X'(D - h h'/sum h) X + l2) d = -g``, D = diag(h); the second part is the intercept's."""

    def __init__(self, X: Columns, h: Vector, l2: float, has_intercept: bool) -> None:
        self.X, self.h, self.l2 = X, h, l2
        self.total = float(h.sum()) if has_intercept else 0.0

    def solved(self, g: Vector, enough: float) -> tuple[Vector, Vector, int]:
        """d, ``X d`` and the iterations done, by conjugate gradients until the residual's square is ``enough``."""
        d, along = np.zeros(self.X.n), np.zeros(self.X.rows)
        size = float(np.linalg.norm(g))  # products of long gradients leave the range of numbers
        r, enough = -g / size, enough / size**2
        p, square = r, float(r @ r)
        done = 0
        while square > enough and done < ITERATIONS:
            done += 1
            image = self.X.full_product(p)
            t = self.h * image
            if self.total:
                t -= self.h * (float(t.sum()) / self.total)
            product = self.X.all_correlations(t) + self.l2 * p
            step = square / float(p @ product)
            d += step * p
            along += step * image
            r = r - step * product
            new = float(r @ r)
            p, square = r + (new / square) * p, new
        return size * d, size * along, done
