"""Products of cones as a conic program has them: projections and their derivatives, for many points at once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from thalweg.numerics.projections import psd_cone, second_order_cone


class Dims(Protocol):
    """How many rows of the conic form are in which cone, as cvxpy has it."""

    zero: int
    nonneg: int
    soc: list[int]
    psd: list[int]


class Cones:
    """The dual cone: free rows, nonnegative ones, second-order cones, semidefinite ones, in this order."""

    def __init__(self, dims: Dims) -> None:
        self.zero, self.flat = int(dims.zero), int(dims.zero + dims.nonneg)
        sizes = [(int(k), 0) for k in dims.soc] + [(int(k) * (int(k) + 1) // 2, int(k)) for k in dims.psd]
        starts: dict[tuple[int, int], list[int]] = {}
        at = self.flat
        for size, side in sizes:
            starts.setdefault((size, side), []).append(at)
            at += size
        #: Side of the matrix (0 for second-order cones) and rows, (cones, size), of cones alike.
        self.groups = [
            (side, torch.tensor(first)[:, None] + torch.arange(size))
            for (size, side), first in starts.items()
        ]
        order = torch.cat([torch.arange(self.flat), *(rows.reshape(-1) for _, rows in self.groups)])
        self.places = torch.argsort(order)  # of the rows, one group after the other
        self.m, self.other = at, torch.arange(self.flat, at)  # all rows, and those of cones that are not flat

    @property
    def curved(self) -> bool:
        """Whether a cone has a derivative that changes from point to point."""
        return bool(self.groups)

    def project(self, v: Tensor) -> Tensor:
        """The nearest points of the dual cone, shape (..., m)."""
        parts = [v[..., : self.zero], v[..., self.zero : self.flat].clamp_min(0.0)]
        for side, rows in self.groups:
            block = v[..., rows]
            # cvxpy has the bound first, numerics last
            near = _semidefinite(block, side) if side else second_order_cone(block.roll(-1, -1)).roll(1, -1)
            parts.append(near.reshape(*v.shape[:-1], rows.numel()))
        joined = torch.cat(parts, -1)
        return joined[..., self.places] if self.groups else joined

    def slopes(self, v: Tensor) -> list[Tensor]:
        """The projection's derivative for each group, shape (batch, cones, size, size), at v, shape (batch, m)."""
        return [
            _semidefinite_slope(v[:, rows], side) if side else _second_order_slope(v[:, rows])
            for side, rows in self.groups
        ]


def _second_order_slope(v: Tensor) -> Tensor:
    """Where the projection is on the cone's edge, ``((|z| + t) / 2) (1, z / |z|)``, by its two variables."""
    t, z = v[..., :1], v[..., 1:]
    r = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    size = torch.where(r > 0.0, r, 1.0)
    w, share = z / size, (t / size)[..., None]
    eye = torch.eye(v.shape[-1], dtype=v.dtype)
    edge = v.new_empty(*v.shape, v.shape[-1])
    edge[..., 0, 0], edge[..., 0, 1:], edge[..., 1:, 0] = 0.5, 0.5 * w, 0.5 * w
    edge[..., 1:, 1:] = 0.5 * ((1.0 + share) * eye[1:, 1:] - share * w[..., :, None] * w[..., None, :])
    inside, outside = (r <= t)[..., None], (r <= -t)[..., None]
    return torch.where(inside, eye, torch.where(outside, 0.0, edge))


def _semidefinite(v: Tensor, side: int) -> Tensor:
    """Clarabel's vector of an upper triangle by columns, off the diagonal times the root of 2."""
    columns, rows = torch.tril_indices(side, side)  # (column, row): an upper triangle by columns
    scale = torch.where(rows == columns, 1.0, 0.5**0.5).to(v)
    place = torch.empty(side, side, dtype=torch.int64)
    place[rows, columns] = place[columns, rows] = torch.arange(len(rows))
    X = psd_cone((v * scale)[..., place])
    return X[..., rows, columns] / scale


def _semidefinite_slope(v: Tensor, side: int) -> Tensor:
    one = torch.func.jacrev(lambda block: _semidefinite(block, side))
    return torch.func.vmap(torch.func.vmap(one))(v)
