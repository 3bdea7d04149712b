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
from thalweg.numerics.scaling import balancing


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
    operator, rhs, unit = _system(A, b, options, square=True)
    history: list[float] = []
    options = {"rtol": 1e-8, **options}
    x, info = spla.gmres(
        operator, rhs, restart=restart, callback=history.append, callback_type="pr_norm", **options
    )
    return KrylovSolution(np.ldexp(x, unit), info == 0, len(history), np.array(history))


def lsqr(A: Matrix, b: ArrayLike, *, rtol: float = 1e-8, maxiter: int | None = None) -> KrylovSolution:
    """LSQR (Paige and Saunders, 1982), for least squares with any A, shape (m, n).

    >>> lsqr(np.array([[1.0], [1.0]]), np.array([1.0, 3.0])).x
    array([2.])
    """
    operator, rhs, unit = _system(A, b, {}, square=False)
    x, stop, iterations, norm, *_ = spla.lsqr(operator, rhs, atol=rtol, btol=rtol, iter_lim=maxiter)
    residual = norm / (float(np.linalg.norm(rhs)) or 1.0)
    return KrylovSolution(np.ldexp(x, unit), stop in (0, 1, 2), iterations, np.array([residual]))


def _symmetric(
    solver: Callable[..., Any], A: Matrix, b: ArrayLike, options: dict[str, Any]
) -> KrylovSolution:
    operator, rhs, unit = _system(A, b, options, square=True)
    scale = float(np.linalg.norm(rhs)) or 1.0
    history: list[float] = []

    def record(x: NDArray[np.float64]) -> None:
        history.append(float(np.linalg.norm(rhs - operator.matvec(x))) / scale)

    options = {"rtol": 1e-8, **options}
    x, info = solver(operator, rhs, callback=record, **options)
    return KrylovSolution(np.ldexp(x, unit), info == 0, len(history), np.array(history))


def _system(
    A: Matrix, b: ArrayLike, options: dict[str, Any], square: bool
) -> tuple[LinearOperator, NDArray[np.float64], int]:
    """A as an operator; b, and the start in ``options``, over the power of two that is given last."""
    operator = as_operator(A)
    m, n = operator.shape
    if square and m != n:
        raise InvalidProblem(
            f"A is {m} x {n}; this solver needs a square matrix. For least squares use lsqr."
        )
    rhs = check_vector("b", b, m)
    unit = balancing(rhs)
    if unit and options.get("x0") is not None:
        options["x0"] = np.ldexp(check_vector("x0", options["x0"], n), -unit)
    return operator, np.ldexp(rhs, -unit), unit
