"""Expected improvement and its companions, in closed form.

Jones, Schonlau and Welch (1998), "Efficient global optimization"; Ament, Daulton, Eriksson, Balandat and Bakshy (2023),
"Unexpected improvements to expected improvement", for the logarithm; Frazier (2018), section 4.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx
from torch.special import erfcx, log_ndtr, ndtr

from thalweg.blackbox.acquisition.base import Acquisition, averaged
from thalweg.core.validation import require
from thalweg.numerics.gaussian_process import Posterior, cholesky
from thalweg.numerics.gaussian_process.posterior import solve_lower
from thalweg.numerics.quasirandom import sobol_normal

_LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)


class _LogImprovement(torch.autograd.Function):
    """``log(phi(z) + z Phi(z))`` with its slope ``Phi(z)/(phi(z) + z Phi(z))``, both accurate for every z."""

    @staticmethod
    def forward(ctx: FunctionCtx, z: Tensor) -> Tensor:
        near = torch.log(torch.exp(-0.5 * z.square() - _LOG_SQRT_TWO_PI) + z * ndtr(z))
        far = z.clamp(
            -1e3, -1.0
        )  # phi + z Phi = phi (1 + z sqrt(pi/2) erfcx(-z/sqrt 2)): no cancellation in phi
        ratio = math.sqrt(math.pi / 2.0) * erfcx(-far / math.sqrt(2.0))
        middle = torch.log1p(far * ratio) - 0.5 * z.square() - _LOG_SQRT_TWO_PI
        # beyond, 1 + z ratio is 1/z^2 to rounding
        tail = -2.0 * torch.log(-z.clamp_max(-1.0)) - 0.5 * z.square() - _LOG_SQRT_TWO_PI
        value = torch.where(z > -1.0, near, torch.where(z > -1e3, middle, tail))
        ctx.save_for_backward(z, value)
        return value

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        saved: tuple[Tensor, ...] = cast(BackwardCFunction, ctx).saved_tensors
        z, value = saved
        return grads[0] * torch.exp(log_ndtr(z) - value)


def log_improvement(z: Tensor) -> Tensor:
    """``log E[max(Z + z, 0)]`` for a standard normal Z.

    >>> log_improvement(torch.tensor([0.0, -30.0], dtype=torch.float64))
    tensor([  -0.9189, -457.7247], dtype=torch.float64)
    """
    value: Tensor = _LogImprovement.apply(z)
    return value


def _marginal(posterior: Posterior, X: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation at single points, X of shape b x 1 x d."""
    require(X.shape[-2] == 1, "this acquisition takes one point at a time (q = 1)", got=tuple(X.shape))
    mean, variance = posterior.predict(X)
    return mean[..., 0], variance[..., 0].sqrt()


@dataclass(frozen=True)
class LogEI(Acquisition):
    """Logarithm of the expected improvement over ``best``: the default when there is no noise.

    The logarithm has the same maximiser and, unlike EI itself, a gradient everywhere.
    """

    posterior: Posterior
    best: Tensor | float

    def __call__(self, X: Tensor) -> Tensor:
        mean, std = _marginal(self.posterior, X)
        best = torch.as_tensor(self.best, dtype=X.dtype)
        return averaged(log_improvement((mean - best[..., None]) / std) + torch.log(std), len(X), log=True)


@dataclass(frozen=True)
class EI(Acquisition):
    """Expected improvement over ``best``, eq. (8) of the tutorial; for figures and tests. Maximise `LogEI`."""

    posterior: Posterior
    best: Tensor | float

    def __call__(self, X: Tensor) -> Tensor:
        return LogEI(self.posterior, self.best)(X).exp()


@dataclass(frozen=True)
class PI(Acquisition):
    """Log probability of improving on ``best`` (Kushner, 1964): greedy; a margin on ``best`` makes it less so."""

    posterior: Posterior
    best: float

    def __call__(self, X: Tensor) -> Tensor:
        mean, std = _marginal(self.posterior, X)
        return averaged(log_ndtr((mean - self.best) / std), len(X), log=True)


