"""Why a run cannot end well: constraints that cannot be met, a function that falls for ever. Each is verified first."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg as la
import scipy.sparse.linalg as spla

from thalweg.constrained._arrays import DENSE, Matrix, Vector, adjoint, dense, product
from thalweg.constrained.problem import EqualityConstrained, Point
from thalweg.core.seeding import generator
from thalweg.numerics.lanczos import spectrum_ends
from thalweg.numerics.operators import is_sparse

#: |c| below which constraints count as met here.
MET = 1e-6
#: Decades along a ray through which a function has to go on falling to be said to have no minimum.
DECADES = 14


def towards(point: Point) -> Vector:
    """The shortest d of least ``|c + G d|``."""
    if is_sparse(point.G):
        found = spla.lsmr(point.G, -point.c, atol=1e-14, btol=1e-14, maxiter=10 * len(point.c))
        return np.asarray(found[0], dtype=np.float64)
    return np.asarray(np.linalg.lstsq(dense(point.G), -point.c, rcond=1e-10)[0], dtype=np.float64)


def contradict(point: Point) -> bool:
    """Whether the constraints, taken for linear, contradict each other: c does not lie in the range of G."""
    left = point.c + product(point.G, towards(point))
    return float(np.linalg.norm(left)) > MET * max(1.0, float(np.linalg.norm(point.c)))


def contradiction(problem: EqualityConstrained, point: Point) -> tuple[Point, str]:
    """Where linearised constraints that contradict each other come nearest, and what `cannot_be_met` says of it."""
    if not contradict(point):
        return point, ""
    nearest = problem.at(point.x + towards(point))
    return nearest, cannot_be_met(problem, nearest)


def cannot_be_met(problem: EqualityConstrained, point: Point) -> str:
    """What to say where |c| has a minimum that is not zero; nothing elsewhere."""
    away, pull = float(np.linalg.norm(point.c)), float(np.linalg.norm(adjoint(point.G, point.c)))
    if not away > MET or not pull <= 1e-4 * away or not _is_lowest(problem, point, away):
        return ""
    return (
        f"The constraints cannot be met near here: |c| = {away:.3g} has a minimum (|G'c| = {pull:.3g}). "
        "Check them, or start elsewhere."
    )


def _is_lowest(problem: EqualityConstrained, point: Point, away: float) -> bool:
    """Whether ``|c|^2`` curves upwards at a stationary point, and does not fall where it is flat."""
    bend = problem.curvature(point.x, point.c) - problem.curvature(point.x, np.zeros(problem.m))
    n, G = problem.n, point.G
    if n > DENSE:
        low, high = spectrum_ends(_sum_of_squares(G, bend))
        flat = generator(0, 0x42).standard_normal((4, n))
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    else:
        values, vectors = la.eigh(dense(G).T @ dense(G) + dense(bend))
        low, high = float(values[0]), float(np.abs(values).max())
        flat = vectors[:, values <= 1e-6 * high].T[:20]
    if low < -1e-6 * high:
        return False
    far = (1.0 + float(np.linalg.norm(point.x))) * np.array([0.1, -0.1, 1.0, -1.0])
    lengths = (float(np.linalg.norm(problem.at(point.x + h * v).c)) for v in flat for h in far)
    return not any(length < (1.0 - 1e-6) * away for length in lengths)


def _sum_of_squares(G: Matrix, bend: Matrix) -> spla.LinearOperator:
    """``G'G + bend`` as an operator."""
    n = G.shape[1]

    def times(v: Vector) -> Vector:
        return adjoint(G, product(G, v)) + product(bend, v)

    return spla.LinearOperator((n, n), matvec=times, dtype=np.float64)


def lowest_seen(problem: EqualityConstrained, point: Point, d: Vector) -> tuple[float | None, int]:
    """How low f gets on the constraints ever farther along d, where it falls without end; None elsewhere. The calls.

    From decade to decade f has to fall by twice as much as before, at points that the constraints hold at.
    """
    here, calls = _restored(problem, point.x)
    if here is None or not here.finite:
        return None, calls
    drop, far = 0.0, 1.0
    for _ in range(DECADES):
        far *= 10.0
        ahead, more = _restored(problem, here.x + 0.9 * far * d)
        calls += more
        if ahead is None or not ahead.f < here.f - 2.0 * drop:
            return None, calls
        here, drop = ahead, here.f - ahead.f
        if here.f == -math.inf:
            break
    return here.f, calls


def _restored(problem: EqualityConstrained, x: Vector) -> tuple[Point | None, int]:
    """The point brought back onto the constraints by Newton's method, none where that fails; the calls."""
    for calls in range(1, 61):
        point = problem.at(x)
        rest = np.r_[point.c, dense(point.G).ravel() if not is_sparse(point.G) else point.G.sum()]
        if math.isnan(point.f) or not np.isfinite(rest).all():
            return None, calls
        if float(np.linalg.norm(point.c)) <= MET:
            return point, calls
        back = towards(point)
        if float(np.linalg.norm(back)) <= 1e-9 * (1.0 + float(np.linalg.norm(x))):
            return point, calls
        x = x + back
    return None, calls
