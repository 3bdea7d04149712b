"""Newton's method with its systems solved to the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from thalweg.constrained._arrays import Matrix, Vector
from thalweg.constrained._merit import (
    ADJUSTMENTS,
    Direction,
    MeritNewton,
    MeritState,
    Weights,
    check_merit,
    downhill,
)
from thalweg.constrained._newton import NewtonSystem
from thalweg.constrained.problem import EqualityConstrained, Point
from thalweg.numerics.operators import factor_flops


@dataclass(frozen=True)
class NewtonSQP(MeritNewton[MeritState]):
    """`SketchedNewton` with its systems solved to the end, by a dense or sparse factorization.

    The first choice for small problems, and where a sparse factorization is cheap. Arguments as there.

    Raises:
        InvalidParameter: a parameter outside its range.

    Cost per step: a Hessian, a Jacobian, ``2/3 (n + m)^3`` flops or a sparse factorization.

    >>> from thalweg import Stop, solve
    >>> from thalweg.constrained import EqualityConstrained
    >>> circle = EqualityConstrained.from_formulas("x1 + x2", ["x1**2 + x2**2 - 2"], [-1.5, -0.5])
    >>> solve(circle, NewtonSQP(), stop=Stop(below={"kkt": 1e-10})).x.round(6)
    array([-1., -1.])
    """

    eta1: float = 1.0
    eta2: float = 0.1
    xi: float = 0.1
    beta: float = 0.1
    nu: float = 1.5

    def __post_init__(self) -> None:
        check_merit("NewtonSQP", eta1=self.eta1, eta2=self.eta2, xi=self.xi, beta=self.beta, nu=self.nu)

    def init(self, problem: EqualityConstrained, seed: int) -> MeritState:
        return MeritState(**vars(self._begin(problem, seed)), eta1=self.eta1, eta2=self.eta2)

    def _direction(
        self, system: NewtonSystem, point: Point, state: MeritState
    ) -> tuple[Direction, MeritState]:
        size = float(system.b @ system.b)
        z, flops = _direct(system.A, system.b)
        after = replace(state, flops=state.flops + flops)
        weights = state.weights
        for _ in range(ADJUSTMENTS):
            slope = float(weights.gradient(point, state.multipliers, system.H) @ z)
            spent = weights.eta1 > 1e8 or weights.eta2 < 1e-8
            if slope <= -0.5 * weights.eta2 * size or (spent and slope < 0.0):
                return Direction(z, slope, weights), after
            if spent or not np.isfinite(slope):
                break
            weights = Weights(weights.eta1 * self.nu**2, weights.eta2 / self.nu)
        return downhill(system, point, state), after


def _direct(A: Matrix, b: Vector) -> tuple[Vector, float]:
    """The solution, of least norm where A is singular, and the flops."""
    if isinstance(A, sp.csr_array):
        try:
            factor = spla.splu(sp.csc_array(A))
        except RuntimeError:  # exactly singular
            return _least_norm(A, b)
        z = np.asarray(factor.solve(b), dtype=np.float64)
        if not _solves(A, z, b):
            return _least_norm(A, b)
        return z, factor_flops(factor) + 2.0 * (factor.L.nnz + factor.U.nnz)
    try:
        z = np.asarray(np.linalg.solve(A, b), dtype=np.float64)
        if _solves(A, z, b):
            return z, 2.0 * len(b) ** 3 / 3.0
    except np.linalg.LinAlgError:
        pass
    return _least_norm(A, b)


def _solves(A: Matrix, z: Vector, b: Vector) -> bool:
    """Whether z is finite and its residual small: the factors of a nearly singular matrix give neither."""
    return bool(np.isfinite(z).all() and np.linalg.norm(A @ z - b) <= 1e-6 * np.linalg.norm(b))


def _least_norm(A: Matrix, b: Vector) -> tuple[Vector, float]:
    """The least-squares solution of least norm, and the flops."""
    if isinstance(A, sp.csr_array):
        z, _, rounds, *_ = spla.lsmr(A, b, atol=1e-14, btol=1e-14, maxiter=10 * len(b))
        return np.asarray(z, dtype=np.float64), float(rounds) * (4.0 * A.nnz + 20.0 * len(b))
    return np.asarray(np.linalg.lstsq(A, b)[0], dtype=np.float64), 4.0 * len(b) ** 3
