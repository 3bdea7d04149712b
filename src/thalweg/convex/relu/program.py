"""The convex program in units of its own: rows, gates, and the factors that every method shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from thalweg.convex.datafits import Vector
from thalweg.convex.relu import _kernels as kernels
from thalweg.convex.relu.losses import OutputLoss
from thalweg.convex.relu.patterns import Patterns

#: Bisections of the largest block in `Program.lower_bound` that is looked at; the rest are bounded by it.
SLACK = 1e-12


@dataclass(frozen=True, eq=False)
class Program:
    """Data over powers of two, so that rows and targets are of size one.

    Args:
        X: rows, shape (N, d), N = n patches.
        D: gates, shape (P, N).
        loss: of outputs (k, n), with targets in these units.
        beta: penalty in these units.
        patches: rows that a sample's output is the mean of.
        has_bias: whether outputs have a bias, which is not penalised.
        x_power, y_power: blocks in the user's units are ``2^(y_power - x_power)`` times those here.
    """

    X: Vector
    D: Patterns
    loss: OutputLoss
    beta: float
    patches: int
    has_bias: bool
    x_power: int
    y_power: int
    row_weights: Vector  # (N,)
    factors: dict[float, tuple[Vector, bool]] = field(default_factory=dict, repr=False)
    kept: dict[str, Vector] = field(default_factory=dict, repr=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of all blocks: signs, patterns, outputs, columns."""
        return 2, len(self.D), len(self.loss.y), self.X.shape[1]

    @property
    def weighted(self) -> Vector:
        """Rows times the weights of their samples, shape (N, d)."""
        if "weighted" not in self.kept:
            self.kept["weighted"] = self.row_weights[:, None] * self.X
        return self.kept["weighted"]

    @property
    def signs(self) -> Vector:
        """E, shape (P, 1, N)."""
        return np.where(self.D, 1.0, -1.0)[:, None, :]

    @property
    def inverse(self) -> Vector:
        """``(I + X' W X)^-1``, shape (d, d): G'G is X'WX in every block, since signs square to one."""
        if "inverse" not in self.kept:
            d = self.X.shape[1]
            self.kept["inverse"] = np.asarray(np.linalg.inv(np.eye(d) + self.X.T @ self.weighted), np.float64)
        return self.kept["inverse"]

    def gram(self, inverse: Vector) -> Vector:
        """``F K F'`` with K block-diagonal, its blocks all ``inverse``: ``2 (X K X') o (D'D)``, shape (n, n)."""
        if self.patches == 1:
            S = self.X @ inverse @ self.X.T
            gates = self.D.astype(np.float64)
            S *= gates.T @ gates
            S *= 2.0
            return S
        n = len(self.row_weights) // self.patches
        S = np.zeros((n, n))
        for gate in self.D:
            means = (gate[:, None] * self.X).reshape(n, self.patches, -1).mean(1)
            S += 2.0 * (means @ inverse @ means.T)
        return S

    def solve(self, shift: float, v: Vector) -> Vector:
        """``R (shift + R'S R)^-1 R' v`` for v (k, n), R R' the loss's quadratic form: weights, and the bias out."""
        roots = np.sqrt(self.loss.weights)
        if shift not in self.factors:
            S = roots[:, None] * self.gram(self.inverse) * roots
            if self.has_bias:
                u = roots / np.linalg.norm(roots)
                S -= np.outer(u, u @ S)
                S -= np.outer(S @ u, u)
            S[np.diag_indices(len(S))] += shift
            self.factors[shift] = cho_factor(S, lower=True, overwrite_a=True, check_finite=False)
        right = self.centred(roots, v)
        found = np.asarray(cho_solve(self.factors[shift], right.T, check_finite=False)).T
        return self.centred_back(roots, found)

    def centred(self, roots: Vector, v: Vector) -> Vector:
        """``R'v``."""
        v = roots * v
        if self.has_bias:
            u = roots / np.linalg.norm(roots)
            v = v - (v @ u)[:, None] * u
        return v

    def centred_back(self, roots: Vector, v: Vector) -> Vector:
        """``R v``."""
        if self.has_bias:
            u = roots / np.linalg.norm(roots)
            v = v - (v @ u)[:, None] * u
        return np.asarray(roots * v)

    def products(self, blocks: Vector) -> Vector:
        """``X u`` for all blocks, shape (2, P, k, N)."""
        return np.asarray((blocks.reshape(-1, blocks.shape[-1]) @ self.X.T).reshape(*blocks.shape[:3], -1))

    def gated(self, H: Vector) -> Vector:
        """``F u`` of the products, shape (k, n)."""
        f = np.empty_like(self.loss.y)
        kernels.gated_outputs(H, self.D, self.patches, f)
        return f

    def gathered(self, v: Vector, rows: Vector) -> Vector:
        """The half of ``F'v`` that belongs to positive neurons, ``rows' D v``, shape (P, k, d)."""
        out = np.empty((len(self.D), len(v), self.D.shape[1]))
        kernels.spread(v, self.D, self.patches, out)
        return np.asarray((out.reshape(-1, out.shape[-1]) @ rows).reshape(*out.shape[:2], -1))

    def rectified(self, H: Vector) -> Vector:
        """Outputs of the recovered network without its bias, shape (k, n)."""
        f = np.empty_like(self.loss.y)
        kernels.rectified_outputs(H, self.patches, f)
        return f

    def bias_of(self, f: Vector) -> Vector:
        """The best bias of outputs f, zero where there is none; shape (k,)."""
        return self.loss.best_bias(f) if self.has_bias else np.zeros(len(f))

    def upper_bound(self, blocks: Vector, H: Vector) -> tuple[float, Vector]:
        """The recovered network's objective, valid whether or not cones hold, and its bias."""
        f = self.rectified(H)
        bias = self.bias_of(f)
        penalty = self.beta * float(np.linalg.norm(blocks, axis=-1).sum())
        return self.loss.value(f + bias[:, None]) + penalty, bias

    def lower_bound(self, theta: Vector, rows: Vector | None = None, *, shared: bool = False) -> float:
        """A bound that no network whose neurons have these patterns goes below.

        Args:
            theta: minus a slope of the loss, shape (k, n); made usable by `OutputLoss.feasible`.
            rows: ``+-D theta + E a`` with multipliers a >= 0 of the cones, shape (2, P, k, N). Default: the best
                multipliers, by least squares with a >= 0 where they are needed.
            shared: bound networks whose neurons feed all outputs, too.

        Derivation: Lagrangian of the cones; theta and a are scaled until every block's dual constraint holds.
        """
        theta = self.loss.feasible(theta, self.has_bias)
        largest = self._largest(theta, shared) if rows is None else self._given(rows, shared)
        limit = self.beta / largest if largest > 0 else math.inf
        return max(self.loss.dual(theta, limit), 0.0)

    def _given(self, rows: Vector, shared: bool) -> float:
        sizes = np.linalg.norm(rows.reshape(-1, rows.shape[-1]) @ self.X, axis=1).reshape(rows.shape[:3])
        return float(np.linalg.norm(sizes.max(0), axis=1).max() if shared else sizes.max())

    def _largest(self, theta: Vector, shared: bool) -> float:
        """The largest ``|X'(+-D theta + E a)|`` over blocks, each with its best a."""
        half = self.gathered(theta, self.X)
        sizes = np.linalg.norm(half, axis=-1)  # (P, k), the same for both signs while a = 0
        found, worst = np.zeros((2, *sizes.shape)), 0.0
        order = np.argsort(-sizes, axis=None) if not shared else np.argsort(-sizes.max(1))
        for flat in order:
            i, c = np.unravel_index(flat, sizes.shape) if not shared else (flat, None)
            bound = float(sizes[i, c]) if c is not None else float(np.linalg.norm(sizes[i]))
            if bound <= worst * (1.0 + SLACK):
                if c is not None:
                    break
                continue
            A = np.where(self.D[i], 1.0, -1.0) * self.X.T
            for k in [c] if c is not None else range(sizes.shape[1]):
                for b, sign in enumerate((1.0, -1.0)):
                    found[b, i, k] = _distance(A, -sign * half[i, k])
            worst = max(
                worst, float(found[:, i, c].max() if c is not None else np.linalg.norm(found[:, i].max(0)))
            )
        return worst


def _distance(A: Vector, b: Vector) -> float:
    """``min_{a >= 0} |A a - b|``, from above: the a found is used whatever it is worth."""
    try:
        a, _ = nnls(A, b, maxiter=20 * A.shape[1])
    except RuntimeError:
        return float(np.linalg.norm(b))
    return float(np.linalg.norm(A @ a - b))
