"""Whole functions drawn from a posterior, cheap to evaluate and to differentiate anywhere.

Wilson, Borovitskiy, Terenin, Mostowsky and Deisenroth (2020), "Efficiently sampling functions from Gaussian process
posteriors"; Rahimi and Recht (2007) for the features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.numerics.gaussian_process.kernels import RBF, Matern, Scaled, Stationary
from thalweg.numerics.gaussian_process.posterior import Posterior


@dataclass(frozen=True)
class Paths:
    """``count`` functions; call them with points of shape (..., d) to get values of shape (count, ...).

    Each is a random-feature draw of the prior, corrected by what the data say it missed (Matheron's rule).
    """

    posterior: Posterior
    frequencies: Tensor  # (features, d)
    phases: Tensor  # (features,)
    amplitudes: Tensor  # (count, features)
    corrections: Tensor  # (count, n)

    def __call__(self, A: Tensor) -> Tensor:
        flat = A.reshape(-1, A.shape[-1])
        values = self.each(flat.expand(len(self.amplitudes), *flat.shape))
        return values.reshape(-1, *A.shape[:-1])

    def each(self, A: Tensor) -> Tensor:
        """Function i at the points ``A[i]``, A of shape (count, m, d): shape (count, m)."""
        process = self.posterior.process
        prior = torch.cos(A @ self.frequencies.T + self.phases) @ self.amplitudes[..., None]
        cross = process.kernel(process.kernel_theta(self.posterior.theta), A, self.posterior.X)
        trend = process.basis(A) @ self.posterior.trend
        return prior[..., 0] + trend + (cross @ self.corrections[..., None])[..., 0]


def spectral_frequencies(
    kernel: Stationary, count: int, d: int, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Frequencies drawn from the spectral density of `RBF` or `Matern` with lengthscales of one, shape (count, d)."""
    if not isinstance(kernel, RBF | Matern) or kernel.dims is not None:
        raise InvalidProblem("Random Fourier features need a kernel RBF or Matern of all coordinates.")
    normal = torch.randn(count, d, generator=generator, dtype=dtype)
    if isinstance(kernel, Matern):  # its spectral density is a multivariate t of 2 nu degrees of freedom
        squares = torch.randn(count, int(2 * kernel.nu), generator=generator, dtype=dtype).square().sum(1)
        normal = normal * torch.sqrt(2 * kernel.nu / squares)[:, None]
    return normal


def draw_paths(posterior: Posterior, count: int, seed: int = 0, features: int = 1024) -> Paths:
    """Draw functions from a single posterior with kernel `RBF` or `Matern`, scaled or not.

    Cost: n^2 operations and ``features`` a function; afterwards n + features a point and function.

    >>> from thalweg.numerics.gaussian_process import GaussianProcess
    >>> X = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None]
    >>> posterior = GaussianProcess(learn_noise=False).fit(X, X[:, 0])
    >>> bool((draw_paths(posterior, 3)(X) - X[:, 0]).abs().max() < 1e-3)  # through the data
    True
    """
    kernel = posterior.process.kernel
    base, first = (kernel.base, 1) if isinstance(kernel, Scaled) else (kernel, 0)
    if posterior.theta.ndim > 1 or not isinstance(base, RBF | Matern) or base.dims is not None:
        raise InvalidProblem(
            "draw_paths needs a single model with kernel RBF or Matern of all coordinates, Scaled or not."
        )
    generator = torch.Generator().manual_seed(seed)
    theta, X = posterior.theta, posterior.X
    d = X.shape[1]
    frequencies = spectral_frequencies(base, features, d, generator, X.dtype).to(X.device)
    frequencies = frequencies * torch.exp(-theta[first : first + d])
    phases = 2 * math.pi * torch.rand(features, generator=generator, dtype=X.dtype).to(X.device)
    scale = math.sqrt(2.0 / features) * (torch.exp(0.5 * theta[0]) if first else 1.0)
    amplitudes = scale * torch.randn(count, features, generator=generator, dtype=X.dtype).to(X.device)
    noise = posterior.noise.sqrt() * torch.randn(count, len(X), generator=generator, dtype=X.dtype).to(
        X.device
    )
    prior = amplitudes @ torch.cos(X @ frequencies.T + phases).T
    residual = posterior.y - posterior.process.basis(X) @ posterior.trend - prior - noise
    return Paths(
        posterior, frequencies, phases, amplitudes, torch.cholesky_solve(residual.T, posterior.factor).T
    )
