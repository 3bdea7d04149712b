"""Quadratic models with l1 and l2 penalty on few columns: sweeps, and Newton steps on the coefficients not zero.

Squares are one such model, and every step of proximal Newton's method is another one, its rows multiplied by the roots
of the loss's curvatures. Two kinds differ in what a sweep costs: with a Gram matrix, and with the columns themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import numpy as np
from scipy.linalg import lapack

from thalweg.convex import _path_kernels as kernels
from thalweg.convex.columns import Columns
from thalweg.convex.datafits import NOTHING, Index, Vector

#: Sets of columns swept before the model is left as it is, and Newton steps on each.
SETS, STEPS = 25, 4
#: Part of the diagonal that is added where a Gram matrix is singular.
SHIFT = 1e-10
#: Of conjugate gradients: the fall of the residual's weighted square that ends them, and most iterations.
FALL, ITERATIONS = 1e-2, 30


class LocalModel(ABC):
    """``|t - B v|^2/2 + l1 |v|_1 + l2/2 |v|^2``: v, and what moves with it.

    Attributes:
        v: coefficients, shape (m,).
        g: ``B'(t - B v)``, shape (m,).
        squares: ``|t - B v|^2``.
        sweeps: rounds over columns, of sweeps or conjugate gradients.
    """

    #: Sweeps before a Newton step.
    SWEEPS: ClassVar[int]

    v: Vector
    g: Vector
    squares: float
    sweeps: int = 0

    @abstractmethod
    def restricted(self, places: Index) -> Self:
        """The model of some of its columns, the others' coefficients held."""

    @abstractmethod
    def join(self, part: Self, places: Index) -> None:
        """Take over what `restricted` has become."""

    @abstractmethod
    def sweep(self, l1: float, l2: float) -> None:
        """Rounds of coordinate steps."""

    @abstractmethod
    def newton(self, support: Index, rhs: Vector, l2: float, enough: float) -> Vector | None:
        """Nearly ``(B_S'B_S + l2)^-1 rhs`` for the support S, to ``enough`` in the residual."""

    @abstractmethod
    def image(self, support: Index, d: Vector) -> tuple[Vector, float]:
        """What `move` needs to know of a step on the support, and ``|B_S d|^2``."""

    @abstractmethod
    def move(self, support: Index, d: Vector, image: Vector, square: float) -> None:
        """Take a step whose `image` is known."""

    def gap(self, l1: float, l2: float) -> float:
        """Duality gap: that of the residual scaled into the dual's set. No large numbers cancel in it."""
        v, c = self.v, self.g - l2 * self.v
        largest = float(np.abs(c).max(initial=0.0))
        s = min(1.0, l1 / largest) if largest > 0 else 1.0
        ridge = self.squares + l2 * float(v @ v)
        return 0.5 * (1.0 - s) ** 2 * ridge + float((l1 * np.abs(v) - s * (v * c)).sum())

    def minimise(self, l1: float, l2: float, target: float) -> None:
        """Bring the gap to the target: sweeps and Newton steps on the columns that matter, until all do not."""
        before = np.inf
        for _ in range(SETS):
            gap = self.gap(l1, l2)
            if gap <= target or gap > 0.99 * before:
                break
            before = gap
            places = np.flatnonzero((self.v != 0.0) | (np.abs(self.g) > l1))
            part = self.restricted(places)
            part._descend(l1, l2, 0.7 * target)
            self.join(part, places)
            self.sweeps += part.sweeps

    def _descend(self, l1: float, l2: float, target: float) -> None:
        for _ in range(STEPS):
            self.sweep(l1, l2)
            if self.gap(l1, l2) <= target:
                return
            self._step_on_support(l1, l2, target)
            if self.gap(l1, l2) <= target:
                return

    def _step_on_support(self, l1: float, l2: float, target: float) -> None:
        """Newton's step on the coefficients that are not zero, those that would change sign set to zero.

        It is shortened until the objective is no larger; at last to where the first of them is zero.
        """
        support = np.flatnonzero(self.v)
        if not len(support):
            return
        old = self.v[support]
        signs, g = np.sign(old), self.g[support]
        rhs = g - l2 * old - l1 * signs
        d = self.newton(support, rhs, l2, 0.3 * target / float(np.abs(old).sum()))
        if d is None or not np.isfinite(d).all():
            return
        crossing = (old + d) * signs < 0.0
        sizes = [1.0]
        if crossing.any():
            first = np.divide(-old, d, out=np.full(len(d), np.inf), where=crossing)
            nearest = int(np.argmin(first))
            sizes = [1.0, 0.5, 0.25, float(first[nearest])]
        for size in sizes:
            new = old + size * d
            new[new * signs < 0.0] = 0.0
            if size < 0.25 or size == sizes[-1] < 1.0:
                new[nearest] = 0.0
            step = new - old
            image, square = self.image(support, step)
            change = 0.5 * square - float(g @ step) + l1 * float(np.abs(new).sum() - np.abs(old).sum())
            change += 0.5 * l2 * float(step @ (new + old))
            if change <= 0.0:
                self.move(support, step, image, square)
                return


