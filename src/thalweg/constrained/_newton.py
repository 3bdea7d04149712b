"""Newton's system for the optimality conditions, and what to say where it is singular."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from thalweg.constrained._arrays import DENSE, Matrix, Vector
from thalweg.constrained._state import ConstrainedState
from thalweg.constrained._verdicts import contradict
from thalweg.constrained.curvature import dependent_rows, reduced_curvature, smallest_square, spectral_norm
from thalweg.constrained.problem import EqualityConstrained, Point, RankDeficient
from thalweg.numerics.operators import is_sparse

#: Squared singular values of the Jacobian under this are taken for zero.
DEFICIENT = 1e-8


@dataclass(frozen=True)
class NewtonSystem:
    """``[[B, G'], [G, 0]] z = b`` at a point, ``b = -(grad_x L, c)``, B = H + shift I."""

    A: Matrix  # (n + m, n + m)
    b: Vector  # (n + m,)
    H: Matrix  # (n, n)
    shift: float
    deficient: bool
    smallest: float  # the smallest squared singular value of G

    @classmethod
    def at(cls, problem: EqualityConstrained, point: Point, multipliers: Vector, xi: float) -> NewtonSystem:
        """Assembled, with the Hessian modified where its curvature along the constraints is not positive."""
        H, G = problem.curvature(point.x, multipliers), point.G
        smallest = smallest_square(G)
        shift = 0.0
        if reduced_curvature(H, G) < 1e-6:
            shift = xi + spectral_norm(H)
        b = -np.r_[point.lagrangian(multipliers), point.c]
        return cls(_saddle(H, G, shift), b, H, shift, smallest < DEFICIENT, smallest)


def _saddle(H: Matrix, G: Matrix, shift: float) -> Matrix:
    """``[[H + shift I, G'], [G, 0]]``."""
    m, n = G.shape
    if is_sparse(H) or is_sparse(G) or n + m > DENSE:
        B, rows = sp.csr_array(H) + shift * sp.eye_array(n), sp.csr_array(G)
        blocks: list[list[sp.csr_array | None]] = [[sp.csr_array(B), sp.csr_array(rows.T)], [rows, None]]
        return sp.csr_array(sp.block_array(blocks))
    A = np.zeros((n + m, n + m))
    A[:n, :n], A[:n, n:], A[n:, :n] = H, G.T, G
    A.flat[: n * (n + m) : n + m + 1] += shift
    return A


def warn_deficient(system: NewtonSystem, point: Point, state: ConstrainedState) -> bool:
    """Tell, once a run, which constraints depend on the others. Returns whether that has been told."""
    if not system.deficient or state.warned:
        return state.warned
    rows = dependent_rows(point.G) if max(point.G.shape) <= DENSE else []
    follow = "contradict" if contradict(point) else "follow from"
    named = f" (constraints {', '.join(str(i) for i in rows)} {follow} the others)" if rows else ""
    warnings.warn(
        f"Step {state.step}: the Jacobian's smallest squared singular value is {system.smallest:.2g}{named}. "
        "Multipliers are not unique here; those of least norm are taken.",
        RankDeficient,
        stacklevel=6,
    )
    return True
