"""A conic program's solution to the last digits, and the linear system that its derivatives solve: one factorisation.

Busseti, Moursi and Boyd (2019), "Solution refinement at regular points of conic problems". With flat cones, Newton's
method is an active-set method: a step with the right rows is exact.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.bilevel._call import SolveInaccurate
from thalweg.bilevel._cone_kernels import TINY, jacobian, residuals, turned
from thalweg.bilevel._cones import Cones

#: Newton steps at most; residual, relative to what cancels in it, of a solution; multipliers and slacks that are zero.
STEPS, EXACT, EDGE = 12, 1e-12, 1e-12
#: Share of the largest pivot, or singular value, below which one is zero.
SINGULAR = 1e-12
#: A step that made a residual this much smaller may be followed by one with the same factorisation.
FAST = 1e-3
#: Refinements of the adjoint system, whose matrix is that of a point nearby, a residual whose square is none, and the
#: size up to which it is factored again instead; the residual of a singular one that has no solution.
REFINEMENTS, NEAR, SMALL, UNDEFINED = 3, 1e-6, 48, 1e-6

Numbers: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Program:
    """``min u'Pu/2 + c'u, A u + s = b, s in K`` for each of k: P (k, n, n), A (k, m, n), b (k, m), c (k, n).

    P and A are (1, n, n) and (1, m, n) where all share them.
    """

    P: Numbers
    A: Numbers
    b: Numbers
    c: Numbers

    def part(self, places: NDArray[np.intp]) -> Program:
        """Some of the batch."""
        return Program(*(t if len(t) == 1 else t[places] for t in vars(self).values()))


@dataclass
class Point:
    """A point, its residuals, and which of the flat rows count as active there."""

    u: Numbers
    v: Numbers
    y: Numbers  # the projection of v
    stationarity: Numbers  # (k, n), P u + A'y + c
    primal: Numbers  # (k, m), b - A u + v - y
    active: NDArray[np.bool_]  # (k, flat rows)
    gap: Numbers  # (k,), the residuals relative to what cancels in them

    def replaced(self, other: Point, where: NDArray[np.bool_]) -> Point:
        """The other point where a sample says so."""
        if where.all():
            return other
        if not where.any():
            return self
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Point(*(np.where(where.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in pairs))


def refined(program: Program, cones: Cones, u: Numbers, v: Numbers) -> tuple[Point, Jacobian]:
    """Newton steps on the optimality conditions from a solver's point, each factorisation for the whole batch.

    Gives the best point, and a Jacobian of it or, with other than flat cones, of one nearby.
    """
    judge = Judge(program, cones, u, v)
    best = point = judge.first
    newton, settled = Jacobian(program, cones, point), np.zeros(len(u), dtype=np.bool_)
    for _ in range(STEPS):
        du, dv = newton.step(point)
        moved = judge.later(point.u + du, point.v + dv, point)
        stands = (moved.active == point.active).all(-1)
        fast = bool((stands & (moved.gap <= np.maximum(FAST * point.gap, EXACT))).all())
        point = moved.replaced(point, settled)
        better = point.gap < best.gap
        best = best.replaced(point, better)
        settled = settled | (stands & (point.gap <= EXACT))
        if settled.all():
            return best, newton
        if not fast:
            if not (better | ~stands).any():
                break
            newton = Jacobian(program, cones, point)
    return best, Jacobian(program, cones, best)


class Judge:
    """What residuals and edges of a program are measured by, the sizes at the first point, and later points' own."""

    def __init__(self, program: Program, cones: Cones, u: Numbers, v: Numbers) -> None:
        self.program, self.cones = program, cones
        y = cones.nearest(v)
        stationarity, primal, images, cancels, left = residuals(*vars(program).values(), u, v, y)
        self.size = np.maximum(cancels, TINY)
        self.slack = EDGE * (np.abs(program.b) + np.abs(images))[:, : cones.flat]
        self.force = -EDGE * np.sqrt(np.square(y).sum(-1, keepdims=True))
        active = v[:, : cones.flat] > 0.0
        active[:, : cones.zero] = True
        self.first = Point(u, v, y, stationarity, primal, active, left / self.size)

    def later(self, u: Numbers, v: Numbers, before: Point) -> Point:
        """Active are rows with a multiplier, and those on the edge that were so before."""
        flat, y = v[:, : self.cones.flat], self.cones.nearest(v)
        active = (flat > self.slack) | (before.active & (flat > self.force))
        active[:, : self.cones.zero] = True
        stationarity, primal, _, _, left = residuals(*vars(self.program).values(), u, v, y)
        return Point(u, v, y, stationarity, primal, active, left / self.size)


