"""Products of cones as a conic program has them: projections and their derivatives, for many points at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from thalweg.numerics.projections import psd_cone, second_order_cone

#: The smallest norm of float64 that may be divided by.
TINY = 1e-300


class Dims(Protocol):
    """How many rows of the conic form are in which cone, as cvxpy has it."""

    zero: int
    nonneg: int
    soc: list[int]
    psd: list[int]


@dataclass(frozen=True)
class Group:
    """Neighbouring cones alike: their rows, how many, rows in each, and the side of the matrix or 0."""

    rows: slice
    cones: int
    size: int
    side: int

    def of(self, v: Tensor) -> Tensor:
        """Their part of v, (..., cones, size), a view."""
        return v[..., self.rows].unflatten(-1, (self.cones, self.size))


class Cones:
    """The dual cone: free rows, nonnegative ones, second-order cones, semidefinite ones, in this order."""

    def __init__(self, dims: Dims) -> None:
        self.zero, self.flat = int(dims.zero), int(dims.zero + dims.nonneg)
        kinds = [(int(k), 0) for k in dims.soc] + [(int(k) * (int(k) + 1) // 2, int(k)) for k in dims.psd]
        self.groups, at = [], self.flat
        for (size, side), run in itertools.groupby(kinds):
            count = len(list(run))
            self.groups.append(Group(slice(at, at + count * size), count, size, side))
            at += count * size
        self.m, self.others = (
            at,
            torch.arange(self.flat, at),
        )  # all rows, and those of cones that are not flat

    def project(self, v: Tensor) -> Tensor:
        """The nearest points of the dual cone, shape (..., m), in operations that torch differentiates every way."""
        parts = [v[..., : self.zero], v[..., self.zero : self.flat].clamp_min(0.0)]
        for group in self.groups:
            block = group.of(v)
            # cvxpy has the bound first, numerics last
            one = second_order_cone(block.roll(-1, -1)).roll(1, -1)
            parts.append((_semidefinite(block, group.side) if group.side else one).flatten(-2))
        return torch.cat(parts, -1)

    def nearest(self, v: Tensor) -> Tensor:
        """`project` of plain numbers, in fewer operations."""
        y = v.clone()
        y[..., self.zero : self.flat].clamp_min_(0.0)
        for group in self.groups:
            block, into = group.of(v), group.of(y)
            if group.side:
                into.copy_(_semidefinite(block, group.side))
                continue
            t, r = block[..., :1], torch.linalg.vector_norm(block[..., 1:], dim=-1, keepdim=True)
            edge = (t + r).mul_(0.5).clamp_min_(0.0)
            into[..., 1:] *= (edge / r.clamp_min_(TINY)).clamp_max_(1.0)
            into[..., :1] = torch.maximum(t, edge)
        return y

    def slopes(self, v: Tensor) -> list[Tensor]:
        """The projection's derivative for each group, shape (batch, cones, size, size), at v, shape (batch, m)."""
        return [
            _semidefinite_slope(group.of(v), group.side) if group.side else _second_order_slope(group.of(v))
            for group in self.groups
        ]


def _second_order_slope(v: Tensor) -> Tensor:
    """Where the projection is on the cone's edge, ``((|z| + t) / 2) (1, z / |z|)``, by its two variables."""
    size, t, z = v.shape[-1], v[..., :1], v[..., 1:]
    r = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    safe = r.clamp_min(TINY)
    w, share = 0.5 * z / safe, 0.5 * t / safe
    slope = v.new_empty(*v.shape, size)
    slope[..., 0, 0], slope[..., 0, 1:], slope[..., 1:, 0] = 0.5, w, w
    torch.mul(w[..., :, None], (-4.0 * share * w)[..., None, :], out=slope[..., 1:, 1:])
    slope[..., 1:, 1:].diagonal(dim1=-2, dim2=-1).add_(0.5 + share)
    inside, outside = r <= t, r <= -t
    if bool((inside | outside).any()):  # rather than on the edge
        whole = torch.eye(size, dtype=v.dtype)
        slope = torch.where(inside[..., None], whole, torch.where(outside[..., None], 0.0, slope))
    return slope


def _semidefinite(v: Tensor, side: int) -> Tensor:
    """Clarabel's vector of an upper triangle by columns, off the diagonal times the root of 2."""
    columns, rows = torch.tril_indices(side, side)  # (column, row): an upper triangle by columns
    scale = v.new_tensor([0.5**0.5, 1.0])[(rows == columns).long()]
    place = torch.empty(side, side, dtype=torch.int64)
    place[rows, columns] = place[columns, rows] = torch.arange(len(rows))
    X = psd_cone((v * scale)[..., place])
    return X[..., rows, columns] / scale


def _semidefinite_slope(v: Tensor, side: int) -> Tensor:
    one = torch.func.jacrev(lambda block: _semidefinite(block, side))
    return torch.func.vmap(torch.func.vmap(one))(v)
