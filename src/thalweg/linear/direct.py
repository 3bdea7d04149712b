"""A direct solve by sparse LU factors, kept for the next right-hand side of the same matrix.

Li (2005), "An overview of SuperLU".
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import SuperLU, splu

from thalweg.core import InvalidProblem, State, Status
from thalweg.linear.columns import Columns
from thalweg.linear.method import LinearMethod
from thalweg.linear.poisson import PoissonGrid
from thalweg.linear.problem import LinearSystem

Vector = NDArray[np.float64]

#: A residual above this share of b says that the factors are those of a singular matrix.
FAILED = 1e-8
#: Refinements at most; one is nearly always enough.
REFINEMENTS = 3


@dataclass(frozen=True, eq=False)
class Direct(LinearMethod[State]):
    """Sparse LU factorisation (SuperLU through SciPy) and iterative refinement: one step, exact to rounding.

    Best for small systems and for many right-hand sides, which it solves all at once (b of shape (n, k)); memory for
    the factors grows fast in 3-D. The object keeps the
    factors of its last matrix, and a copy of that matrix's entries: the next system with the same entries costs a
    solve, not a factorisation. They are freed with the object.

    Raises:
        InvalidProblem: A is singular, or its factors do not fit in memory.

    A run on a matrix that is singular up to rounding ends as STALLED, with the residual that its factors leave. On a
    `PoissonGrid` with closed pools the pressure has mean zero in each.

    >>> from thalweg import solve
    >>> from thalweg.numerics import FivePointStencil
    >>> system = LinearSystem(FivePointStencil(10, 10), np.ones(100))
    >>> solve(system, Direct()).metrics["residual"] < 1e-12
    True
    """

    def begin(self, problem: LinearSystem, seed: int) -> State:
        problem.csr  # noqa: B018 -- refuse what has no entries
        x = problem.start()
        return State(x=x, metrics=problem.metrics(x))

    def advance(self, problem: LinearSystem, state: State) -> State:
        return self._judged(problem, self._solved(problem, problem.b[:, None])[:, 0])

    def step(self, problem: LinearSystem, state: State | Columns[State]) -> State | Columns[State]:
        if not isinstance(state, Columns):
            return super().step(problem, state)
        balanced = [column.balanced for column in problem.columns]
        X = self._solved(balanced[0], np.stack([column.b for column in balanced], axis=1))
        judged = [
            self._judged(column, np.ascontiguousarray(x)) for column, x in zip(balanced, X.T, strict=True)
        ]
        return Columns.of(
            [self._in_units(one, c.unit) for one, c in zip(judged, problem.columns, strict=True)]
        )

    def _solved(self, problem: LinearSystem, B: NDArray[np.float64]) -> NDArray[np.float64]:
        """X of ``A X = B``, shape (n, k), each column refined while that halves its residual."""
        factors, A = self._factors(problem), problem.csr
        X = factors.solve(B)
        with np.errstate(over="ignore", invalid="ignore"):
            R = B - A @ X
            size, residual = np.linalg.norm(B, axis=0), np.linalg.norm(R, axis=0)
            for _ in range(REFINEMENTS):
                if not (residual > np.finfo(np.float64).eps * size).any():
                    break
                better = X + factors.solve(R)
                R_after = B - A @ better
                after = np.linalg.norm(R_after, axis=0)
                gains = after < 0.5 * residual
                if not gains.any():
                    break
                X[:, gains], R[:, gains], residual[gains] = better[:, gains], R_after[:, gains], after[gains]
        if not np.isfinite(X).all():
            raise _singular()
        return X

    def _judged(self, problem: LinearSystem, x: Vector) -> State:
        if isinstance(problem.A, PoissonGrid):
            x = problem.A.project(x)
        metrics = problem.metrics(x)
        state = State(x=x, metrics=metrics, status=Status.CONVERGED, message="Factorised and solved.")
        if not metrics["residual"] <= FAILED:
            pivots = np.abs(self._factors(problem).U.diagonal())
            state.status = Status.STALLED
            state.message = (
                f"The factors leave a residual of {metrics['residual']:.2g}: A is singular up to rounding (its "
                f"smallest pivot is {pivots.min() / pivots.max():.1g} of the largest). Use numerics.lsqr."
            )
        return state

    def _factors(self, problem: LinearSystem) -> SuperLU:
        """The factors of the system's matrix; those kept where its entries are the same."""
        csr, kept = problem.csr, _KEPT.get(self)
        if kept is None or not kept.are_of(csr):
            kept = _KEPT[self] = _Kept(csr.data.copy(), csr.indices, csr.indptr, _factorised(problem))
        return kept.factors


@dataclass(frozen=True)
class _Kept:
    """Factors, and the matrix they are of."""

    data: Vector
    indices: NDArray[np.int32]
    indptr: NDArray[np.int32]
    factors: SuperLU

    def are_of(self, csr: sp.csr_array) -> bool:
        pairs = ((self.indptr, csr.indptr), (self.indices, csr.indices), (self.data, csr.data))
        return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


#: Not on the objects themselves, which travel to other processes; factors cannot.
_KEPT: weakref.WeakKeyDictionary[Direct, _Kept] = weakref.WeakKeyDictionary()


def _factorised(problem: LinearSystem) -> SuperLU:
    csc = problem.csr.tocsc()
    if isinstance(problem.A, PoissonGrid) and problem.A.closed:
        first = [int(pool[0]) for pool in problem.A.closed]  # where b sums to zero, this holds p = 0 there
        csc = sp.csc_array(csc + sp.coo_array((np.ones(len(first)), (first, first)), shape=csc.shape))
    try:
        return splu(csc)
    except MemoryError:
        raise InvalidProblem(
            f"The factors of A, {problem.n} x {problem.n}, do not fit in memory. Use SSORCG or GMRES."
        ) from None
    except RuntimeError as error:
        if "singular" in str(error):
            raise _singular() from None
        raise InvalidProblem(f"A could not be factorised: {error}.") from error


def _singular() -> InvalidProblem:
    return InvalidProblem("A is singular; it has no LU factors. Use numerics.lsqr.")
