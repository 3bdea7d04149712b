"""One half-step: every row's factor anew from the other side's, on a block of rows, here or in another process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from thalweg.matrix._blocks import over_rows
from thalweg.matrix._conjugate_kernels import cg_rows
from thalweg.matrix._normal_kernels import coordinate_rows, exact_rows
from thalweg.matrix._sketched_kernels import sketched_rows
from thalweg.matrix.observations import Entries, Reals, Side
from thalweg.matrix.problem import Completion, targets_of
from thalweg.numerics.parallel import one_blas_thread

#: Bytes of the gathered rows of a design: what a core's second cache holds beside the rest.
BUFFER = 704 * 1024
#: Width from which a library's symmetric product, called a row at a time, beats loops.
LIBRARY = 64
#: More unknowns than any row has.
UNBOUNDED = 2**30

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows to be fitted: their entries and what holds for all of them.

    Args:
        side: the entries.
        ridge, by_count: as in `Completion`.
        implicit: weights are added to those of what is seen everywhere, and values are targets.
        free: unbounded coordinates at the end, where there are bounds.
    """

    side: Side
    ridge: float
    by_count: bool
    implicit: bool
    free: int

    def part(self, first: int, last: int) -> Rows:
        """Some rows."""
        return Rows(self.side.part(first, last), self.ridge, self.by_count, self.implicit, self.free)

    def targets(self, offset: Reals) -> Reals:
        """What each entry's row has to explain, times its weight."""
        return targets_of(self.side, offset, self.implicit)


def rows_of(problem: Completion, entries: Entries, at: int) -> Rows:
    """The rows (``at`` 0) or columns (1) of some entries, ready for half-steps."""
    side: Side = entries.by_column if at else entries.by_row
    implicit = problem.confidence is not None
    free = int(problem.biases) if problem.nonnegative else UNBOUNDED
    return Rows(side, problem.ridge, problem.ridge_by_count, implicit, free)


