"""Krylov methods that run step by step: CG, SSOR-preconditioned CG, restarted GMRES.

Hestenes and Stiefel (1952), "Methods of conjugate gradients"; Axelsson (1972) for SSOR as preconditioner;
Eisenstat (1981), "Efficient implementation of a class of preconditioned conjugate gradient methods", for how
to apply it; Saad and Schultz (1986), "GMRES".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, gmres

from thalweg.core import InvalidProblem, NotFinite, State, Status
from thalweg.core.validation import is_real, is_whole, require
from thalweg.linear import _kernels as kernels
from thalweg.linear.method import LinearMethod
from thalweg.linear.problem import LinearSystem
from thalweg.numerics import FivePointStencil
from thalweg.numerics.operators import Matrix
from thalweg.numerics.scaling import balancing

Vector = NDArray[np.float64]
Solving = TypeVar("Solving", bound=State)

#: A recurrence that says the residual is this share of b or less has reached rounding: it tells nothing any more.
ROUNDING = float(np.finfo(np.float64).eps)
#: Under this share it is looked up whether it has done so before, which takes a product with |A|.
NEAR = 1e-12


@dataclass(kw_only=True)
class CGState(State):
    """The vectors of (preconditioned) conjugate gradients."""

    r: Vector  # (n,) residual b - A x
    z: Vector  # (n,) preconditioned residual; r itself without a preconditioner
    p: Vector  # (n,) search direction
    rz: float
    rr: float  # r.r
    unit: int = 0  # the preconditioner is taken over two to this power
    stale: bool = False  # z, p and rz are those of the step before


def indefinite(curvature: float) -> InvalidProblem:
    """What a direction along which A is not positive tells; NaN tells of numbers that are none."""
    if not math.isfinite(curvature):
        return NotFinite(
            f"p'Ap = {curvature:g} for a direction p met on the way: A's product is not finite there."
        )
    return InvalidProblem(
        f"A is not positive definite: p'Ap = {curvature:.3g} for a direction p met on the way. "
        "Conjugate gradients need that; use GMRES, or MINRES (thalweg.numerics.minres) if A is symmetric."
    )


def preconditioned(preconditioner: Matrix, r: Vector, unit: int) -> Vector:
    """``M r`` over ``2 ** unit``.

    Raises:
        InvalidProblem: the preconditioner gives another shape.
        NotFinite: it gives NaN or infinity.
    """
    z = np.asarray(preconditioner @ r, dtype=np.float64)
    if z.shape != r.shape:
        raise InvalidProblem(f"The preconditioner made shape {z.shape} of {r.shape}.")
    if not np.isfinite(z).all():
        raise NotFinite("The preconditioner gave NaN or infinity for a finite residual.")
    return np.ldexp(z, -unit) if unit else z


def fitting(preconditioner: Matrix, problem: LinearSystem, r: Vector) -> tuple[int, Vector]:
    """The power of two that brings ``M r`` near one, and ``M r`` over it.

    No iterate depends on a factor of the preconditioner.

    Raises:
        InvalidProblem: the preconditioner has another shape than A.
    """
    shape, n = preconditioner.shape, problem.n
    require(
        shape == (n, n), f"The preconditioner has shape {shape}; expected ({n}, {n}).", error=InvalidProblem
    )
    z = preconditioned(preconditioner, r, 0)
    unit = balancing(z)
    return unit, np.ldexp(z, -unit) if unit else z


def _preconditioner_indefinite(rz: float) -> InvalidProblem:
    return InvalidProblem(
        f"The preconditioner is not positive definite: r'Mr = {rz:.3g}. Conjugate gradients need a symmetric "
        "positive definite one."
    )


@dataclass(frozen=True, eq=False)
class ConjugateGradient(LinearMethod[CGState]):
    """Conjugate gradients for symmetric positive definite A, with any preconditioner.

    The default for well-conditioned systems and for matrix-free operators; with a good preconditioner the
    best general choice. `SSORCG` is faster where A has entries.

    Args:
        preconditioner: an approximation of the inverse of A, symmetric positive definite: anything with
            ``@``, shape (n, n). None for plain CG.

    Raises:
        InvalidProblem: A asymmetric or with a non-positive diagonal (where it has entries), a
            preconditioner of another shape; in mid-run when A proves not to be positive definite.

    Cost per step: one product with A, one with the preconditioner, 5 vector operations; four vectors kept.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(FivePointStencil(20, 20), np.ones(400))
    >>> solve(system, ConjugateGradient(), stop=Stop(below={"residual": 1e-10})).converged
    True
    """

    in_place: ClassVar[bool] = True

    preconditioner: Matrix | None = None

    def begin(self, problem: LinearSystem, seed: int) -> CGState:
        if sp.issparse(problem.A) or isinstance(problem.A, FivePointStencil):
            problem.require_symmetric("ConjugateGradient")
            problem.require_positive_diagonal("ConjugateGradient")
        x = problem.start()
        r = problem.b - problem.A @ x if problem.x0 is not None else problem.b.copy()
        z, unit = r, 0
        if self.preconditioner is not None:
            unit, z = fitting(self.preconditioner, problem, r)
        rz, rr = float(r @ z), float(r @ r)
        if rz < 0:
            raise _preconditioner_indefinite(rz)
        metrics = {"residual": float(np.linalg.norm(r)) / problem.scale}
        return CGState(x=x, r=r, z=z, p=z.copy(), rz=rz, rr=rr, unit=unit, metrics=metrics)

    def advance(self, problem: LinearSystem, state: CGState) -> CGState:
        x, r, p = state.x, state.r, state.p
        if state.stale:
            self._turn(state)
        if state.rz == 0:
            return solved(state)
        q = problem.A @ p
        curvature = float(p @ q)
        if not curvature > 0:
            raise indefinite(curvature)
        alpha = state.rz / curvature
        x += alpha * p
        r -= alpha * q
        state.rr, state.stale = float(r @ r), True
        return moved(problem, state, math.sqrt(state.rr))

    def _turn(self, state: CGState) -> None:
        """The next direction; here and not at a step's end, where the last one would be made for nothing."""
        z, rz = state.r, state.rr
        if self.preconditioner is not None:
            z = preconditioned(self.preconditioner, state.r, state.unit)
            rz = float(state.r @ z)
            if rz < 0:
                raise _preconditioner_indefinite(rz)
        state.p *= rz / state.rz
        state.p += z
        state.z, state.rz, state.stale = z, rz, False


