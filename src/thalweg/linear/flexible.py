"""Conjugate gradients with a preconditioner that changes, and with a deflated subspace.

Notay (2000), "Flexible conjugate gradients"; Saad, Yeung, Erhel and Guyomarc'h (2000), "A deflated version of the
conjugate gradient algorithm", algorithm 3.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, State
from thalweg.core.validation import as_real, check_finite, is_whole, require
from thalweg.linear.krylov import fitting, indefinite, moved, preconditioned, solved
from thalweg.linear.method import LinearMethod
from thalweg.linear.problem import LinearSystem
from thalweg.numerics.lanczos import ritz
from thalweg.numerics.operators import Matrix

Vector = NDArray[np.float64]


@dataclass(kw_only=True)
class FlexibleState(State):
    """The vectors of flexible conjugate gradients."""

    r: Vector  # (n,) residual b - A x
    before: Vector  # (n,) the residual of the step before
    p: Vector  # (n,) search direction
    rz: float  # z.r of the step before, zero at the start
    unit: int  # the preconditioner is taken over two to this power


@dataclass(frozen=True, eq=False)
class FlexibleCG(LinearMethod[FlexibleState]):
    """Conjugate gradients that tolerate a preconditioner which is nonlinear, asymmetric or changes from step to step.

    ``beta = z.(r - r_before) / z_before.r_before`` in place of Fletcher and Reeves's. With a fixed symmetric positive
    definite preconditioner the iterates are those of `ConjugateGradient`.

    Args:
        preconditioner: anything with ``@``, shape (n, n), e.g. `direction_preconditioner`.

    A direction along which the preconditioner does not descend is replaced by the residual.

    Raises:
        InvalidProblem: in mid-run when A proves not to be positive definite.

    Cost per step: one product with A, one preconditioner, 7 vector operations; six vectors kept.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(np.diag([1.0, 2.0, 3.0]), np.ones(3))
    >>> solve(system, FlexibleCG(np.diag([1.0, 0.5, 1 / 3])), stop=Stop(below={"residual": 1e-12})).steps
    1
    """

    in_place: ClassVar[bool] = True

    preconditioner: Matrix

    def begin(self, problem: LinearSystem, seed: int) -> FlexibleState:
        x = problem.start()
        r = problem.b - problem.A @ x
        unit, _ = fitting(self.preconditioner, problem, r)
        metrics = {"residual": float(np.linalg.norm(r)) / problem.scale}
        return FlexibleState(
            x=x, r=r, before=r.copy(), p=np.zeros_like(x), rz=0.0, unit=unit, metrics=metrics
        )

    def advance(self, problem: LinearSystem, state: FlexibleState) -> FlexibleState:
        x, r, p, before = state.x, state.r, state.p, state.before
        z = preconditioned(self.preconditioner, r, state.unit)
        rz = float(r @ z)
        if not rz > 0:
            z, rz = r.copy(), float(r @ r)
        if rz == 0.0:
            return solved(state)
        p *= float(z @ (r - before)) / state.rz if state.rz else 0.0
        p += z
        q = problem.A @ p
        curvature = float(p @ q)
        if not curvature > 0:
            raise indefinite(curvature)
        before[:] = r
        alpha = float(r @ p) / curvature
        x += alpha * p
        r -= alpha * q
        state.rz = rz
        return moved(problem, state, float(np.linalg.norm(r)))


@dataclass(kw_only=True)
class DeflatedState(State):
    """The vectors of deflated conjugate gradients."""

    r: Vector  # (n,) residual b - A x
    p: Vector  # (n,) search direction
    W: Vector  # (k, n) rows span the deflated subspace
    AW: Vector  # (k, n)
    E: Vector  # (k, k) W A W'
    rr: float


@dataclass(frozen=True, eq=False)
class DeflatedCG(LinearMethod[DeflatedState]):
    """Conjugate gradients in the A-orthogonal complement of a subspace that slows them: low eigenvectors, usually.

    Iterations are those of a matrix without the deflated eigenvalues. The vectors must be found first, for each matrix
    anew: what `DeepConjugateDirection` spares.

    Args:
        vectors: rows spanning the subspace, shape (k, n), or how many lowest Ritz vectors to find by Lanczos.
        lanczos_steps: for finding them; default 8 times as many.

    Cost per step: one product with A, 4 k n flops and 5 vector operations; 2 k + 4 vectors kept.

    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(np.diag(np.arange(1.0, 101.0)), np.ones(100))
    >>> plain = solve(system, DeflatedCG(1), stop=Stop(below={"residual": 1e-8})).steps
    >>> solve(system, DeflatedCG(np.eye(100)[:20]), stop=Stop(below={"residual": 1e-8})).steps < plain
    True
    """

    in_place: ClassVar[bool] = True

    vectors: int | Vector = 20
    lanczos_steps: int | None = None

    def begin(self, problem: LinearSystem, seed: int) -> DeflatedState:
        if sp.issparse(problem.A):
            problem.require_symmetric("DeflatedCG")
        x = problem.start()
        r = problem.b - problem.A @ x
        W = self._subspace(problem, r, seed)
        AW = np.stack([problem.A @ w for w in W])
        projected = W @ AW.T
        try:
            np.linalg.cholesky(projected)
        except np.linalg.LinAlgError:
            raise InvalidProblem(
                "DeflatedCG: W A W' is not positive definite; A is not, or the vectors depend on each other."
            ) from None
        x += W.T @ np.linalg.solve(projected, W @ r)
        r = problem.b - problem.A @ x
        p = r - W.T @ np.linalg.solve(projected, AW @ r)
        metrics = {"residual": float(np.linalg.norm(r)) / problem.scale}
        return DeflatedState(x=x, r=r, p=p, W=W, AW=AW, E=projected, rr=float(r @ r), metrics=metrics)

    def _subspace(self, problem: LinearSystem, r: Vector, seed: int) -> Vector:
        if not is_whole(self.vectors):
            W = as_real("DeflatedCG: vectors", self.vectors)
            check_finite("DeflatedCG: vectors", W)
            require(
                W.ndim == 2 and W.shape[1] == problem.n and len(W) >= 1,
                f"DeflatedCG: vectors have shape {W.shape}; expected (k, {problem.n})",
                error=InvalidProblem,
            )
            largest = np.abs(W).max(axis=1, keepdims=True)
            return np.asarray(W / np.where(largest > 0, largest, 1.0))  # their lengths do not matter
        require(
            1 <= self.vectors <= problem.n, f"DeflatedCG needs 1 <= vectors <= {problem.n}", got=self.vectors
        )
        steps = min(problem.n, self.lanczos_steps or 8 * self.vectors)
        start = r if r.any() else None  # stays off the null space of a singular, consistent system
        W = ritz(problem.A, steps, start, seed)[1][: self.vectors]
        return W

    def advance(self, problem: LinearSystem, state: DeflatedState) -> DeflatedState:
        x, r, p, W, AW = state.x, state.r, state.p, state.W, state.AW
        if state.rr == 0.0:
            return solved(state)
        q = problem.A @ p
        curvature = float(p @ q)
        if not curvature > 0:
            raise indefinite(curvature)
        alpha = state.rr / curvature
        x += alpha * p
        r -= alpha * q
        rr = float(r @ r)
        p *= rr / state.rr
        p += r - W.T @ np.linalg.solve(state.E, AW @ r)
        state.rr = rr
        return moved(problem, state, float(np.sqrt(rr)))
