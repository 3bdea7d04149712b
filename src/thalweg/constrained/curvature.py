"""What Newton's method asks of H and G: norms, dependent constraints, curvature along the constraints."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.linalg as la
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from thalweg.constrained._arrays import DENSE, Matrix, Vector, dense
from thalweg.core.seeding import generator
from thalweg.numerics.lanczos import lanczos, spectrum_ends
from thalweg.numerics.operators import is_sparse


def spectral_norm(matrix: Matrix) -> float:
    """``|M|_2``: exact for dense matrices of up to 1000 rows, otherwise by Lanczos on M'M, from below and within
    percent.

    >>> round(spectral_norm(np.diag([3.0, -4.0])), 6)
    4.0
    """
    if not is_sparse(matrix) and max(matrix.shape) <= DENSE:
        return float(np.linalg.norm(dense(matrix), 2))
    product = _symmetric(matrix.shape[1], lambda v: matrix.T @ (matrix @ v))
    return math.sqrt(max(spectrum_ends(product)[1], 0.0))


def smallest_square(G: Matrix) -> float:
    """The square of G's smallest singular value, ``G`` of shape (m, n), m <= n.

    Exact for up to 1000 columns; otherwise 60 steps of Lanczos on GG', which come down to it from above and can miss
    the smallest of many.

    >>> round(smallest_square(np.array([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]])), 6)
    0.25
    """
    if max(G.shape) <= DENSE:
        return float(np.linalg.svd(dense(G), compute_uv=False)[-1]) ** 2
    product = _symmetric(G.shape[0], lambda v: G @ (G.T @ v))
    return max(spectrum_ends(product, 60)[0], 0.0)


def dependent_rows(G: Matrix, tolerance: float = 1e-4) -> list[int]:
    """Rows of G that a pivoted QR factorization leaves over as combinations of the others.

    >>> dependent_rows(np.array([[1.0, 1.0], [2.0, 2.0]]))
    [0]
    """
    R, pivots = la.qr(dense(G).T, mode="r", pivoting=True)
    size = np.abs(np.diag(R))
    return sorted(int(i) for i in pivots[: len(size)][size <= tolerance * max(float(size[0]), 1e-300)])


def reduced_curvature(H: Matrix, G: Matrix, enough: float = 1e-6) -> float:
    """The smallest eigenvalue of H on the null space of G, dependent rows counted once; infinity where that is empty.

    Exact for up to 1000 unknowns. For more, H's own smallest Ritz value answers where it exceeds ``enough``, for the
    reduced one is larger; otherwise Lanczos runs on the projected H, with one sparse factorization of ``[[I, G'],
    [G, 0]]``.

    >>> round(reduced_curvature(np.diag([-1.0, 2.0]), np.array([[1.0, 0.0]])), 6)
    2.0
    """
    m, n = G.shape
    if n <= DENSE:
        Q, R, _ = la.qr(dense(G).T, pivoting=True)
        sizes = np.abs(np.diag(R))
        Z = Q[:, int((sizes > 1e-10 * float(sizes.max(initial=0.0))).sum()) :]
        return float(la.eigvalsh(Z.T @ (H @ Z), subset_by_index=(0, 0))[0]) if Z.size else math.inf
    if m == n:
        return math.inf
    low = spectrum_ends(H)[0]
    if low > enough:
        return low
    factor = _projector(sp.csr_array(G))
    beyond = np.zeros(m)

    def project(v: Vector) -> Vector:
        out: Vector = factor.solve(np.r_[v, beyond])[:n]
        return out

    reduced = _symmetric(n, lambda v: project(H @ project(v)))
    start = project(np.asarray(generator(0, 0x41).standard_normal(n)))
    _, diagonal, beside = lanczos(reduced, min(60, n - m), start)
    return float(la.eigh_tridiagonal(diagonal, beside, eigvals_only=True)[0])


def _projector(G: sp.csr_array) -> spla.SuperLU:
    """The factors of ``[[I, G'], [G, -small I]]``; the corner keeps dependent rows from making it singular."""
    m, n = G.shape
    corner = -1e-12 * max(float(abs(G).max()) ** 2, 1e-300) * sp.eye_array(m)
    return spla.splu(sp.block_array([[sp.eye_array(n), G.T], [G, corner]], format="csc"))


def _symmetric(n: int, product: Callable[[Vector], Vector]) -> spla.LinearOperator:
    return spla.LinearOperator((n, n), matvec=product, dtype=np.float64)
