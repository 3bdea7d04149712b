"""The entries of a matrix that were seen, kept by row and by column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, DTypeLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.matrix._entry_kernels import counting_order

Reals = NDArray[np.floating[Any]]
Index = NDArray[np.int32]
Places = NDArray[np.int64]
#: Indices of any width.
Indices = NDArray[np.signedinteger[Any]]
#: What rows or columns are called: sorted whole numbers, or words.
Labels = NDArray[np.int64] | NDArray[np.str_]
Duplicates = Literal["error", "sum", "mean"]
#: What entries may be read from: a sparse matrix, an array with NaN where nothing was seen, or (rows, columns, values).
Given = sp.sparray | sp.spmatrix | ArrayLike | tuple[ArrayLike, ArrayLike, ArrayLike]
#: Entries that go through a sum at once.
BLOCK = 2**16


@dataclass(frozen=True)
class Limits:
    """Between these the squares of values, and of values times weights, neither overflow nor vanish."""

    smallest: float
    largest: float
    lightest: float
    heaviest: float


def limits_of(kind: np.dtype[np.floating[Any]]) -> Limits:
    """Those of a type of numbers."""
    return Limits(1e-120, 1e120, 1e-30, 1e30) if kind == np.float64 else Limits(1e-12, 1e12, 1e-6, 1e6)


@dataclass(frozen=True, eq=False)
class Side:
    """The entries row by row (of the matrix, or of its transpose).

    Args:
        starts: shape (rows + 1,); row i has the entries ``starts[i]:starts[i + 1]``.
        others: the column of each entry, shape (entries,).
        values: shape (entries,).
        weights: likewise, > 0; empty where all are one.
    """

    starts: Places
    others: Index
    values: Reals
    weights: Reals

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.starts) - 1

    @cached_property
    def counts(self) -> Places:
        """Entries of each row."""
        return np.diff(self.starts)

    def part(self, first: int, last: int) -> Side:
        """The rows from first to last, without that."""
        a, b = int(self.starts[first]), int(self.starts[last])
        kept = self.weights[a:b] if len(self.weights) else self.weights
        return Side(self.starts[first : last + 1] - a, self.others[a:b], self.values[a:b], kept)


@dataclass(frozen=True, eq=False)
class Entries:
    """Seen entries of a matrix, sorted by row and column, each place once.

    Args:
        shape: (m, n).
        rows, columns: shape (entries,).
        values: float64 or float32, shape (entries,).
        weights: likewise, > 0; empty where all are one.
    """

    shape: tuple[int, int]
    rows: Index
    columns: Index
    values: Reals
    weights: Reals

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def by_row(self) -> Side:
        """The entries by row; shares their memory."""
        m = self.shape[0]
        starts = np.zeros(m + 1, np.int64)
        np.cumsum(np.bincount(self.rows, minlength=m), out=starts[1:])
        return Side(starts, self.columns, self.values, self.weights)

    @cached_property
    def by_column(self) -> Side:
        """The entries by column: a second copy of rows, values and weights."""
        order, starts = counting_order(self.columns, np.arange(len(self)), self.shape[1])
        kept = self.weights[order] if len(self.weights) else self.weights
        return Side(starts, self.rows[order], self.values[order], kept)

    def subset(self, chosen: NDArray[np.bool_]) -> Entries:
        """The entries where ``chosen``, shape (entries,)."""
        kept = self.weights[chosen] if len(self.weights) else self.weights
        return Entries(self.shape, self.rows[chosen], self.columns[chosen], self.values[chosen], kept)

    def changed(self, values: Reals) -> Entries:
        """The same places with other values."""
        return Entries(self.shape, self.rows, self.columns, values, self.weights)

    @property
    def mean(self) -> float:
        """Weighted mean of the values, 0 without any."""
        if not len(self):
            return 0.0
        weights = self.weights if len(self.weights) else None
        return float(np.average(self.values.astype(np.float64), weights=weights))


def number_kind(name: str, dtype: DTypeLike) -> np.dtype[np.floating[Any]]:
    """float64 or float32, or `InvalidParameter`."""
    try:
        kind: np.dtype[Any] = np.dtype(dtype)
    except TypeError:
        kind = np.dtype(object)
    require(kind in (np.float64, np.float32), f"{name}: dtype is float64 or float32", got=dtype)
    return kind


def standardized(entries: Entries, centred: bool, kind: np.dtype[np.floating[Any]]) -> tuple[Entries, float]:
    """Entries over their spread, about their mean where ``centred``, else about zero; and that spread."""
    largest = float(np.abs(entries.values).max())
    power = int(np.frexp(largest)[1])
    values = np.ldexp(entries.values, -power)  # so that no square overflows or vanishes
    weights = entries.weights if len(entries.weights) else None
    middle = float(np.average(values, weights=weights)) if centred else 0.0
    spread = float(np.sqrt(np.average((values - middle) ** 2, weights=weights)))
    if not spread > 1e-9 * abs(middle):
        spread = abs(middle) or 1.0
    found = entries.changed((values / spread).astype(kind))
    with np.errstate(over="ignore", under="ignore"):
        kept = found.weights.astype(kind)
    return Entries(found.shape, found.rows, found.columns, found.values, kept), float(np.ldexp(spread, power))


def check_range(name: str, entries: Entries) -> None:
    """Refuse values, and weights, so large or small that their squares overflow or vanish."""
    largest = float(np.abs(entries.values).max(initial=0.0))
    limits = limits_of(entries.values.dtype)
    if largest and not limits.smallest <= largest <= limits.largest:
        raise InvalidProblem(
            f"{name}: the largest value is {largest:.3g}; expected it between {limits.smallest:g} and "
            f"{limits.largest:g}. Scale the values."
        )
    weights = entries.weights
    if len(weights) and not limits.lightest <= weights.min() <= weights.max() <= limits.heaviest:
        raise InvalidProblem(
            f"{name}: weights are from {weights.min():.3g} to {weights.max():.3g} in {weights.dtype}; expected them "
            f"between {limits.lightest:g} and {limits.heaviest:g}. Scale them."
        )


def sum_of_squares(values: Reals, weights: Reals) -> tuple[float, float]:
    """``sum_e w_e v_e^2`` and ``sum_e w_e`` in float64, a block at a time; weights empty where all are one."""
    total, mass = 0.0, float(len(values)) if not len(weights) else 0.0
    for first in range(0, len(values), BLOCK):
        v = values[first : first + BLOCK].astype(np.float64)
        if not len(weights):
            total += float(v @ v)
            continue
        w = weights[first : first + BLOCK].astype(np.float64)
        total, mass = total + float(w @ (v * v)), mass + float(w.sum())
    return total, mass
