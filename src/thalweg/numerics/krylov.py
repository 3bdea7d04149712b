"""Krylov solvers of SciPy behind one signature, with the history of their residuals.

They serve as parts of other methods and where SciPy's own form is enough; `thalweg.linear` has the ones
that run step by step under `solve`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg as spla
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from thalweg.core.errors import InvalidProblem
from thalweg.core.validation import check_vector
from thalweg.numerics.operators import Matrix, as_operator


@dataclass(frozen=True)
class KrylovSolution:
    """What a Krylov solver found.

    Args:
        x: shape (n,).
        converged: whether the tolerance was reached.
        iterations: products with A (for `lsqr`, with A and its adjoint).
        residuals: ``|b - A x| / |b|`` after each iteration; for `gmres` its own estimate, for `lsqr` the
            final value only.
    """

    x: NDArray[np.float64]
    converged: bool
    iterations: int
    residuals: NDArray[np.float64]


def cg(A: Matrix, b: ArrayLike, **options: Any) -> KrylovSolution:  # noqa: ANN401 -- SciPy's own
    """Conjugate gradients (Hestenes and Stiefel, 1952), for symmetric positive definite A.

    Args:
        A: dense, sparse or operator, shape (n, n).
        b: shape (n,).
        options: ``x0``, ``rtol`` (default 1e-8), ``maxiter``, and the preconditioner ``M``, an
            approximation of the inverse of A.

    >>> cg(np.diag([1.0, 2.0, 3.0]), np.ones(3)).iterations
    3
    """
    return _symmetric(spla.cg, A, b, options)


def minres(A: Matrix, b: ArrayLike, **options: Any) -> KrylovSolution:  # noqa: ANN401 -- SciPy's own
    """MINRES (Paige and Saunders, 1975), for symmetric A, definite or not. Options as for `cg`.

    >>> bool(minres(np.diag([1.0, -2.0]), np.ones(2)).converged)
    True
    """
    return _symmetric(spla.minres, A, b, options)


def gmres(A: Matrix, b: ArrayLike, *, restart: int = 30, **options: Any) -> KrylovSolution:  # noqa: ANN401 -- SciPy's own
    """Restarted GMRES (Saad and Schultz, 1986), for any square A. Options as for `cg`.

    >>> bool(gmres(np.array([[1.0, 2.0], [-3.0, 4.0]]), np.ones(2)).converged)
    True
    """
    operator, rhs = _system(A, b, square=True)
    history: list[float] = []
    options = {"rtol": 1e-8, **options}
    x, info = spla.gmres(
        operator, rhs, restart=restart, callback=history.append, callback_type="pr_norm", **options
    )
    return KrylovSolution(x, info == 0, len(history), np.array(history))


def lsqr(A: Matrix, b: ArrayLike, *, rtol: float = 1e-8, maxiter: int | None = None) -> KrylovSolution:
    """LSQR (Paige and Saunders, 1982), for least squares with any A, shape (m, n).

    >>> lsqr(np.array([[1.0], [1.0]]), np.array([1.0, 3.0])).x
    array([2.])
    """
    operator, rhs = _system(A, b, square=False)
    x, stop, iterations, norm, *_ = spla.lsqr(operator, rhs, atol=rtol, btol=rtol, iter_lim=maxiter)
    residual = norm / (float(np.linalg.norm(rhs)) or 1.0)
    return KrylovSolution(x, stop in (0, 1, 2), iterations, np.array([residual]))


def _symmetric(
    solver: Callable[..., Any], A: Matrix, b: ArrayLike, options: dict[str, Any]
) -> KrylovSolution:
    operator, rhs = _system(A, b, square=True)
    scale = float(np.linalg.norm(rhs)) or 1.0
    history: list[float] = []

    def record(x: NDArray[np.float64]) -> None:
        history.append(float(np.linalg.norm(rhs - operator.matvec(x))) / scale)

    options = {"rtol": 1e-8, **options}
    x, info = solver(operator, rhs, callback=record, **options)
    return KrylovSolution(x, info == 0, len(history), np.array(history))


def _system(A: Matrix, b: ArrayLike, square: bool) -> tuple[LinearOperator, NDArray[np.float64]]:
    operator = as_operator(A)
    m, n = operator.shape
    if square and m != n:
        raise InvalidProblem(
            f"A is {m} x {n}; this solver needs a square matrix. For least squares use lsqr."
        )
    return operator, check_vector("b", b, m)
