"""Quadratic models with penalties of groups: sweeps over groups, and Newton steps on those that are not zero.

As of `local_models`, two kinds differ in what a sweep costs: with the Hessian, and with columns of the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from scipy.linalg import blas, lapack

from thalweg.convex import _group_kernels as kernels
from thalweg.convex._path_kernels import add_columns, gram_product
from thalweg.convex.columns import Columns
from thalweg.convex.datafits import NOTHING, Index, Vector
from thalweg.convex.groups import STEPS, blocks_of
from thalweg.convex.local_models import block, cholesky_solved

#: Rounds, each of so many sweeps; one that leaves more than this of the violation is followed by a Newton step.
ROUNDS, SWEEPS, SLOW = 20, 5, 0.5
#: Most coordinates, or samples if they are fewer, of a Newton step.
MOST = 4000
#: Tries of a Newton step, each half as long as the one before.
TRIES = 4


@dataclass
class Support:
    """The coordinates that are not zero, by their groups, and how the norms bend there.

    Attributes:
        free: places of the coordinates, shape (f,); groups: those that they are in, shape (k,).
        starts: where each group begins among them, and f; of: the place in ``groups`` of each.
        unit: a group's coordinates over their length; bend: its weight over it.
    """

    free: Index
    groups: Index
    starts: Index
    of: Index
    unit: Vector
    lengths: Vector
    bend: Vector


class GroupModel(ABC):
    """A convex quadratic with gradient g at x, plus ``sum l1_i |x_i| + sum weight_k |x_k|``.

    Args:
        g, x: shape (m,); changed in place.
        starts: where each group begins, and m, shape (groups + 1,).
        l1, weight: of each coordinate, and of each group.
        blocks, places: of the Hessian, as the kernels take them.
    """

    def __init__(
        self, g: Vector, x: Vector, starts: Index, l1: Vector, weight: Vector, blocks: Vector, places: Index
    ) -> None:
        self.g, self.x, self.starts, self.l1, self.weight = g, x, starts, l1, weight
        self.blocks, self.places = blocks, places
        self.tops = kernels.group_tops(blocks, places, starts)
        self._group = np.repeat(np.arange(len(weight)), np.diff(starts))

    @abstractmethod
    def sweep(self, groups: Index) -> None:
        """Rounds over these groups; the others' violation is zero."""

    @abstractmethod
    def newton(self, at: Support, rhs: Vector) -> Vector | None:
        """Solve with the Hessian and the norms' bends on the support."""

    @abstractmethod
    def image(self, free: Index, step: Vector) -> tuple[Vector, float]:
        """What `move` needs to know of a step, and the square of its length in the Hessian's norm."""

    @abstractmethod
    def move(self, free: Index, step: Vector, image: Vector) -> None:
        """Take a step whose `image` is known."""

    def violations(self) -> Vector:
        """The largest entry of each group's least subgradient."""
        found: Vector = kernels.group_violations(self.g, self.x, self.starts, self.l1, self.weight)
        return found

    def minimise(self, share: float) -> None:
        """Bring the violation to a share of what it is, if it can be done."""
        violations = self.violations()
        before = float(violations.max(initial=0.0))
        target = share * before
        for _ in range(ROUNDS):
            self.sweep(np.flatnonzero((violations > 0.0) | (self._norms() > 0.0)))
            violations = self.violations()
            if violations.max(initial=0.0) > max(target, SLOW * before):
                self._step_on_support()
                violations = self.violations()
            before = float(violations.max(initial=0.0))
            if before <= target:
                return

    def _norms(self) -> Vector:
        return np.asarray(np.sqrt(np.bincount(self._group, self.x * self.x, len(self.weight))))

    def _support(self) -> Support:
        free, norms = np.flatnonzero(self.x), self._norms()
        groups, starts, of = np.unique(self._group[free], return_index=True, return_inverse=True)
        lengths = norms[groups]
        unit = self.x[free] / lengths[of]
        return Support(
            free, groups, np.append(starts, len(free)), of, unit, lengths, self.weight[groups] / lengths
        )

    def _step_on_support(self) -> None:
        """Newton's step on the coordinates that are not zero; groups that would turn round are set to zero, and
        coordinates with l1 that would change sign. It is shortened until the objective is no larger.
        """
        at = self._support()
        free, of, begins = at.free, at.of, at.starts[:-1]
        if not len(free):
            return
        old, g, l1, weight = self.x[free], self.g[free], self.l1[free], self.weight[at.groups]
        d = self.newton(at, -(g + l1 * np.sign(old) + weight[of] * at.unit))
        if d is None or not np.isfinite(d).all():
            return
        size = 1.0
        for _ in range(TRIES):
            new = old + size * d
            new[(new * old < 0.0) & (l1 > 0.0)] = 0.0
            turned = (np.add.reduceat(new * old, begins) <= 0.0) & (weight > 0.0)
            new[turned[of]] = 0.0
            step = new - old
            image, square = self.image(free, step)
            change = float(g @ step) + 0.5 * square + float(l1 @ (np.abs(new) - np.abs(old)))
            sums = np.sqrt(np.add.reduceat(new * new, begins)) + at.lengths
            change += float(weight @ (np.add.reduceat(step * (new + old), begins) / sums))
            if change <= 0.0:
                self.x[free] = new
                self.move(free, step, image)
                return
            size *= 0.5


