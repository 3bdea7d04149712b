"""Smooth convex losses as block coordinate descent needs them: cheap moves along blocks, and bounds of curvature.

Nutini, Laradji and Schmidt (2022), "Let's make block coordinate descent converge faster", sections 2 and 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from thalweg.convex.datafits import (
    Datafit,
    Index,
    LogLoss,
    PointwiseDatafit,
    SoftmaxLoss,
    SquaredError,
    Vector,
)
from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, check_vector, is_real, require
from thalweg.numerics import as_csr

#: A matrix as users give it: what NumPy takes, or one of SciPy's sparse ones.
MatrixLike: TypeAlias = ArrayLike | sp.sparray | sp.spmatrix

#: Entries of A whose squares, and sums of them, are numbers.
SMALLEST, LARGEST = 1e-150, 1e150

#: Up to so many coordinates, A'A is kept, and a least-squares gradient costs a column of it to maintain.
GRAM = 4000


class Design(Protocol):
    """A matrix of data, dense or sparse, shape (samples, features), as losses use it."""

    @property
    def shape(self) -> tuple[int, int]:
        """(samples, features)."""

    @property
    def T(self) -> Any:  # noqa: ANN401, N802 -- NumPy's name and types
        """The transpose."""

    def __matmul__(self, other: Any, /) -> Any:  # noqa: ANN401 -- NumPy's types
        """The product with a vector or a matrix."""

    def __getitem__(self, key: Any, /) -> Any:  # noqa: ANN401 -- NumPy's types
        """Some of its columns."""


class Loss(ABC):
    """A smooth convex function of x, shape (n,), with what is kept to move cheaply.

    ``z``, linear in x, is what the loss keeps of it (predictions, or a product), and ``g`` the gradient; `advance`
    brings both up to date.
    """

    n: int
    #: Outputs of a sample: x holds so many numbers for each column of the data.
    classes: int = 1

    @abstractmethod
    def keep(self, x: Vector) -> Vector:
        """z of a new x."""

    @abstractmethod
    def value(self, x: Vector, z: Vector) -> float:
        """f(x)."""

    @abstractmethod
    def gradient(self, x: Vector, z: Vector) -> Vector:
        """The gradient, shape (n,)."""

    @abstractmethod
    def change(self, block: Index, d: Vector) -> Vector:
        """How z changes when ``x[block] += d``."""

    @abstractmethod
    def bound(self, block: Index) -> Vector:
        """A matrix above the Hessian's block wherever x is, shape (b, b)."""

    @abstractmethod
    def hessian(self, x: Vector, z: Vector, block: Index) -> Vector:
        """The Hessian's block at x, shape (b, b)."""

    @abstractmethod
    def bound_columns(self, block: Index) -> Vector:
        """Columns of the bound of the whole Hessian, shape (n, b); greedy choices of variable blocks use them."""

    @property
    @abstractmethod
    def lipschitz(self) -> Vector:
        """Bounds of the second derivative along each coordinate, shape (n,)."""

    @property
    def graph(self) -> sp.csr_array | None:
        """The Hessian, where it is sparse and the same everywhere: the graph that forests are taken from."""
        return None

    def require_minimum(self) -> None:  # noqa: B027 -- most losses have one
        """Refuse data on which the loss, without a penalty or a box, has no minimum."""

    def advance(self, x: Vector, z: Vector, g: Vector, block: Index, d: Vector) -> None:
        """``x[block] += d``, with z and g brought up to date, in place."""
        z += self.change(block, d)
        x[block] += d
        g[:] = self.gradient(x, z)


def _dense(matrix: object) -> Vector:
    made: Vector = cast(sp.csc_array, matrix).toarray() if sp.issparse(matrix) else np.asarray(matrix)
    return made


def _columnwise(A: object) -> Design:
    """CSC, or a dense array with contiguous columns."""
    made = sp.csc_array(as_csr(A)) if sp.issparse(A) else np.asfortranarray(as_real("A", A))
    return cast(Design, made)