@dataclass(frozen=True)
class UCB(Acquisition):
    """Upper confidence bound ``mean + width std`` (Srinivas, Krause, Kakade and Seeger, 2010)."""

    posterior: Posterior
    width: float = 2.0

    def __call__(self, X: Tensor) -> Tensor:
        mean, std = _marginal(self.posterior, X)
        return averaged(mean + self.width * std, len(X))


@dataclass(frozen=True)
class PosteriorMean(Acquisition):
    """The mean by itself: pure exploitation, and how a recommendation off the data is found."""

    posterior: Posterior

    def __call__(self, X: Tensor) -> Tensor:
        return averaged(self.posterior.mean(X)[..., 0], len(X))


@dataclass(frozen=True)
class NoisyEI(Acquisition):
    """Logarithm of expected improvement when observations are noisy: averaged over the visited points' true values.

    Letham, Karrer, Ottoni and Bakshy (2019), "Constrained Bayesian optimization with noisy experiments". Made by
    `noisy_ei`; the default where there is noise.

    Args:
        world: the process given noise-free values at the visited points.
        weights: ``covariance^-1 (values - mean)`` for each fantasy of those values, shape (fantasies, n).
        best: the largest value of each fantasy, shape (fantasies,).
    """

    world: Posterior
    weights: Tensor
    best: Tensor

    def __call__(self, X: Tensor) -> Tensor:
        world, points = self.world, X[:, 0]
        process, theta = world.process, world.process.kernel_theta(world.theta)
        cross = process.kernel(theta, world.X, points)
        mean = process.basis(points) @ world.trend + self.weights @ cross
        variance = process.kernel.diagonal(theta, points) - solve_lower(world.factor, cross).square().sum(0)
        std = variance.clamp_min(1e-14).sqrt()
        worth = log_improvement((mean - self.best[:, None]) / std) + torch.log(std)
        return averaged(worth, len(X), log=True)


def pending_ei(
    posterior: Posterior, best: float, pending: Tensor, fantasies: int = 32, seed: int = 0
) -> NoisyEI:
    """Log expected improvement beside points that are being evaluated, averaged over what may come out of them.

    It differs from the joint improvement of the point and the pending ones by what those bring alone, and so has the
    same maximiser; but for the fantasies it is in closed form. The default beside pending points without noise.

    Args:
        posterior: of a single model.
        best: the largest value seen.
        pending: shape (p, d), apart from the visited points and from each other.

    Cost: a Cholesky factorisation of size p once; (n + p)^2 operations a point.
    """
    process = posterior.process
    mean, covariance = posterior.joint(pending)
    noise = process.noise_variance(posterior.theta, len(pending)) + 1e-8
    values = mean + sobol_normal(fantasies, len(pending), seed) @ cholesky(covariance + noise.diag()).T
    world = replace(posterior.grow(pending, mean), trend=posterior.trend)
    y = torch.cat([posterior.y.expand(fantasies, -1), values], 1)
    weights = torch.cholesky_solve((y - process.basis(world.X) @ world.trend).T, world.factor).T
    return NoisyEI(world, weights, values.amax(1).clamp_min(best))


def noisy_ei(
    posterior: Posterior, fantasies: int = 32, seed: int = 0, pending: Tensor | None = None
) -> NoisyEI:
    """`NoisyEI` of a single posterior with quasi-random fantasies, of pending points too.

    Cost: two Cholesky factorisations of size n once; n^2 + n fantasies operations a point.
    """
    process = posterior.process
    X = posterior.X if pending is None else torch.cat([posterior.X, pending])
    identity = torch.eye(len(X), dtype=X.dtype, device=X.device)
    mean, covariance = posterior.joint(X)
    values = mean + sobol_normal(fantasies, len(X), seed) @ cholesky(covariance + 1e-8 * identity).T
    theta = process.kernel_theta(posterior.theta)
    factor = cholesky(process.kernel(theta, X, X) + 1e-6 * identity)
    weights = torch.cholesky_solve((values - process.basis(X) @ posterior.trend).T, factor).T
    return NoisyEI(replace(posterior, X=X, factor=factor), weights, values.amax(1))
