"""Alternating minimisation whose half-steps are exact, approximate or sketched.

Gu, Song, Yin and Zhang (2024), "Low rank matrix completion via robust alternating minimization in nearly linear time";
Jain, Netrapalli and Sanghavi (2013), "Low-rank matrix completion using alternating minimization", for exact steps.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from dataclasses import dataclass, field, replace

import numpy as np

from thalweg.core import InvalidProblem, Method, NotFinite, State, Status
from thalweg.core.ray_engine import start_ray
from thalweg.core.validation import is_real, is_whole, require
from thalweg.matrix.half_steps import (
    Automatic,
    ConjugateGradients,
    Coordinates,
    Exact,
    HalfStep,
    Sketched,
    Work,
    fit_rows,
    rows_of,
)
from thalweg.matrix.initial import Clip, clipped, leading_vectors
from thalweg.matrix.observations import Entries, Reals
from thalweg.matrix.problem import Completion
from thalweg.matrix.ray_rows import held_rows

#: The held-out error has settled when it has not fallen by this share in so many sweeps.
SHARE, SWEEPS = 1e-4, 3
#: A smaller rank is given up for twice as many when it falls by less than this share a sweep.
COARSE = 1e-2
#: What twice the rank has to bring.
WORTH = 5e-3


class Underdetermined(UserWarning):
    """Rows or columns have fewer entries than unknowns, and nothing else holds their factors."""


@dataclass(kw_only=True)
class AltMinState(State):
    """The factors, the best seen, and where the search for a rank stands."""

    x: Reals  # (m + n, rank or rank + 1), U above V
    seed: int
    sweeps: int  # done, of which the parts of split entries are counted
    best: Reals  # the factors with the smallest held-out error of this rank
    best_error: float
    waited: int  # sweeps since that error fell by a share worth the name
    settled: Reals  # the best of the rank before, (0, 0) where there is none
    settled_error: float
    is_searching: bool  # whether twice the rank may follow


@dataclass(frozen=True)
class AltMin(Method[Completion, AltMinState]):
    """Base of the methods below: V anew from U, then U from V, each orthonormal where there is no penalty.

    Args:
        clip: rows of the first U that are too long are shortened to ``2 mu sqrt(k/m)`` (``"rows"``), or its entries
            beyond that set to zero (``"entries"``, as in 2013), or nothing.
        mu: the incoherence for that; by default the 95th percentile of the rows' own.
        parts: split the entries at random, one part for the start and one for each half-step in turn, as theory asks
            for independence; default 1, all entries each time, which is better in practice.
        workers: fit rows and columns in so many processes of Ray, each of which holds its blocks of the entries; by
            default in threads of this process. The answer is the same to rounding: the same bits where all
            processes load the kernels that one has compiled. A worker that dies is replaced; all end with the
            problem. To use several machines, connect to their Ray first:
            ``ray.init(address=...)``.

    Metrics of a sweep: ``held_out``, as the problem's; ``change`` of its predictions at the held-out entries, relative;
    ``gradient``, the problem's, taken before each half-step; ``rank``.

    A run with held-out entries ends CONVERGED with the best factors seen when their error has not fallen by 1e-4 in 3
    sweeps. With ``rank="auto"`` the rank is doubled, the old factors kept and the leading singular vectors of what they
    leave added, until twice the rank brings less than 0.5 %; the smaller one is then finished.
    """

    clip: Clip = "rows"
    mu: float | None = None
    parts: int = 1
    workers: int | None = field(default=None, kw_only=True, compare=False)

    def __post_init__(self) -> None:
        name = type(self).__name__
        require(
            self.clip in ("rows", "entries", "none"),
            f"{name} needs clip rows, entries or none",
            got=self.clip,
        )
        fits = self.mu is None or (is_real(self.mu) and 0 < self.mu < math.inf)
        require(fits, f"{name} needs mu > 0", got=self.mu)
        fits = is_whole(self.parts) and (self.parts == 1 or self.parts >= 3)
        require(fits, f"{name} needs parts = 1, or 3 and more", got=self.parts)
        fits = self.workers is None or (is_whole(self.workers) and self.workers >= 1)
        require(fits, f"{name} needs workers >= 1, or None", got=self.workers)
        alone = self.workers is None or self.parts == 1
        require(alone, f"{name}: workers hold all entries; they need parts = 1", got=self.parts)

    @abstractmethod
    def half_step(self, seed: int) -> HalfStep:
        """How rows are fitted; ``seed`` names a stream where something is drawn."""

    def init(self, problem: Completion, seed: int) -> AltMinState:
        name = type(self).__name__
        if problem.nonnegative and not self.half_step(0).bounded:
            raise InvalidProblem(
                f"{name} knows no bounds. Use CoordinateAltMin (--method coordinate-altmin) for "
                "nonnegative factors."
            )
        rank = 1 if problem.rank == "auto" else problem.rank
        if self.workers:
            start_ray()  # which may be missing
        warn_of_few(problem, rank)
        x = problem.start(rank)
        x[: problem.m, :rank] = self._start(problem, self._part(problem, 0, seed), rank, (seed, 0x15, rank))
        none = np.empty((0, 0), problem.number)
        return AltMinState(
            x=x,
            seed=seed,
            sweeps=0,
            best=x,
            best_error=math.inf,
            waited=0,
            settled=none,
            settled_error=math.inf,
            is_searching=problem.rank == "auto",
        )

    def _start(self, problem: Completion, entries: Entries, rank: int, seed: tuple[int, ...]) -> Reals:
        """U, shape (m, rank)."""
        U, s = leading_vectors(entries, rank, seed)
        if U.shape[1] < rank:
            raise InvalidProblem(
                f"{type(self).__name__}: rank {rank} is more than the matrix has rows or columns."
            )
        U = clipped(U, self.clip, self.mu)
        if problem.nonnegative:
            return np.abs(U) * np.sqrt(s[0]) + np.sqrt(s[0] / len(U)) * U.dtype.type(0.1)
        if _is_free(problem):
            return U * U.dtype.type(np.sqrt(len(U)))
        return U * np.sqrt(s)

    def step(self, problem: Completion, state: AltMinState) -> AltMinState:
        before = problem.probed(state.x)
        factors, gradient = self.swept(problem, state)
        if not np.isfinite(factors).all():
            raise NotFinite("A factor is no longer finite.")
        after = problem.probed(factors)
        size = float(np.linalg.norm(after))
        change = float(np.linalg.norm(after - before)) / size if size else 0.0
        error = problem.error(factors, "held_out")
        metrics = {} if math.isnan(error) else {"held_out": error}
        metrics |= {"change": change, "gradient": gradient, "rank": float(problem.rank_of(factors))}
        state = replace(state, x=factors, sweeps=state.sweeps + 1, metrics=metrics)
        return state if math.isnan(error) else self._judged(problem, state, error)

    def swept(self, problem: Completion, state: AltMinState) -> tuple[Reals, float]:
        """V from U and U from V; and the gradient's norm on the way."""
        x, m, half = state.x.copy(), problem.m, 2 * state.sweeps
        slopes = []
        for at, own, other in ((1, x[m:], x[:m]), (0, x[:m], x[m:])):
            own[:], slope = self.updated(problem, at, other, own, half + 1 - at, state.seed)
            slopes.append(slope)
            if _is_free(problem):
                _orthonormal(own, other, problem.rank_of(x))
        return x, max(slopes)

    def updated(
        self, problem: Completion, at: int, other: Reals, own: Reals, half: int, seed: int
    ) -> tuple[Reals, float]:
        """One half-step: U (``at`` 0) or V (1) anew from the other, and the gradient's norm before it."""
        D, offset = problem.design(other)
        X, gram = np.array(own, order="C"), problem.gram(D)
        slopes, rights = np.zeros(len(X)), np.zeros(len(X))
        fit = self.half_step(2 * seed + half)
        if self.workers:
            held_rows(problem, self.workers).fit(problem, at, fit, (D, gram, offset), X, slopes, rights)
        else:
            rows = rows_of(problem, self._part(problem, half + 1, seed), at)
            fit_rows(fit, Work(rows, D, gram, rows.targets(offset)), X, slopes, rights)
        size = float(rights.sum())
        return X, math.sqrt(float(slopes.sum()) / size) if size else 0.0

    def _part(self, problem: Completion, turn: int, seed: int) -> Entries:
        """All that is fitted, or the part of it whose turn it is; the first is the start's own."""
        if self.parts == 1:
            return problem.train
        labels = np.random.default_rng([seed, 0x15]).integers(self.parts, size=len(problem.train))
        mine = 0 if turn == 0 else 1 + (turn - 1) % (self.parts - 1)
        return problem.train.subset(labels == mine)

    def _judged(self, problem: Completion, state: AltMinState, error: float) -> AltMinState:
        """What the held-out error says: go on, try twice the rank, or end."""
        fell = error < (1.0 - SHARE) * state.best_error
        swiftly = error < (1.0 - COARSE) * state.best_error
        waited = 0 if fell else state.waited + 1
        if error < state.best_error:
            state = replace(state, best=state.x, best_error=error)
        state = replace(state, waited=waited)
        if state.is_searching and not swiftly and state.sweeps:
            return self._doubled(problem, state)
        if waited < SWEEPS:
            return state
        message = f"The held-out error has not fallen by {SHARE:g} in {SWEEPS} sweeps."
        return replace(state, x=state.best, status=Status.CONVERGED, message=message)

    def _doubled(self, problem: Completion, state: AltMinState) -> AltMinState:
        """Twice the rank, where the last doubling was worth it; else the rank before it, to be finished."""
        rank = problem.rank_of(state.best)
        if len(state.settled) and not state.best_error < (1.0 - WORTH) * state.settled_error:
            return replace(
                state,
                x=state.settled,
                best=state.settled,
                best_error=state.settled_error,
                waited=0,
                is_searching=False,
            )
        wider = min(2 * rank, problem.max_rank, problem.m, problem.n)
        if wider <= rank:
            return replace(state, is_searching=False)
        x = problem.start(wider)
        x[:, :rank], x[:, wider:] = state.best[:, :rank], state.best[:, rank:]
        train = problem.train
        left = problem.at(state.best, train.rows.astype(np.int64), train.columns.astype(np.int64))
        rest = train.changed((train.values - left + problem.number.type(problem.mean)).astype(problem.number))
        added = self._start(problem, rest, wider - rank, (state.seed, 0x15, wider))
        x[: problem.m, rank:wider] = added
        return replace(
            state,
            x=x,
            best=x,
            best_error=math.inf,
            waited=0,
            settled=state.best,
            settled_error=state.best_error,
        )


