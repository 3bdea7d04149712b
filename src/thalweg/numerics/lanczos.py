"""The Lanczos process with full reorthogonalisation: Ritz values and vectors, and bounds of a spectrum.

Lanczos (1950); Parlett (1998), "The symmetric eigenvalue problem", chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import eigh_tridiagonal

from thalweg.core.errors import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import check_vector, require
from thalweg.numerics.operators import Matrix, as_operator

Vector = NDArray[np.float64]

#: Basis vectors that memory is taken for at first.
FIRST = 16


def lanczos(
    A: Matrix,
    steps: int,
    start: ArrayLike | None = None,
    seed: int = 0,
    until: Callable[[Vector, Vector], bool] | None = None,
) -> tuple[Vector, Vector, Vector]:
    """An orthonormal basis Q of a Krylov space of symmetric A, and the tridiagonal ``T = Q A Q'``.

    Args:
        A: symmetric, dense, sparse or operator, shape (n, n).
        steps: at most n; fewer are done where the space is exhausted.
        start: shape (n,); by default normal numbers of ``seed``.
        until: called after each step k with T's diagonal (k,) and what lies beside it (k,), its last entry to the next
            basis vector; a true answer ends the process.

    Returns:
        Q of shape (k, n) with rows orthonormal to rounding, T's diagonal (k,), and what lies beside it (k - 1,).

    Cost per step: one product with A, and 8 k n flops.

    >>> Q, diagonal, beside = lanczos(np.diag([1.0, 2.0, 3.0]), 3)
    >>> bool(np.allclose(Q @ Q.T, np.eye(3)))
    True
    """
    operator = as_operator(A)
    m, n = operator.shape
    require(m == n, f"lanczos: A is {m} x {n}; a square matrix is needed", error=InvalidProblem)
    require(1 <= steps <= n, f"lanczos needs 1 <= steps <= {n}", got=steps)
    q = generator(seed).standard_normal(n) if start is None else check_vector("start", start, n).copy()
    require(bool(q.any()), "lanczos: the start is zero", error=InvalidProblem)
    q /= np.linalg.norm(q)
    Q, diagonal, beside = np.empty((min(steps, FIRST), n)), np.empty(steps), np.empty(steps)
    scale = 0.0
    for k in range(steps):
        if k == len(Q):  # memory for as many again, up to those that may be needed
            Q = np.concatenate([Q, np.empty((min(k, steps - k), n))])
        Q[k] = q
        w = np.asarray(operator.matvec(q), dtype=np.float64).copy()
        diagonal[k] = w @ q
        for _ in range(2):  # twice is enough (Kahan)
            w -= Q[: k + 1].T @ (Q[: k + 1] @ w)
        beside[k] = np.linalg.norm(w)
        scale = max(scale, abs(float(diagonal[k])), float(beside[k]))
        if beside[k] <= 1e-12 * scale:
            return Q[: k + 1], diagonal[: k + 1], beside[:k]
        if until is not None and until(diagonal[: k + 1], beside[: k + 1]):
            return Q[: k + 1], diagonal[: k + 1], beside[:k]
        q = w / beside[k]
    return Q, diagonal, beside[:-1]


def ritz(A: Matrix, steps: int, start: ArrayLike | None = None, seed: int = 0) -> tuple[Vector, Vector]:
    """Ritz values of symmetric A, ascending, shape (k,), and their vectors, shape (k, n). Arguments as `lanczos`.

    >>> ritz(np.diag([1.0, 2.0, 3.0]), 3)[0].round(8)
    array([1., 2., 3.])
    """
    Q, diagonal, beside = lanczos(A, steps, start, seed)
    values, V = eigh_tridiagonal(diagonal, beside)
    vectors: Vector = np.asarray(V, dtype=np.float64).T @ Q
    return np.asarray(values, dtype=np.float64), vectors


def spectrum_ends(A: Matrix, steps: int = 30, seed: int = 0) -> tuple[float, float]:
    """Estimates of the smallest and largest eigenvalue of symmetric A, from the inside: extreme Ritz values.

    >>> low, high = spectrum_ends(np.diag(np.arange(1.0, 11.0)), 10)
    >>> round(low, 6), round(high, 6)
    (1.0, 10.0)
    """
    _, diagonal, beside = lanczos(A, min(steps, as_operator(A).shape[0]), seed=seed)
    values = eigh_tridiagonal(diagonal, beside, eigvals_only=True)
    return float(values[0]), float(values[-1])
