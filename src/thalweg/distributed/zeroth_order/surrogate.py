"""Gaussian processes of many clients at once, their gradients, and their random-feature summaries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from thalweg.numerics.gaussian_process import Stationary, spectral_frequencies
from thalweg.numerics.gaussian_process.kernels import squared_distances


@dataclass(frozen=True)
class Features:
    """Random Fourier features of a kernel, the same wherever the seed is: ``phi(x) = sqrt(2/M) cos(W x/l + b)``.

    Rahimi and Recht (2007). Gradients of ``phi(x)'w`` approach those of the kernel's function as 1/sqrt(M).
    """

    frequencies: Tensor  # (M, d), for a lengthscale of one
    phases: Tensor  # (M,)

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, kernel: Stationary, count: int, d: int, seed: int) -> Features:
        """``count`` features from a seed."""
        random = torch.Generator().manual_seed(seed)
        frequencies = spectral_frequencies(kernel, count, d, random, torch.float64)
        return cls(frequencies, 2 * math.pi * torch.rand(count, generator=random, dtype=torch.float64))

    def __call__(self, X: Tensor, lengthscale: float) -> Tensor:
        """Shape (..., M)."""
        return self._scale * torch.cos(X @ self.frequencies.T / lengthscale + self.phases)

    def gradient(self, x: Tensor, w: Tensor, lengthscale: float) -> Tensor:
        """Of ``phi(x)'w`` in x, both with leading axes: shape (..., d)."""
        waves = torch.sin(x @ self.frequencies.T / lengthscale + self.phases) * w
        return -self._scale / lengthscale * (waves @ self.frequencies)

    @property
    def _scale(self) -> float:
        return math.sqrt(2.0 / len(self.phases))


@dataclass(frozen=True)
class Surrogates:
    """A Gaussian process for each of several clients, ``known`` telling the points that count.

    Values are scaled to an interval of length one, about their mean. The factor grows by `append`, O(n^2) a point.

    X has shape (clients, n, d), y and known (clients, n).
    """

    kernel: Stationary
    lengthscale: float
    noise: float
    X: Tensor
    y: Tensor
    known: Tensor
    factor: Tensor

    @classmethod
    def fit(
        cls, kernel: Stationary, lengthscale: float, noise: float, X: Tensor, y: Tensor, known: Tensor
    ) -> Surrogates:
        """Factorise anew: O(n^3) a client."""
        empty = X.new_empty(len(X), 0)
        nothing = cls(kernel, lengthscale, noise, X[:, :0], empty, known[:, :0], X.new_empty(len(X), 0, 0))
        return nothing.append(X, y, known)

    def append(self, X: Tensor, y: Tensor, known: Tensor) -> Surrogates:
        """With more points, shapes (clients, b, d) and (clients, b)."""
        inside = known.to(X)
        own = self._covariance(X, X) * inside[:, :, None] * inside[:, None]
        own = own + torch.diag_embed(self.noise + 1.0 - inside)
        across = self._covariance(self.X, X) * self.known.to(X)[:, :, None] * inside[:, None]
        below = torch.linalg.solve_triangular(self.factor, across, upper=False)
        corner = torch.linalg.cholesky(own - below.mT @ below)
        n, b = self.X.shape[1], X.shape[1]
        factor = X.new_zeros(len(X), n + b, n + b)
        factor[:, :n, :n], factor[:, n:, :n], factor[:, n:, n:] = self.factor, below.mT, corner
        parts = torch.cat([self.X, X], 1), torch.cat([self.y, y], 1), torch.cat([self.known, known], 1)
        return Surrogates(self.kernel, self.lengthscale, self.noise, *parts, factor)

    def _covariance(self, A: Tensor, B: Tensor) -> Tensor:
        return self.kernel.profile(squared_distances(A, B) / self.lengthscale**2)[0]

    def scaled(self) -> tuple[Tensor, Tensor]:
        """Values about their mean over their range, zero where unknown, and the range, shape (clients, 1)."""
        inside = self.known
        low = torch.where(inside, self.y, torch.inf).amin(1, keepdim=True)
        high = torch.where(inside, self.y, -torch.inf).amax(1, keepdim=True)
        extent = torch.where(high > low, high - low, 1.0)
        some = inside.sum(1, keepdim=True).clamp_min(1)
        mean = torch.where(inside, self.y, 0.0).sum(1, keepdim=True) / some
        return torch.where(inside, (self.y - mean) / extent, 0.0), extent

    def _solved(self) -> tuple[Tensor, Tensor]:
        y, extent = self.scaled()
        return torch.cholesky_solve(y[..., None], self.factor)[..., 0], extent

    def gradient(self, x: Tensor) -> Tensor:
        """Of each posterior mean at its own point, x of shape (clients, d): O(n d) after an O(n^2) solve."""
        alpha, extent = self._solved()
        apart = (x[:, None] - self.X) / self.lengthscale
        slope = self.kernel.profile(apart.square().sum(-1))[1] * self.known
        return 2.0 * extent / self.lengthscale * torch.einsum("cn,cnd->cd", alpha * slope, apart)

    def uncertainty(self, Z: Tensor) -> Tensor:
        """Trace of the posterior covariance of each gradient, Z of shape (clients, m, d): shape (clients, m).

        With ``A = K^-1`` and slopes s_j: ``d prior - (2/l)^2 sum_jk s_j s_k A_jk (z - x_j)'(z - x_k)``, O(n^2) a point.
        """
        center = Z.mean(1, keepdim=True)
        Z, X = (Z - center) / self.lengthscale, (self.X - center) / self.lengthscale
        squares, products = Z.square().sum(-1)[..., None], Z @ X.mT
        far = (squares - 2.0 * products + X.square().sum(-1)[:, None]).clamp_min(0.0)
        s = self.kernel.profile(far)[1] * self.known[:, None]
        A = torch.cholesky_inverse(self.factor)
        sA = s @ A
        explained = (sA * s).sum(-1) * squares[..., 0] - 2.0 * (sA * s * products).sum(-1)
        explained = explained + ((s @ (A * (X @ X.mT))) * s).sum(-1)
        prior = -2.0 * float(self.kernel.profile(torch.zeros(1, dtype=Z.dtype))[1])
        return (prior * Z.shape[-1] - 4.0 * explained) / self.lengthscale**2

    def log_likelihoods(self, lengthscales: Tensor) -> Tensor:
        """Of the scaled values under other lengthscales, shape (clients, lengthscales); constants left out."""
        y, _ = self.scaled()
        inside = self.known.to(y)
        squares = squared_distances(self.X, self.X)[:, None] / lengthscales[:, None, None] ** 2
        K = self.kernel.profile(squares)[0] * (inside[:, :, None] * inside[:, None])[:, None]
        factor = torch.linalg.cholesky(K + torch.diag_embed(self.noise + 1.0 - inside)[:, None])
        white = torch.linalg.solve_triangular(factor, y[:, None, :, None], upper=False)
        return -0.5 * white.square().sum((-1, -2)) - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def summary(self, features: Features) -> Tensor:
        """w such that ``phi(x)'w`` is close to the posterior mean but for a constant, shape (clients, M)."""
        y, extent = self.scaled()
        inside = self.known.to(y)
        phi = features(self.X, self.lengthscale) * inside[..., None]
        gram = phi @ phi.mT + torch.diag_embed(self.noise + 1.0 - inside)
        alpha = torch.cholesky_solve(y[..., None], torch.linalg.cholesky(gram))
        return extent * (phi.mT @ alpha)[..., 0]
