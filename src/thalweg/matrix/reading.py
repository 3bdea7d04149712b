"""Entries of a matrix read from what users have: sparse matrices, arrays with holes, triples; and checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, DTypeLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.core.validation import as_real, is_whole, require
from thalweg.matrix._entry_kernels import counting_order
from thalweg.matrix.observations import (
    Duplicates,
    Entries,
    Given,
    Index,
    Indices,
    Places,
    Reals,
    number_kind,
)
from thalweg.numerics.operators import is_sparse

#: Rows and columns are kept in 32 bits.
MOST = 2**31 - 2


def read_entries(
    given: Given | Entries,
    *,
    name: str,
    shape: tuple[int, int] | None = None,
    weights: ArrayLike | None = None,
    duplicates: Duplicates = "error",
    dtype: DTypeLike = np.float64,
    may_be_empty: bool = False,
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
        may_be_empty: take what holds no entry.

    Raises:
        InvalidProblem: nothing seen; indices that are negative, fractional or too large; lengths that do not agree;
            weights that are not positive; a place given twice.
        NotFinite: NaN or infinity among the values or weights.
    """
    if isinstance(given, Entries):
        if weights is not None or shape not in (None, given.shape):
            raise InvalidProblem(f"{name} holds entries with their own shape and weights; give none beside.")
        _check_entries(given, name)
        return given
    require(
        duplicates in ("error", "sum", "mean"), f"{name}: duplicates is error, sum or mean", got=duplicates
    )
    kind = number_kind(name, dtype)
    rows, columns, values, found, kept = _triples(given, name, weights)
    m, n = _shape(rows, columns, shape if found is None else found, name)
    if found is not None and shape not in (None, found):
        raise InvalidProblem(
            f"{name} is {found[0]} x {found[1]}, not {shape[0]} x {shape[1]}." if shape else ""
        )
    if not len(values) and not may_be_empty:
        raise InvalidProblem(f"{name} holds no entry: nothing was seen, so that nothing can be completed.")
    _check_values(name, values, rows, columns)
    rows, columns = rows.astype(np.int32), columns.astype(np.int32)
    order, _ = counting_order(columns, np.arange(len(rows)), n)
    order, _ = counting_order(rows, order, m)
    rows, columns, values = rows[order], columns[order], values[order]
    kept = kept[order] if len(kept) else kept
    del order  # as large as the values
    rows, columns, values, kept = _merged(rows, columns, values, kept, duplicates, name)
    with np.errstate(over="ignore", under="ignore"):
        held, kept = values.astype(kind), kept.astype(kind)
    _check_values(f"{name} as {kind}", held, rows, columns)
    if values.any() and not held.any():
        raise InvalidProblem(f"{name}: all values vanish in {kind}. Scale them, or take float64.")
    return Entries((m, n), rows, columns, held, kept)


def _check_entries(given: Entries, name: str) -> None:
    """Refuse entries, made elsewhere, whose places are not sorted, within the shape, and each once."""
    i, j, count = given.rows, given.columns, len(given.values)
    sizes = {len(i), len(j), count, len(given.weights) or count}
    kinds = i.dtype == j.dtype == np.int32 and given.values.dtype in (np.float64, np.float32)
    ordered = (
        kinds and len(sizes) == 1 and bool(((i[1:] > i[:-1]) | ((i[1:] == i[:-1]) & (j[1:] > j[:-1]))).all())
    )
    within = ordered and (
        not count or (i[0] >= 0 and i[-1] < given.shape[0] and j.min() >= 0 and j.max() < given.shape[1])
    )
    if not within:
        raise InvalidProblem(
            f"{name}: the places of these Entries are not sorted int32, within {given.shape}, each once. Make them by "
            "read_entries."
        )
    _check_values(name, given.values, i, j)


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
    dense = as_real(name, unmasked(given))
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


def unmasked(given: Any) -> Any:  # noqa: ANN401 -- what cannot be masked comes back as it is
    """NaN where an array is masked: nothing was seen there."""
    if isinstance(given, np.ma.MaskedArray) and given.dtype.kind in "buif":
        return np.ma.filled(given.astype(np.float64), np.nan)
    return given


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
            f'{columns[e]}). Say duplicates="mean" or duplicates="sum" (--duplicates mean, --duplicates sum), or drop '
            "them."
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


def refuse_index(name: str, indices: ArrayLike, size: int) -> Places:
    """Indices below ``size``, or `InvalidParameter`."""
    found = _indices(name, indices)
    if len(found) and found.max() >= size:
        at = int(np.argmax(found >= size))
        raise InvalidParameter(f"{name} holds {found[at]} (at {at}); there are {size}, counted from 0.")
    return found
