"""The data of a linear model by columns, and passes over them that read no more than they have to."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from thalweg.convex import _path_kernels as kernels
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.losses import MatrixLike
from thalweg.core import InvalidProblem


class Columns:
    """A dense or sparse matrix, shape (rows, n), as the kernels take it.

    Args:
        X: dense, or sparse and then CSC, of float64 without a copy. A dense one is copied, columns contiguous, once a
            kernel asks for its columns.

    Raises:
        InvalidProblem: complex data.
    """

    def __init__(self, X: MatrixLike) -> None:
        self._dense: Vector | None = None
        self.rows: int
        self.n: int
        if sp.issparse(X):
            given = cast(sp.csc_array, sp.csc_array(cast(sp.csc_array, X)))
            _require_real(given.dtype)
            csc = given.astype(np.float64, copy=False)
            self._set(csc.data, csc.indices, csc.indptr, *csc.shape)
        else:
            values = np.asarray(cast(ArrayLike, X))
            _require_real(values.dtype)
            self._dense = np.asarray(values, dtype=np.float64)
            self.rows, self.n = self._dense.shape

    def _set(self, data: Vector, indices: NDArray[Any], indptr: NDArray[Any], rows: int, n: int) -> None:
        self.rows, self.n = rows, n
        self.parts = (data, indices.astype(np.int32, copy=False), indptr.astype(np.int64, copy=False))

    @cached_property
    def parts(self) -> tuple[Vector, NDArray[np.int32], Index]:
        """As the kernels take it: the columns one after another; row indices and pointers, empty where dense."""
        return np.ravel(self.dense, order="F"), np.empty(0, np.int32), np.empty(0, np.int64)

    @property
    def is_sparse(self) -> bool:
        """Whether it was given as a sparse matrix."""
        return self._dense is None

    @property
    def dense(self) -> Vector:
        """A dense one as an array, shape (rows, n)."""
        if self._dense is None:
            raise TypeError("The columns are sparse.")
        return self._dense

    def correlations(self, v: Vector, columns: Index) -> Vector:
        """``X_j . v`` for each of ``columns``."""
        out = np.empty(len(columns))
        kernels.correlations(*self.parts, columns, v, out)
        return out

    def all_correlations(self, v: Vector) -> Vector:
        """``X'v``."""
        return self.correlations(v, np.arange(self.n)) if self.is_sparse else np.asarray(self.dense.T @ v)

    def product(self, w: Vector, intercept: float, columns: Index) -> Vector:
        """``X w + intercept``, where w is zero outside ``columns``."""
        z = np.full(self.rows, intercept)
        kernels.add_columns(*self.parts, columns, w[columns], z)
        return z

    def full_product(self, w: Vector) -> Vector:
        """``X w``."""
        return self.product(w, 0.0, np.arange(self.n)) if self.is_sparse else np.asarray(self.dense @ w)

    def scaled(self, columns: Index, roots: Vector) -> Columns:
        """A copy of some columns, their rows multiplied by ``roots``; empty for ones."""
        if not self.is_sparse:
            copy = self.parts[0].reshape(self.n, self.rows)[columns]
            if len(roots):
                copy *= roots
            return Columns(copy.T)
        indptr = self.parts[2]
        size = int((indptr[columns + 1] - indptr[columns]).sum())
        made = object.__new__(Columns)
        made._dense = None
        made._set(
            np.empty(size),
            np.empty(size, np.int32),
            np.empty(len(columns) + 1, np.int64),
            self.rows,
            len(columns),
        )
        ones = roots if len(roots) else np.ones(self.rows)
        kernels.compacted(*self.parts, columns, ones, *made.parts)
        return made

    def gram(self) -> Vector:
        """``X'X``, symmetric."""
        if self.is_sparse:
            X = sp.csc_array(self.parts, shape=(self.rows, self.n))
            return np.asarray((X.T @ X).toarray())
        return np.asarray(self.dense.T @ self.dense)


class Correlations:
    """``X'v`` for one v after another, without reading columns that are known to stay below a limit.

    With v at ``share`` times an earlier v0 plus q, ``|X_j'v| <= share |X_j'v0| + |X_j| |q|``. v0 is replaced once most
    columns have to be read.

    Args:
        X: the data.
        v: the first vector; with it all columns are read, their lengths taken in the same pass.
        is_centred: whether every v sums to zero, so that the means of columns do not matter.
    """

    def __init__(self, X: Columns, v: Vector, is_centred: bool) -> None:
        self.X = X
        squares = np.empty(X.n)
        #: (n,) sums of the columns.
        self.sums = np.empty(X.n)
        #: (n,) what is known: a correlation, or a bound of its size, below the limit that was asked for.
        self.values = np.empty(X.n)
        kernels.first_pass(*X.parts, v, X.rows, is_centred, self.sums, squares, self.values)
        #: (n,) lengths of the columns, less their means where centred.
        self.lengths = np.sqrt(squares)
        self._known = np.ones(X.n, np.bool_)
        self._at, self._reference_at, self._reference = v, v, self.values.copy()

    def at(self, v: Vector, w: Vector, limit: float, columns: Index) -> Vector:
        """`values` at v; bounds below the limit for some of those columns whose coefficient w is zero."""
        if not np.array_equal(v, self._at):
            self._known[:] = False
            self._at = v
        before = self._reference_at
        square = float(before @ before)
        share = float(v @ before) / square if square > 0 else 0.0
        away = float(np.linalg.norm(v - share * before))
        away += 1e-14 * (abs(share) * np.sqrt(square) + away)  # rounding of the correlations
        args = (share, away, self.lengths, self._reference)
        read = kernels.lazy_pass(*self.X.parts, columns, v, w, *args, limit, self._known, self.values)
        if read > 0.5 * len(columns):
            kernels.lazy_pass(*self.X.parts, columns, v, w, *args, -1.0, self._known, self.values)
            # columns that are left out now have to be read when they are asked for again
            self._reference_at, self._reference = v, np.where(self._known, self.values, np.inf)
        return self.values

    def exact(self, columns: Index) -> Vector:
        """``X_j'v`` at the last v for each of these columns."""
        bounded = columns[~self._known[columns]]
        self.values[bounded] = self.X.correlations(self._at, bounded)
        self._known[bounded] = True
        return self.values[columns]


def _require_real(kind: np.dtype[Any]) -> None:
    if kind.kind == "c":
        raise InvalidProblem("The data are complex; linear models here take real numbers.")
