"""``A x = b``: what is given, and how good an answer is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.linalg import LinearOperator

from thalweg.core import InvalidProblem, Problem, Stop
from thalweg.core.validation import as_real, check_finite, check_vector
from thalweg.linear._kernels import diagonal_positions
from thalweg.numerics import FivePointStencil, as_csr
from thalweg.numerics.operators import Matrix
from thalweg.numerics.scaling import balancing

if TYPE_CHECKING:
    from torch import Tensor

Vector = NDArray[np.float64]
Unsigned = NDArray[np.uint32]


Value = TypeVar("Value")


class of_the_matrix(cached_property[Value]):  # noqa: N801 -- read as the decorator it is
    """A cached property that a system with one of several right-hand sides asks its `LinearSystem.whole` for."""

    def __init__(self, func: Callable[[Any], Value]) -> None:
        def found(system: LinearSystem) -> Value:
            if system.whole is None:
                return func(system)
            value: Value = getattr(system.whole, func.__name__)
            return value

        super().__init__(wraps(func)(found))


@dataclass(frozen=True, eq=False)
class LinearSystem(Problem):
    """``A x = b`` with A of shape (n, n) and b of shape (n,), or (n, k) for k right-hand sides; real, float64.

    Args:
        A: a dense array, a SciPy sparse matrix, a `FivePointStencil`, a `PoissonGrid`, or a `LinearOperator`. Dense
            and sparse matrices are kept as CSR; their arrays are shared where the format allows it.
        b: right-hand side. Of several, the columns, each is solved as if it stood alone; the answer has b's shape.
        x0: where iterations start, of b's shape; zeros by default.

    The metric is ``residual``, ``|b - A x| / |b|`` (not divided when b = 0): relative, so that the units of A and b are
    of no matter. Of several right-hand sides it is the largest.

    Raises:
        InvalidProblem: A not square or empty, b or x0 of another length; complex numbers, text, masked entries; b with
            numbers so far apart that their squares have no sum (1e-300 beside 1e300).
        NotFinite: NaN or infinity in A, b or x0.

    >>> system = LinearSystem(np.array([[2.0, -1.0], [-1.0, 2.0]]), np.array([1.0, 1.0]))
    >>> system.metrics(np.array([1.0, 1.0]))
    {'residual': 0.0}
    """

    objective: ClassVar[str | None] = "residual"

    A: Matrix
    b: NDArray[np.float64]
    x0: NDArray[np.float64] | None = None
    whole: LinearSystem | None = field(default=None, repr=False)

    def __init__(self, A: Matrix | ArrayLike, b: ArrayLike, x0: ArrayLike | None = None) -> None:
        matrix = cast(Matrix, A) if hasattr(A, "matvec") else as_csr(A)
        kind: object = getattr(matrix, "dtype", None)
        if isinstance(kind, np.dtype) and kind.kind == "c":
            raise InvalidProblem("A is complex; only real systems are solved here.")
        m, n = matrix.shape
        if m != n:
            raise InvalidProblem(
                f"LinearSystem: A is {m} x {n}; a square matrix is needed. "
                "For least squares use thalweg.numerics.lsqr."
            )
        object.__setattr__(self, "A", matrix)
        object.__setattr__(self, "b", _right_sides(b, n))
        object.__setattr__(self, "x0", None if x0 is None else self._shaped("x0", x0))
        object.__setattr__(self, "whole", None)

    def updated(self, data: ArrayLike, b: ArrayLike, x0: ArrayLike | None = None) -> LinearSystem:
        """The system whose matrix has this one's pattern and the entries ``data``, shape (nnz,).

        Much cheaper than a new system: what the pattern alone decides is not worked out again.
        """
        csr = sp.csr_array((check_vector("data", data, self.csr.nnz), self.csr.indices, self.csr.indptr))
        csr.has_canonical_format = True
        other = object.__new__(LinearSystem)
        vars(other).update(A=csr, b=_right_sides(b, self.n), csr=csr, whole=None)
        vars(other).update(x0=None if x0 is None else other._shaped("x0", x0))
        vars(other).update({name: getattr(self, name) for name in ("positions", "upper_bandwidth", "mirror")})
        return other

    def started_at(self, x0: ArrayLike) -> LinearSystem:
        """The same system with another starting point."""
        other = object.__new__(LinearSystem)
        vars(other).update(vars(self), x0=self._shaped("x0", x0))
        for name in ("balanced", "columns"):  # they have starts of their own
            vars(other).pop(name, None)
        return other

    @cached_property
    def columns(self) -> tuple[LinearSystem, ...]:
        """The systems of one right-hand side each; what A alone decides is worked out once for all."""
        if self.b.ndim == 1:
            return (self,)
        made = []
        for j in range(self.b.shape[1]):
            other = object.__new__(LinearSystem)
            start = None if self.x0 is None else np.ascontiguousarray(self.x0[:, j])
            vars(other).update(A=self.A, b=np.ascontiguousarray(self.b[:, j]), x0=start, whole=self)
            made.append(other)
        return tuple(made)

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return len(self.b)

    def start(self) -> NDArray[np.float64]:
        """A fresh copy of the starting point."""
        return np.zeros(self.b.shape) if self.x0 is None else self.x0.copy()

    def metrics(self, x: ArrayLike | Tensor) -> dict[str, float]:
        """``{"residual": |b - A x| / |b|}``, of several right-hand sides the largest; x of the shape of b.

        Raises:
            InvalidProblem: x of another shape, or no numbers.
        """
        if not (type(x) is np.ndarray and x.dtype == np.float64):
            x = as_real("x", x)  # a tensor, from a method that runs on another device; a list
        self._require_shape("x", x)
        if x.ndim == 2:
            return {
                "residual": max(
                    one.metrics(np.ascontiguousarray(x[:, j]))["residual"]
                    for j, one in enumerate(self.columns)
                )
            }
        if self.balanced is not self:
            with np.errstate(over="ignore"):
                return self.balanced.metrics(np.ldexp(x, -self.unit))
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite meets no rule
            return {"residual": float(np.linalg.norm(self.b - self.A @ x)) / self.scale}

    def _require_shape(self, name: str, x: Vector) -> None:
        if x.shape != self.b.shape:
            raise InvalidProblem(f"{name} has shape {x.shape}; expected {self.b.shape}.")

    def _shaped(self, name: str, values: ArrayLike) -> Vector:
        """``values`` as finite numbers of the shape of b."""
        array = as_real(name, values)
        self._require_shape(name, array)
        check_finite(name, array)
        return array

    def recommended_stop(self) -> Stop:
        """A residual of 1e-8."""
        return Stop(below={"residual": 1e-8})

    @cached_property
    def scale(self) -> float:
        """Norm of b, or one when b = 0."""
        with np.errstate(over="ignore"):
            found = float(np.linalg.norm(self.b)) or 1.0
        if found == np.inf:
            sizes = np.abs(self.b[self.b != 0])
            raise InvalidProblem(
                f"b holds numbers from {sizes.min():.1g} to {sizes.max():.1g}, too far apart for a norm in float64. "
                "Measure the unknowns in units that bring them together."
            )
        return found

    @cached_property
    def exponents(self) -> tuple[int, int]:
        """a and b such that A / 2^a and b / 2^b have their largest entries near one; 0 where they need no scaling.

        A matrix-free A is measured by its product with b.
        """
        right = balancing(self.b)
        if isinstance(self.A, FivePointStencil):
            return balancing(np.array([self.A.center, self.A.neighbour])), right
        if hasattr(self.A, "to_csr"):
            return 0, right
        if sp.issparse(self.A):
            return balancing(self.csr.data), right
        with np.errstate(over="ignore", invalid="ignore"):
            probe = np.asarray(self.A @ np.ldexp(self.b, -right), dtype=np.float64)
        return balancing(probe) if np.isfinite(probe).all() else 0, right

    @property
    def unit(self) -> int:
        """The answer is that of `balanced` times two to this power."""
        return self.exponents[1] - self.exponents[0]

    @cached_property
    def balanced(self) -> LinearSystem:
        """This system with A and b over the powers of two of `exponents`; itself where both are zero.

        Raises:
            NotFinite: x0 is out of all proportion to b and A.
        """
        left, right = self.exponents
        if left == right == 0:
            return self
        other = object.__new__(LinearSystem)
        start = self.x0
        if start is not None:
            with np.errstate(over="ignore"):
                start = np.ldexp(start, -self.unit)
            check_finite("x0, in units of b / A,", start)
        vars(other).update(
            A=_shifted(self.A, -left), b=np.ldexp(self.b, -right), x0=start, exponents=(0, 0), whole=None
        )
        vars(other)["balanced"] = other
        return other

    def rounding(self, x: Vector | Tensor) -> float:
        """What rounding leaves of the residual at x: ``eps ||A| |x| + |b|| / |b|``; eps where A has no entries."""
        eps = float(np.finfo(np.float64).eps)
        if not isinstance(x, np.ndarray) or not (sp.issparse(self.A) or isinstance(self.A, FivePointStencil)):
            return eps
        return eps * float(np.linalg.norm(abs(self.csr) @ np.abs(x) + np.abs(self.b))) / self.scale

    @of_the_matrix
    def csr(self) -> sp.csr_array:
        """A with its entries, for methods that sweep over them."""
        return as_csr(self.A)

    @of_the_matrix
    def positions(self) -> NDArray[np.int32]:
        """Where ``csr.data`` holds the diagonal, shape (n,); -1 where a row stores no entry there."""
        found: NDArray[np.int32] = diagonal_positions(self.csr.indptr, self.csr.indices)
        return found

    @of_the_matrix
    def mirror(self) -> NDArray[np.int64] | None:
        """The permutation of ``csr.data`` that transposes A, shape (nnz,); None for an asymmetric pattern."""
        A = self.csr
        numbered = sp.csr_array((np.arange(A.nnz), A.indices, A.indptr), shape=A.shape)
        other = numbered.T.tocsr()
        same = np.array_equal(other.indptr, A.indptr) and np.array_equal(other.indices, A.indices)
        return other.data if same else None

    @cached_property
    def diagonal(self) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """The diagonal, shape (n,), and the position of each of its entries in ``csr.data``.

        Raises:
            InvalidProblem: an entry is absent or zero.
        """
        positions = self.positions
        absent = positions < 0
        values = np.zeros(self.n)
        values[~absent] = self.csr.data[positions[~absent]]
        zeros = np.flatnonzero(values == 0)
        if zeros.size:
            raise InvalidProblem(
                f"A has {zeros.size} zero diagonal entries (first in row {zeros[0]}); relaxation divides by "
                "them. Reorder the rows, or use GMRES."
            )
        return values, positions

    @cached_property
    def rows(self) -> tuple[Vector, Unsigned, Unsigned, Unsigned]:
        """``(data, indices, indptr, diagonal positions)`` with unsigned indices, as the kernels take them."""
        A, positions = self.csr, self.diagonal[1]
        return A.data, A.indices.view(np.uint32), A.indptr.view(np.uint32), positions.view(np.uint32)

    @of_the_matrix
    def upper_bandwidth(self) -> int:
        """Largest column minus row of a stored entry; 0 without any."""
        if self.csr.nnz == 0:
            return 0
        ends = self.csr.indptr[1:] - 1
        return int((self.csr.indices[ends] - np.arange(self.n)).max())

    @of_the_matrix
    def asymmetry(self) -> float:
        """``max |A - A'| / max |A|``; zero for a symmetric matrix, for a stencil and for a grid."""
        if hasattr(self.A, "to_csr"):
            return 0.0
        largest = float(np.abs(self.csr.data).max(initial=0.0)) or 1.0
        if self.mirror is not None:
            return float(np.abs(self.csr.data - self.csr.data[self.mirror]).max(initial=0.0)) / largest
        return float(abs(self.csr - self.csr.T).max()) / largest

    def require_consistent(self) -> None:
        """Refuse a right-hand side for which A, that knows its null space, has no solution."""
        check = getattr(self.A, "require_consistent", None)
        if check is not None:
            check(self.balanced.b)

    def require_positive_diagonal(self, method: str) -> None:
        """Refuse a matrix that cannot be positive definite; ``method`` names who needs it."""
        values = np.array([self.A.center]) if isinstance(self.A, FivePointStencil) else self.diagonal[0]
        negative = np.flatnonzero(values < 0)
        if negative.size:
            raise InvalidProblem(
                f"A has {negative.size} negative diagonal entries (first in row {negative[0]}), so it is not "
                f"positive definite; {method} needs that. Use GMRES, or solve with -A if that is definite."
            )

    def require_symmetric(self, method: str) -> None:
        """Refuse an asymmetric matrix; ``method`` names who needs symmetry."""
        if self.asymmetry > SYMMETRY_TOLERANCE:
            raise InvalidProblem(
                f"A is not symmetric (largest |A - A'| is {self.asymmetry:.2g} of the largest entry); "
                f"{method} needs a symmetric positive definite matrix. Use GMRES, or symmetrise A."
            )


