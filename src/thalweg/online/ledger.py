"""What the best linear model in hindsight would have lost: on a group, and as its rows come."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, check_vector

Vector = NDArray[np.float64]


class Hindsight:
    """The least sum of squares of a linear model over the rows so far; rows are not kept.

    Args:
        columns: d, of the rows.

    What is kept is the triangle of a QR factorisation of ``[X, y]``: ten digits more than normal equations have, and
    right for columns that depend on one another.

    Cost: O(rows d^2) to take rows in, O(d^3) for a loss.

    >>> best = Hindsight(1)
    >>> best.add(np.ones((3, 1)), np.array([0.0, 1.0, 2.0]))
    >>> round(best.loss(), 12)
    2.0
    """

    def __init__(self, columns: int) -> None:
        self.rows, self.columns = 0, columns
        self._triangle: NDArray[np.float64] = np.zeros((0, columns + 1))

    def add(self, X: NDArray[np.float64], y: Vector) -> None:
        """Take in rows, shape (rows, d), and their labels, shape (rows,).

        Raises:
            InvalidProblem: other shapes, complex numbers. NotFinite: NaN or infinity. Nothing is taken in then.
        """
        rows = as_real("X", X)
        if rows.ndim != 2 or rows.shape[1] != self.columns:
            raise InvalidProblem(f"Hindsight: X has shape {rows.shape}; expected (rows, {self.columns}).")
        check_finite("X", rows)
        stacked = np.vstack([self._triangle, np.column_stack([rows, check_vector("y", y, len(rows))])])
        self.rows += len(rows)
        if len(stacked):
            (triangle,) = qr(stacked, mode="r", check_finite=False)
            self._triangle = np.asarray(triangle[: stacked.shape[1]], dtype=np.float64)

    def loss(self) -> float:
        """The least sum of squares."""
        return float(np.square(self._residual()).sum())

    def coefficients(self) -> Vector:
        """Of the model that reaches it, the shortest of them, shape (d,)."""
        U, values, V, rest, largest = self._parts()
        found = V.T @ (U.T @ self._triangle[:, -1] / values) / largest
        idle = np.linalg.qr((rest / largest).T)[0]  # directions that change no prediction
        return np.asarray(found - idle @ (idle.T @ found))

    def _residual(self) -> Vector:
        U, r = self._parts()[0], self._triangle[:, -1]
        return np.asarray(r - U @ (U.T @ r))

    def _parts(self) -> tuple[NDArray[np.float64], ...]:
        """Singular vectors and values of the triangle up to its rank, other directions, and the columns' sizes.

        Columns are divided by their sizes: one in a small unit is not taken for rounding of the others.
        """
        R = self._triangle[:, :-1]
        largest = np.abs(R).max(0, initial=0.0)
        largest[largest == 0] = 1.0
        U, values, V = np.linalg.svd(R / largest)
        rank = int((values > max(R.shape) * np.finfo(float).eps * values.max(initial=0.0)).sum())
        return U[:, :rank], values[:rank], V[:rank], V[rank:], largest


def regret_curve(
    X: NDArray[np.float64], y: Vector, losses: Vector, points: int = 100
) -> tuple[NDArray[np.int64], Vector]:
    """Regret against the best linear model in hindsight, at ``points`` numbers of rows.

    Args:
        X: shape (rows, d); y: shape (rows,); losses: what was lost on each row, shape (rows,).

    Returns:
        numbers of rows, rising, shape (at most points,), and the regret after each of them.

    Cost: O(rows d^2 + points d^3).
    """
    at = np.unique(np.linspace(0, len(X), min(points, len(X)) + 1).astype(np.int64)[1:])
    best, found, start = Hindsight(X.shape[1]), np.empty(len(at)), 0
    total = np.cumsum(check_vector("losses", losses, len(X)))
    for k, end in enumerate(at):
        best.add(X[start:end], y[start:end])
        found[k] = total[end - 1] - best.loss()
        start = end
    return at, found
