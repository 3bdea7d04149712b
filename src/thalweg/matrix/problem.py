"""A matrix to be completed from some of its entries: what is given, and how good factors of it are."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem, Problem, Stop
from thalweg.core.seeding import generator
from thalweg.core.validation import check_finite, is_real, is_whole, require
from thalweg.matrix import _entry_kernels as kernels
from thalweg.matrix._blocks import over_rows
from thalweg.matrix._completion_checks import (
    check_answer,
    check_confidence,
    check_labels,
    check_rank,
    check_shares,
)
from thalweg.matrix.observations import (
    Duplicates,
    Entries,
    Given,
    Indices,
    Labels,
    Reals,
    Side,
    check_range,
    limits_of,
    number_kind,
    standardized,
    sum_of_squares,
)
from thalweg.matrix.reading import read_entries, refuse_index

#: Pairs and columns by which the ranking of implicit feedback is judged.
RANKED_PAIRS, RANKED_COLUMNS = 2000, 500
#: Entries on which the change of a sweep is measured, where none are held out.
PROBED = 20_000


@dataclass(frozen=True, eq=False)
class Completion(Problem):
    """``min sum_seen w_ij (M_ij - u_i v_j)^2 + ridge (|U|^2 + |V|^2)``, U and V of ``rank`` columns.

    An answer is one array, U above V, shape (m + n, rank), with one more column where there are biases: each row's own.

    Args:
        entries: what was seen of M, m x n: a sparse matrix (stored zeros are values), an array with NaN elsewhere, or
            (rows, columns, values).
        rank: columns of U and V, or ``"auto"``: 1, 2, 4, ... while the held-out error falls.
        shape: (m, n), for triples; by default just large enough.
        weights: one for each entry, > 0. Default 1.
        ridge: weight of the penalty, in the unit of the entries (or none, with ``standardize``). Default 0, the paper's
            setting, which needs well more entries than unknowns in each row and column.
        ridge_by_count: multiply it, for each row and column, by its number of entries (Zhou et al., 2008).
        biases: add a mean, and a number for each row and column.
        nonnegative: hold U, V >= 0.
        confidence: entries are counts of implicit feedback: M_ij is 1 where something was seen and 0 elsewhere, with
            weight ``1 + confidence * value`` everywhere (Hu, Koren and Volinsky, 2008).
        held_out: share of entries that are not fitted, by which a run is stopped and the rank chosen.
        test: share that is neither fitted nor looked at before the end; see `certify`.
        max_rank: where ``"auto"`` ends.
        standardize: divide the entries by their spread about what is predicted without factors, so that ridge has no
            unit. Errors and predictions are in the entries' own unit all the same, the objective is not.
        duplicates: ``"error"``, ``"sum"`` or ``"mean"``, for places given twice.
        seed: which entries are held out.
        dtype: float64 or float32, of entries and factors.
        row_ids, column_ids: sorted labels, to be kept with the factors; none by default.

    Entries whose row or column would be left without any are not held out.

    Metrics: ``objective``; ``train``, the root mean square error on what is fitted; ``held_out``, on what is not (of
    implicit feedback the mean share of columns ranked above a held-out one, 0.5 for a guess); ``gradient``, the norm of
    the gradient over what it would be if all were predicted as the mean, U's or V's, whichever is larger.

    Memory: 28 bytes an entry (20 in float32), 43 (32) where some are held out; a run a third as much again.

    Raises:
        InvalidProblem: see `read_entries`; a rank beyond min(m, n); values that implicit feedback or bounds exclude.

    >>> problem = Completion(([0, 0, 1], [0, 1, 1], [1.0, 2.0, 4.0]), rank=1, held_out=0.0)
    >>> exact = np.array([[1.0], [2.0], [1.0], [2.0]])
    >>> problem.metrics(exact)["objective"], problem.predict(exact, [1], [0])
    (0.0, array([2.]))
    """

    objective: ClassVar[str | None] = "held_out"

    entries: Given | Entries
    rank: int | Literal["auto"]
    shape: tuple[int, int] | None = None
    weights: ArrayLike | None = None
    ridge: float = 0.0
    ridge_by_count: bool = False
    biases: bool = False
    nonnegative: bool = False
    confidence: float | None = None
    held_out: float = 0.05
    test: float = 0.0
    max_rank: int = 128
    standardize: bool = False
    duplicates: Duplicates = "error"
    seed: int = 0
    dtype: DTypeLike = np.float64
    row_ids: Labels | None = None
    column_ids: Labels | None = None
    #: What predictions are multiplied by; the values kept are divided by it.
    unit: float = field(init=False, default=1.0)

    def __post_init__(self) -> None:
        kind = number_kind("Completion", self.dtype)
        found = read_entries(
            self.entries,
            name="Completion: entries",
            shape=self.shape,
            weights=self.weights,
            duplicates=self.duplicates,
            dtype=np.float64 if self.standardize else kind,
        )
        if self.standardize and self.confidence is None:
            found, unit = standardized(found, self.biases, kind)
            object.__setattr__(self, "unit", unit)
        check_range("Completion: entries", found)
        object.__setattr__(self, "entries", found)
        object.__setattr__(self, "shape", found.shape)
        object.__setattr__(self, "weights", None)
        object.__setattr__(self, "dtype", found.values.dtype)
        self._check()

    def _check(self) -> None:
        """Refuse options that are out of range, or do not go together."""
        check_rank(self.rank, self.max_rank, (self.m, self.n))
        require(
            is_real(self.ridge) and 0 <= self.ridge < math.inf, "Completion needs ridge >= 0", got=self.ridge
        )
        largest = limits_of(self.number).largest
        require(self.ridge <= largest, f"Completion needs ridge <= {largest:g} in its dtype", got=self.ridge)
        for name in ("ridge_by_count", "biases", "nonnegative", "standardize"):
            value = getattr(self, name)
            require(isinstance(value, bool | np.bool_), f"Completion: {name} is True or False", got=value)
        check_shares(self.held_out, self.test)
        require(is_whole(self.seed) and self.seed >= 0, "Completion needs seed >= 0", got=self.seed)
        if self.rank == "auto" and not len(self.parts["held_out"]):
            raise InvalidParameter(
                f'Completion: rank="auto" goes by the held-out error, and of {len(self.seen)} entries none is held '
                "out. Name a rank (--rank), or raise held_out (--held-out)."
            )
        check_labels("row_ids", self.row_ids, self.m)
        check_labels("column_ids", self.column_ids, self.n)
        if self.nonnegative and not self.biases and float(self.seen.values.max()) <= 0:
            raise InvalidProblem(
                "Completion: no entry is positive, so that nonnegative factors are all zero."
            )
        if self.confidence is not None:
            check_confidence(self.confidence, self.seen, self.number, self.biases)

    @property
    def seen(self) -> Entries:
        """All entries, checked."""
        return cast(Entries, self.entries)

    @property
    def m(self) -> int:
        """Rows."""
        return self.seen.shape[0]

    @property
    def n(self) -> int:
        """Columns."""
        return self.seen.shape[1]

    @property
    def number(self) -> np.dtype[np.floating[Any]]:
        """float64 or float32."""
        return self.seen.values.dtype

    @cached_property
    def parts(self) -> dict[str, Entries]:
        """What is fitted (``train``), ``held_out`` and ``test``."""
        seen = self.seen
        if not (self.held_out or self.test):
            none = seen.subset(np.zeros(len(seen), np.bool_))
            return {"train": seen, "held_out": none, "test": none}
        kind = np.zeros(len(seen), np.int8)
        drawn = generator(self.seed, 0x15).permutation(len(seen))
        first, second = int(self.held_out * len(seen)), int(self.test * len(seen))
        kind[drawn[:first]], kind[drawn[first : first + second]] = 1, 2
        for indices, size in ((seen.rows, self.m), (seen.columns, self.n)):
            left = np.bincount(indices[kind == 0], minlength=size)
            kind[left[indices] == 0] = 0
        return {name: seen.subset(kind == k) for k, name in enumerate(("train", "held_out", "test"))}

    @cached_property
    def mean(self) -> float:
        """What predictions begin with: the mean of what is fitted where there are biases, else 0."""
        return self.parts["train"].mean if self.biases else 0.0

    @cached_property
    def train(self) -> Entries:
        """What is fitted, less the mean; of implicit feedback, ``1 + confidence value`` with weights less one."""
        train = self.parts["train"]
        if self.confidence is not None:
            raised = (self.confidence * train.values).astype(self.number)
            return Entries(train.shape, train.rows, train.columns, raised + self.number.type(1), raised)
        return train.changed((train.values - self.mean).astype(self.number)) if self.biases else train

    def sides(self) -> tuple[Side, Side]:
        """What is fitted, by row and by column."""
        return self.train.by_row, self.train.by_column

    def columns(self, rank: int) -> int:
        """Columns of an answer of a rank."""
        return rank + int(self.biases)

    def rank_of(self, x: Reals) -> int:
        """The rank of an answer."""
        return x.shape[1] - int(self.biases)

    def design(self, factors: Reals) -> tuple[Reals, Reals]:
        """What the other side is fitted with: factors with a column of ones for its bias, and what is predicted without
        it, a number for each of ``factors``' rows, or nothing.
        """
        if not self.biases:
            return np.ascontiguousarray(factors), np.empty(0, self.number)
        D = np.array(factors, order="C")
        D[:, -1] = 1
        return D, factors[:, -1].copy()

    def gram(self, D: Reals) -> Reals:
        """``D'D`` for what is seen everywhere; empty where that is nothing."""
        return D.T @ D if self.confidence is not None else np.empty((0, D.shape[1]), self.number)

    def targets(self, side: Side, offset: Reals) -> Reals:
        """``t_e``, the weight of each entry times what its row has to explain."""
        return targets_of(side, offset, self.confidence is not None)

    def start(self, rank: int) -> Reals:
        """Factors of zeros."""
        return np.zeros((self.m + self.n, self.columns(rank)), self.number)

    def pair(self, x: Reals) -> tuple[Reals, Reals]:
        """U and V such that a prediction is ``mean + u_i v_j``: biases have become columns beside ones."""
        check_answer(x, (self.m, self.n), self.biases)
        U, V = x[: self.m], x[self.m :]
        if not self.biases:
            return np.ascontiguousarray(U), np.ascontiguousarray(V)
        one = np.ones((len(x), 1), self.number)
        return np.hstack([U, one[: self.m]]), np.hstack([V[:, :-1], one[self.m :], V[:, -1:]])

    def predict(self, x: Reals, rows: ArrayLike, columns: ArrayLike) -> Reals:
        """Entries of the completed matrix at places, shape (places,)."""
        i = refuse_index("predict: rows", rows, self.m)
        j = refuse_index("predict: columns", columns, self.n)
        if len(i) != len(j):
            raise InvalidParameter(f"predict: {len(i)} rows and {len(j)} columns; expected as many of each.")
        return self.at(x, i, j) * self.number.type(self.unit)

    def at(self, x: Reals, rows: Indices, columns: Indices) -> Reals:
        """Predictions in the kept values' unit."""
        U, V = self.pair(x)
        out = np.empty(len(rows), self.number)
        kernels.predictions(rows, columns, U, V, out)
        return out + self.number.type(self.mean) if self.biases else out

    @cached_property
    def probe(self) -> Entries:
        """Where the change of a sweep is measured: at held-out entries, else at some of the fitted ones."""
        held = self.parts["held_out"]
        if len(held):
            return held
        chosen = np.zeros(len(self.train), np.bool_)
        chosen[:: max(1, len(chosen) // PROBED)] = True
        return self.train.subset(chosen)

    def probed(self, x: Reals) -> NDArray[np.float64]:
        """Predictions at the `probe`."""
        return self.at(x, self.probe.rows, self.probe.columns).astype(np.float64)

    def error(self, x: Reals, part: str) -> float:
        """Root mean square error on a part; of implicit feedback the mean rank. NaN where the part is empty."""
        losses = self.losses(x, part)
        if not len(losses):
            return math.nan
        mean = float(losses.mean())
        return mean if self.confidence is not None else self.unit * math.sqrt(mean)

    def losses(self, x: Reals, part: str) -> NDArray[np.float64]:
        """Squared errors of a part's entries, in the kept values' unit, or their ranks; shape (entries,)."""
        entries = self.parts[part]
        if self.confidence is None:
            found = self.at(x, entries.rows, entries.columns).astype(np.float64)
            return (found - entries.values) ** 2
        random = generator(self.seed, 0x15, 1)
        few = random.permutation(len(entries))[:RANKED_PAIRS]
        others = random.choice(self.n, min(self.n, RANKED_COLUMNS), replace=False)
        U, V = self.pair(x)
        own = np.einsum("ek,ek->e", U[entries.rows[few]], V[entries.columns[few]])[:, None]
        beside = U[entries.rows[few]] @ V[others].T
        return np.asarray((beside > own).mean(1) + 0.5 * (beside == own).mean(1), dtype=np.float64)

    def recommended_stop(self) -> Stop:
        """With held-out entries the method's own end, when their error no longer falls; else a gradient of 1e-6."""
        if len(self.parts["held_out"]):
            return Stop(steps=1000)
        return Stop(below={"gradient": 1e-6 if self.number == np.float64 else 1e-3}, steps=1000)

    def metrics(self, x: Reals) -> dict[str, float]:
        check_finite("factors", x)
        train, (U, V) = self.train, self.pair(x)
        side = train.by_row
        found = np.empty(len(train), self.number)
        over_rows(side.starts, lambda a, b: kernels.row_products(side.starts, side.others, U, V, a, b, found))
        if self.confidence is not None:
            s = found.astype(np.float64)
            seen = train.values * (1.0 - s) ** 2 - s**2
            value = float(seen.sum()) + float(np.sum((U.T @ U) * (V.T @ V)))
            error = math.sqrt(float(((1.0 - s) ** 2).mean()))
        else:
            np.subtract(train.values, found, out=found)
            value, mass = sum_of_squares(found, train.weights)
            error = math.sqrt(value / mass)
        told = {"objective": value + self._penalty(x), "train": self.unit * error}
        if len(self.parts["held_out"]):
            told["held_out"] = self.error(x, "held_out")
        return {**told, "gradient": max(self._slope(x, 0), self._slope(x, 1))}

    def _penalty(self, x: Reals) -> float:
        if not self.ridge:
            return 0.0
        squares = (x.astype(np.float64) ** 2).sum(1)
        counts = np.concatenate([side.counts for side in self.sides()])
        return self.ridge * float(squares @ counts if self.ridge_by_count else squares[counts > 0].sum())

    def _slope(self, x: Reals, at: int) -> float:
        """Of U (0) or V (1): the norm of the gradient over that where all is predicted as the mean."""
        side = self.sides()[at]
        own, other = (x[: self.m], x[self.m :])[:: 1 - 2 * at]
        D, offset = self.design(other)
        t = self.targets(side, offset)
        s = np.empty(len(t), self.number)
        over_rows(side.starts, lambda a, b: kernels.row_products(side.starts, side.others, own, D, a, b, s))
        if len(side.weights):
            s *= side.weights
        left = np.subtract(t, s, out=s)
        slope, right = np.empty(own.shape, self.number), np.empty(own.shape, self.number)

        def times(values: Reals, out: Reals) -> None:
            over_rows(
                side.starts,
                lambda a, b: kernels.sparse_times(side.starts, side.others, values, D, a, out[a:b]),
            )

        times(left, slope)
        times(t, right)
        if self.confidence is not None:
            slope -= own @ (D.T @ D) * (side.counts > 0)[:, None]
        slope -= own * self.lift(side)[:, None]
        if self.nonnegative:
            slope[(own <= 0) & (slope < 0) & self.is_bounded(own.shape[1])] = 0
        size = float(np.linalg.norm(right.astype(np.float64)))
        return float(np.linalg.norm(slope.astype(np.float64))) / size if size else 0.0

    def lift(self, side: Side) -> Reals:
        """The ridge of each row."""
        if self.ridge_by_count:
            return (self.ridge * side.counts).astype(self.number)
        return np.full(side.rows, self.ridge, self.number)

    def is_bounded(self, columns: int) -> NDArray[np.bool_]:
        """Which columns of the factors a bound holds: not that of the biases."""
        return np.arange(columns) < columns - int(self.biases)


def targets_of(side: Side, offset: Reals, implicit: bool) -> Reals:
    """``w_e (y_e - offset)``; of implicit feedback the values themselves."""
    if implicit or not (len(offset) or len(side.weights)):
        return side.values
    values = side.values - offset[side.others] if len(offset) else side.values
    return values * side.weights if len(side.weights) else values
