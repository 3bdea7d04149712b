"""Penalties of whole groups of coordinates: the group Lasso and the sparse group Lasso."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.convex import _group_kernels as kernels
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.penalties import shrunk
from thalweg.convex.problem import SWEEPS, Penalized, rounding_of
from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, check_vector

#: A block is solved until a sweep over its groups moves less than this share of the first.
SHARE = 0.1
#: Proximal gradient steps of a group before the others are told of its move.
STEPS = 10


@dataclass(frozen=True, eq=False)
class GroupPenalized(Penalized):
    """``min f(x) + sum_k group_weight_k |x_k|_2 + sum_i l1_i |x_i|``, x_k the coordinates of group k.

    Groups come and go as wholes: at solutions most are zero. With ``l1`` too it is the sparse group Lasso. Variable
    blocks are put together from groups, and fixed blocks may not cut one in two.

    Args:
        loss, l1, x0: as of `Penalized`; there is no box.
        groups: the group of each coordinate, any labels, shape (n,).
        group_weight: a number, or one for each group in the order of its sorted labels, >= 0. Default 1; the root of a
            group's size is the usual choice where sizes differ.

    Raises:
        InvalidProblem: labels of another shape, a negative weight, a box.

    Source: Yuan and Lin (2006); Simon et al. (2013) for the sparse group Lasso.

    >>> from thalweg import solve
    >>> from thalweg.convex.losses import LeastSquares
    >>> loss = LeastSquares(np.eye(4), np.array([3.0, 4.0, 0.5, 0.5]))
    >>> solve(GroupPenalized(loss, groups=[0, 0, 1, 1])).x.round(4)
    array([2.4, 3.2, 0. , 0. ])
    """

    groups: ArrayLike = ()
    group_weight: ArrayLike = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        n, labels = self.loss.n, np.asarray(self.groups)
        if labels.shape != (n,):
            raise InvalidProblem(
                f"GroupPenalized: groups has shape {labels.shape}; expected ({n},), a label for each coordinate."
            )
        if np.issubdtype(labels.dtype, np.inexact):
            check_finite("GroupPenalized: groups", labels)
        if np.isfinite(self.lower).any() or np.isfinite(self.upper).any():
            raise InvalidProblem("GroupPenalized has no box. Use Penalized for bounds.")
        count = len(np.unique(labels))
        weight = (
            np.broadcast_to(as_real("group_weight", self.group_weight), count)
            if np.ndim(self.group_weight) == 0
            else check_vector("group_weight", self.group_weight, count)
        )
        bad = weight[~((weight >= 0) & (weight < np.inf))]
        if bad.size:
            raise InvalidProblem(f"GroupPenalized needs a finite group_weight >= 0; got {bad[0]:g}.")
        object.__setattr__(self, "group_weight", np.array(weight))

    @cached_property
    def labels(self) -> Index:
        """The group of each coordinate, 0 .. units - 1, shape (n,)."""
        return np.asarray(np.unique(np.asarray(self.groups), return_inverse=True)[1], np.int64)

    @cached_property
    def group_sizes(self) -> Index:
        """Coordinates in each group, shape (units,)."""
        return np.bincount(self.labels)

    @cached_property
    def ordered(self) -> tuple[Index, Index]:
        """Coordinates of one group after another, shape (n,), and where each group begins, and n, (units + 1,)."""
        return np.argsort(self.labels, kind="stable"), np.append(0, np.cumsum(self.group_sizes))

    @cached_property
    def _members(self) -> list[Index]:
        coordinates, starts = self.ordered
        return np.split(coordinates, starts[1:-1])

    @cached_property
    def _weights(self) -> Vector:
        return np.asarray(self.group_weight)

    @cached_property
    def is_smooth(self) -> bool:
        return not self.weight.any() and not self._weights.any()

    @cached_property
    def lipschitz(self) -> Vector:
        """The largest eigenvalue of the bound of each coordinate's group."""
        tops = [float(np.linalg.eigvalsh(self.loss.bound(members))[-1]) for members in self._members]
        return np.array(tops)[self.labels]

    @property
    def units(self) -> int:
        return len(self.group_sizes)

    def unit_sums(self, values: Vector) -> Vector:
        return np.asarray(np.bincount(self.labels, values, self.units), np.float64)

    def members(self, units: Index) -> Index:
        return np.concatenate([self._members[k] for k in units])

    def count_units(self, block: Index) -> int:
        return len(np.unique(self.labels[block]))

    def require_whole(self, block: Index) -> None:
        inside = np.bincount(self.labels[block], minlength=self.units)
        cut = np.flatnonzero((inside > 0) & (inside < self.group_sizes))
        if cut.size:
            k = int(cut[0])
            raise InvalidProblem(
                f"A block holds {inside[k]} of the {self.group_sizes[k]} coordinates of group "
                f"{np.unique(np.asarray(self.groups))[k]!s}; blocks must hold whole groups."
            )

    def _norms(self, x: Vector, block: Index | slice = slice(None)) -> Vector:
        """The length of each coordinate's group, of x's shape."""
        of = self.labels[block]
        return np.asarray(np.sqrt(np.bincount(of, x * x, self.units))[of])

    def penalties(self, x: Vector, block: Index | slice = slice(None)) -> Vector:
        """A group's penalty is shared evenly among its coordinates."""
        of = self.labels[block]
        shared = self._weights[of] * self._norms(x, block) / self.group_sizes[of]
        return shared + super().penalties(x, block)

    def penalty_change(self, x: Vector, new: Vector, block: Index | slice = slice(None)) -> Vector:
        of, sums = self.labels[block], self._norms(x, block) + self._norms(new, block)
        squares = np.bincount(of, (new - x) * (new + x), self.units)[of]  # |new|^2 - |x|^2
        apart = squares / np.where(sums > 0, sums, 1.0) * self._weights[of] / self.group_sizes[of]
        return apart + super().penalty_change(x, new, block)

    def prox(self, u: Vector, step: Vector, block: Index | slice = slice(None)) -> Vector:
        """Shrink coordinates, then groups; steps are equal within a group."""
        return self._shorter(super().prox(u, step, block), self._weights[self.labels[block]] * step, block)

    def _shorter(self, x: Vector, by: Vector, block: Index | slice = slice(None)) -> Vector:
        """Each group's vector, its length less ``by``, but not below zero."""
        norms = self._norms(x, block)
        return x * np.maximum(1.0 - by / np.where(norms > 0, norms, 1.0), 0.0)

    def _with_groups(self, x: Vector, g: Vector) -> Vector:
        """The gradient, and that of the penalty of the groups that are not zero."""
        norms = self._norms(x)
        return g + self._weights[self.labels] * x / np.where(norms > 0, norms, 1.0)

    def block_minimum(self, H: Vector, g: Vector, x: Vector, block: Index) -> Vector:
        if self.is_smooth:
            return super().block_minimum(H, g, x, block)
        order = np.argsort(self.labels[block], kind="stable")
        within, starts = np.unique(self.labels[block][order], return_index=True)
        starts = np.append(starts, len(block))
        H = np.asfortranarray(H[np.ix_(order, order)])
        tops = self.lipschitz[block[order]][starts[:-1]]
        blocks, places = blocks_of(H, starts)
        old, g = x[order], g[order]
        new = old.copy()
        rounding = rounding_of(H, g, old)
        shape = new, starts, tops, self.weight[block][order], self._weights[within]
        kernels.hessian_sweeps(H, blocks, places, g, *shape, SHARE, rounding, SWEEPS, STEPS)
        d = np.empty(len(block))
        d[order] = new - old
        return d

    def slopes(self, x: Vector, g: Vector) -> Vector:
        found = super().slopes(x, self._with_groups(x, g))
        return np.where(self._norms(x) > 0, found, self._shorter(found, self._weights[self.labels]))

    def active(self, x: Vector) -> NDArray[np.bool_]:
        return super().active(x) | ((self._norms(x) == 0) & (self._weights[self.labels] > 0))

    def rooms(self, x: Vector, g: Vector) -> Vector:
        """A zero group's: how far zero is inside the ball, or the box and the ball together."""
        weight, norms = self._weights[self.labels], self._norms(x)
        alone = super().rooms(x, self._with_groups(x, g))
        beyond = self._norms(shrunk(g, self.weight))
        corner = np.full(self.units, np.inf)
        np.minimum.at(corner, self.labels, self.weight - np.abs(g))
        of_zero = weight + np.where(beyond > 0, -beyond, np.maximum(corner[self.labels], 0.0))
        return np.where((norms == 0) & (weight > 0), of_zero, alone)


def blocks_of(H: Vector, starts: Index) -> tuple[Vector, Index]:
    """The Hessian's blocks of groups, one after another, and where each begins."""
    ends = np.cumsum(np.square(np.diff(starts)))
    blocks, places = np.empty(ends[-1]), np.append(0, ends[:-1])
    kernels.hessian_blocks(H, starts, places, blocks)
    return blocks, places
