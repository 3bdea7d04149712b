"""Factors of a completed matrix that stand alone: what a file holds, and what predictions are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter, UnreadableFile
from thalweg.matrix import _entry_kernels as kernels
from thalweg.matrix.observations import Labels, Places, Reals
from thalweg.matrix.problem import Completion
from thalweg.matrix.reading import refuse_index

NONE: NDArray[np.int64] = np.empty(0, np.int64)
#: The arrays of a file, all of which it must have.
NAMES = ("row_factors", "column_factors", "row_bias", "column_bias", "mean", "row_ids", "column_ids")


@dataclass(frozen=True, eq=False)
class Factors:
    """``M_ij = mean + row_bias_i + column_bias_j + row_factors_i . column_factors_j``, in the entries' unit.

    Args:
        row_factors, column_factors: shapes (m, rank), (n, rank).
        row_bias, column_bias: shapes (m,), (n,).
        mean: a number.
        row_ids, column_ids: labels of rows and columns, sorted, or empty: they are then counted from 0.
    """

    row_factors: Reals
    column_factors: Reals
    row_bias: Reals
    column_bias: Reals
    mean: float
    row_ids: Labels = field(default_factory=lambda: NONE)
    column_ids: Labels = field(default_factory=lambda: NONE)

    @classmethod
    def of(cls, problem: Completion, x: Reals) -> Factors:
        """The factors of an answer, with the problem's labels."""
        unit, m = problem.number.type(problem.unit), problem.m
        rank = problem.rank_of(x)
        bias = x[:, -1] * unit if problem.biases else np.zeros(len(x), problem.number)
        ids = (NONE if given is None else given for given in (problem.row_ids, problem.column_ids))
        factors = (x[:m, :rank] * unit, np.ascontiguousarray(x[m:, :rank]))
        return cls(*factors, bias[:m], bias[m:], problem.mean * problem.unit, *ids)

    def predict(self, rows: ArrayLike, columns: ArrayLike) -> Reals:
        """Entries at places counted from 0, shape (places,)."""
        i = refuse_index("predict: rows", rows, len(self.row_factors))
        j = refuse_index("predict: columns", columns, len(self.column_factors))
        if len(i) != len(j):
            raise InvalidParameter(f"predict: {len(i)} rows and {len(j)} columns; expected as many of each.")
        return self._at(i, j)

    def _at(self, i: Places, j: Places) -> Reals:
        out = np.empty(len(i), self.row_factors.dtype)
        kernels.predictions(i, j, self.row_factors, self.column_factors, out)
        out += self.row_bias[i] + self.column_bias[j]
        out += out.dtype.type(self.mean)
        return out

    def predict_labels(self, rows: Labels, columns: Labels) -> tuple[Reals, NDArray[np.bool_]]:
        """Entries at labelled places, and which of them have a row or column that was never seen.

        What was never seen counts as one without bias and factors.
        """
        i, known_i = _places(self.row_ids, rows)
        j, known_j = _places(self.column_ids, columns)
        both = known_i & known_j
        found = np.full(len(i), self.mean, self.row_factors.dtype)
        found[both] = self._at(i[both], j[both])
        found[known_i & ~known_j] += self.row_bias[i[known_i & ~known_j]]
        found[~known_i & known_j] += self.column_bias[j[~known_i & known_j]]
        return found, ~both

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What a file holds."""
        return {name: np.asarray(getattr(self, name)) for name in NAMES}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], name: str) -> Factors:
        """Inverse of `arrays`; what does not fit together is refused, ``name`` being the file's."""
        missing = [key for key in NAMES if key not in arrays]
        if missing:
            raise UnreadableFile(
                f"{name} holds no {missing[0]}: it was not written by `thalweg solve matrix`."
            )
        U, V, a, b, mean, rows, columns = (arrays[key] for key in NAMES)
        kinds = {values.dtype for values in (U, V, a, b)}
        fits = (
            kinds in ({np.dtype(np.float64)}, {np.dtype(np.float32)})
            and U.ndim == V.ndim == 2
            and U.shape[1] == V.shape[1] > 0
            and (a.shape, b.shape) == (U.shape[:1], V.shape[:1])
            and mean.shape == ()
            and mean.dtype.kind == "f"
            and all(ids.shape in ((0,), size) for ids, size in ((rows, a.shape), (columns, b.shape)))
            and all(ids.dtype.kind in "iU" for ids in (rows, columns))
        )
        if not fits or not all(np.isfinite(values).all() for values in (U, V, a, b, mean)):
            raise UnreadableFile(f"{name} is damaged: its factors do not fit together, or are not finite.")
        kept: Any = [np.ascontiguousarray(values) for values in (U, V, a, b)]
        ids: Any = (rows, columns)
        return cls(kept[0], kept[1], kept[2], kept[3], float(mean), *ids)


def _places(ids: Labels, labels: Labels) -> tuple[Places, NDArray[np.bool_]]:
    """Where labels stand among ids, and which of them do."""
    if not len(ids):
        return np.zeros(len(labels), np.int64), np.zeros(len(labels), np.bool_)
    if ids.dtype.kind != labels.dtype.kind:  # numbers in one file, words in the other
        ids, labels = ids.astype(np.str_), labels.astype(np.str_)
        order = np.argsort(ids)
    else:
        order = np.arange(len(ids))
    at = np.minimum(np.searchsorted(ids[order], labels), len(ids) - 1)
    return order[at], np.asarray(ids[order][at] == labels)