class Jacobian:
    """Of ``P u + A'y + c, b - A u + v - y`` in u and v, factored.

    Flat rows that a sample does not hold active fall out of it: their part of a step follows from that in u.
    """

    def __init__(self, program: Program, cones: Cones, point: Point) -> None:
        self.program, self.cones, self.n = program, cones, program.c.shape[-1]
        rows = np.flatnonzero(point.active.any(0))
        self.kept = np.concatenate([rows, np.arange(cones.flat, cones.m)])
        #: Which of the kept rows a sample has; None where each has all.
        self.has = None
        if len(point.active) > 1:
            self.has = np.ones((len(point.active), len(self.kept)), dtype=np.bool_)
            self.has[:, : len(rows)] = point.active[:, rows]
        shift = self.n + len(rows) - cones.flat
        P, A = program.P, program.A
        J = jacobian(P, A, point.v, point.active, self.kept, cones.starts, cones.sizes, shift)
        for group, D in zip(cones.semidefinite, cones.slopes(point.v), strict=True):
            for cone in range(group.cones):
                at = slice(group.start + cone * group.size, group.start + (cone + 1) * group.size)
                place = slice(at.start + shift, at.stop + shift)
                J[:, place, : self.n] = D[:, cone] @ A[:, at]
                J[:, place, place] = np.eye(group.size) - D[:, cone]
        transposed = torch.from_numpy(J)
        self.LU, self.pivots, _ = torch.linalg.lu_factor_ex(transposed.mT)
        sizes = np.abs(self.LU.diagonal(dim1=1, dim2=2).numpy())
        regular = sizes.min(1) > SINGULAR * sizes.max(1)
        self.singular: NDArray[np.intp] | None = None
        if not regular.all():  # constraints that repeat one another, solutions that are not unique
            self.singular = np.flatnonzero(~regular)
            self.inverse = self._inverse(transposed[torch.from_numpy(self.singular)].mT)

    def _inverse(self, J: torch.Tensor) -> Numbers:
        """The pseudoinverse; with its lower rows' sign turned, J is symmetric where cones are flat."""
        if self.cones.others:
            return torch.linalg.pinv(J, rtol=SINGULAR).numpy()
        sign = torch.ones(J.shape[-1], dtype=J.dtype)
        sign[self.n :] = -1.0
        return (torch.linalg.pinv(sign[:, None] * J, rtol=SINGULAR, hermitian=True) * sign).numpy()

    def step(self, point: Point) -> tuple[Numbers, Numbers]:
        """Newton's step from this point."""
        whole = self._solved(-np.concatenate([point.stationarity, point.primal[:, self.kept]], 1))
        du = whole[:, : self.n]
        dv = _product(self.program.A, du) - point.primal  # of the rows that fell out
        self._put(whole[:, self.n :], dv)
        return du, dv

    def adjoint_at(self, point: Point, g: Numbers) -> tuple[Numbers, Numbers]:
        """w of ``J'w = (g, 0)``, in two parts, with the Jacobian of a point near this one's.

        Warns where it is singular and no w is a solution: the derivative is not defined.
        """
        if self.cones.others and self.LU.shape[-1] <= SMALL:  # a factorisation is cheaper than a refinement
            return Jacobian(self.program, self.cones, point)._checked_adjoint(point, g)
        if not self.cones.others or self.singular is not None:
            return self._checked_adjoint(point, g)
        w_u, w_v = self._adjoint(g, np.zeros_like(point.v))
        slopes, size = self.cones.slopes(point.v), float(np.linalg.norm(g))
        for _ in range(REFINEMENTS):
            r_u, r_v = self._pulled(point, slopes, w_u, w_v)
            r_u, r_v = g - r_u, -r_v
            d_u, d_v = self._adjoint(r_u, r_v)
            w_u, w_v = w_u + d_u, w_v + d_v
            if float(np.hypot(np.linalg.norm(r_u), np.linalg.norm(r_v))) <= NEAR * size:
                return w_u, w_v  # the next residual is its square
        return Jacobian(self.program, self.cones, point)._checked_adjoint(point, g)

    def _checked_adjoint(self, point: Point, g: Numbers) -> tuple[Numbers, Numbers]:
        w_u, w_v = self._adjoint(g, np.zeros_like(point.v))
        if self.singular is not None:
            r_u, r_v = self._pulled(point, self.cones.slopes(point.v), w_u, w_v)
            gap = float(np.hypot(np.linalg.norm(g - r_u), np.linalg.norm(r_v)))
            if not gap <= UNDEFINED * float(np.linalg.norm(g)):
                warnings.warn(
                    "cvxpy_layer: the solution is not unique, or not smooth in the parameters, and its derivative is "
                    "not defined; one of many is given. A small quadratic term in the objective makes it unique.",
                    SolveInaccurate,
                    stacklevel=2,
                )
        return w_u, w_v

    def _adjoint(self, g_u: Numbers, g_v: Numbers) -> tuple[Numbers, Numbers]:
        w = self._solved(np.concatenate([g_u, g_v[:, self.kept]], 1), transposed=True)
        w_v = np.zeros_like(g_v)
        self._put(w[:, self.n :], w_v)
        return w[:, : self.n], w_v

    def _put(self, kept: Numbers, v: Numbers) -> None:
        v[:, self.kept] = kept if self.has is None else np.where(self.has, kept, v[:, self.kept])

    def _pulled(
        self, point: Point, slopes: list[Numbers], w_u: Numbers, w_v: Numbers
    ) -> tuple[Numbers, Numbers]:
        """``J'w`` at a point."""
        images = _product(self.program.A, w_u) - w_v
        turned(point.v, point.active, self.cones.starts, self.cones.sizes, images)
        for group, D in zip(self.cones.semidefinite, slopes, strict=True):
            group.of(images)[...] = (D @ group.of(images)[..., None])[..., 0]
        return _product(self.program.P, w_u) - _product(self.program.A.swapaxes(1, 2), w_v), images + w_v

    def _solved(self, right: Numbers, transposed: bool = False) -> Numbers:
        given = torch.from_numpy(right)[..., None]
        found: Numbers = torch.linalg.lu_solve(self.LU, self.pivots, given, adjoint=transposed)[
            ..., 0
        ].numpy()
        if self.singular is not None:
            inverse = self.inverse.swapaxes(1, 2) if transposed else self.inverse
            found[self.singular] = _product(inverse, right[self.singular])
        return found


def _product(matrices: Numbers, vectors: Numbers) -> Numbers:
    if len(matrices) == 1:  # all of the batch share it
        return vectors @ matrices[0].T
    found: Numbers = (matrices @ vectors[..., None])[..., 0]
    return found
