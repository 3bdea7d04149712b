"""Working sets of columns, and the quadratic models on them."""

from __future__ import annotations

import numpy as np

from thalweg.convex._path_kernels import CONSTANT
from thalweg.convex.columns import Columns, Correlations
from thalweg.convex.datafits import NOTHING, Index, PointwiseDatafit, Vector
from thalweg.convex.local_models import ColumnModel, GramModel, LocalModel, block

#: Columns that enter a set at least, of dense and of sparse data, and as shares of the coefficients that are not zero.
FIRST, GROWTH = (100, 200), (0.3, 2.0)
#: Sparse columns cost little to have in a set: this share of all may enter.
WIDE = 0.1
#: With columns left out the penalty is this share of the largest correlation among them, at least the true one.
AHEAD = 0.6
#: A column stays in the set while its correlation is this share of the penalty; others leave once the set is this
#: much larger than it needs to be.
NEAR, PRUNE = 0.95, 1.2
#: Columns up to which a Gram matrix is kept from round to round; is made anew for a Newton step; of sparse columns.
KEPT, MADE, SMALL = 5000, 1000, 500


class WorkingSet:
    """Columns that may matter, and the model of the loss on them.

    Args:
        X, datafit, has_intercept: as of `LinearModel`.
    """

    def __init__(self, X: Columns, datafit: PointwiseDatafit, has_intercept: bool) -> None:
        self.X, self.datafit, self.has_intercept = X, datafit, has_intercept
        self.columns: Index = np.empty(0, np.int64)
        self._gram: Gram | None = None
        self._sums, self._root_sum = NOTHING, 1.0

    def grow(self, alive: Index, c: Vector, lengths: Vector, w: Vector, l1: float) -> float:
        """Take in the columns that violate optimality most; the penalty that the set is good for.

        Args:
            alive: columns that are not screened; c: sizes of correlations, shape (n,).
        """
        kind, nonzeros = int(self.X.is_sparse), int(np.count_nonzero(w))
        inside = np.zeros(self.X.n, np.bool_)
        inside[self.columns] = True
        useful = alive[(c[alive] > l1 * (1.0 - 1e-9)) & (lengths[alive] > 0.0)]
        missing = np.flatnonzero((w != 0.0) & ~inside)
        inside[missing] = True
        new = useful[~inside[useful]]
        most = int(max(FIRST[kind], GROWTH[kind] * nonzeros, kind * WIDE * self.X.n))
        stronger = l1
        if len(new) > most:
            order = np.argpartition(-c[new], most)
            stronger = max(l1, AHEAD * float(c[new[order[most]]]))
            new = np.sort(new[order[:most]])
        if len(self.columns) > PRUNE * nonzeros + FIRST[kind]:
            near = (w[self.columns] != 0.0) | (c[self.columns] > NEAR * stronger)
            self.columns = self.columns[near]
        self.columns = np.concatenate([self.columns, missing, new])
        return stronger

    def model(
        self, z: Vector, slope: Vector, w: Vector, known: Correlations, l1: float, is_slow: bool
    ) -> tuple[LocalModel, Index]:
        """The loss's quadratic model at predictions z, and the columns that it is a model of."""
        datafit, columns = self.datafit, self.columns
        h = datafit.weights
        if not datafit.is_quadratic:
            h = np.maximum(datafit.curvature(z), 1e-12 * datafit.heaviest)
            c = known.exact(columns)
            columns = columns[(w[columns] != 0.0) | (np.abs(c) > NEAR * l1)]
        roots = np.sqrt(h)
        unit = NOTHING
        if self.has_intercept:
            unit = roots / np.linalg.norm(roots) if len(h) else np.full(self.X.rows, self.X.rows**-0.5)
        v, residual = w[columns], -slope / roots if len(roots) else -slope
        self._root_sum = float(np.linalg.norm(roots)) if len(roots) else self.X.rows**0.5
        if not self.X.is_sparse and len(columns) <= (KEPT if datafit.is_quadratic else MADE):
            if self._gram is None or not datafit.is_quadratic:
                self._gram = Gram(self.X, roots, unit)
            self._gram.take(columns)
            self._sums = self._gram.sums[: len(columns)]
            return self._gram.model(v, -known.exact(columns), residual), columns
        if is_slow and self.X.is_sparse:
            small = (v != 0.0) | (np.abs(known.exact(columns)) > NEAR * l1)
            if np.count_nonzero(small) <= SMALL:
                columns, v = columns[small], v[small]
        X, places = self.X, columns
        shape: tuple[Vector, Vector] | None = None
        if len(roots) or (is_slow and len(columns) <= SMALL):
            X, places = self.X.scaled(columns, roots), np.arange(len(columns))
        else:
            sums = known.sums[columns] / self._root_sum if self.has_intercept else np.zeros(len(columns))
            shape = sums, np.square(known.lengths[columns])
        model = ColumnModel(X, places, v, -known.exact(columns), residual, unit, shape)
        self._sums = model.sums
        if is_slow and X is not self.X and len(columns) <= SMALL and model.is_spread:
            return model.with_gram(), columns
        return model, columns

    def intercept_of(self, d: Vector) -> float:
        """How the intercept moves with the coefficients of the last model."""
        return -float(self._sums @ d) / self._root_sum if self.has_intercept else 0.0


