"""Quadratics with a sparse Hessian: graphs, lattices, labels that spread over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from thalweg.convex._kernels import scatter_rows
from thalweg.convex.datafits import Index, Vector
from thalweg.convex.losses import Loss, MatrixLike
from thalweg.core import InvalidProblem
from thalweg.core.validation import check_vector, require
from thalweg.numerics import as_csr


@dataclass(frozen=True, eq=False)
class Quadratic(Loss):
    """``1/2 x'H x - c'x`` with H sparse, symmetric, positive semidefinite: graphs and lattices.

    Args:
        H: shape (n, n), positive diagonal.
        c: shape (n,).

    Raises:
        InvalidProblem: H asymmetric, or a diagonal entry not positive.
    """

    H: sp.csr_array
    c: Vector

    def __post_init__(self) -> None:
        H = as_csr(self.H, "H")
        n = H.shape[0]
        if H.shape != (n, n) or abs(H - H.T).max() > 1e-10 * abs(H).max():
            raise InvalidProblem(f"Quadratic: H, {H.shape[0]} x {H.shape[1]}, is not symmetric.")
        diagonal = H.diagonal()
        if not (diagonal > 0).all():
            row = int(np.argmin(diagonal))
            raise InvalidProblem(
                f"Quadratic: H's diagonal is {diagonal[row]:.3g} in row {row}; it must be positive."
            )
        vars(self).update(H=H, c=check_vector("c", self.c, n), n=n)

    @cached_property
    def lipschitz(self) -> Vector:
        return np.asarray(self.H.diagonal())

    @property
    def graph(self) -> sp.csr_array:
        return self.H

    def keep(self, x: Vector) -> Vector:
        return np.asarray(self.H @ x)

    def value(self, x: Vector, z: Vector) -> float:
        return 0.5 * float(x @ z) - float(self.c @ x)

    def gradient(self, x: Vector, z: Vector) -> Vector:
        return z - self.c

    def change(self, block: Index, d: Vector) -> Vector:
        found = np.zeros(self.n)
        scatter_rows(self.H.data, self.H.indices, self.H.indptr, block, d, found)
        return found

    def advance(self, x: Vector, z: Vector, g: Vector, block: Index, d: Vector) -> None:
        H = self.H
        scatter_rows(H.data, H.indices, H.indptr, block, d, z)
        scatter_rows(H.data, H.indices, H.indptr, block, d, g)
        x[block] += d

    def bound(self, block: Index) -> Vector:
        return np.asarray(self.H[block][:, block].toarray())

    def bound_columns(self, block: Index) -> Vector:
        return np.ascontiguousarray(self.H[block].toarray().T)

    def hessian(self, x: Vector, z: Vector, block: Index) -> Vector:
        return self.bound(block)


def label_propagation(weights: MatrixLike, labels: ArrayLike, known: ArrayLike) -> Quadratic:
    """``1/2 sum_ij w_ij (x_i - x_j)^2`` over a graph whose labelled nodes stay as they are; x holds the others.

    Zhu, Ghahramani and Lafferty (2003), "Semi-supervised learning using Gaussian fields and harmonic functions".

    Args:
        weights: symmetric, non-negative, shape (nodes, nodes).
        labels: a number for each node, shape (nodes,); read where known.
        known: boolean, shape (nodes,).

    Raises:
        InvalidProblem: a negative weight, no labelled or no unlabelled node, a node that no label reaches.

    >>> path = sp.diags_array([np.ones(2), np.ones(2)], offsets=[-1, 1], shape=(3, 3))
    >>> loss = label_propagation(path, [0.0, 0.0, 1.0], [True, False, True])
    >>> loss.H.toarray(), loss.c
    (array([[2.]]), array([1.]))
    """
    W = as_csr(weights, "weights")
    n = W.shape[0]
    held = np.asarray(known, bool)
    y = check_vector("labels", np.where(held, labels, 0.0), n)
    require(bool((W.data >= 0).all()), "label_propagation needs weights >= 0", error=InvalidProblem)
    require(
        bool(held.any()) and not held.all(),
        "label_propagation needs some labels, not all",
        error=InvalidProblem,
    )
    count, part = sp.csgraph.connected_components(W, directed=False)
    unreached = np.setdiff1d(np.arange(count), part[held])
    if unreached.size:
        node = int(np.flatnonzero(part == unreached[0])[0])
        raise InvalidProblem(
            f"{unreached.size} components of the graph hold no label (one has node {node}); nothing can reach them. "
            "Label a node in each, or connect more neighbours."
        )
    laplacian = sp.csr_array(sp.diags_array(np.asarray(W.sum(1)).ravel()) - W)
    return Quadratic(laplacian[~held][:, ~held], np.asarray(W[~held][:, held] @ y[held]))
