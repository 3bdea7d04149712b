"""A conic program's solution to the last digits, and the linear system that its derivatives solve: one factorisation.

Busseti, Moursi and Boyd (2019), "Solution refinement at regular points of conic problems". With flat cones, Newton's
method is an active-set method: a step with the right rows is exact.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.bilevel._call import SolveInaccurate
from thalweg.bilevel._cones import TINY, Cones

#: Newton steps at most; residual, relative to what cancels in it, of a solution; multipliers and slacks that are zero.
STEPS, EXACT, EDGE = 12, 1e-12, 1e-12
#: Share of the largest pivot, or singular value, below which one is zero.
SINGULAR = 1e-12
#: A step that made a residual this much smaller may be followed by one with the same factorisation.
FAST = 1e-3
#: Refinements of the adjoint system, whose matrix is that of a point nearby, a residual whose square is none, and the
#: size up to which it is factored again instead; the residual of a singular one that has no solution.
REFINEMENTS, NEAR, SMALL, UNDEFINED = 3, 1e-6, 128, 1e-6


@dataclass(frozen=True)
class Program:
    """``min u'Pu/2 + c'u, A u + s = b, s in K`` for each of k: P (k, n, n), A (k, m, n), b (k, m), c (k, n).

    P and A are (1, n, n) and (1, m, n) where all share them.
    """

    P: Tensor
    A: Tensor
    b: Tensor
    c: Tensor

    def part(self, places: Tensor) -> Program:
        """Some of the batch."""
        return Program(*(t if t.shape[0] == 1 else t[places] for t in vars(self).values()))


@dataclass
class Point:
    """A point, its residuals, and which of the flat rows count as active there."""

    u: Tensor
    v: Tensor
    y: Tensor  # the projection of v
    stationarity: Tensor  # (k, n), P u + A'y + c
    primal: Tensor  # (k, m), b - A u + v - y
    active: Tensor  # (k, flat rows), bool
    gap: Tensor  # (k,), the residuals relative to what cancels in them

    def replaced(self, other: Point, where: Tensor) -> Point:
        """The other point where a sample says so."""
        some = where.tolist()
        if all(some):
            return other
        if not any(some):
            return self
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Point(*(torch.where(where.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in pairs))


def refined(program: Program, cones: Cones, u: Tensor, v: Tensor) -> tuple[Point, Jacobian]:
    """Newton steps on the optimality conditions from a solver's point, each factorisation for the whole batch.

    Gives the best point, and a Jacobian of it or, with other than flat cones, of one nearby.
    """
    judge = Judge(program, cones, u, v)
    best = point = judge.first
    jacobian, settled = Jacobian(program, cones, point), torch.zeros(u.shape[0], dtype=torch.bool)
    for _ in range(STEPS):
        du, dv = jacobian.step(point)
        moved = judge.later(point.u + du, point.v + dv, point)
        stands = (moved.active == point.active).all(-1)
        fast = bool((stands & (moved.gap <= torch.clamp(FAST * point.gap, min=EXACT))).all())
        point = moved.replaced(point, settled)
        better = point.gap < best.gap
        best = best.replaced(point, better)
        settled = settled | (stands & (point.gap <= EXACT))
        if bool(settled.all()):
            return best, jacobian
        if not fast:
            if not bool((better | ~stands).any()):
                break
            jacobian = Jacobian(program, cones, point)
    return best, Jacobian(program, cones, best)


class Judge:
    """What residuals and edges of a program are measured by, the sizes at the first point, and later points' own."""

    def __init__(self, program: Program, cones: Cones, u: Tensor, v: Tensor) -> None:
        self.program, self.cones = program, cones
        y, curvature, forces, images = self._parts(u, v)
        cancels = torch.cat([curvature, forces, program.c, program.b, images, v], -1)
        self.size = torch.linalg.vector_norm(cancels, dim=-1).clamp_min(TINY)
        self.slack = EDGE * (program.b.abs() + images.abs())[:, : cones.flat]
        self.force = -EDGE * torch.linalg.vector_norm(y, dim=-1, keepdim=True)
        self.first = self._point(u, v, v[:, : cones.flat] > 0.0, y, curvature, forces, images)

    def later(self, u: Tensor, v: Tensor, before: Point) -> Point:
        """Active are rows with a multiplier, and those on the edge that were so before."""
        flat = v[:, : self.cones.flat]
        active = (flat > self.slack) | (before.active & (flat > self.force))
        return self._point(u, v, active, *self._parts(u, v))

    def _parts(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        y = self.cones.nearest(v)
        return y, _product(self.program.P, u), _product(self.program.A.mT, y), _product(self.program.A, u)

    def _point(
        self,
        u: Tensor,
        v: Tensor,
        active: Tensor,
        y: Tensor,
        curvature: Tensor,
        forces: Tensor,
        images: Tensor,
    ) -> Point:
        stationarity, primal = curvature + forces + self.program.c, self.program.b - images + v - y
        active[:, : self.cones.zero] = True
        gap = torch.linalg.vector_norm(torch.cat([stationarity, primal], -1), dim=-1) / self.size
        return Point(u, v, y, stationarity, primal, active, gap)


class Jacobian:
    """Of ``P u + A'y + c, b - A u + v - y`` in u and v, factored; rows that no sample holds active fall out of it."""

    def __init__(self, program: Program, cones: Cones, point: Point) -> None:
        self.program, self.cones, self.n = program, cones, program.c.shape[-1]
        n, flat = self.n, cones.flat
        rows = (
            point.active.any(0).nonzero()[:, 0]
            if point.active.shape[0] > 1
            else point.active[0].nonzero()[:, 0]
        )
        k, held_flat = point.u.shape[0], rows.shape[0]
        self.kept = torch.cat([rows, cones.others]) if cones.groups else rows
        held, size = program.A[:, self.kept], n + held_flat + cones.m - flat
        J = held.new_zeros(k, size, size)
        J[:, :n, :n], J[:, n:, :n] = program.P, -held
        if k == 1:
            J[:, :n, n : n + held_flat] = held[:, :held_flat].mT
        else:
            on = point.active[:, rows].to(held)
            J[:, :n, n : n + held_flat] = (held[:, :held_flat] * on[..., None]).mT
            J.diagonal(dim1=1, dim2=2)[:, n : n + held_flat] = 1.0 - on
        for group, D in zip(cones.groups, cones.slopes(point.v), strict=True):
            shift = n + held_flat - flat  # in J
            at = slice(group.rows.start + shift, group.rows.stop + shift)
            forces = group.of(program.A.mT).transpose(1, 2) @ D  # (k, cones, n, size)
            J[:, :n, at] = forces.transpose(1, 2).flatten(2)
            blocks = (
                J[:, at, at].unflatten(1, (group.cones, group.size)).unflatten(3, (group.cones, group.size))
            )
            blocks.diagonal(dim1=1, dim2=3).copy_(-D.permute(0, 2, 3, 1))
            J.diagonal(dim1=1, dim2=2)[:, at] += 1.0
        self.LU, self.pivots, _ = torch.linalg.lu_factor_ex(J)
        diagonal = self.LU.diagonal(dim1=1, dim2=2).abs()
        regular = diagonal.amin(1) > SINGULAR * diagonal.amax(1)
        self.singular: Tensor | None = None
        if not bool(regular.all()):  # constraints that repeat one another, solutions that are not unique
            self.singular = (~regular).nonzero()[:, 0]
            self.inverse = torch.linalg.pinv(J[self.singular], rtol=SINGULAR)

    def step(self, point: Point) -> tuple[Tensor, Tensor]:
        """Newton's step from this point."""
        whole = self._solved(-torch.cat([point.stationarity, point.primal[:, self.kept]], 1))
        du = whole[:, : self.n]
        dv = _product(self.program.A, du) - point.primal  # of the rows that fell out
        dv[:, self.kept] = whole[:, self.n :]
        return du, dv

    def adjoint_at(self, point: Point, g: Tensor) -> tuple[Tensor, Tensor]:
        """w of ``J'w = (g, 0)``, in two parts, with the Jacobian of a point near this one's.

        Warns where it is singular and no w is a solution: the derivative is not defined.
        """
        if self.cones.groups and self.LU.shape[-1] <= SMALL:  # a factorisation is cheaper than a refinement
            return Jacobian(self.program, self.cones, point)._checked_adjoint(point, g)
        if not self.cones.groups or self.singular is not None:
            return self._checked_adjoint(point, g)
        w_u, w_v = self._adjoint(g, torch.zeros_like(point.v))
        slopes, size = self.cones.slopes(point.v), float(torch.linalg.vector_norm(g))
        for _ in range(REFINEMENTS):
            r_u, r_v = self._pulled(point, slopes, w_u, w_v)
            r_u, r_v = g - r_u, -r_v
            d_u, d_v = self._adjoint(r_u, r_v)
            w_u, w_v = w_u + d_u, w_v + d_v
            if float(torch.linalg.vector_norm(torch.cat([r_u, r_v], 1))) <= NEAR * size:
                return w_u, w_v  # the next residual is its square
        return Jacobian(self.program, self.cones, point)._checked_adjoint(point, g)

    def _checked_adjoint(self, point: Point, g: Tensor) -> tuple[Tensor, Tensor]:
        w_u, w_v = self._adjoint(g, torch.zeros_like(point.v))
        if self.singular is not None:
            r_u, r_v = self._pulled(point, self.cones.slopes(point.v), w_u, w_v)
            gap = float(torch.linalg.vector_norm(torch.cat([g - r_u, r_v], 1)))
            if not gap <= UNDEFINED * float(torch.linalg.vector_norm(g)):
                warnings.warn(
                    "cvxpy_layer: the solution is not unique, or not smooth in the parameters, and its derivative is "
                    "not defined; one of many is given. A small quadratic term in the objective makes it unique.",
                    SolveInaccurate,
                    stacklevel=2,
                )
        return w_u, w_v

    def _adjoint(self, g_u: Tensor, g_v: Tensor) -> tuple[Tensor, Tensor]:
        w = self._solved(torch.cat([g_u, g_v[:, self.kept]], 1), transposed=True)
        w_v = torch.zeros_like(g_v)
        w_v[:, self.kept] = w[:, self.n :]
        return w[:, : self.n], w_v

    def _pulled(self, point: Point, slopes: list[Tensor], w_u: Tensor, w_v: Tensor) -> tuple[Tensor, Tensor]:
        """``J'w`` at a point."""
        images = _product(self.program.A, w_u) - w_v
        turned = torch.empty_like(images)
        turned[:, : self.cones.flat] = images[:, : self.cones.flat] * point.active
        for group, D in zip(self.cones.groups, slopes, strict=True):
            group.of(turned).copy_((D @ group.of(images)[..., None])[..., 0])
        return _product(self.program.P, w_u) - _product(self.program.A.mT, w_v), turned + w_v

    def _solved(self, right: Tensor, transposed: bool = False) -> Tensor:
        found = torch.linalg.lu_solve(self.LU, self.pivots, right[..., None], adjoint=transposed)[..., 0]
        if self.singular is not None:
            inverse = self.inverse.mT if transposed else self.inverse
            found[self.singular] = _product(inverse, right[self.singular])
        return found


def _product(matrices: Tensor, vectors: Tensor) -> Tensor:
    if matrices.shape[0] == 1 and matrices.ndim == 3:  # all of the batch share it
        return vectors @ matrices[0].mT
    return (matrices @ vectors[..., None])[..., 0]
