"""SoftImpute as its authors' own package runs it: alternating ridge regressions on sparse plus low-rank matrices.

Mazumder, Hastie and Tibshirani (2010), "Spectral regularization algorithms for learning large incomplete matrices";
Hastie, Mazumder, Lee and Zadeh (2015), "Matrix completion and low-rank SVD via fast alternating least squares",
algorithm 3.1, which R's softImpute takes by default. The filled matrix is never formed, and the loops over entries are
the same compiled ones that ours uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from thalweg.matrix import Completion
from thalweg.matrix._entry_kernels import row_products, sparse_times
from thalweg.matrix.observations import Reals, Side


@dataclass
class Soft:
    """``U diag(d)^2 V'`` after so many iterations, in all, of a path of penalties."""

    U: Reals
    d: Reals
    V: Reals
    iterations: int

    def predict(self, rows: Reals, columns: Reals) -> Reals:
        """Entries at places."""
        return np.einsum("ek,ek->e", (self.U * self.d**2)[rows], self.V[columns])


def largest_penalty(problem: Completion) -> float:
    """The penalty from which on everything is zero: the spectral norm of what is seen."""
    v = np.random.default_rng(0).standard_normal((problem.n, 1)).astype(problem.number)
    for _ in range(20):
        u = _times(problem.train.by_row, problem.train.by_row.values, v)
        v = _times(problem.train.by_column, problem.train.by_column.values, u / np.linalg.norm(u))
        size = float(np.linalg.norm(v))
        v /= size
    return size


def soft_impute(problem: Completion, rank: int, penalties: list[float], tol: float = 1e-5) -> Iterator[Soft]:
    """Each iterate: for every penalty in turn from the solution before; with the last one without end.

    A penalty is done when an iteration changes the filled matrix by less than ``tol``, squared and over its square, as
    in R's package, whose default this is.
    """
    kind = problem.number
    rows, columns = problem.sides()
    U = np.linalg.qr(np.random.default_rng(0).standard_normal((problem.m, rank)))[0].astype(kind)
    V, d = np.zeros((problem.n, rank), kind), np.ones(rank, kind)
    at = done = 0
    while True:
        before = (U, d, V)
        V, d, U = _half(columns, U, d, V, penalties[at])
        U, d, V = _half(rows, V, d, U, penalties[at])
        done += 1
        yield Soft(U, d, V, done)
        if at + 1 < len(penalties) and _change(before, (U, d, V)) < tol:
            at += 1


def _half(side: Side, U: Reals, d: Reals, V: Reals, penalty: float) -> tuple[Reals, Reals, Reals]:
    """The side's factors V by ridge regressions of the filled matrix on ``U diag(d)``, and U turned to them."""
    left = np.empty(len(side.others), U.dtype)
    row_products(side.starts, side.others, V, U * d**2, 0, side.rows, left)
    np.subtract(side.values, left, out=left)
    shrink = (d / (d**2 + U.dtype.type(penalty))).astype(U.dtype)
    B = (_times(side, left, U) + V * d**2) * shrink
    W, s, Rt = np.linalg.svd(B * d, full_matrices=False)
    return W, np.sqrt(s), U @ Rt.T


def _times(side: Side, values: Reals, D: Reals) -> Reals:
    out = np.empty((side.rows, D.shape[1]), D.dtype)
    sparse_times(side.starts, side.others, values, np.ascontiguousarray(D), 0, out)
    return out


def _change(old: tuple[Reals, Reals, Reals], new: tuple[Reals, Reals, Reals]) -> float:
    (U, d, V), (X, e, Y) = old, new
    d, e = d.astype(np.float64) ** 2, e.astype(np.float64) ** 2
    size = float((d**2).sum())
    cross = float((((U.T @ X) * (V.T @ Y)) * np.outer(d, e)).sum())
    return (size + float((e**2).sum()) - 2 * cross) / max(size, 1e-300)