class HessianModel(GroupModel):
    """With the Hessian: a sweep costs m^2.

    Args:
        H: symmetric, shape (m, m) or larger, columns contiguous.
        g, x, starts, l1, weight: as of `GroupModel`.
    """

    def __init__(self, H: Vector, g: Vector, x: Vector, starts: Index, l1: Vector, weight: Vector) -> None:
        super().__init__(g, x, starts, l1, weight, *blocks_of(H, starts))
        self.H = H

    def sweep(self, groups: Index) -> None:
        shape = self.x, self.starts, self.tops, self.l1, self.weight
        kernels.hessian_sweeps(self.H, self.blocks, self.places, self.g, *shape, 0.0, 0.0, SWEEPS, STEPS)

    def newton(self, at: Support, rhs: Vector) -> Vector | None:
        H = block(self.H, at.free)
        kernels.add_bends(H, at.starts, at.unit, at.bend)
        return cholesky_solved(H, rhs)

    def image(self, free: Index, step: Vector) -> tuple[Vector, float]:
        product = np.empty(len(self.x))
        gram_product(self.H, free, step, product)
        return product, float(step @ product[free])

    def move(self, free: Index, step: Vector, image: Vector) -> None:
        self.g += image


class ColumnModel(GroupModel):
    """``|r|^2/2 + ridge/2 |x|^2``, ``r = t - B x``: a sweep costs the entries of B twice.

    Args:
        X: the data, or a scaled copy of some of its columns.
        columns: which of them B has, shape (m,).
        residual: r, shape (rows,); changed in place.
        ridge: >= 0.
        x, starts, l1, weight, blocks, places: as of `GroupModel`.
    """

    def __init__(
        self,
        X: Columns,
        columns: Index,
        residual: Vector,
        ridge: float,
        x: Vector,
        starts: Index,
        l1: Vector,
        weight: Vector,
        blocks: Vector,
        places: Index,
    ) -> None:
        self.X, self.columns, self.residual, self.ridge = X, columns, residual, ridge
        super().__init__(self._gradient(x), x, starts, l1, weight, blocks, places)

    def _gradient(self, x: Vector) -> Vector:
        return self.ridge * x - self.X.correlations(self.residual, self.columns)

    def sweep(self, groups: Index) -> None:
        shape = self.columns, self.blocks, self.places, self.residual, self.x, self.starts
        penalties = self.l1, self.weight, self.ridge
        kernels.column_sweeps(*self.X.parts, *shape, groups, self.tops, *penalties, SWEEPS, STEPS)
        self.g = self._gradient(self.x)

    def newton(self, at: Support, rhs: Vector) -> Vector | None:
        if min(len(at.free), self.X.rows) > MOST:
            return None
        B = self.X.scaled(self.columns[at.free], NOTHING)
        if not B.is_sparse and B.rows < len(at.free) and (at.bend > 0.0).all():
            return self._by_samples(B.dense, at, rhs)
        H = np.asfortranarray(B.gram())
        H[np.diag_indices(len(H))] += self.ridge
        kernels.add_bends(H, at.starts, at.unit, at.bend)
        return cholesky_solved(H, rhs)

    def _by_samples(self, B: Vector, at: Support, rhs: Vector) -> Vector | None:
        """The same by a matrix of the samples: ``M - U c U'`` with ``M = B'B + E``, E diagonal, U the groups' units.

        ``K = I + B E^-1 B'`` gives M's inverse, and Woodbury's formula the whole one.
        """
        diagonal = at.bend[at.of] + self.ridge
        roots, begins = np.sqrt(diagonal), at.starts[:-1]
        scaled = B.T / roots[:, None]  # rows contiguous
        K = blas.dsyrk(1.0, scaled.T, lower=1)
        K[np.diag_indices(len(K))] += 1.0
        factor, failed = lapack.dpotrf(K, lower=1, overwrite_a=1, clean=0)
        if failed:
            return None

        def solved(v: Vector) -> Vector:
            v = v / roots
            inner = lapack.dpotrs(factor, scaled.T @ v, lower=1)[0]
            return np.asarray((v - scaled @ inner) / roots)

        V = np.add.reduceat(scaled * (at.unit / roots)[:, None], begins, axis=0)
        half = blas.dtrsm(1.0, factor, np.asfortranarray(V.T), lower=1)
        S = np.asfortranarray(half.T @ half)
        S[np.diag_indices(len(S))] += self.ridge / (at.bend * (at.bend + self.ridge))
        first = solved(rhs)
        along = cholesky_solved(S, np.add.reduceat(at.unit * first, begins))
        return None if along is None else first + solved(at.unit * along[at.of])

    def image(self, free: Index, step: Vector) -> tuple[Vector, float]:
        out = np.zeros(self.X.rows)
        add_columns(*self.X.parts, self.columns[free], step, out)
        return out, float(out @ out) + self.ridge * float(step @ step)

    def move(self, free: Index, step: Vector, image: Vector) -> None:
        self.residual -= image
        self.g = self._gradient(self.x)
