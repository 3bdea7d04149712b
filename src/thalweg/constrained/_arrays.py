"""The arrays of the area: vectors, and matrices dense or sparse."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem

Vector: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = NDArray[np.float64] | sp.csr_array

#: Systems up to this many unknowns are looked at with dense factorizations.
DENSE = 1000


def real(values: ArrayLike) -> Vector:
    """What a function of the user's gives, as float64; complex numbers, such as roots off a domain, are refused."""
    _refuse_complex(values)
    return np.asarray(values, dtype=np.float64)


def as_matrix(A: Matrix) -> Matrix:
    """A as this area takes it: sparse ones of any format as CSR arrays, others as float64."""
    if not sp.issparse(A):
        return real(A)
    _refuse_complex(A)
    return A if isinstance(A, sp.csr_array) else sp.csr_array(A)


def _refuse_complex(values: ArrayLike | Matrix) -> None:
    if np.iscomplexobj(values):
        raise InvalidProblem(
            "f, a constraint or a derivative is complex at a point on the way; only real numbers are taken here. Let "
            "it give NaN outside its domain."
        )


def row_sizes(A: Matrix) -> Vector:
    """The largest entry of each row, in size."""
    if not isinstance(A, sp.csr_array):
        return np.asarray(np.abs(A).max(axis=1, initial=0.0))
    found = np.zeros(A.shape[0])
    np.maximum.at(found, np.repeat(np.arange(A.shape[0]), np.diff(A.indptr)), np.abs(A.data))
    return found


def divided(A: Matrix, units: Vector) -> Matrix:
    """A with each row over its unit."""
    if isinstance(A, sp.csr_array):
        return sp.csr_array(sp.diags_array(1.0 / units) @ A)
    return np.asarray(A / units[:, None])


def product(A: Matrix, v: Vector) -> Vector:
    """``A v``."""
    return np.asarray(A @ v, dtype=np.float64)


def adjoint(A: Matrix, v: Vector) -> Vector:
    """``A' v``."""
    return np.asarray(A.T @ v, dtype=np.float64)


def dense(A: Matrix) -> Vector:
    """A as a dense array."""
    return A.toarray() if sp.issparse(A) else np.asarray(A, dtype=np.float64)