class Gram:
    """Dense columns, their rows multiplied by ``roots``, less their parts along ``unit``, and their Gram matrix.

    Both grow by the columns that are new, a block product of matrices each time.

    Args:
        X: the data.
        roots, unit: shape (rows,), or empty for ones and for none.
        ridge: added to the diagonal. Default 0.
    """

    def __init__(self, X: Columns, roots: Vector, unit: Vector, ridge: float = 0.0) -> None:
        self.X, self.roots, self.unit, self.ridge = X, roots, unit, ridge
        self.columns: Index = np.empty(0, np.int64)
        self.B: Vector = np.empty((X.rows, 0), order="F")
        self.G: Vector = np.empty((0, 0), order="F")
        self.sums: Vector = NOTHING

    def take(self, columns: Index) -> None:
        """Hold these columns; those held already come first, in their order."""
        kept = np.flatnonzero(np.isin(self.columns, columns))
        m, size = len(kept), len(columns)
        B, G, sums = self.B, self.G, self.sums
        if size > len(G):
            room = size if m == 0 else max(size, len(G) * 3 // 2)
            self.B, self.G = np.empty((self.X.rows, room), order="F"), np.empty((room, room), order="F")
            self.sums = np.zeros(room)
        if B is not self.B or m < len(self.columns):
            self.B[:, :m], self.sums[:m] = B[:, kept], sums[kept]
            self.G[:m, :m] = block(G, kept)
        new = self._made(columns[m:], m)
        self.B[:, m:size] = new
        product = self.B[:, :size].T @ self.B[:, m:size]
        product[np.arange(m, size), np.arange(size - m)] += self.ridge
        self.G[:size, m:size] = product
        self.G[m:size, :m] = product[:m].T
        self.columns = columns

    def restore(self, columns: Index, G: Vector) -> None:
        """Hold these columns, whose matrix is known."""
        self.sums = np.zeros(len(columns))
        self.B, self.G, self.columns = self._made(columns, 0), np.asfortranarray(G), columns

    def _made(self, columns: Index, first: int) -> Vector:
        B = self.X.scaled(columns, self.roots).dense
        if len(self.unit):
            sizes, sums = np.einsum("ij,ij->j", B, B), self.unit @ B
            B -= np.outer(self.unit, sums)
            B[:, np.einsum("ij,ij->j", B, B) <= CONSTANT * sizes] = 0.0
            self.sums[first : first + len(columns)] = sums
        return B

    def model(self, v: Vector, g: Vector, residual: Vector) -> GramModel:
        """The model of which these are coefficients, correlations and residual."""
        return GramModel(self.G, v, g, float(residual @ residual))
