"""Linear operators: dense, sparse or matrix-free, each with its adjoint.

SciPy's `LinearOperator` is the common type; `as_operator` makes one of anything that has a product.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, SuperLU, aslinearoperator

from thalweg.core.errors import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, require


class Matrix(Protocol):
    """Anything of shape (m, n) with a product: an array, a sparse array, a `LinearOperator`, a stencil, a grid."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, n)."""

    def __matmul__(self, other: Any, /) -> Any:  # noqa: ANN401 -- a vector gives a vector, several give several
        """The product with vectors, shape (n,) or (n, k)."""


def as_csr(matrix: object, name: str = "A") -> sp.csr_array:
    """``matrix`` as a finite float64 CSR array with sorted int32 indices; copies only what differs.

    Raises:
        InvalidProblem: when it is not two-dimensional, is empty, or holds complex numbers.
        NotFinite: when it holds NaN or infinity.
    """
    to_csr = getattr(matrix, "to_csr", None)
    if to_csr is not None:
        made: sp.csr_array = to_csr()
        return made
    if isinstance(matrix, LinearOperator):
        raise InvalidProblem(
            f"{name} is a matrix-free operator; this method needs its entries. Pass a sparse or dense "
            "matrix, or use ConjugateGradient."
        )
    sparse = is_sparse(matrix)
    given: Any = matrix if sparse else as_real(name, matrix)
    if given.ndim != 2 or 0 in given.shape:
        raise InvalidProblem(f"{name} has shape {given.shape}; expected a non-empty matrix.")
    if np.iscomplexobj(given):
        raise InvalidProblem(f"{name} is complex; only real systems are solved here.")
    if sparse and given.dtype.kind not in "buif":
        raise InvalidProblem(f"{name} holds {given.dtype}; expected numbers.")
    if sparse and given.dtype.kind in "iu":
        as_real(f"{name} (stored entries)", given.tocoo().data)
    csr = sp.csr_array(given, dtype=np.float64)
    if csr.nnz >= 2**31:
        raise InvalidProblem(
            f"{name} has {csr.nnz} entries; fewer than 2^31 can be counted here. Use an operator."
        )
    if not csr.has_canonical_format:
        if sparse and np.shares_memory(csr.data, getattr(given, "data", csr.data)):
            csr = csr.copy()
        csr.sum_duplicates()
    csr.indices = csr.indices.astype(np.int32, copy=False)
    csr.indptr = csr.indptr.astype(np.int32, copy=False)
    check_finite(f"{name} (stored entries)", csr.data)
    return csr


def is_sparse(matrix: object) -> bool:
    """Whether this is one of SciPy's sparse arrays or matrices."""
    return bool(sp.issparse(matrix))


def factor_flops(factor: SuperLU) -> float:
    """What a ``SuperLU`` factorization has cost: two flops for each pair of a column of L and a row of U."""
    columns = np.diff(factor.L.indptr)
    rows = np.bincount(factor.U.indices, minlength=len(columns))
    return 2.0 * float(columns @ rows)


def as_operator(matrix: Matrix) -> LinearOperator:
    """``matrix`` as a `LinearOperator` with ``matvec`` and ``rmatvec``; shape (m, n).

    >>> as_operator(np.array([[1.0, 2.0]])).rmatvec(np.array([3.0]))
    array([3., 6.])
    """
    operator: LinearOperator = aslinearoperator(cast(Any, matrix))
    return operator


def adjoint_mismatch(operator: LinearOperator, seed: int = 0) -> float:
    """``|<A u, v> - <u, A' v>|`` over ``|A u| |v|`` for random u and v: rounding error for a true adjoint.

    >>> adjoint_mismatch(as_operator(np.arange(6.0).reshape(2, 3))) < 1e-12
    True
    """
    rng = generator(seed)
    m, n = operator.shape
    u, v = rng.standard_normal(n), rng.standard_normal(m)
    product = operator.matvec(u)
    gap = abs(float(product @ v) - float(u @ operator.rmatvec(v)))
    return gap / (float(np.linalg.norm(product) * np.linalg.norm(v)) or 1.0)