class LinearLoss(Loss):
    """Losses of ``z = A x``, A of shape (samples, features), plus ``ridge/2 |x|^2``: a `Datafit` of the predictions."""

    A: Design
    ridge: float

    @property
    @abstractmethod
    def datafit(self) -> Datafit:
        """The loss of the predictions."""

    def _set_matrix(self, A: object, ridge: float) -> None:
        A = _columnwise(A)
        if len(A.shape) != 2 or 0 in A.shape:
            raise InvalidProblem(f"A has shape {A.shape}; expected a non-empty (samples, features) matrix.")
        require(is_real(ridge) and 0 <= ridge < np.inf, "A loss needs a finite ridge >= 0", got=ridge)
        vars(self).update(A=A, ridge=float(ridge), n=A.shape[1])
        if isinstance(A, np.ndarray) and not np.isfinite(self._largest):
            check_finite("A", A)
        largest = self._largest
        if not (largest == 0 or SMALLEST <= largest <= LARGEST):
            raise InvalidProblem(
                f"A's largest entry is {largest:.3g}; its squares leave the range of numbers. Scale A to between "
                f"{SMALLEST:g} and {LARGEST:g}."
            )
        norms = self._squares
        zeros = np.flatnonzero(norms + self.ridge == 0)
        if zeros.size:
            raise InvalidProblem(
                f"A has {zeros.size} zero columns (first: {zeros[0]}); the loss does not depend on their coordinates. "
                "Drop them, or set ridge > 0."
            )

    @cached_property
    def _largest(self) -> float:
        """The largest entry of A in size."""
        data = self.A if isinstance(self.A, np.ndarray) else cast(sp.csc_array, self.A).data
        return float(max(data.max(initial=0.0), -data.min(initial=0.0)))

    @cached_property
    def _squares(self) -> Vector:
        A = self.A
        if isinstance(A, np.ndarray):
            return np.einsum("ij,ij->j", A, A)
        return np.asarray(cast(sp.csc_array, A).power(2).sum(0), dtype=np.float64).ravel()

    @cached_property
    def lipschitz(self) -> Vector:
        return self.datafit.smoothness * self._squares + self.ridge

    def _columns(self, block: Index) -> Design:
        return self.A[:, block]

    def _gram(self, block: Index, weights: Vector | None = None) -> Vector:
        B = self._columns(block)
        weighted = B if weights is None else sp.diags_array(weights) @ cast(sp.csc_array, B)
        return _dense(B.T @ weighted)

    def keep(self, x: Vector) -> Vector:
        return np.asarray(self.A @ x)

    def value(self, x: Vector, z: Vector) -> float:
        return self.datafit.value(z) + 0.5 * self.ridge * float(x @ x)

    def gradient(self, x: Vector, z: Vector) -> Vector:
        return np.asarray(self.A.T @ self.datafit.slope(z)).ravel() + self.ridge * x

    def change(self, block: Index, d: Vector) -> Vector:
        return np.asarray(self._columns(block) @ d)

    def bound(self, block: Index) -> Vector:
        return self.datafit.smoothness * self._gram(block) + self.ridge * np.eye(len(block))

    def bound_columns(self, block: Index) -> Vector:
        found = self.datafit.smoothness * np.asarray(self.A.T @ _dense(self._columns(block)))
        found[block, np.arange(len(block))] += self.ridge
        return found


class PointwiseLoss(LinearLoss):
    """Linear losses with one prediction a sample."""

    @property
    @abstractmethod
    def datafit(self) -> PointwiseDatafit:
        """The loss of the predictions."""

    def hessian(self, x: Vector, z: Vector, block: Index) -> Vector:
        return self._gram(block, self.datafit.curvature(z)) + self.ridge * np.eye(len(block))


@dataclass(frozen=True, eq=False)
class LeastSquares(PointwiseLoss):
    """``1/2 |A x - b|^2 + ridge/2 |x|^2``.

    Args:
        A: dense or sparse, shape (samples, n).
        b: shape (samples,).
        ridge: default 0.

    Raises:
        InvalidProblem: shapes that do not fit, a zero column without ridge.

    >>> loss = LeastSquares(np.eye(2), np.array([1.0, 2.0]))
    >>> x = np.zeros(2)
    >>> loss.value(x, loss.keep(x)), loss.gradient(x, loss.keep(x))
    (2.5, array([-1., -2.]))
    """

    A: Design
    b: Vector
    ridge: float = 0.0

    def __post_init__(self) -> None:
        self._set_matrix(self.A, self.ridge)
        object.__setattr__(self, "b", check_vector("b", self.b, self.A.shape[0]))
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            steepest = float(np.abs(self.A.T @ self.b).max())
            solution = float(np.abs(self.b).max()) / self._largest
        for what, size in (("A'b", steepest), ("The solution", solution)):
            if not (size == 0 or SMALLEST <= size <= LARGEST):
                raise InvalidProblem(
                    f"{what} has entries of about {size:.3g}; their squares leave the range of numbers. Scale A or b "
                    f"to have them between {SMALLEST:g} and {LARGEST:g}."
                )

    @cached_property
    def datafit(self) -> SquaredError:
        return SquaredError(self.b)

    @cached_property
    def gram(self) -> Vector | None:
        """``A'A + ridge I`` where it is small enough to keep, else None."""
        if self.n > GRAM:
            return None
        dense = np.array(_dense(self.A.T @ self.A))
        dense[np.diag_indices(self.n)] += self.ridge
        return dense

    def advance(self, x: Vector, z: Vector, g: Vector, block: Index, d: Vector) -> None:
        if self.gram is None:
            super().advance(x, z, g, block, d)
            return
        z += self.change(block, d)
        x[block] += d
        g += d @ self.gram[block]  # rows are contiguous, and the matrix symmetric

    def bound(self, block: Index) -> Vector:
        return super().bound(block) if self.gram is None else self.gram[np.ix_(block, block)]

    def bound_columns(self, block: Index) -> Vector:
        return super().bound_columns(block) if self.gram is None else np.ascontiguousarray(self.gram[block].T)

    def hessian(self, x: Vector, z: Vector, block: Index) -> Vector:
        return self.bound(block)


