"""Smooth convex losses as block coordinate descent needs them: cheap moves along blocks, and bounds of curvature.

Nutini, Laradji and Schmidt (2022), "Let's make block coordinate descent converge faster", sections 2 and 5.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog
from scipy.special import expit, log_softmax, softmax

from thalweg.convex._kernels import scatter_rows
from thalweg.core import InvalidProblem
from thalweg.core.validation import check_finite, check_vector, require
from thalweg.numerics import as_csr

Vector = NDArray[np.float64]
Index = NDArray[np.int64]

#: Up to so many coordinates, A'A is kept, and a least-squares gradient costs a column of it to maintain.
GRAM = 4000


class Loss(ABC):
    """A smooth convex function of x, shape (n,), with what is kept to move cheaply.

    ``z``, linear in x, is what the loss keeps of it (predictions, or a product), and ``g`` the gradient; `advance`
    brings both up to date.
    """

    n: int

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

    def advance(self, x: Vector, z: Vector, g: Vector, block: Index, d: Vector) -> None:
        """``x[block] += d``, with z and g brought up to date, in place."""
        z += self.change(block, d)
        x[block] += d
        g[:] = self.gradient(x, z)


def _dense(matrix: Any) -> Vector:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)


def _columnwise(A: Any) -> Any:
    """CSC, or a dense array with contiguous columns."""
    return sp.csc_array(as_csr(A)) if sp.issparse(A) else np.asfortranarray(A, dtype=np.float64)


def _squared_columns(A: Any) -> Vector:
    return np.asarray((A.multiply(A) if hasattr(A, "multiply") else A**2).sum(0)).ravel()


class _Linear(Loss):
    """Losses of ``z = A x``, A of shape (samples, features), plus ``ridge/2 |x|^2``."""

    A: Any
    ridge: float
    #: Bound of the loss's second derivative in a prediction.
    curvature: float

    def _set_matrix(self, A: Any, ridge: float) -> None:
        A = _columnwise(A)
        if A.ndim != 2 or 0 in A.shape:
            raise InvalidProblem(f"A has shape {A.shape}; expected a non-empty (samples, features) matrix.")
        if not sp.issparse(A):
            check_finite("A", A)
        require(ridge >= 0, "A loss needs ridge >= 0", got=ridge)
        vars(self).update(A=A, ridge=float(ridge), n=A.shape[1])
        norms = self._squares
        zeros = np.flatnonzero(norms + self.ridge == 0)
        if zeros.size:
            raise InvalidProblem(
                f"A has {zeros.size} zero columns (first: {zeros[0]}); the loss does not depend on their coordinates. "
                "Drop them, or set ridge > 0."
            )

    @cached_property
    def _squares(self) -> Vector:
        return _squared_columns(self.A)

    @cached_property
    def lipschitz(self) -> Vector:
        return self.curvature * self._squares + self.ridge

    def _columns(self, block: Index) -> Any:
        return self.A[:, block]

    def _gram(self, block: Index, weights: Vector | None = None) -> Vector:
        B = self._columns(block)
        weighted = B if weights is None else sp.diags_array(weights) @ B
        return _dense(B.T @ weighted)

    def keep(self, x: Vector) -> Vector:
        return np.asarray(self.A @ x)

    def change(self, block: Index, d: Vector) -> Vector:
        return np.asarray(self._columns(block) @ d)

    def bound(self, block: Index) -> Vector:
        return self.curvature * self._gram(block) + self.ridge * np.eye(len(block))

    def bound_columns(self, block: Index) -> Vector:
        found = self.curvature * np.asarray(self.A.T @ _dense(self._columns(block)))
        found[block, np.arange(len(block))] += self.ridge
        return found


@dataclass(frozen=True, eq=False)
class LeastSquares(_Linear):
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

    A: Any
    b: Vector
    ridge: float = 0.0
    curvature = 1.0

    def __post_init__(self) -> None:
        self._set_matrix(self.A, self.ridge)
        object.__setattr__(self, "b", check_vector("b", self.b, self.A.shape[0]))

    @cached_property
    def gram(self) -> Vector | None:
        """``A'A + ridge I`` where it is small enough to keep, else None."""
        if self.n > GRAM:
            return None
        dense = np.array(_dense(self.A.T @ self.A))
        dense[np.diag_indices(self.n)] += self.ridge
        return dense

    def value(self, x: Vector, z: Vector) -> float:
        r = z - self.b
        return 0.5 * float(r @ r) + 0.5 * self.ridge * float(x @ x)

    def gradient(self, x: Vector, z: Vector) -> Vector:
        return np.asarray(self.A.T @ (z - self.b)) + self.ridge * x

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
class Logistic(_Linear):
    """``sum_i log(1 + exp(-y_i a_i'x)) + ridge/2 |x|^2``, y_i = 1 or -1.

    Args:
        A: shape (samples, n).
        y: shape (samples,), two values: -1 and 1.
        ridge: default 0. Without it, and without a penalty, separable data have no solution.

    Raises:
        InvalidProblem: other labels, shapes that do not fit, a zero column without ridge.
    """

    A: Any
    y: Vector
    ridge: float = 0.0
    curvature = 0.25

    def __post_init__(self) -> None:
        self._set_matrix(self.A, self.ridge)
        y = check_vector("y", self.y, self.A.shape[0])
        if not np.isin(y, (-1.0, 1.0)).all():
            raise InvalidProblem(f"Logistic: labels are -1 and 1; got {np.unique(y)[:5]}.")
        object.__setattr__(self, "y", y)

    def require_inseparable(self) -> None:
        """Refuse labels that a plane separates: without ridge or penalty the infimum is zero, at infinity."""
        signed: Any = sp.diags_array(-self.y) @ self.A
        found = linprog(np.zeros(self.n), A_ub=signed, b_ub=-np.ones(len(self.y)), bounds=(None, None))
        if found.status == 0:
            raise InvalidProblem(
                "The labels are separable: without a penalty the weights grow for ever. Set ridge > 0, or a penalty."
            )

    def value(self, x: Vector, z: Vector) -> float:
        return float(np.logaddexp(0.0, -self.y * z).sum()) + 0.5 * self.ridge * float(x @ x)

    def gradient(self, x: Vector, z: Vector) -> Vector:
        return np.asarray(self.A.T @ (-self.y * expit(-self.y * z))) + self.ridge * x

    def hessian(self, x: Vector, z: Vector, block: Index) -> Vector:
        p = expit(z)
        return self._gram(block, p * (1.0 - p)) + self.ridge * np.eye(len(block))