def _is_free(problem: Completion) -> bool:
    """Whether U and V may be changed together without changing the objective: nothing holds their size or sign."""
    return not (problem.ridge or problem.nonnegative or problem.confidence is not None)


def _orthonormal(own: Reals, other: Reals, rank: int) -> None:
    """``own`` with orthogonal columns of length ``sqrt(rows)``, R passed on to ``other``: the product stays."""
    Q, R = np.linalg.qr(own[:, :rank])
    size = Q.dtype.type(np.sqrt(len(Q)))
    own[:, :rank] = Q * size
    other[:, :rank] = other[:, :rank] @ (R.T / size)


def warn_of_few(problem: Completion, rank: int) -> None:
    """Say where a row or column has fewer entries than unknowns and no ridge."""
    if problem.ridge or problem.confidence is not None:
        return
    q = problem.columns(rank)
    few = [int(((side.counts > 0) & (side.counts < q)).sum()) for side in problem.sides()]
    if any(few):
        warnings.warn(
            f"{few[0]} rows and {few[1]} columns have fewer entries than their {q} unknowns: their factors fit them "
            "exactly and say little. Give a ridge, or a smaller rank.",
            Underdetermined,
            stacklevel=3,
        )


@dataclass(frozen=True)
class ExactAltMin(AltMin):
    """Alternating minimisation with half-steps solved by normal equations.

    Where it pays: ranks up to 16, and rows with few entries. Beyond, `CGAltMin` has the same path for less.

    Cost of a sweep: ``2 k^2`` flops an entry (twice ``k^2``), and ``k^3/3`` a row and column.

    >>> from thalweg import solve
    >>> M = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0, 1.0])
    >>> M[0, 1] = M[2, 3] = np.nan
    >>> problem = Completion(M, rank=1, held_out=0.0)
    >>> problem.predict(solve(problem, ExactAltMin()).x, [0, 2], [1, 3]).round(6)
    array([-1.,  3.])
    """

    def half_step(self, seed: int) -> HalfStep:
        return Exact()


