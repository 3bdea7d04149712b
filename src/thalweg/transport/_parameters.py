"""The loss of a light bridge and its gradient, written by hand: four products of matrices and two softmaxes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.transport.bridge import features, log_mixture

#: Smallest variance of a component, in the standardised unit: below it a component has shrunk onto a sample.
FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Terms:
    """L, and the mass that each component sends (of x) and receives (of y), shape (K,)."""

    loss: float
    sent: Tensor
    received: Tensor


@dataclass(frozen=True, eq=False)
class Gradient(Terms):
    """`Terms` with the gradient, shaped as the answer, and ``log v(y)``, by which lonely points are found."""

    gradient: Tensor
    log_v: Tensor


@dataclass(frozen=True)
class Family:
    """Parameters in one array of shape (K, columns): ``log a``, r, then S's root.

    The root is the lower Cholesky factor with the logarithms of its diagonal first, then what lies below, row by row.
    """

    eps: float
    D: int
    is_full: bool

    @property
    def columns(self) -> int:
        """Columns of an answer."""
        return 1 + 2 * self.D + (self.D * (self.D - 1) // 2 if self.is_full else 0)

    @property
    def floor(self) -> float:
        """The smallest logarithm of a root: where eps S is `FLOOR`."""
        return math.log(FLOOR / self.eps) / 2

    def join(self, log_a: Tensor, R: Tensor, log_root: float) -> Tensor:
        """An answer whose S are multiples of the unit matrix."""
        x = torch.zeros(len(R), self.columns, dtype=R.dtype, device=R.device)
        x[:, 0], x[:, 1 : 1 + self.D], x[:, 1 + self.D : 1 + 2 * self.D] = log_a, R, log_root
        return x

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``log a``, R and the roots of S, shape (K, D) or (K, D, D)."""
        D = self.D
        diagonal = x[:, 1 + D : 1 + 2 * D].exp()
        if not self.is_full:
            return x[:, 0], x[:, 1 : 1 + D], diagonal
        root = torch.diag_embed(diagonal)
        i, j = torch.tril_indices(D, D, -1, device=x.device)
        root[:, i, j] = x[:, 1 + 2 * D :]
        return x[:, 0], x[:, 1 : 1 + D], root

    def terms(self, x: Tensor, x0: Tensor, x1: Tensor, m0: Tensor, m1: Tensor) -> Terms:
        """The loss on points with masses, in blocks of points."""
        log_a, R, root = self.split(x)
        S = root @ root.mT if self.is_full else root * root
        size = max(256, (1 << 22) // (len(R) + S[0].numel()))
        total, shares = [], []
        for points, masses, first in ((x0, m0, True), (x1, m1, False)):
            loss = torch.zeros((), dtype=x.dtype, device=x.device)
            share = torch.zeros_like(log_a)
            for z, m in zip(torch.split(points, size), torch.split(masses, size), strict=True):
                if first:
                    slope = torch.cat([S.flatten(1) / 2, R], 1) / self.eps
                    exponents = torch.addmm(log_a, features(z, self.is_full), slope.T)
                else:
                    exponents = log_mixture(z, log_a, R, S, root, self.eps)
                peak = exponents.logsumexp(1)
                loss = loss + m @ peak
                share = share + m @ (exponents - peak[:, None]).exp()
            total.append(float(loss) if len(points) else math.nan)
            shares.append(share)
        return Terms(total[0] - total[1], *shares)

    def gradient(self, x: Tensor, x0: Tensor, x1: Tensor, m0: Tensor, m1: Tensor) -> Gradient:
        """The loss and its gradient on points with masses (each sums to one).

        Cost: four products of (points, D + D) and (K, D + D) matrices; D + D^2 for full S, and K factors' inverses.
        """
        log_a, R, root = self.split(x)
        eps, D, full = self.eps, self.D, self.is_full
        S = root @ root.mT if full else root * root
        inverse = torch.cholesky_inverse(root) if full else 1 / S
        scaled = (inverse @ R[:, :, None])[:, :, 0] if full else R * inverse  # S^-1 r
        log_root = x[:, 1 + D : 1 + 2 * D].sum(1)
        constant = log_a - log_root - (R * scaled).sum(1) / (2 * eps)
        F0, F1 = features(x0, full), features(x1, full)
        W = torch.addmm(log_a, F0, torch.cat([S.flatten(1) / 2, R], 1).T / eps)
        Q = torch.addmm(constant, F1, torch.cat([inverse.flatten(1) / -2, scaled], 1).T / eps)
        log_c, log_v = W.logsumexp(1), Q.logsumexp(1)
        W = (W - log_c[:, None]).exp_().mul_(m0[:, None])
        Q = (Q - log_v[:, None]).exp_().mul_(m1[:, None])
        sent, received = W.sum(0), Q.sum(0)
        M0, M1 = W.T @ F0, Q.T @ F1  # (K, squares + D): moments of x and of y by component
        y = M1[:, -D:] - received[:, None] * R
        found = torch.empty_like(x)
        found[:, 0] = sent - received
        if full:
            pull = (inverse @ y[:, :, None])[:, :, 0]
            second = M1[:, :-D].view(-1, D, D)  # of y - r: (y - r)(y - r)'
            cross = R[:, :, None] * M1[:, None, -D:]
            second = second - cross - cross.mT + received[:, None, None] * R[:, :, None] * R[:, None, :]
            by_S = M0[:, :-D].view(-1, D, D) - inverse @ second @ inverse
            by_S = by_S / (2 * eps) + received[:, None, None] * inverse / 2
            by_root = 2 * by_S @ root
            i, j = torch.tril_indices(D, D, -1, device=x.device)
            found[:, 1 + 2 * D :] = by_root[:, i, j]
            diagonal = root.diagonal(dim1=1, dim2=2)
            found[:, 1 + D : 1 + 2 * D] = by_root.diagonal(dim1=1, dim2=2) * diagonal
        else:
            pull = y * inverse
            second = M1[:, :D] - R * (M1[:, D:] + y)
            found[:, 1 + D :] = (M0[:, :D] * S - second * inverse) / eps + received[:, None]
        found[:, 1 : 1 + D] = (M0[:, -D:] - pull) / eps
        normal = D * math.log(2 * math.pi * eps) / 2
        loss = float(m0 @ log_c - m1 @ log_v) + normal
        return Gradient(loss, sent, received, found, log_v - normal)
