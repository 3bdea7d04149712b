"""What is known about a function after some of its values: mean, covariance, draws, and their growth.

Rasmussen and Williams (2006), algorithm 2.1 and section 5.4.2.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.numerics.gaussian_process.kernels import Kernel

#: Added to the diagonal, relative to its mean, when a matrix is not positive definite; the first that helps.
JITTERS = (1e-10, 1e-8, 1e-6, 1e-4)


class NearSingular(RuntimeWarning):
    """A covariance matrix was not positive definite to rounding; something was added to its diagonal."""


class Process(Protocol):
    """What a posterior asks of its `GaussianProcess`."""

    @property
    def kernel(self) -> Kernel:
        """The covariance."""

    def kernel_theta(self, theta: Tensor) -> Tensor:
        """The kernel's part of the hyper-parameters."""

    def noise_variance(self, theta: Tensor, n: int, known: Tensor | float | None = None) -> Tensor:
        """Variance of the noise of n observations, shape (*models, n)."""

    def basis(self, A: Tensor) -> Tensor:
        """The terms of the mean function, shape (..., n, r)."""

    def weights(self, X: Tensor, y: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of the mean, (*models, r), and ``covariance^-1 (y - mean)``, (*models, n)."""


def cholesky(matrix: Tensor, size: Tensor | None = None) -> Tensor:
    """The lower Cholesky factor of a covariance, shape (..., n, n), with the least jitter that makes it exist.

    The jitter is relative to ``size``, shape (...,), by default the mean of the diagonal: what is left of variances
    when much is known can be rounding alone.

    Warns `NearSingular` beyond a jitter of 1e-8; raises `InvalidProblem` when none helps.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    if not bool(info.any()):
        return factor
    size = (matrix.diagonal(dim1=-2, dim2=-1).mean(-1) if size is None else size)[..., None, None]
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for jitter in JITTERS:
        factor, info = torch.linalg.cholesky_ex(matrix + jitter * size * identity)
        if not bool(info.any()):
            if jitter > 1e-8:
                warnings.warn(
                    f"A covariance matrix is nearly singular; {jitter:g} of its diagonal was added to it.",
                    NearSingular,
                    stacklevel=2,
                )
            return factor
    raise InvalidProblem(
        "A covariance matrix is not positive definite, not even with 1e-4 of its diagonal added. Look for NaN, "
        "huge values, or a kernel that is none."
    )


def solve_lower(factor: Tensor, right: Tensor) -> Tensor:
    """``factor^-1 right`` for a lower triangular factor."""
    return torch.linalg.solve_triangular(factor, right, upper=False)


@dataclass(frozen=True)
class Posterior:
    """A Gaussian process conditioned on data; several at once where the parameters have leading axes (models).

    Made by `GaussianProcess.posterior` and `GaussianProcess.fit`. Queries have shape (*batch, q, d); results
    (*models, *batch, q). Everything is differentiable in the queries.

    Args:
        process: kernel, mean and noise model.
        theta: hyper-parameters, shape (*models, p).
        X, y: the data, shape (n, d) and (*models, n).
        noise: variance of each observation, shape (*models, n).
        factor: lower Cholesky factor of the data's covariance, shape (*models, n, n).
        trend: coefficients of the mean function, shape (*models, r).
        weights: covariance^-1 (y - mean), shape (*models, n).
    """

    process: Process
    theta: Tensor
    X: Tensor
    y: Tensor
    noise: Tensor
    factor: Tensor
    trend: Tensor
    weights: Tensor

    def predict(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the function, without noise, at each point by itself.

        Cost: n^2 operations a point; the mean alone costs n (`mean`).
        """
        cross, flat = self._cross(A)
        mean = self._mean(cross, flat)
        whitened = solve_lower(self.factor, cross)
        variance = self.process.kernel.diagonal(self._kernel_theta, flat) - whitened.square().sum(-2)
        return self._shaped(mean, A), self._shaped(variance.clamp_min(1e-14), A)

    def mean(self, A: Tensor) -> Tensor:
        """Mean of the function at each point."""
        return self._shaped(self._mean(*self._cross(A)), A)

    def joint(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, (*models, *batch, q), and covariance, (*models, *batch, q, q), of the points of each batch."""
        cross, flat = self._cross(A)
        mean = self._shaped(self._mean(cross, flat), A)
        whitened = solve_lower(self.factor, cross)
        q, models = A.shape[-2], self.theta.shape[:-1]
        parts = whitened.reshape(*whitened.shape[:-1], -1, q).movedim(
            -2, len(models)
        )  # (*models, batch, n, q)
        theta = self._kernel_theta
        blocks = flat.reshape(-1, q, A.shape[-1])
        if models:
            theta, blocks = theta[..., None, :], blocks.expand(*models, *blocks.shape)
        prior = self.process.kernel(theta, blocks, blocks)
        covariance = prior - parts.transpose(-1, -2) @ parts
        return mean, covariance.reshape(*models, *A.shape[:-2], q, q)

    def covariance_between(self, A: Tensor, B: Tensor) -> Tensor:
        """Posterior covariance of points A, shape (m, d), and B, shape (k, d): (*models, m, k)."""
        (cross_a, _), (cross_b, _) = self._cross(A), self._cross(B)
        whitened = solve_lower(self.factor, cross_a), solve_lower(self.factor, cross_b)
        prior = self.process.kernel(self._kernel_theta, A, B)
        return prior - whitened[0].transpose(-1, -2) @ whitened[1]

    def sample(self, A: Tensor, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Joint draws at the points of each batch, shape (count, *models, *batch, q)."""
        mean, covariance = self.joint(A)
        normal = torch.randn(count, *mean.shape, dtype=mean.dtype, generator=generator).to(mean.device)
        return mean + (cholesky(covariance) @ normal[..., None])[..., 0]

    def gradient(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of mean and variance in each point, of the shape of ``A``; for a single model."""
        if self.theta.ndim > 1:
            raise InvalidProblem("Posterior.gradient is for a single model; pick one of the batch.")
        points = A.detach().requires_grad_(True)
        with torch.enable_grad():
            mean, variance = self.predict(points)
            (slope,) = torch.autograd.grad(mean.sum(), points, retain_graph=True)
            (spread,) = torch.autograd.grad(variance.sum(), points)
        return slope, spread

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of each observation, noise included, given all others; (*models, n). Eq. (5.12)."""
        precision = torch.cholesky_inverse(self.factor).diagonal(dim1=-2, dim2=-1)
        return self.y - self.weights / precision, 1.0 / precision

    def log_likelihood(self) -> Tensor:
        """Log marginal likelihood of the data, shape (*models,). Eq. (2.30)."""
        residual = self.y - self._trend(self.X)
        logs = torch.log(self.factor.diagonal(dim1=-2, dim2=-1)).sum(-1)
        constant = 0.5 * residual.shape[-1] * math.log(2.0 * math.pi)
        return -0.5 * (residual * self.weights).sum(-1) - logs - constant

    def grow(self, X: Tensor, y: Tensor, noise: Tensor | float | None = None) -> Posterior:
        """The posterior with k more observations, X of shape (k, d), at the same hyper-parameters.

        Cost: k n^2 operations, for the block that is added to the Cholesky factor; a new one would cost n^3/3.
        """
        cross = self.process.kernel(self._kernel_theta, self.X, X)
        variances = self.process.noise_variance(self.theta, len(X), noise)
        corner = self.process.kernel(self._kernel_theta, X, X) + torch.diag_embed(variances)
        below = solve_lower(self.factor, cross).transpose(-1, -2)
        block = cholesky(corner - below @ below.transpose(-1, -2), corner.diagonal(dim1=-2, dim2=-1).mean(-1))
        top = torch.cat([self.factor, torch.zeros_like(cross)], -1)
        factor = torch.cat([top, torch.cat([below, block], -1)], -2)
        models = self.theta.shape[:-1]
        y = torch.cat([self.y, y.expand(*models, -1)], -1)
        grown = replace(
            self,
            X=torch.cat([self.X, X]),
            y=y,
            noise=torch.cat([self.noise, variances], -1),
            factor=factor,
        )
        trend, weights = self.process.weights(grown.X, y, factor)
        return replace(grown, trend=trend, weights=weights)

    @property
    def _kernel_theta(self) -> Tensor:
        return self.process.kernel_theta(self.theta)

    def _cross(self, A: Tensor) -> tuple[Tensor, Tensor]:
        flat = A.reshape(-1, A.shape[-1])
        return self.process.kernel(self._kernel_theta, self.X, flat), flat

    def _trend(self, A: Tensor) -> Tensor:
        return (self.process.basis(A) @ self.trend[..., None])[..., 0]

    def _mean(self, cross: Tensor, flat: Tensor) -> Tensor:
        return self._trend(flat) + (cross.transpose(-1, -2) @ self.weights[..., None])[..., 0]

    def _shaped(self, values: Tensor, A: Tensor) -> Tensor:
        return values.reshape(*self.theta.shape[:-1], *A.shape[:-1])