def solved(state: Solving) -> Solving:
    """The state of a method whose residual is exactly zero."""
    state.status, state.message = Status.CONVERGED, "The residual is zero."
    return state


def moved(problem: LinearSystem, state: Solving, residual: float) -> Solving:
    """The state after a step with one product, whose recurrence gives the residual's norm."""
    share = residual / problem.scale
    state.metrics, state.calls = {"residual": share}, state.calls + 1
    if share <= ROUNDING or (share <= NEAR and share <= 0.25 * problem.rounding(state.x)):
        state.status = Status.STALLED
        state.message = (
            "This is as near as rounding allows: the recurrence of the residual has reached its end."
        )
    return state


@dataclass(kw_only=True)
class SSORCGState(State):
    """The vectors of Eisenstat's form, with ``M = D/omega + L`` and W the preconditioner."""

    r: Vector  # (n,) residual b - A x
    s: Vector  # (n,) M^-1 r
    g: Vector  # (n,) M' p
    p: Vector  # (n,) search direction
    y: Vector  # (n,) M^-1 A p - p
    q: Vector  # (n,) A p
    rz: float  # r . W^-1 r
    beta: float = 0.0


@dataclass(frozen=True)
class SSORCG(LinearMethod[SSORCGState]):
    """Conjugate gradients preconditioned by one SSOR sweep.

    ``W = (D/omega + L) D^-1 (D/omega + L)' omega/(2 - omega)``. The iteration count falls from the square
    root to about the fourth root of the condition number at a good omega.

    Args:
        omega: relaxation factor in (0, 2) of the preconditioner; 1 gives symmetric Gauss-Seidel.

    Raises:
        InvalidParameter: omega outside (0, 2).
        InvalidProblem: A asymmetric, a diagonal entry not positive, A without entries; in mid-run when A
            proves not to be positive definite.

    Cost per step: the matrix read once (Eisenstat's form: the two triangular solves give the product too) and
    14 vectors read or written; seven vectors kept.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(FivePointStencil(20, 20), np.ones(400))
    >>> plain = solve(system, ConjugateGradient(), stop=Stop(below={"residual": 1e-8})).steps
    >>> solve(system, SSORCG(omega=1.7), stop=Stop(below={"residual": 1e-8})).steps < plain
    True
    """

    in_place: ClassVar[bool] = True

    omega: float = 1.2

    def __post_init__(self) -> None:
        require(is_real(self.omega) and 0 < self.omega < 2, "SSORCG needs omega in (0, 2)", got=self.omega)

    def begin(self, problem: LinearSystem, seed: int) -> SSORCGState:
        problem.require_symmetric("SSORCG")
        problem.csr, problem.diagonal  # noqa: B018 -- refuse what has no entries or a zero diagonal
        problem.require_positive_diagonal("SSORCG")
        x = problem.start()
        r = problem.b - problem.csr @ x
        s, p, y, q = (np.empty_like(x) for _ in range(4))
        rz = kernels.lower_solve(*problem.rows, self.omega, r, s)
        metrics = {"residual": float(np.linalg.norm(r)) / problem.scale}
        return SSORCGState(x=x, r=r, s=s, g=np.zeros_like(x), p=p, y=y, q=q, rz=rz, metrics=metrics)

    def advance(self, problem: LinearSystem, state: SSORCGState) -> SSORCGState:
        if state.rz == 0:
            return solved(state)
        x, r, s, g, p, y, q = state.x, state.r, state.s, state.g, state.p, state.y, state.q
        rz, squared, curvature = kernels.ssor_cg_step(
            *problem.rows, self.omega, x, r, s, g, p, y, q, state.rz, state.beta
        )
        if not curvature > 0:
            raise indefinite(curvature)
        state.beta, state.rz = rz / state.rz, rz
        return moved(problem, state, math.sqrt(squared))


