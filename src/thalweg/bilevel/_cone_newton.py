"""A conic program's solution to the last digits, and the linear system that its derivatives solve: one factorisation.

Busseti, Moursi and Boyd (2019), "Solution refinement at regular points of conic problems". With flat cones, Newton's
method is an active-set method: a step with the right rows is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.bilevel._cones import Cones
from thalweg.bilevel._conic_form import Program

#: Newton steps at most; residual, relative to what cancels in it, of a solution; multipliers and slacks that are zero.
STEPS, EXACT, EDGE = 10, 1e-13, 1e-12
#: Share of the largest pivot, or singular value, below which one is zero.
SINGULAR = 1e-12


@dataclass(frozen=True)
class Refined:
    """``u``, (k, n), and ``y``, the projection of ``v``, (k, m), with how far off, and the adjoint system's solution.

    ``gap`` is the residual of the optimality conditions relative to what cancels in it, (k,); ``adjoint(g)`` solves
    ``J'w = (g, 0)``, J their Jacobian, and gives w's two parts.
    """

    u: Tensor
    v: Tensor
    y: Tensor
    gap: Tensor
    adjoint: Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass
class Point:
    """A point, its residuals, and which of the flat rows count as active there."""

    u: Tensor
    v: Tensor
    stationarity: Tensor  # (k, n), P u + A'y + c
    primal: Tensor  # (k, m), b - A u + v - y
    active: Tensor  # (k, flat rows), bool
    gap: Tensor  # (k,)

    def replaced(self, other: Point, where: Tensor) -> Point:
        """The other point where a sample says so."""
        if bool(where.all()):
            return other
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Point(*(torch.where(where.reshape(-1, *[1] * (a.ndim - 1)), b, a) for a, b in pairs))


def refined(program: Program, cones: Cones, u: Tensor, v: Tensor) -> Refined:
    """Newton steps on the optimality conditions from a solver's point, each factorisation for the whole batch."""
    best = point = _judged(program, cones, u, v, None)
    settled = torch.zeros(len(u), dtype=torch.bool)
    for _ in range(STEPS):
        jacobian = Jacobian(program, cones, point)
        if bool(settled.all()):
            break
        du, dv = jacobian.step(point)
        moved = _judged(program, cones, point.u + du, point.v + dv, point.active)
        stands = (moved.active == point.active).all(-1)
        point = moved.replaced(point, settled)
        better = point.gap < best.gap
        best = best.replaced(point, better)
        settled = settled | (stands & (point.gap <= EXACT))
        if bool(settled.all()) and not cones.curved:
            break  # the factorisation is that of the solution
        if not bool((better | ~stands).any()):
            break
    if not bool(settled.all()):
        jacobian = Jacobian(program, cones, best)
    return Refined(best.u, best.v, cones.project(best.v), best.gap, jacobian.adjoint)


class Jacobian:
    """Of ``P u + A'y + c, b - A u + v - y`` in u and v, factored; rows that no sample holds active fall out of it."""

    def __init__(self, program: Program, cones: Cones, point: Point) -> None:
        self.program, self.n = program, program.c.shape[-1]
        n, flat = self.n, cones.flat
        rows = torch.nonzero(point.active.any(0))[:, 0]
        self.kept = torch.cat([rows, torch.arange(flat, cones.m)])
        held, shift = program.A[:, self.kept], n + len(rows) - flat
        on = point.active[:, rows].to(held)
        size = n + len(self.kept)
        J = held.new_zeros(len(held), size, size)
        J[:, :n, :n], J[:, n:, :n] = program.P, -held
        J[:, :n, n : n + len(rows)] = (held[:, : len(rows)] * on[..., None]).mT
        J.diagonal(dim1=1, dim2=2)[:, n : n + len(rows)] = 1.0 - on
        for (_, places), D in zip(cones.groups, cones.slopes(point.v), strict=True):
            at = places + shift  # in J
            block = program.A[:, places].mT @ D  # (k, cones, n, size)
            J[:, :n, at.reshape(-1)] = block.transpose(1, 2).reshape(len(J), n, -1)
            J[:, at[:, :, None], at[:, None, :]] = torch.eye(places.shape[1], dtype=J.dtype) - D
        self.LU, self.pivots, _ = torch.linalg.lu_factor_ex(J)
        diagonal = self.LU.diagonal(dim1=1, dim2=2).abs()
        smallest, largest = diagonal.amin(1), diagonal.amax(1)
        self.singular = torch.nonzero(~(smallest > SINGULAR * largest))[:, 0]
        if len(self.singular):  # constraints that repeat one another, solutions that are not unique
            self.inverse = torch.linalg.pinv(J[self.singular], rtol=SINGULAR)

    def step(self, point: Point) -> tuple[Tensor, Tensor]:
        """Newton's step from this point."""
        whole = self._solved(-torch.cat([point.stationarity, point.primal[:, self.kept]], 1))
        du = whole[:, : self.n]
        dv = _product(self.program.A, du) - point.primal  # rows that fell out
        dv[:, self.kept] = whole[:, self.n :]
        return du, dv

    def adjoint(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """w of ``J'w = (g, 0)``, in two parts."""
        w = self._solved(torch.cat([g, g.new_zeros(len(g), len(self.kept))], 1), transposed=True)
        w_v = g.new_zeros(*self.program.b.shape)
        w_v[:, self.kept] = w[:, self.n :]
        return w[:, : self.n], w_v

    def _solved(self, right: Tensor, transposed: bool = False) -> Tensor:
        found = torch.linalg.lu_solve(self.LU, self.pivots, right[..., None], adjoint=transposed)[..., 0]
        if len(self.singular):
            inverse = self.inverse.mT if transposed else self.inverse
            found[self.singular] = _product(inverse, right[self.singular])
        return found


def _product(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None])[..., 0]


def _judged(program: Program, cones: Cones, u: Tensor, v: Tensor, before: Tensor | None) -> Point:
    """The point's residuals; active are rows with a multiplier, and those on the edge that were so before."""
    y = cones.project(v)
    curvature, forces, images = _product(program.P, u), _product(program.A.mT, y), _product(program.A, u)
    stationarity, primal = curvature + forces + program.c, program.b - images + v - y
    active = v[:, : cones.flat] > 0.0
    if before is not None:
        slack = EDGE * (program.b.abs() + images.abs())[:, : cones.flat]
        force = EDGE * y.abs().amax(-1, keepdim=True) if cones.m else 0.0
        active = (v[:, : cones.flat] > slack) | (before & (v[:, : cones.flat] > -force))
    active[:, : cones.zero] = True
    sizes = [
        torch.linalg.vector_norm(t, dim=-1) for t in (curvature, forces, program.c, program.b, images, v)
    ]
    gap = torch.linalg.vector_norm(torch.cat([stationarity, primal], -1), dim=-1)
    return Point(u, v, stationarity, primal, active, torch.where(gap > 0.0, gap / sum(sizes), 0.0))
