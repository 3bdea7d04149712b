"""The entries of a matrix that were seen: read, checked, and kept by row and by column."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, DTypeLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.core.validation import as_real, is_whole, require
from thalweg.matrix._entry_kernels import counting_order
from thalweg.numerics.operators import is_sparse

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
#: Rows and columns are kept in 32 bits.
MOST = 2**31 - 2
#: Entries that go through a sum at once.
BLOCK = 2**16
#: Values beyond these have squares that overflow, or vanish.
SMALLEST, LARGEST = 1e-120, 1e120


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


def read_entries(
    given: Given | Entries,
    *,
    name: str,
    shape: tuple[int, int] | None = None,
    weights: ArrayLike | None = None,
    duplicates: Duplicates = "error",
    dtype: DTypeLike = np.float64,
) -> Entries:
    """Entries from a sparse matrix (what it stores), an array (what is not NaN), or triples; checked.

    Args:
        given: any of these; `Entries` are taken as they are.
        name: what messages call them.
        shape: (m, n), for triples; by default just large enough.
        weights: one for each entry, > 0, in the order of the matrix's ``data`` or of the triples; an array of the shape
            of a dense matrix.
        duplicates: what to do with a place that is given twice.
        dtype: float64 or float32.

    Raises:
        InvalidProblem: nothing seen; indices that are negative, fractional or too large; lengths that do not agree;
            weights that are not positive; a place given twice.
        NotFinite: NaN or infinity among the values or weights.
    """
    if isinstance(given, Entries):
        if weights is not None or shape not in (None, given.shape):
            raise InvalidProblem(f"{name} holds entries with their own shape and weights; give none beside.")
        return given
    require(
        duplicates in ("error", "sum", "mean"), f"{name}: duplicates is error, sum or mean", got=duplicates
    )
    kind = np.dtype(dtype)
    require(kind in (np.float64, np.float32), f"{name}: dtype is float64 or float32", got=dtype)
    rows, columns, values, found, kept = _triples(given, name, weights)
    m, n = _shape(rows, columns, shape if found is None else found, name)
    if found is not None and shape not in (None, found):
        raise InvalidProblem(
            f"{name} is {found[0]} x {found[1]}, not {shape[0]} x {shape[1]}." if shape else ""
        )
    if not len(values):
        raise InvalidProblem(f"{name} holds no entry: nothing was seen, so that nothing can be completed.")
    _check_values(name, values, rows, columns)
    rows, columns = rows.astype(np.int32), columns.astype(np.int32)
    order, _ = counting_order(columns, np.arange(len(rows)), n)
    order, _ = counting_order(rows, order, m)
    rows, columns, values = rows[order], columns[order], values[order]
    kept = kept[order] if len(kept) else kept
    del order  # as large as the values
    rows, columns, values, kept = _merged(rows, columns, values, kept, duplicates, name)
    with np.errstate(over="ignore"):
        values = values.astype(kind)
    _check_values(f"{name} as {kind}", values, rows, columns)
    return Entries((m, n), rows, columns, values, kept.astype(kind))


def _triples(
    given: Given, name: str, weights: ArrayLike | None
) -> tuple[Indices, Indices, NDArray[np.float64], tuple[int, int] | None, NDArray[np.float64]]:
    """Rows, columns, values, shape where it is known, and weights, empty where there are none."""
    if isinstance(given, tuple):
        if len(given) != 3:
            raise InvalidProblem(f"{name} is a tuple of {len(given)}; expected (rows, columns, values).")
        rows, columns = _indices(f"{name}: rows", given[0]), _indices(f"{name}: columns", given[1])
        values = as_real(f"{name}: values", given[2]).reshape(-1)
        if not len(rows) == len(columns) == len(values):
            raise InvalidProblem(
                f"{name} has {len(rows)} rows, {len(columns)} columns and {len(values)} values; "
                "expected one of each an entry."
            )
        return rows, columns, values, None, _weights(name, weights, values.shape)
    if is_sparse(given):
        return _stored(given, name, weights)
    dense = as_real(name, given)
    if dense.ndim != 2:
        raise InvalidProblem(
            f"{name} has shape {dense.shape}; expected a matrix, or (rows, columns, values)."
        )
    rows, columns = np.nonzero(~np.isnan(dense))
    kept = _weights(name, weights, dense.shape)
    m, n = dense.shape
    return (
        rows,
        columns,
        dense[rows, columns],
        (m, n),
        kept.reshape(m, n)[rows, columns] if len(kept) else kept,
    )


def _stored(
    given: Any,  # noqa: ANN401 -- a sparse matrix of any class
    name: str,
    weights: ArrayLike | None,
) -> tuple[Indices, Indices, NDArray[np.float64], tuple[int, int], NDArray[np.float64]]:
    if given.ndim != 2:
        raise InvalidProblem(f"{name} has {given.ndim} dimensions; expected a matrix.")
    if isinstance(given, sp.csr_array | sp.csc_array | sp.csr_matrix | sp.csc_matrix):
        try:
            given.check_format(full_check=True)
        except ValueError as error:
            raise InvalidProblem(f"{name} is a damaged sparse matrix: {error}.") from error
    coo = given if isinstance(given, sp.coo_array | sp.coo_matrix) else given.tocoo()
    values = as_real(name, coo.data)
    m, n = coo.shape
    return (
        np.asarray(coo.row),
        np.asarray(coo.col),
        values,
        (int(m), int(n)),
        _weights(name, weights, values.shape),
    )


def _indices(name: str, given: ArrayLike) -> Places:
    array = np.asarray(given)
    if array.ndim != 1:
        raise InvalidProblem(f"{name} has shape {array.shape}; expected a vector of indices.")
    if array.dtype.kind not in "iu":
        whole = as_real(name, array)
        bad = np.flatnonzero(~(whole % 1 == 0))
        if array.dtype.kind == "b" or len(bad):
            what = "truth values" if array.dtype.kind == "b" else f"{whole[bad[0]]} (at {int(bad[0])})"
            raise InvalidProblem(f"{name} holds {what}; expected whole numbers from 0.")
        array = whole
    if len(array) and not 0 <= array.min() <= array.max() <= MOST:
        first = int(np.flatnonzero((array < 0) | (array > MOST))[0])
        raise InvalidProblem(f"{name} holds {array[first]} (at {first}); expected indices from 0 to {MOST}.")
    return array.astype(np.int64, copy=False)


def _shape(rows: Indices, columns: Indices, shape: tuple[int, int] | None, name: str) -> tuple[int, int]:
    least = (int(rows.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1)
    if shape is None:
        return max(least[0], 1), max(least[1], 1)
    if not (isinstance(shape, tuple) and len(shape) == 2 and all(is_whole(s) and s > 0 for s in shape)):
        raise InvalidProblem(f"{name} has shape {shape!r}; expected two whole numbers > 0.")
    for what, size, need in zip(("row", "column"), shape, least, strict=True):
        if size < need:
            raise InvalidProblem(f"{name} has {what} {need - 1}, but only {size} {what}s, counted from 0.")
        if size > MOST:
            raise InvalidProblem(f"{name} has {size} {what}s; at most {MOST} are taken.")
    return int(shape[0]), int(shape[1])


def _weights(name: str, given: ArrayLike | None, shape: tuple[int, ...]) -> NDArray[np.float64]:
    if given is None:
        return np.empty(0)
    weights = as_real(f"{name}: weights", given)
    if weights.shape != shape:
        raise InvalidProblem(
            f"{name}: weights have shape {weights.shape}; expected {shape}, one for each entry."
        )
    bad = np.flatnonzero(~(np.isfinite(weights.reshape(-1)) & (weights.reshape(-1) > 0)))
    if len(bad):
        raise InvalidProblem(
            f"{name}: weight {int(bad[0])} is {weights.reshape(-1)[bad[0]]}; expected finite weights > 0. Leave "
            "entries of weight 0 out."
        )
    return weights


def _check_values(name: str, values: Reals, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> None:
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        e = bad[0]
        raise NotFinite(
            f"{name} holds {len(bad)} values that are NaN or infinite (first in row {rows[e]}, column {columns[e]}, "
            "counted from 0). Leave entries out that were not seen."
        )


def _merged(
    rows: Index,
    columns: Index,
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    duplicates: Duplicates,
    name: str,
) -> tuple[Index, Index, NDArray[np.float64], NDArray[np.float64]]:
    """Each place once; entries are sorted. The mean of a place is weighted, and its weight their sum."""
    repeated = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    if not repeated.any():
        return rows, columns, values, weights
    if duplicates == "error":
        e = int(np.argmax(repeated))
        raise InvalidProblem(
            f"{name} has {int(repeated.sum())} entries at places given before (first: row {rows[e]}, column "
            f'{columns[e]}). Say duplicates="mean" or duplicates="sum", or drop them.'
        )
    starts = np.flatnonzero(np.concatenate([[True], ~repeated]))
    if duplicates == "sum":
        total = np.add.reduceat(values, starts)
        kept = np.maximum.reduceat(weights, starts) if len(weights) else weights
        return rows[starts], columns[starts], total, kept
    mass = weights if len(weights) else np.ones(len(values))
    kept = np.add.reduceat(mass, starts)
    mean = np.add.reduceat(mass * values, starts) / kept
    return rows[starts], columns[starts], mean, kept if len(weights) else weights


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
    lighter = Entries(found.shape, found.rows, found.columns, found.values, found.weights.astype(kind))
    return lighter, float(np.ldexp(spread, power))


def check_range(name: str, entries: Entries) -> None:
    """Refuse values so large or small that their squares overflow or vanish."""
    largest = float(np.abs(entries.values).max(initial=0.0))
    limits = (SMALLEST, LARGEST) if entries.values.dtype == np.float64 else (1e-12, 1e12)
    if largest and not limits[0] <= largest <= limits[1]:
        raise InvalidProblem(
            f"{name}: the largest value is {largest:.3g}; expected it between {limits[0]:g} and {limits[1]:g}. Scale "
            "the values."
        )


def refuse_index(name: str, indices: ArrayLike, size: int) -> Places:
    """Indices below ``size``, or `InvalidParameter`."""
    found = _indices(name, indices)
    if len(found) and found.max() >= size:
        at = int(np.argmax(found >= size))
        raise InvalidParameter(f"{name} holds {found[at]} (at {at}); there are {size}, counted from 0.")
    return found


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