def ssor_preconditioner(system: LinearSystem, omega: float) -> LinearOperator:
    """The inverse of the SSOR matrix W as an operator, for any Krylov solver that takes one.

    >>> system = LinearSystem(FivePointStencil(8, 8), np.ones(64))
    >>> ssor_preconditioner(system, 1.5).shape
    (64, 64)
    """
    SSORCG(omega).init(system, 0)  # refuses what it cannot precondition

    def apply(r: Vector) -> Vector:
        r = np.ascontiguousarray(r, dtype=np.float64).reshape(-1)
        z = np.empty_like(r)
        kernels.lower_solve(*system.rows, omega, r, z)
        kernels.upper_solve(*system.rows, omega, z, 0.0, np.zeros_like(r), z)
        return z

    return LinearOperator((system.n, system.n), matvec=apply, rmatvec=apply, dtype=np.float64)


#: A cycle of GMRES that lowers the residual by less than this share of it is the last one.
STANDSTILL = 1e-9


@dataclass(frozen=True)
class GMRES(LinearMethod[State]):
    """Restarted GMRES, for any square A; one step is one cycle of ``restart`` products (SciPy's).

    The choice when A is not symmetric. Memory grows with ``restart``; too small a one can stall: the status tells.

    Args:
        restart: products with A in a cycle, and vectors of length n kept. Default 30.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(np.array([[1.0, 2.0], [-3.0, 4.0]]), np.ones(2))
    >>> solve(system, GMRES(), stop=Stop(below={"residual": 1e-10})).converged
    True
    """

    restart: int = 30

    def __post_init__(self) -> None:
        require(
            is_whole(self.restart) and self.restart >= 1, "GMRES needs a whole restart >= 1", got=self.restart
        )

    def begin(self, problem: LinearSystem, seed: int) -> State:
        x = problem.start()
        return State(x=x, metrics=problem.metrics(x))

    def advance(self, problem: LinearSystem, state: State) -> State:
        products = 0

        def product(v: Vector) -> Vector:
            nonlocal products
            products += 1
            return np.asarray(problem.A @ v)

        A = LinearOperator((problem.n, problem.n), matvec=product, dtype=np.float64)
        x, _ = gmres(A, problem.b, x0=state.x, rtol=1e-15, restart=min(self.restart, problem.n), maxiter=1)
        metrics = problem.metrics(x)
        before, now = state.metrics["residual"], metrics["residual"]
        state = State(x=x, calls=state.calls + products, metrics=metrics)
        if not now < (1.0 - STANDSTILL) * before:
            state.status = Status.STALLED
            state.message = (
                f"A cycle of {min(self.restart, problem.n)} products no longer lowers the residual, {now:.3g}: A is "
                "singular, the restart is too short, or this is rounding. Raise restart, or use Direct."
            )
        return state
