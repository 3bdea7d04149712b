"""Stationary iterations: Jacobi, Gauss-Seidel, SOR, SSOR, and red-black SOR on the five-point stencil.

Young (1950), "Iterative methods for solving partial difference equations of elliptic type"; Saad (2003),
"Iterative methods for sparse linear systems", chapter 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, State
from thalweg.core.validation import is_real, require
from thalweg.linear import _kernels as kernels
from thalweg.linear._stencil_kernels import red_black_sweep
from thalweg.linear.method import LinearMethod
from thalweg.linear.problem import LinearSystem
from thalweg.numerics import FivePointStencil
from thalweg.numerics.parallel import alone

Vector = NDArray[np.float64]

#: Rows from which sweeps in a wavefront pay for waking a second thread; how many run at once (an even number);
#: and the rows that one of them goes ahead of the next, in cache together.
WAVEFRONT_ROWS = 100_000
WAVEFRONT_SWEEPS = 4
BLOCK = 8192


@dataclass(kw_only=True)
class SORState(State):
    """Sweeps run ahead of the steps: the residual of an iterate comes out of the sweep that leaves it.

    The sweeps of the last pass start from row ``first`` of ``iterates``, which is used cyclically; ``x`` is the
    row that many further as ``done`` says.
    """

    iterates: Vector  # (sweeps + 1, n)
    partial: Vector  # (n,) b - (L + D) of the furthest iterate
    squares: list[float]  # squared residual norm of each iterate but the furthest
    first: int = 0
    done: int = 0


@dataclass(kw_only=True)
class SSORState(State):
    """Vectors that let a double sweep read each matrix entry one and a half times."""

    rest: Vector  # (n,) b - L x, a sweep's working space
    upper: Vector  # (n,) products of x with the part right of the diagonal


@dataclass(kw_only=True)
class JacobiState(State):
    """The residual, and what it is multiplied by."""

    residual: Vector  # (n,) b - A x
    weights: Vector  # (n,) weight / diagonal


def _require_omega(name: str, omega: float) -> None:
    require(
        is_real(omega) and 0 < omega < 2,
        f"{name} needs omega in (0, 2): outside it diverges on every matrix",
        got=omega,
    )


def optimal_omega(jacobi_radius: float) -> float:
    """The omega with the smallest asymptotic rate: ``1 + (b/(1 + sqrt(1 - b^2)))^2``, A consistently ordered.

    Args:
        jacobi_radius: spectral radius b of the Jacobi iteration matrix, in [0, 1). SOR's own spectral radius
            at this omega is omega - 1 (Young, 1950).

    >>> round(float(optimal_omega(np.cos(np.pi / 11))), 4)
    1.5604
    """
    require(
        is_real(jacobi_radius) and 0 <= jacobi_radius < 1,
        "optimal_omega needs a radius in [0, 1)",
        got=jacobi_radius,
    )
    return 1.0 + (jacobi_radius / (1.0 + math.sqrt(1.0 - jacobi_radius**2))) ** 2


@dataclass(frozen=True)
class SOR(LinearMethod[SORState]):
    """Successive over-relaxation: one forward sweep ``x += (D/omega + L)^-1 (b - A x)`` a step.

    Use it as a smoother, inside a sequence of similar systems, or where memory is short; on one large system
    `SSORCG` needs far fewer iterations. Converges for every omega in (0, 2) when A is symmetric positive
    definite.

    Args:
        omega: relaxation factor in (0, 2). The default 1.5 is a middling guess; see `optimal_omega`, and
            `SequenceSolver` to learn it.

    Raises:
        InvalidParameter: omega outside (0, 2).
        InvalidProblem: a zero on the diagonal, or A without entries (a `LinearOperator`).

    Cost per step: the matrix read once (12 nnz bytes) and 48 n bytes of vectors, residual included; three
    vectors of length n kept. From 100 000 rows on four sweeps run at once, one behind the other on two threads,
    which read the matrix from memory once for all of them and keep three vectors more.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(FivePointStencil(20, 20), np.ones(400))
    >>> solve(system, SOR(omega=1.74), stop=Stop(below={"residual": 1e-8})).status
    <Status.CONVERGED: 'converged'>
    """

    in_place: ClassVar[bool] = True

    omega: float = 1.5

    def __post_init__(self) -> None:
        _require_omega(type(self).__name__, self.omega)

    def begin(self, problem: LinearSystem, seed: int) -> SORState:
        data, indices, indptr, diag = problem.rows
        many = problem.n >= WAVEFRONT_ROWS and problem.upper_bandwidth <= BLOCK
        iterates = np.empty((1 + (WAVEFRONT_SWEEPS if many else 1), problem.n))
        iterates[0] = problem.start()
        partial = np.empty(problem.n)
        kernels.lower_residual(data, indices, indptr, diag, problem.b, iterates[0], partial)
        return self._state(problem, iterates, partial, self._sweep(problem, iterates, 0, partial), 0, 0)

    def advance(self, problem: LinearSystem, state: SORState) -> SORState:
        iterates, squares, first, done = state.iterates, state.squares, state.first, state.done + 1
        if done == len(squares):
            first, done = (first + done) % len(iterates), 0
            squares = self._sweep(problem, iterates, first, state.partial)
        return self._state(problem, iterates, state.partial, squares, first, done)

    def _sweep(self, problem: LinearSystem, iterates: Vector, first: int, partial: Vector) -> list[float]:
        if len(iterates) == 2:
            x, out = iterates[first], iterates[1 - first]
            return [kernels.sor_sweep(*problem.rows, self.omega, problem.b, x, out, partial)]
        with alone():
            squares: list[float] = kernels.sor_wavefront(
                *problem.rows, self.omega, problem.b, iterates, first, partial, BLOCK
            ).tolist()
        return squares

    def _state(
        self,
        problem: LinearSystem,
        iterates: Vector,
        partial: Vector,
        squares: list[float],
        first: int,
        done: int,
    ) -> SORState:
        return SORState(
            x=iterates[(first + done) % len(iterates)],
            iterates=iterates,
            partial=partial,
            squares=squares,
            first=first,
            done=done,
            metrics={"residual": math.sqrt(squares[done]) / problem.scale},
        )


@dataclass(frozen=True)
class GaussSeidel(SOR):
    """Gauss-Seidel iteration: `SOR` with omega = 1. Needs no parameter, and is slow on large grids.

    >>> GaussSeidel().omega
    1.0
    """

    omega: float = field(default=1.0, init=False)


@dataclass(frozen=True)
class SSOR(LinearMethod[SSORState]):
    """Symmetric SOR: a forward and a backward sweep a step.

    Less sensitive to omega than `SOR`, and symmetric, so it also serves as a preconditioner (`SSORCG`).

    Args:
        omega: relaxation factor in (0, 2).

    Cost per step: the matrix read one and a half times (the backward sweep reuses the forward sums), the
    residual included.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(FivePointStencil(10, 10), np.ones(100))
    >>> solve(system, SSOR(omega=1.5), stop=Stop(below={"residual": 1e-8})).converged
    True
    """

    in_place: ClassVar[bool] = True

    omega: float = 1.5

    def __post_init__(self) -> None:
        _require_omega("SSOR", self.omega)

    def begin(self, problem: LinearSystem, seed: int) -> SSORState:
        x = problem.start()
        upper = np.empty_like(x)
        kernels.upper_product(*problem.rows, x, upper)
        return SSORState(x=x, rest=np.empty_like(x), upper=upper, metrics=problem.metrics(x))

    def advance(self, problem: LinearSystem, state: SSORState) -> SSORState:
        norm = kernels.ssor_sweep(*problem.rows, self.omega, problem.b, state.x, state.rest, state.upper)
        return replace(state, metrics={"residual": math.sqrt(norm) / problem.scale})


@dataclass(frozen=True)
class Jacobi(LinearMethod[JacobiState]):
    """Weighted Jacobi iteration: ``x += weight D^-1 (b - A x)``.

    The slowest of the family and the easiest to run in parallel; converges where A is diagonally dominant.

    Args:
        weight: damping in (0, 2); 1 is Jacobi's own, 2/3 a common smoother.

    Cost per step: the matrix read once.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(FivePointStencil(5, 5), np.ones(25))
    >>> solve(system, Jacobi(), stop=Stop(below={"residual": 1e-8})).converged
    True
    """

    in_place: ClassVar[bool] = True

    weight: float = 1.0

    def __post_init__(self) -> None:
        require(
            is_real(self.weight) and 0 < self.weight < 2, "Jacobi needs a weight in (0, 2)", got=self.weight
        )

    def begin(self, problem: LinearSystem, seed: int) -> JacobiState:
        diagonal, _ = problem.diagonal
        x = problem.start()
        residual = problem.b - problem.csr @ x
        metrics = {"residual": float(np.linalg.norm(residual)) / problem.scale}
        return JacobiState(x=x, residual=residual, weights=self.weight / diagonal, metrics=metrics)

    def advance(self, problem: LinearSystem, state: JacobiState) -> JacobiState:
        norm = kernels.jacobi_sweep(*problem.rows[:3], state.weights, problem.b, state.x, state.residual)
        return replace(state, metrics={"residual": math.sqrt(norm) / problem.scale})


@dataclass(frozen=True)
class RedBlackSOR(LinearMethod[State]):
    """SOR on a `FivePointStencil` with the grid coloured like a chessboard: no matrix, no dependent chain.

    The same rates as `SOR` (both orderings are consistent), several times faster a sweep.

    Args:
        omega: relaxation factor in (0, 2).

    Raises:
        InvalidProblem: A is not a `FivePointStencil`, or its centre is zero.

    Cost per step: one pass over x and b, 24 n bytes, residual included.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(FivePointStencil(20, 20), np.ones(400))
    >>> solve(system, RedBlackSOR(omega=1.74), stop=Stop(below={"residual": 1e-8})).converged
    True
    """

    in_place: ClassVar[bool] = True

    omega: float = 1.5

    def __post_init__(self) -> None:
        _require_omega("RedBlackSOR", self.omega)

    def begin(self, problem: LinearSystem, seed: int) -> State:
        if not isinstance(problem.A, FivePointStencil):
            raise InvalidProblem(
                f"RedBlackSOR works on a FivePointStencil; A is a {type(problem.A).__name__}. Use SOR."
            )
        require(
            problem.A.center != 0, "A has a zero diagonal; relaxation divides by it.", error=InvalidProblem
        )
        x = problem.start()
        return State(x=x, metrics=problem.metrics(x))

    def advance(self, problem: LinearSystem, state: State) -> State:
        A = problem.A
        if not isinstance(A, FivePointStencil):
            raise InvalidProblem("RedBlackSOR works on a FivePointStencil.")
        u, b = state.x.reshape(A.rows, A.columns), problem.b.reshape(A.rows, A.columns)
        norm = red_black_sweep(u, b, A.center, A.neighbour, self.omega, np.zeros(A.columns))
        return State(x=state.x, metrics={"residual": math.sqrt(norm) / problem.scale})
