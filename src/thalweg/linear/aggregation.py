"""Smoothed aggregation over blocks of a grid, where a block's unknowns may fall into several parts.

Vanek, Mandel and Brezina (1996), "Algebraic multigrid by smoothed aggregation", for the transfers and coarse matrices;
the aggregates are the connected parts of geometric blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from thalweg.linear import _aggregation_kernels as kernels

Vector = NDArray[np.float64]
#: Row pointers, columns and entries.
Matrix = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]

#: Levels end at so few unknowns, or where no side of the grid of blocks is longer than `COARSEST_SIDE`.
FEW, COARSEST_SIDE = 100, 4
#: Jacobi's factor in smoothed transfers, 2/3 after Vanek, and the most of a row that goes to other aggregates.
SMOOTHING, OUTSIDE = 2.0 / 3.0, 0.49
#: An entry under this share of its diagonal is rounding and no coupling.
NEAR = 1e-6
#: Entries under this share of the row's strongest coupling do not smooth transfers: less fill, the same iterations.
WEAK = 0.2


@dataclass(frozen=True)
class GraphLevel:
    """A matrix in CSR by rows, ``middle`` its diagonal entries, and the transfers to the level below it."""

    indptr: NDArray[np.int32]
    middle: NDArray[np.int32]
    indices: NDArray[np.int32]
    data: Vector
    over: Vector  # one over the diagonal
    starts: NDArray[np.int32]
    columns: NDArray[np.int32]
    values: Vector
    b: Vector
    x: Vector


class AggregationCycle:
    """A V-cycle of smoothed aggregation for a graph with conductances to the air, as a part of `MultigridCycle`.

    A forward Gauss-Seidel sweep on the way down, a backward one on the way up; aggregates are neighbours in one block
    of two a side, no more than a whole block has (else a channel that winds through a block is one unknown, and
    iterations grow with its length); Galerkin matrices; factors at the end. Symmetric and positive definite. In
    float64, unlike the grids above it: rounding a Galerkin matrix to float32 changes more than the least eigenvalues
    of mazes.

    Args:
        A: the graph's matrix, shape (n, n).
        air: conductances to the air, (n,); a component without is held at its first node, which moves its answer by a
            constant.
        places: block of each node, shape (n, 3).
        dimensions: 2 or 3.
    """

    def __init__(self, A: sp.csr_array, air: Vector, places: NDArray[np.int32], dimensions: int) -> None:
        matrix = _parts(_held(A, air))
        self.levels: list[GraphLevel] = []
        while True:
            n = len(places)
            middle, diagonal, label = np.empty(n, np.int32), np.empty(n), np.empty(n, np.int32)
            kernels.divide(*matrix, middle, diagonal)
            if n <= FEW or places.max() < COARSEST_SIDE:
                break
            places = places // 2
            block = np.ravel_multi_index(tuple(places.T), tuple(places.max(axis=0) + 1))
            count = kernels.aggregate(*matrix, diagonal, block, 2**dimensions, NEAR, label)
            if not count:
                break
            transfers = kernels.smoothed(*matrix, label, count, SMOOTHING, OUTSIDE, WEAK)
            self.levels.append(_level(matrix, middle, diagonal, transfers))
            P = _csr(transfers, count)
            matrix = _parts(sp.csr_array(P.T @ (_csr(matrix, n) @ P)))
            below = np.empty((count, 3), np.int32)
            below[label[label >= 0]] = places[label >= 0]
            places = below
        self._factors = splu(
            _csr(matrix, n).tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}
        )
        self._right = [level.b for level in self.levels] + [np.zeros(n)]

    @property
    def b(self) -> Vector:
        """Where a right-hand side goes before `solve`."""
        return self._right[0]

    def solve(self) -> Vector:
        """The cycle's answer to ``b``; the next call overwrites it."""
        return self._cycle(0)

    def _cycle(self, depth: int) -> Vector:
        if depth == len(self.levels):
            return np.asarray(self._factors.solve(self._right[depth]))
        level = self.levels[depth]
        matrix = (level.indptr, level.middle, level.indices, level.data, level.over)
        transfers = (level.starts, level.columns, level.values)
        kernels.descend(*matrix, *transfers, level.b, level.x, self._right[depth + 1])
        kernels.ascend(*matrix, *transfers, level.b, level.x, self._cycle(depth + 1))
        return level.x


def _held(A: sp.csr_array, air: Vector) -> sp.csr_array:
    """A with the first node of each component without air held: singular no more."""
    count, component = connected_components(A, directed=False)
    closed = np.bincount(component, air, count) == 0
    first = np.unique(component, return_index=True)[1][closed]
    extra, diagonal = np.zeros(len(air)), A.diagonal()
    extra[first] = np.where(diagonal[first] > 0, diagonal[first], 1.0)
    return sp.csr_array(A + sp.diags_array(extra))


def _parts(A: sp.csr_array) -> Matrix:
    return A.indptr.astype(np.int32, copy=False), A.indices.astype(np.int32, copy=False), A.data


def _csr(matrix: Matrix, columns: int) -> sp.csr_array:
    indptr, indices, data = matrix
    return sp.csr_array((data, indices, indptr), shape=(len(indptr) - 1, columns))


def _level(
    matrix: Matrix, middle: NDArray[np.int32], diagonal: NDArray[np.float64], transfers: Matrix
) -> GraphLevel:
    indptr, indices, data = matrix
    starts, columns, values = transfers
    b, x = np.zeros((2, len(diagonal)))
    return GraphLevel(indptr, middle, indices, data, 1.0 / diagonal, starts, columns, values, b, x)
