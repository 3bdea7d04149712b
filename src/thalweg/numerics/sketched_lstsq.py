"""Least squares with a preconditioner from a sketch: as many steps for a badly scaled matrix as for a good one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from thalweg.core.errors import InvalidProblem
from thalweg.core.validation import as_real, check_finite, check_vector, is_real, is_whole, require
from thalweg.numerics._sketch_kernels import householder, osnap

Matrix = NDArray[np.float64]
NOTHING: Matrix = np.empty(0)


@dataclass(frozen=True)
class LeastSquares:
    """What `sketched_lstsq` found.

    Args:
        x: shape (columns,).
        residual: ``|A x - b|``.
        steps: of conjugate gradients.
        converged: whether the accuracy was reached.
    """

    x: Matrix
    residual: float
    steps: int
    converged: bool


def sketched_factor(A: ArrayLike, *, rows: int = 4, seed: int = 0) -> Matrix:
    """R, shape (columns, columns), upper triangular, with ``A R^-1`` well conditioned: from a sketch of A.

    Args:
        A: shape (n, columns), with at least as many rows as columns.
        rows: of the sketch, for each column. Default 4: condition numbers of about 3. Every row of A goes to two rows
            of the sketch with random signs (OSNAP); an A with no more rows than the sketch is taken as it is.
        seed: names the signs and places.

    Raises:
        InvalidProblem: fewer rows than columns, or columns that depend on each other.

    Cost: ``4`` flops an entry of A and ``2 rows columns^3``.

    Source: Rokhlin and Tygert (2008); Nelson and Nguyen (2013) for the sketch.

    >>> A = np.random.default_rng(0).standard_normal((500, 5)) * 10.0 ** -np.arange(5)
    >>> R = sketched_factor(A)
    >>> bool(np.linalg.cond(A) > 1e3), bool(np.linalg.cond(A @ np.linalg.inv(R)) < 5)
    (True, True)
    """
    A = _checked(A)
    require(is_whole(rows) and rows >= 2, "sketched_factor needs rows >= 2", got=rows)
    require(is_whole(seed) and seed >= 0, "sketched_factor needs seed >= 0", got=seed)
    n, k = A.shape
    if n <= rows * k:
        B = A.copy()
    else:
        B = np.zeros((rows * k, k))
        osnap(A, n, NOTHING, 0, seed, 0, B)
    householder(B, len(B))
    R = np.triu(B[:k])
    pivots = np.abs(R.diagonal())
    if not pivots.min() > k * np.finfo(float).eps * pivots.max():
        raise InvalidProblem(
            f"sketched_factor: the {k} columns of A depend on each other. Drop some, or append sqrt(ridge) I below A."
        )
    return R


def sketched_lstsq(
    A: ArrayLike,
    b: ArrayLike,
    *,
    R: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    tol: float = 1e-10,
    max_steps: int = 200,
) -> LeastSquares:
    """``min |A x - b|`` by conjugate gradients on ``A R^-1``.

    Args:
        A: shape (n, columns); b: shape (n,).
        R: from `sketched_factor`, which is the default; the identity gives plain conjugate gradients.
        x0: where to start; zero by default.
        tol: the gradient of the preconditioned problem to reach, relative to that at zero.
        max_steps: most steps.

    Raises:
        InvalidProblem: shapes that do not agree, dependent columns.

    Cost: four flops an entry of A a step. Not for sparse A: a sketch fills it up.

    >>> A = np.random.default_rng(0).standard_normal((200, 3)) * [1.0, 1e-3, 1e-6]
    >>> found = sketched_lstsq(A, A @ [1.0, 2.0, 3.0])
    >>> found.x.round(6), found.steps < 20
    (array([1., 2., 3.]), True)
    """
    A = _checked(A)
    n, k = A.shape
    b = check_vector("b", b, n)
    require(is_real(tol) and tol > 0, "sketched_lstsq needs tol > 0", got=tol)
    require(is_whole(max_steps) and max_steps >= 0, "sketched_lstsq needs max_steps >= 0", got=max_steps)
    R = sketched_factor(A) if R is None else as_real("R", R)
    if R.shape != (k, k) or not R.diagonal().all():
        raise InvalidProblem(
            f"R has shape {R.shape}; expected an upper triangle of ({k}, {k}) without zero pivots."
        )
    x = np.zeros(k) if x0 is None else check_vector("x0", x0, k).copy()
    z, residual = np.zeros(k), b - A @ x  # z is R times the step from x
    gradient = solve_triangular(R, A.T @ residual, trans="T")
    goal = tol * float(np.linalg.norm(solve_triangular(R, A.T @ b, trans="T")))
    direction, square, steps = gradient.copy(), float(gradient @ gradient), 0
    while np.sqrt(square) > goal and steps < max_steps:
        ahead = A @ solve_triangular(R, direction)
        length = square / float(ahead @ ahead)
        z += length * direction
        residual -= length * ahead
        gradient = solve_triangular(R, A.T @ residual, trans="T")
        new = float(gradient @ gradient)
        direction = gradient + new / square * direction
        square, steps = new, steps + 1
    x += solve_triangular(R, z)
    return LeastSquares(x, float(np.linalg.norm(b - A @ x)), steps, bool(np.sqrt(square) <= goal))


def _checked(A: ArrayLike) -> Matrix:
    found = as_real("A", A)
    if found.ndim != 2 or found.shape[1] < 1 or found.shape[0] < found.shape[1]:
        raise InvalidProblem(
            f"A has shape {found.shape}; expected (rows, columns) with as many rows as columns or more."
        )
    check_finite("A", found)
    return found