@dataclass(frozen=True, eq=False)
class Multinomial(_Linear):
    """``sum_i -log softmax(a_i'X)[y_i] + ridge/2 |X|^2``, X of shape (features, classes), x its rows one after another.

    Args:
        A: shape (samples, features).
        y: class of each sample, integers 0 .. classes - 1, shape (samples,).
        classes: default: the largest label plus one.
        ridge: default 0.

    Raises:
        InvalidProblem: labels that are no classes, shapes that do not fit.
    """

    A: Any
    y: NDArray[np.int64]
    classes: int = 0
    ridge: float = 0.0
    curvature = 0.5

    def __post_init__(self) -> None:
        self._set_matrix(self.A, self.ridge)
        y = check_vector("y", self.y, self.A.shape[0]).astype(np.int64)
        classes = self.classes or int(y.max()) + 1
        if y.min() < 0 or y.max() >= classes or (y != np.asarray(self.y)).any():
            raise InvalidProblem(f"Multinomial: labels must be integers from 0 to {classes - 1}.")
        vars(self).update(y=y, classes=classes, n=self.A.shape[1] * classes)

    @cached_property
    def lipschitz(self) -> Vector:
        return np.repeat(0.25 * self._squares + self.ridge, self.classes)

    def keep(self, x: Vector) -> Vector:
        return np.asarray(self.A @ x.reshape(-1, self.classes))

    def value(self, x: Vector, z: Vector) -> float:
        chosen = log_softmax(z, axis=1)[np.arange(len(z)), self.y]
        return -float(chosen.sum()) + 0.5 * self.ridge * float(x @ x)

    def gradient(self, x: Vector, z: Vector) -> Vector:
        p = softmax(z, axis=1)
        p[np.arange(len(z)), self.y] -= 1.0
        return np.asarray(self.A.T @ p).ravel() + self.ridge * x

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
        found = (product[:, None] * between[None]).reshape(self.n, len(block))
        found[block, np.arange(len(block))] += self.ridge
        return found

    def hessian(self, x: Vector, z: Vector, block: Index) -> Vector:
        features, classes = np.divmod(block, self.classes)
        p = softmax(z, axis=1)[:, classes]
        B = _dense(self._columns(features))
        same = classes[:, None] == classes
        first = (B * p).T @ B
        return np.where(same, first, 0.0) - (B * p).T @ (B * p) + self.ridge * np.eye(len(block))