@dataclass(frozen=True)
class CGAltMin(AltMin):
    """Alternating minimisation with a few steps of conjugate gradients a row, from where the last sweep left it.

    Args:
        cg_steps: default 3: the path is that of exact steps to within rounding of a plot, even with 2.

    Where it pays: ranks above 16. Without a ridge, rows with fewer entries than some four times the rank are badly
    conditioned: `AutomaticAltMin` gives these the sketch.

    Cost of a sweep: ``8 (cg_steps + 1) k`` flops an entry and no ``k^2``.

    >>> from thalweg import solve
    >>> M = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0, 1.0])
    >>> M[0, 1] = M[2, 3] = np.nan
    >>> problem = Completion(M, rank=1, held_out=0.0)
    >>> problem.predict(solve(problem, CGAltMin()).x, [0, 2], [1, 3]).round(6)
    array([-1.,  3.])
    """

    cg_steps: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            is_whole(self.cg_steps) and self.cg_steps >= 1, "CGAltMin needs cg_steps >= 1", got=self.cg_steps
        )

    def half_step(self, seed: int) -> HalfStep:
        return ConjugateGradients(self.cg_steps)


@dataclass(frozen=True)
class SketchedAltMin(AltMin):
    """Alternating minimisation with conjugate gradients preconditioned by a sketch of each row's design: the paper's.

    Args:
        accuracy: eps0, to which each row's problem is solved, relative. Default 1e-3.
        sketch_rows: rows of the sketch for each unknown. Default 4: a condition number of about 3.

    Where it pays: entries seen very unevenly, or factors of very different scales, where plain conjugate gradients
    crawl. Otherwise `CGAltMin` is faster.

    Cost of a sweep: ``8 (log(1/eps0) + 3) k`` flops an entry and ``2 sketch_rows k^3`` a row and column.
    """

    accuracy: float = 1e-3
    sketch_rows: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = is_real(self.accuracy) and 0 < self.accuracy < 1
        require(fits, "SketchedAltMin needs 0 < accuracy < 1", got=self.accuracy)
        fits = is_whole(self.sketch_rows) and self.sketch_rows >= 2
        require(fits, "SketchedAltMin needs sketch_rows >= 2", got=self.sketch_rows)

    def half_step(self, seed: int) -> HalfStep:
        return Sketched(self.accuracy, self.sketch_rows, seed=seed)


@dataclass(frozen=True)
class AutomaticAltMin(AltMin):
    """Exact half-steps up to 16 unknowns a row; beyond, `CGAltMin`'s, and `SketchedAltMin`'s for rows they fit badly.

    Args:
        cg_steps: default 3.

    Cost of a sweep: that of the method chosen.
    """

    cg_steps: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = is_whole(self.cg_steps) and self.cg_steps >= 1
        require(fits, "AutomaticAltMin needs cg_steps >= 1", got=self.cg_steps)

    def half_step(self, seed: int) -> HalfStep:
        return Automatic(self.cg_steps, seed=seed)


@dataclass(frozen=True)
class CoordinateAltMin(AltMin):
    """Alternating minimisation by coordinate descent on each row's unknowns, which ``nonnegative=True`` holds at zero.

    Args:
        passes: over a row's unknowns in a half-step. Default 3.

    Cost of a sweep: ``2 k^2`` flops an entry and ``passes k^2`` a row and column.
    """

    passes: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            is_whole(self.passes) and self.passes >= 1, "CoordinateAltMin needs passes >= 1", got=self.passes
        )

    def half_step(self, seed: int) -> HalfStep:
        return Coordinates(self.passes)