def equilibration(A: sp.csr_array, rounds: int = 10) -> NDArray[np.float64]:
    """d with the largest entry of every row of ``diag(d) A diag(d)`` near 1, for symmetric A (Ruiz, 2001).

    Empty rows keep the scale 1. Cost: 4 flops for each stored entry and round.

    >>> equilibration(as_csr(np.diag([4.0, 0.25]))).round(6)
    array([0.5, 2. ])
    """
    d = np.ones(A.shape[0])
    filled = np.flatnonzero(np.diff(A.indptr))
    starts, rows = A.indptr[filled], np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
    sizes = np.abs(A.data)
    for _ in range(rounds if len(filled) else 0):
        largest = np.maximum.reduceat(sizes * d[rows] * d[A.indices], starts)
        d[filled] /= np.sqrt(np.where(largest > 0.0, largest, 1.0))
    return d


class FivePointStencil(LinearOperator):
    """Matrix-free five-point operator on a ``rows x columns`` grid with zero boundary values.

    ``(A u)_ij = center u_ij + neighbour (u_i-1,j + u_i+1,j + u_i,j-1 + u_i,j+1)``, grid points in row order.
    The 2-D Laplacian is the default. Symmetric; positive definite when ``center > 4 |neighbour|`` or equal.

    Args:
        rows, columns: size of the grid, n = rows * columns.
        center, neighbour: the two coefficients.

    Cost of a product: 16 n bytes (a CSR product moves about 76 n).

    >>> stencil = FivePointStencil(30, 40)
    >>> bool(np.allclose(stencil @ np.ones(1200), stencil.to_csr() @ np.ones(1200)))
    True
    """

    def __init__(self, rows: int, columns: int, center: float = 4.0, neighbour: float = -1.0) -> None:
        require(rows >= 1 and columns >= 1, "FivePointStencil needs rows, columns >= 1", got=(rows, columns))
        check_finite("FivePointStencil coefficients", [center, neighbour])
        self.rows, self.columns = rows, columns
        self.center, self.neighbour = float(center), float(neighbour)
        super().__init__(np.dtype(np.float64), (rows * columns, rows * columns))  # type: ignore[call-arg]

    def _matvec(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        u = np.ascontiguousarray(x, dtype=np.float64).reshape(self.rows, self.columns)
        out = np.empty_like(u)
        _stencil_product(u, self.center, self.neighbour, np.zeros(self.columns), out)
        return out.reshape(np.shape(x))

    def _adjoint(self) -> FivePointStencil:
        return self

    def to_csr(self) -> sp.csr_array:
        """The same operator as a CSR array of shape (n, n)."""
        line, column = (sp.eye_array(n, k=1) + sp.eye_array(n, k=-1) for n in (self.columns, self.rows))
        neighbours = sp.kron(sp.eye_array(self.rows), line) + sp.kron(column, sp.eye_array(self.columns))
        csr = as_csr(self.center * sp.eye_array(self.shape[0]) + self.neighbour * neighbours)
        csr.eliminate_zeros()  # kron fills small blocks with stored zeros
        return csr

    def shifted(self, offset: float) -> FivePointStencil:
        """``A + offset I``."""
        return FivePointStencil(self.rows, self.columns, self.center + offset, self.neighbour)

    def tree(self) -> tuple[int, int, float, float]:
        """The four numbers that make this operator."""
        return self.rows, self.columns, self.center, self.neighbour


@njit(cache=True)
def _stencil_product(u, center, neighbour, zeros, out):  # type: ignore[no-untyped-def]
    rows, columns = u.shape
    for i in range(rows):
        up = u[i - 1] if i > 0 else zeros
        down = u[i + 1] if i < rows - 1 else zeros
        row, target = u[i], out[i]
        for j in range(columns):
            target[j] = center * row[j] + neighbour * (up[j] + down[j])
        for j in range(1, columns):
            target[j] += neighbour * row[j - 1]
            target[j - 1] += neighbour * row[j]
