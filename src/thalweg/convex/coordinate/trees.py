"""Forests in the graph of a sparse matrix: finding them, and solving on them in linear time.

Nutini, Laradji and Schmidt (2022), section 4.3; Bickson (2009), "Gaussian belief propagation", for the elimination.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from thalweg.convex import _kernels as kernels
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.losses import MatrixLike
from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import require
from thalweg.numerics import FivePointStencil, as_csr


def solve_forest(H: MatrixLike, block: ArrayLike, g: ArrayLike) -> Vector:
    """``H_bb d = -g`` where the graph of H_bb is a forest: Gaussian belief propagation, leaves to roots and back.

    Args:
        H: sparse, symmetric, shape (n, n).
        block: b different coordinates.
        g: shape (b,).

    Raises:
        InvalidProblem: the block's graph has a cycle, or H_bb is not positive definite.

    Cost: O(entries of the block's rows) time, and n integers.

    >>> H = sp.diags_array([np.full(4, -1.0), np.full(5, 2.0), np.full(4, -1.0)], offsets=[-1, 0, 1])
    >>> solve_forest(H, np.arange(5), -np.array([1.0, 0, 0, 0, 1])).round(12)
    array([1., 1., 1., 1., 1.])
    """
    csr, nodes, right = as_csr(H, "H"), np.asarray(block, dtype=np.int64), np.asarray(g, dtype=np.float64)
    position = np.full(csr.shape[0], -1, dtype=np.int64)
    position[nodes] = np.arange(len(nodes))
    order, parent, is_forest = kernels.elimination_order(csr.indptr, csr.indices, nodes, position)
    if not is_forest:
        raise InvalidProblem(
            f"The graph of the block of {len(nodes)} coordinates has a cycle; message passing needs a forest. Take "
            "one from greedy_forest, or use BoundStep."
        )
    d, diagonal = np.empty(len(nodes)), np.empty(len(nodes))
    entries = csr.data, csr.indices, csr.indptr
    solved = kernels.solve_forest(*entries, nodes, position, order, parent, right, diagonal, d)
    if not solved:
        raise InvalidProblem("H is not positive definite on the block: a pivot is not positive.")
    return d


def greedy_forest(H: MatrixLike, order: ArrayLike, allowed: ArrayLike | None = None) -> Index:
    """Coordinates taken in ``order``, each unless it closes a cycle with those before; ascending.

    Args:
        H: sparse, symmetric.
        order: coordinates, the most wanted first.
        allowed: boolean, shape (n,); others are passed over.
    """
    csr = as_csr(H, "H")
    free = np.ones(csr.shape[0], bool) if allowed is None else np.asarray(allowed, bool)
    found: Index = kernels.grow_forest(csr.indptr, csr.indices, np.asarray(order, dtype=np.int64), free)
    return found


def random_forest(H: MatrixLike, seed: int = 0) -> Index:
    """A maximal forest grown in random order."""
    return greedy_forest(H, generator(seed).permutation(as_csr(H).shape[0]))


def tree_partition(H: MatrixLike, seed: int | None = None) -> tuple[Index, ...]:
    """Forests that together hold every coordinate once: grown one after another from what is left.

    Args:
        H: sparse, symmetric.
        seed: of a random order; None takes the coordinates in order.

    >>> H = sp.csr_array(np.ones((3, 3)))
    >>> [forest.tolist() for forest in tree_partition(H)]
    [[0, 1], [2]]
    """
    csr = as_csr(H, "H")
    n = csr.shape[0]
    order = np.arange(n) if seed is None else generator(seed).permutation(n)
    free, blocks = np.ones(n, bool), []
    while free.any():
        forest = greedy_forest(csr, order, free)
        free[forest] = False
        blocks.append(forest)
    return tuple(blocks)


def red_black(H: MatrixLike) -> tuple[Index, ...]:
    """Independent sets that together hold every coordinate: a greedy colouring, two colours on a lattice.

    >>> H = sp.diags_array([np.full(3, -1.0), np.full(4, 2.0), np.full(3, -1.0)], offsets=[-1, 0, 1])
    >>> [block.tolist() for block in red_black(H)]
    [[0, 2], [1, 3]]
    """
    csr = as_csr(H, "H")
    colours = np.full(csr.shape[0], -1)
    for v in range(csr.shape[0]):
        beside = csr.indices[csr.indptr[v] : csr.indptr[v + 1]]
        used = set(colours[beside[beside != v]].tolist())
        colours[v] = next(c for c in range(len(used) + 1) if c not in used)
    return tuple(np.flatnonzero(colours == c) for c in range(colours.max() + 1))


def lattice(rows: int, columns: int, shift: float = 0.0) -> sp.csr_array:
    """Laplacian of a grid graph with ``4 + shift`` on its diagonal, shape (rows columns,) squared."""
    require(rows >= 1 and columns >= 1, "lattice needs rows, columns >= 1", got=(rows, columns))
    return FivePointStencil(rows, columns, 4.0 + shift).to_csr()
