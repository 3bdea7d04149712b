"""Products of cones as a conic program has them: projections and their derivatives, for many points at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.bilevel._cone_kernels import nearest
from thalweg.numerics.projections import psd_cone, second_order_cone

Numbers: TypeAlias = NDArray[np.float64]
V = TypeVar("V", Tensor, Numbers)


class Dims(Protocol):
    """How many rows of the conic form are in which cone, as cvxpy has it."""

    zero: int
    nonneg: int
    soc: list[int]
    psd: list[int]


@dataclass(frozen=True)
class Group:
    """Neighbouring cones alike: their first row, how many, rows in each, and the side of the matrix or 0."""

    start: int
    cones: int
    size: int
    side: int

    def of(self, v: V) -> V:
        """Their part of v, (..., cones, size), a view."""
        part = v[..., self.start : self.start + self.cones * self.size]
        return part.reshape(*part.shape[:-1], self.cones, self.size)


class Cones:
    """The dual cone: free rows, nonnegative ones, second-order cones, semidefinite ones, in this order."""

    def __init__(self, dims: Dims) -> None:
        self.zero, self.flat = int(dims.zero), int(dims.zero + dims.nonneg)
        kinds = [(int(k), 0) for k in dims.soc] + [(int(k) * (int(k) + 1) // 2, int(k)) for k in dims.psd]
        self.groups, at = [], self.flat
        for (size, side), run in itertools.groupby(kinds):
            count = len(list(run))
            self.groups.append(Group(at, count, size, side))
            at += count * size
        self.m = at  # all rows
        self.others = at > self.flat  # some cones are not flat
        self.semidefinite = [group for group in self.groups if group.side]
        #: Of the second-order cones, as the kernels take them.
        self.sizes = np.array([int(k) for k in dims.soc], dtype=np.int64)
        self.starts = self.flat + np.cumsum(self.sizes) - self.sizes
        sides = [group.start + group.size * i for group in self.semidefinite for i in range(group.cones)]
        #: The first row of each cone, a flat row being one of its own.
        self.firsts = np.concatenate([np.arange(self.flat), self.starts, sides]).astype(np.int64)

    def project(self, v: Tensor) -> Tensor:
        """The nearest points of the dual cone, shape (..., m), in operations that torch differentiates every way."""
        parts = [v[..., : self.zero], v[..., self.zero : self.flat].clamp_min(0.0)]
        for group in self.groups:
            block = group.of(v)
            # cvxpy has the bound first, numerics last
            one = second_order_cone(block.roll(-1, -1)).roll(1, -1)
            parts.append((_semidefinite(block, group.side) if group.side else one).flatten(-2))
        return torch.cat(parts, -1)

    def nearest(self, v: Numbers) -> Numbers:
        """`project` of plain numbers, shape (k, m)."""
        y = v.copy()
        for group in self.semidefinite:
            group.of(y)[...] = _semidefinite(torch.from_numpy(group.of(v)), group.side).numpy()
        nearest(v, self.zero, self.flat, self.starts, self.sizes, y)
        return y

    def slopes(self, v: Numbers) -> list[Numbers]:
        """The projection's derivative for each semidefinite group, shape (k, cones, size, size), at v, (k, m)."""
        return [
            _semidefinite_slope(torch.from_numpy(group.of(v)), group.side).numpy()
            for group in self.semidefinite
        ]


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
