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

    Best for small systems and for many right-hand sides; memory for the factors grows fast in 3-D. The object keeps the
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
        factors = self._factors(problem)
        x = factors.solve(problem.b)
        residual = problem.metrics(x)["residual"]
        for _ in range(REFINEMENTS):
            if not residual > np.finfo(np.float64).eps:
                break
            better = x + factors.solve(problem.b - problem.csr @ x)
            after = problem.metrics(better)["residual"]
            if not after < 0.5 * residual:
                break
            x, residual = better, after
        if isinstance(problem.A, PoissonGrid):
            x = problem.A.project(x)
        if not np.isfinite(x).all():
            raise _singular()
        state = State(
            x=x, metrics=problem.metrics(x), status=Status.CONVERGED, message="Factorised and solved."
        )
        if not residual <= FAILED:
            pivots = np.abs(factors.U.diagonal())
            state.status = Status.STALLED
            state.message = (
                f"The factors leave a residual of {residual:.2g}: A is singular up to rounding (its smallest pivot is "
                f"{pivots.min() / pivots.max():.1g} of the largest). Use numerics.lsqr."
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