def _right_sides(b: ArrayLike, n: int) -> Vector:
    """b as finite numbers, shape (n,) or (n, k)."""
    array = as_real("b", b)
    if array.ndim not in (1, 2) or len(array) != n or array.size == 0:
        raise InvalidProblem(
            f"b has shape {array.shape}; expected ({n},), or ({n}, k) for k right-hand sides."
        )
    check_finite("b", array)
    return array


#: Rounding that an assembled symmetric matrix may carry.
SYMMETRY_TOLERANCE = 1e-10


def _shifted(A: Matrix, exponent: int) -> Matrix:
    """``A * 2 ** exponent``."""
    if exponent == 0:
        return A
    if isinstance(A, FivePointStencil):
        return FivePointStencil(
            A.rows, A.columns, math.ldexp(A.center, exponent), math.ldexp(A.neighbour, exponent)
        )
    if sp.issparse(A):
        csr = as_csr(A)
        made = sp.csr_array((np.ldexp(csr.data, exponent), csr.indices, csr.indptr), shape=csr.shape)
        made.has_canonical_format = True
        return made
    n = A.shape[0]

    def product(v: Vector) -> Vector:
        return np.ldexp(np.asarray(A @ v, dtype=np.float64), exponent)

    return LinearOperator((n, n), matvec=product, rmatvec=product, dtype=np.float64)