@dataclass(frozen=True, eq=False)
class Logistic(PointwiseLoss):
    """``sum_i log(1 + exp(-y_i a_i'x)) + ridge/2 |x|^2``, y_i = 1 or -1.

    Args:
        A: shape (samples, n).
        y: shape (samples,), two values: -1 and 1.
        ridge: default 0. Without it, and without a penalty, separable data have no solution.

    Raises:
        InvalidProblem: other labels, shapes that do not fit, a zero column without ridge.
    """

    A: Design
    y: Vector
    ridge: float = 0.0

    def __post_init__(self) -> None:
        self._set_matrix(self.A, self.ridge)
        y = check_vector("y", self.y, self.A.shape[0])
        if not np.isin(y, (-1.0, 1.0)).all():
            raise InvalidProblem(f"Logistic: labels are -1 and 1; got {np.unique(y)[:5]}.")
        object.__setattr__(self, "y", y)

    @cached_property
    def datafit(self) -> LogLoss:
        return LogLoss(self.y)

    def require_minimum(self) -> None:
        """Refuse labels that a plane separates, without ridge: the infimum is zero, at infinity."""
        if self.ridge > 0:
            return
        unit = 1.0 / self._largest  # the program's tolerances are absolute
        signed = cast(Vector, sp.diags_array(-unit * self.y) @ cast(sp.csc_array, self.A))
        found = linprog(np.zeros(self.n), A_ub=signed, b_ub=-np.ones(len(self.y)), bounds=(None, None))
        if found.status == 0:
            raise InvalidProblem(
                "The labels are separable: without a penalty the weights grow for ever. Set ridge > 0, or a penalty."
            )


@dataclass(frozen=True, eq=False)
class Multinomial(LinearLoss):
    """``sum_i -log softmax(a_i'X)[y_i] + ridge/2 |X|^2``, X of shape (features, classes), x its rows one after another.

    Args:
        A: shape (samples, features).
        y: class of each sample, integers 0 .. classes - 1, shape (samples,).
        classes: default: the largest label plus one.
        ridge: default 0.

    Raises:
        InvalidProblem: labels that are no classes, shapes that do not fit.
    """

    A: Design
    y: Index
    classes: int = 0
    ridge: float = 0.0

    def __post_init__(self) -> None:
        self._set_matrix(self.A, self.ridge)
        y = check_vector("y", self.y, self.A.shape[0]).astype(np.int64)
        classes = self.classes or int(y.max()) + 1
        if y.min() < 0 or y.max() >= classes or (y != np.asarray(self.y)).any():
            raise InvalidProblem(f"Multinomial: labels must be integers from 0 to {classes - 1}.")
        vars(self).update(y=y, classes=classes, n=self.A.shape[1] * classes)

    @cached_property
    def datafit(self) -> SoftmaxLoss:
        return SoftmaxLoss(self.y)

    @cached_property
    def lipschitz(self) -> Vector:
        return np.repeat(self.datafit.smoothness * self._squares + self.ridge, self.classes)

    def keep(self, x: Vector) -> Vector:
        return np.asarray(self.A @ x.reshape(-1, self.classes))

    def change(self, block: Index, d: Vector) -> Vector:
        features, classes = np.divmod(block, self.classes)
        delta = np.zeros((self.A.shape[0], self.classes))
        B = _dense(self._columns(features))
        np.add.at(delta.T, classes, (B * d).T)
        return delta

    def bound(self, block: Index) -> Vector:
        features, classes = np.divmod(block, self.classes)
        # Boehning (1992): diag(p) - p p' <= (I - 1 1'/k)/2
        between = 0.5 * ((classes[:, None] == classes) - 1.0 / self.classes)
        return between * self._gram(features) + self.ridge * np.eye(len(block))

    def bound_columns(self, block: Index) -> Vector:
        features, classes = np.divmod(block, self.classes)
        product = np.asarray(self.A.T @ _dense(self._columns(features)))  # (features, b)
        between = 0.5 * ((np.arange(self.classes)[:, None] == classes) - 1.0 / self.classes)
        found: Vector = (product[:, None] * between[None]).reshape(self.n, len(block))
        found[block, np.arange(len(block))] += self.ridge
        return found

    def hessian(self, x: Vector, z: Vector, block: Index) -> Vector:
        features, classes = np.divmod(block, self.classes)
        p = self.datafit.probabilities(z)[:, classes]
        B = _dense(self._columns(features))
        same = classes[:, None] == classes
        first = (B * p).T @ B
        return np.where(same, first, 0.0) - (B * p).T @ (B * p) + self.ridge * np.eye(len(block))