@dataclass(frozen=True, eq=False)
class Quadratic(Loss):
    """``1/2 x'H x - c'x`` with H sparse, symmetric, positive semidefinite: graphs and lattices.

    Args:
        H: shape (n, n), positive diagonal.
        c: shape (n,).

    Raises:
        InvalidProblem: H asymmetric, or a diagonal entry not positive.
    """

    H: sp.csr_array
    c: Vector

    def __post_init__(self) -> None:
        H = as_csr(self.H, "H")
        n = H.shape[0]
        if H.shape != (n, n) or abs(H - H.T).max() > 1e-10 * abs(H).max():
            raise InvalidProblem(f"Quadratic: H, {H.shape[0]} x {H.shape[1]}, is not symmetric.")
        diagonal = H.diagonal()
        if not (diagonal > 0).all():
            row = int(np.argmin(diagonal))
            raise InvalidProblem(
                f"Quadratic: H's diagonal is {diagonal[row]:.3g} in row {row}; it must be positive."
            )
        vars(self).update(H=H, c=check_vector("c", self.c, n), n=n)

    @cached_property
    def lipschitz(self) -> Vector:
        return np.asarray(self.H.diagonal())

    def keep(self, x: Vector) -> Vector:
        return np.asarray(self.H @ x)

    def value(self, x: Vector, z: Vector) -> float:
        return 0.5 * float(x @ z) - float(self.c @ x)

    def gradient(self, x: Vector, z: Vector) -> Vector:
        return z - self.c

    def change(self, block: Index, d: Vector) -> Vector:
        found = np.zeros(self.n)
        scatter_rows(self.H.data, self.H.indices, self.H.indptr, block, d, found)
        return found

    def advance(self, x: Vector, z: Vector, g: Vector, block: Index, d: Vector) -> None:
        H = self.H
        scatter_rows(H.data, H.indices, H.indptr, block, d, z)
        scatter_rows(H.data, H.indices, H.indptr, block, d, g)
        x[block] += d

    def bound(self, block: Index) -> Vector:
        return np.asarray(self.H[block][:, block].toarray())

    def bound_columns(self, block: Index) -> Vector:
        return np.ascontiguousarray(self.H[block].toarray().T)

    def hessian(self, x: Vector, z: Vector, block: Index) -> Vector:
        return self.bound(block)


def label_propagation(weights: Any, labels: ArrayLike, known: ArrayLike) -> Quadratic:
    """``1/2 sum_ij w_ij (x_i - x_j)^2`` over a graph whose labelled nodes stay as they are; x holds the others.

    Zhu, Ghahramani and Lafferty (2003), "Semi-supervised learning using Gaussian fields and harmonic functions".

    Args:
        weights: symmetric, non-negative, shape (nodes, nodes).
        labels: a number for each node, shape (nodes,); read where known.
        known: boolean, shape (nodes,).

    Raises:
        InvalidProblem: a negative weight, no labelled or no unlabelled node, a node that no label reaches.

    >>> path = sp.diags_array([np.ones(2), np.ones(2)], offsets=[-1, 1], shape=(3, 3))
    >>> loss = label_propagation(path, [0.0, 0.0, 1.0], [True, False, True])
    >>> loss.H.toarray(), loss.c
    (array([[2.]]), array([1.]))
    """
    W = as_csr(weights, "weights")
    n = W.shape[0]
    held = np.asarray(known, bool)
    y = check_vector("labels", np.where(held, labels, 0.0), n)
    require(bool((W.data >= 0).all()), "label_propagation needs weights >= 0", error=InvalidProblem)
    require(
        bool(held.any()) and not held.all(),
        "label_propagation needs some labels, not all",
        error=InvalidProblem,
    )
    count, part = sp.csgraph.connected_components(W, directed=False)
    unreached = np.setdiff1d(np.arange(count), part[held])
    if unreached.size:
        node = int(np.flatnonzero(part == unreached[0])[0])
        raise InvalidProblem(
            f"{unreached.size} components of the graph hold no label (one has node {node}); nothing can reach them. "
            "Label a node in each, or connect more neighbours."
        )
    laplacian = sp.csr_array(sp.diags_array(np.asarray(W.sum(1)).ravel()) - W)
    return Quadratic(laplacian[~held][:, ~held], np.asarray(W[~held][:, held] @ y[held]))