class GramModel(LocalModel):
    """With ``G = B'B``: a sweep costs m^2, and Newton's step a Cholesky factorisation of the support's block.

    Args:
        G: shape (m, m) or larger, columns contiguous.
        v, g, squares: as of `LocalModel`.
    """

    SWEEPS = 12

    def __init__(self, G: Vector, v: Vector, g: Vector, squares: float) -> None:
        self.G, self.v, self.g, self.squares = G, v, g, squares

    def restricted(self, places: Index) -> GramModel:
        return GramModel(block(self.G, places), self.v[places], self.g[places], self.squares)

    def join(self, part: GramModel, places: Index) -> None:
        change, product = part.v - self.v[places], np.empty_like(self.g)
        kernels.gram_product(self.G, places, change, product)
        self.g -= product
        self.g[places] = part.g
        self.v[places], self.squares = part.v, part.squares

    def sweep(self, l1: float, l2: float) -> None:
        v, g = self.v.copy(), self.g.copy()
        kernels.gram_sweeps(self.G, self.v, self.g, l1, l2, self.SWEEPS)
        self.squares = max(self.squares - float((self.v - v) @ (self.g + g)), 0.0)
        self.sweeps += self.SWEEPS

    def newton(self, support: Index, rhs: Vector, l2: float, enough: float) -> Vector | None:
        H = block(self.G, support)
        H[np.diag_indices(len(H))] += l2
        return cholesky_solved(H, rhs)

    def image(self, support: Index, d: Vector) -> tuple[Vector, float]:
        product = np.empty_like(self.g)
        kernels.gram_product(self.G, support, d, product)
        return product, float(product[support] @ d)

    def move(self, support: Index, d: Vector, image: Vector, square: float) -> None:
        self.squares = max(self.squares - 2.0 * float(self.g[support] @ d) + square, 0.0)
        self.v[support] += d
        self.g -= image


class ColumnModel(LocalModel):
    """With the columns themselves: a sweep costs their entries; Newton's step by conjugate gradients.

    Args:
        X: the data, or a scaled copy of some of its columns.
        columns: which of them, shape (m,).
        v, g: as of `LocalModel`.
        residual: ``t - B v``, shape (rows,); changed in place.
        unit: unit vector, shape (rows,), along which the columns are taken to have no part: that of the intercept.
            Empty for none.
        shape: the columns' parts along it, and the squared lengths of what is left of them, where they are known.
    """

    SWEEPS = 5

    def __init__(
        self,
        X: Columns,
        columns: Index,
        v: Vector,
        g: Vector,
        residual: Vector,
        unit: Vector = NOTHING,
        shape: tuple[Vector, Vector] | None = None,
    ) -> None:
        self.X, self.columns, self.v, self.g, self.residual, self.unit = X, columns, v, g, residual, unit
        self.squares = float(residual @ residual)
        if shape is None:
            shape = np.empty(len(columns)), np.empty(len(columns))
            kernels.curvatures(*X.parts, columns, X.rows, unit, *shape)
        self.sums, self.curvature = shape

    def _look(self) -> None:
        if len(self.unit):
            self.residual -= float(self.unit @ self.residual) * self.unit
        self.g = self.X.correlations(self.residual, self.columns)
        self.squares = float(self.residual @ self.residual)

    @property
    def is_spread(self) -> bool:
        """Whether no column is so far from its mean that a difference of Gram matrices would lose its digits."""
        means = np.square(self.sums)
        return bool((self.curvature >= kernels.SPREAD * (self.curvature + means)).all())

    def with_gram(self) -> GramModel:
        """The same model by its Gram matrix; X has to hold the model's columns alone."""
        G = np.asfortranarray(self.X.gram() - np.outer(self.sums, self.sums))
        return GramModel(G, self.v, self.g, self.squares)

    def restricted(self, places: Index) -> ColumnModel:
        part = object.__new__(ColumnModel)
        part.X, part.residual, part.unit, part.squares = self.X, self.residual, self.unit, self.squares
        part.columns, part.v, part.g = self.columns[places], self.v[places], self.g[places]
        part.sums, part.curvature = self.sums[places], self.curvature[places]
        return part

    def join(self, part: ColumnModel, places: Index) -> None:
        self.v[places], self.g[places], self.squares = part.v, part.g, part.squares
        others = np.ones(len(self.v), np.bool_)
        others[places] = False
        self.g[others] = self.X.correlations(self.residual, self.columns[others])

    def sweep(self, l1: float, l2: float) -> None:
        shape = (self.columns, self.curvature, self.sums, self.unit)
        kernels.column_sweeps(*self.X.parts, *shape, self.v, self.residual, l1, l2, self.SWEEPS)
        self.sweeps += self.SWEEPS
        self._look()

    def newton(self, support: Index, rhs: Vector, l2: float, enough: float) -> Vector | None:
        shape = (self.columns[support], self.curvature[support], self.sums[support], self.unit)
        d, done = kernels.conjugate_gradients(
            *self.X.parts, *shape, rhs, l2, self.X.rows, enough, FALL, ITERATIONS
        )
        self.sweeps += done
        return np.asarray(d)

    def image(self, support: Index, d: Vector) -> tuple[Vector, float]:
        out = np.empty(self.X.rows)
        kernels.image(*self.X.parts, self.columns[support], self.sums[support], self.unit, d, out)
        return out, float(out @ out)

    def move(self, support: Index, d: Vector, image: Vector, square: float) -> None:
        self.v[support] += d
        self.residual -= image
        self._look()


def block(G: Vector, places: Index) -> Vector:
    """``G[places][:, places]``, a copy, columns contiguous."""
    if len(places) == len(G):
        return np.array(G, order="F")
    out = np.empty((len(places), len(places)), order="F")
    kernels.submatrix(G, places, out)
    return out


def cholesky_solved(H: Vector, rhs: Vector) -> Vector | None:
    """``H^-1 rhs``, its diagonal a little larger where H is singular; None where it is indefinite."""
    factor, failed = lapack.dpotrf(H, lower=1, clean=0)
    if failed:  # columns that depend on others
        shifted = H.copy(order="F")
        shifted[np.diag_indices(len(H))] *= 1.0 + SHIFT
        factor, failed = lapack.dpotrf(shifted, lower=1, overwrite_a=1, clean=0)
    if failed:
        return None
    d: Vector = lapack.dpotrs(factor, rhs, lower=1)[0]
    return d