@dataclass(frozen=True, eq=False)
class Work:
    """A half-step on ``rows``: the design D, targets, and the Gram matrix of what is seen everywhere."""

    rows: Rows
    D: Reals
    gram: Reals
    targets: Reals

    def buffer(self) -> Reals:
        """Where a row's part of D is gathered."""
        q = self.D.shape[1]
        most = int(self.rows.side.counts.max(initial=1))
        return np.empty((max(min(BUFFER // (q * self.D.itemsize), most), 8), q), self.D.dtype)

    def system(self) -> tuple[NDArray[np.int64], NDArray[np.int32], Reals, Reals, Reals, Reals, float, bool]:
        """The first arguments of all kernels."""
        side = self.rows.side
        return (
            *(side.starts, side.others, self.targets, side.weights, self.D, self.gram),
            float(self.rows.ridge),
            self.rows.by_count,
        )


class HalfStep(Protocol):
    """How the rows ``first`` to ``last`` are fitted: X[first:last] is improved in place.

    ``slopes`` and ``rights``, shape (rows,), get the squared norms of half the gradient before, and at zero factors.
    """

    bounded: ClassVar[bool]

    def __call__(self, work: Work, first: int, last: int, X: Reals, slopes: Vector, rights: Vector) -> None:
        """Fit some rows."""


def fit_rows(
    fit: HalfStep, work: Work, X: Reals, slopes: Vector, rights: Vector, *, threads: bool = True
) -> None:
    """A half-step on all rows of a work, whose bits hang neither on threads nor on blocks."""
    with one_blas_thread():
        if threads:
            over_rows(work.rows.side.starts, lambda a, b: fit(work, a, b, X, slopes, rights))
        else:
            fit(work, 0, len(X), X, slopes, rights)


@dataclass(frozen=True)
class Exact:
    """Normal equations and Cholesky; the solution of least norm where they are singular."""

    bounded: ClassVar[bool] = False

    def __call__(self, work: Work, first: int, last: int, X: Reals, slopes: Vector, rights: Vector) -> None:
        blocks = [(first, last)]
        if work.D.shape[1] >= LIBRARY and not len(work.gram):
            blocks = [(j, j + 1) for j in self._by_library(work, first, last, X, slopes, rights)]
        buffer = work.buffer() if blocks else X
        for a, b in blocks:
            exact_rows(*work.system(), a, X[a:b], slopes[a:b], rights[a:b], buffer)

    def _by_library(
        self, work: Work, first: int, last: int, X: Reals, slopes: Vector, rights: Vector
    ) -> list[int]:
        """Rows one after another by BLAS and LAPACK; those that are singular are left, and returned."""
        from scipy.linalg.lapack import dposv, sposv

        side, posv = work.rows.side, dposv if work.D.dtype == np.float64 else sposv
        eps, left = float(np.finfo(work.D.dtype).eps), []
        for j in range(first, last):
            a, b = int(side.starts[j]), int(side.starts[j + 1])
            if a == b:
                X[j], slopes[j], rights[j] = 0, 0.0, 0.0
                continue
            if b - a < work.D.shape[1] and not work.rows.ridge:
                left.append(j)
                continue
            A = work.D.take(side.others[a:b], axis=0)
            right = A.T @ work.targets[a:b]
            if len(side.weights):
                A *= np.sqrt(side.weights[a:b])[:, None]
            N = A.T @ A
            N.flat[:: len(N) + 1] += work.rows.ridge * (b - a if work.rows.by_count else 1)
            before = right - N @ X[j]
            factor, found, failed = posv(N, right, lower=1, overwrite_a=1)
            pivots = factor.diagonal()
            if failed or not pivots.min() ** 2 > 32 * len(N) * eps * pivots.max() ** 2:
                left.append(j)
                continue
            X[j], slopes[j], rights[j] = found, float(before @ before), float(right @ right)
        return left


@dataclass(frozen=True)
class ConjugateGradients:
    """``steps`` of conjugate gradients a row, from where the last sweep left it."""

    steps: int = 3
    bounded: ClassVar[bool] = False

    def __call__(self, work: Work, first: int, last: int, X: Reals, slopes: Vector, rights: Vector) -> None:
        parts = (X[first:last], slopes[first:last], rights[first:last], work.buffer())
        cg_rows(*work.system(), self.steps, first, *parts)


@dataclass(frozen=True)
class Sketched:
    """Conjugate gradients preconditioned by the R of a sketch of each row's design, to a relative accuracy."""

    accuracy: float = 1e-3
    rows: int = 4
    steps: int = 40
    seed: int = 0
    bounded: ClassVar[bool] = False

    def __call__(self, work: Work, first: int, last: int, X: Reals, slopes: Vector, rights: Vector) -> None:
        self.chosen(work, first, last, X, slopes, rights, np.empty(0, np.bool_))

    def chosen(
        self,
        work: Work,
        first: int,
        last: int,
        X: Reals,
        slopes: Vector,
        rights: Vector,
        only: NDArray[np.bool_],
    ) -> None:
        """Only some of the rows; all where ``only`` is empty."""
        q = work.D.shape[1]
        sketched_rows(
            *work.system(),
            *(self.steps, self.accuracy, self.rows * q, only, self.seed, first),
            *(X[first:last], slopes[first:last], rights[first:last], work.buffer()),
        )


@dataclass(frozen=True)
class Automatic:
    """Exact up to width 16; beyond it conjugate gradients, and the sketch for rows that they would fit badly.

    Those are rows without a ridge and with fewer than four entries for each unknown.
    """

    steps: int = 3
    width: int = 16
    seed: int = 0
    bounded: ClassVar[bool] = False

    def __call__(self, work: Work, first: int, last: int, X: Reals, slopes: Vector, rights: Vector) -> None:
        q = work.D.shape[1]
        if q <= self.width:
            Exact()(work, first, last, X, slopes, rights)
            return
        short = work.rows.side.counts[first:last] < 4 * q
        hard = short & (work.rows.ridge == 0) & (len(work.gram) == 0)
        before = X[first:last][hard]
        ConjugateGradients(self.steps)(work, first, last, X, slopes, rights)
        if hard.any():
            X[first:last][hard] = before
            Sketched(1e-6, seed=self.seed).chosen(work, first, last, X, slopes, rights, hard)


@dataclass(frozen=True)
class Coordinates:
    """Passes of coordinate descent over a row's unknowns, which bounds may hold at zero."""

    passes: int = 3
    bounded: ClassVar[bool] = True

    def __call__(self, work: Work, first: int, last: int, X: Reals, slopes: Vector, rights: Vector) -> None:
        parts = (X[first:last], slopes[first:last], rights[first:last], work.buffer())
        coordinate_rows(*work.system(), self.passes, work.rows.free, first, *parts)
