"""Incomplete Cholesky factors without fill, IC(0), as a preconditioner.

Meijerink and van der Vorst (1977), "An iterative solution method for linear systems of which the coefficient matrix is
a symmetric M-matrix".
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numba import njit
from scipy.sparse.linalg import LinearOperator

from thalweg.core import InvalidProblem
from thalweg.linear.problem import LinearSystem
from thalweg.numerics import as_csr


def incomplete_cholesky(system: LinearSystem) -> LinearOperator:
    """``(L L')^-1`` with L of the pattern of A's lower triangle, for `ConjugateGradient`'s ``preconditioner``.

    Exists for M-matrices, such as Poisson's. Elsewhere a pivot may break down; A's diagonal is then raised by 0.1 %,
    and that doubled until the factors exist (Manteuffel, 1980).

    Raises:
        InvalidProblem: A asymmetric, without entries, or a diagonal entry not positive.

    Cost: about nnz operations a row to factorise; an application reads the factors twice. The two triangular solves are
    sequential.

    >>> from thalweg.numerics import FivePointStencil
    >>> system = LinearSystem(FivePointStencil(10, 10), np.ones(100))
    >>> incomplete_cholesky(system).shape
    (100, 100)
    """
    unit, system = system.exponents[0], system.balanced
    system.csr  # noqa: B018 -- refuse what has no entries
    system.require_symmetric("incomplete_cholesky")
    values = system.csr.diagonal()
    if not (values > 0).all():
        row = int(np.argmin(values))
        raise InvalidProblem(
            f"A's diagonal is {values[row]:.3g} in row {row}; incomplete_cholesky needs it positive."
        )
    lower, shift = as_csr(sp.tril(system.csr)), 0.0
    while True:
        data = lower.data.copy()
        data[lower.indptr[1:] - 1] *= 1.0 + shift
        if _factorise(data, lower.indices, lower.indptr):
            break
        shift = max(1e-3, 2.0 * shift)

    def apply(r: np.ndarray) -> np.ndarray:
        z = np.array(r, dtype=np.float64).reshape(-1)
        _solve(data, lower.indices, lower.indptr, z)
        return np.ldexp(z, -unit) if unit else z

    return LinearOperator(system.csr.shape, matvec=apply, rmatvec=apply, dtype=np.float64)


@njit(cache=True)
def _factorise(data, indices, indptr):
    """L in place of A's lower triangle (sorted columns, the diagonal last in each row); False where a pivot fails."""
    for i in range(len(indptr) - 1):
        last = indptr[i + 1] - 1
        for k in range(indptr[i], last + 1):
            j = indices[k]
            total = data[k]
            a, b = indptr[i], indptr[j]
            end = indptr[j + 1] - 1
            while a < k and b < end:
                if indices[a] == indices[b]:
                    total -= data[a] * data[b]
                    a += 1
                    b += 1
                elif indices[a] < indices[b]:
                    a += 1
                else:
                    b += 1
            if k < last:
                data[k] = total / data[end]
            elif total > 1e-8 * data[last]:
                data[last] = np.sqrt(total)
            else:
                return False
    return True


@njit(cache=True)
def _solve(data, indices, indptr, z):
    """``z <- (L L')^-1 z``; rows are sliced first, which spares the inner loops the test for negative indices."""
    n = len(z)
    for i in range(n):
        last = indptr[i + 1] - 1
        entries, places = data[indptr[i] : last], indices[indptr[i] : last]
        total = z[i]
        for k in range(len(entries)):
            total -= entries[k] * z[places[k]]
        z[i] = total / data[last]
    for i in range(n - 1, -1, -1):
        last = indptr[i + 1] - 1
        entries, places = data[indptr[i] : last], indices[indptr[i] : last]
        z[i] /= data[last]
        for k in range(len(entries)):
            z[places[k]] -= entries[k] * z[i]
