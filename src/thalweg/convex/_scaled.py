"""Data of sparse linear models as the solver takes them: rows with a weight, numbers whose squares stay in range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from sklearn.utils.validation import _check_sample_weight

from thalweg.convex.datafits import NOTHING, Vector
from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.numerics.scaling import balancing

Matrix: TypeAlias = Vector | sp.csc_array

#: Penalties in the solver's units lie within these: beyond, all coefficients are zero, or none is penalised.
LEAST, MOST = 1e-300, 1e300


@dataclass(frozen=True)
class Units:
    """Powers of two that columns and targets were divided by: ``w = 2^(y - x) u`` for the solver's coefficients u."""

    x: int = 0
    y: int = 0

    def coefficients(self, u: Vector) -> Vector:
        """The solver's coefficients in the data's units."""
        return np.ldexp(u, self.y - self.x)

    def solvers(self, w: Vector) -> Vector:
        """Inverse of `coefficients`."""
        return np.ldexp(w, self.x - self.y)

    def penalties(self, l1: float, l2: float) -> tuple[float, float]:
        """Weights of the l1 and the l2 penalty in the solver's units, of an objective divided by ``4^y``."""
        with np.errstate(over="ignore", under="ignore"):
            first, second = float(np.ldexp(l1, -self.y - self.x)), float(np.ldexp(l2, -2 * self.x))
        if second > MOST:
            raise InvalidParameter(
                f"The l2 penalty, {l2:.3g}, is beyond measure beside columns of size 2^{self.x}. Scale the columns."
            )
        return (
            min(max(first, LEAST), MOST) if l1 > 0 else 0.0,
            max(second, LEAST) if l2 > 0 else 0.0,
        )


def in_units(X: Matrix) -> tuple[Matrix, int]:
    """A matrix over the power of two that brings its largest entry near one, and that power; itself where none need."""
    data = X if isinstance(X, np.ndarray) else X.data
    power = balancing(data)
    if power == 0:
        return X, 0
    if isinstance(X, np.ndarray):
        return np.ldexp(X, -power), power
    scaled = X.copy()
    scaled.data = np.ldexp(X.data, -power)
    return scaled, power


def weighted_rows(X: Matrix, y: Vector, sample_weight: ArrayLike | None) -> tuple[Matrix, Vector, Vector]:
    """Rows, targets and weights of the samples that have one; weights empty where all have the same."""
    if sample_weight is None:
        return X, y, NOTHING
    weights = np.asarray(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))
    kept = weights > 0
    if not kept.any():
        raise InvalidProblem("sample_weight is zero for every sample.")
    if not kept.all():
        X, y, weights = X[kept], y[kept], weights[kept]
    return X, y, weights
