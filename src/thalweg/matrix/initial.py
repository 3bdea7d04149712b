"""Where alternating minimisation begins: the leading singular vectors of what was seen, spread over the rows."""

from __future__ import annotations

from typing import Literal

import numpy as np

from thalweg.core.seeding import generator
from thalweg.matrix import _entry_kernels as kernels
from thalweg.matrix._blocks import over_rows
from thalweg.matrix.observations import Entries, Reals, Side

Clip = Literal["rows", "entries", "none"]
#: Power steps, and vectors beside those wanted: the singular vectors are needed to a hundredth.
POWERS, EXTRA = 3, 8


def times(side: Side, D: Reals) -> Reals:
    """The sparse matrix of a side's values times D."""
    out = np.empty((side.rows, D.shape[1]), D.dtype)
    over_rows(
        side.starts,
        lambda a, b: kernels.sparse_times(side.starts, side.others, side.values, D, a, out[a:b]),
    )
    return out


def leading_vectors(entries: Entries, rank: int, seed: tuple[int, ...]) -> tuple[Reals, Reals]:
    """The ``rank`` leading left singular vectors, shape (m, rank), and values of ``P(M)/p``, p the share seen.

    Randomized subspace iteration (Halko, Martinsson and Tropp, 2011, algorithm 4.4). Cost: ``4 POWERS + 4`` flops an
    entry and vector.
    """
    m, n = entries.shape
    width = min(rank + EXTRA, m, n)
    Q = generator(*seed).standard_normal((n, width)).astype(entries.values.dtype)
    for _ in range(POWERS):
        Q, _ = np.linalg.qr(times(entries.by_row, Q))
        Q, _ = np.linalg.qr(times(entries.by_column, Q))
    U, s, _ = np.linalg.svd(times(entries.by_row, Q), full_matrices=False)
    share = len(entries) / (float(m) * n)
    return np.ascontiguousarray(U[:, :rank]), s[:rank] / s.dtype.type(share)


def clipped(U: Reals, clip: Clip, mu: float | None) -> Reals:
    """U with rows of norm ``2 mu sqrt(k/m)`` at most, or without the entries above that; orthonormal again.

    Without mu it is the 95th percentile of the rows' own incoherence.
    """
    m, k = U.shape
    if clip == "none":
        return U
    norms = np.sqrt((U.astype(np.float64) ** 2).sum(1))
    bound = 2.0 * (float(np.percentile(norms, 95)) if mu is None else mu * np.sqrt(k / m))
    if clip == "rows":
        shrink = np.where(norms > bound, bound / np.maximum(norms, 1e-300), 1.0)
        V = U * shrink[:, None].astype(U.dtype)
    else:
        V = np.where(np.abs(U) > bound, 0, U).astype(U.dtype)
    if not V.any():
        return U
    Q, R = np.linalg.qr(V)
    return np.ascontiguousarray(Q * np.where(np.diag(R) < 0, -1, 1).astype(U.dtype))
