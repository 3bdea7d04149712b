"""Where an evaluation fails: a Gaussian-process classifier, and how much risk is worth taking.

Rasmussen and Williams (2006), chapter 3; Williams and Barber (1998), "Bayesian classification with Gaussian processes",
for the Laplace approximation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr

from thalweg.blackbox.acquisition.base import averaged
from thalweg.numerics.gaussian_process import Kernel, Matern
from thalweg.numerics.gaussian_process.posterior import cholesky, solve_lower
from thalweg.numerics.quasirandom import sobol_normal

#: Models averaged over, Newton steps to the mode of each, and the least weight beside the largest of one that stays.
MODELS, STEPS, RARE = 32, 25, 1e-3
#: Prior of the logarithm of the latent function's standard deviation: mean and deviation.
SIZE = (math.log(2.0), 0.5)
#: Share of failures that is aimed at, what one failure changes the least quantile of success by, and its range.
FAILING, GAIN, LOWEST, HIGHEST = 0.25, 0.5, -1.0, 4.0

_LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)


@dataclass(frozen=True)
class Survival:
    """Log probability that an evaluation does not fail: a probit classifier, averaged over its hyper-parameters.

    Made by `survival`. Points of several models at once.

    Args:
        kernel: covariance of the latent function, of variance one.
        theta: its hyper-parameters, shape (models, p).
        variance: of the latent function, shape (models,).
        share: weight of each model, shape (models,); they sum to one.
        X: told trials, shape (n, d).
        slope: gradient of the log likelihood at the mode, shape (models, n).
        root: square root of its negated second derivatives, shape (models, n).
        factor: Cholesky factor of ``I + root K root``, shape (models, n, n).
    """

    kernel: Kernel
    theta: Tensor
    variance: Tensor
    share: Tensor
    X: Tensor
    slope: Tensor
    root: Tensor
    factor: Tensor

    def __call__(self, X: Tensor) -> Tensor:
        """At single points, b x 1 x d: shape (b,). Cost: models n^2 operations a point."""
        cross = self.variance[:, None, None] * self.kernel(self.theta, self.X, X[:, 0])
        mean = (cross.transpose(-1, -2) @ self.slope[..., None])[..., 0]
        whitened = solve_lower(self.factor, self.root[..., None] * cross)
        variance = (self.variance[:, None] - whitened.square().sum(-2)).clamp_min(1e-12)
        chances = log_ndtr(mean / torch.sqrt(1.0 + variance))  # eq. (3.82)
        return averaged(chances + torch.log(self.share * len(self.share))[:, None], len(X), log=True)


def survival(X: Tensor, succeeded: Tensor, seed: int = 0) -> Survival:
    """The classifier of told trials.

    Its hyper-parameters are quasi-random draws, of half the prior's deviation, weighted by their evidence: few trials
    leave many of them likely, and there is nothing to climb.

    Args:
        X: shape (n, d).
        succeeded: bool, shape (n,).

    Cost: some ten Newton steps of 32 factorisations of size n.
    """
    kernel, d = Matern(), X.shape[1]
    means, stds = (X.new_tensor(v) for v in kernel.prior(d))
    draws = sobol_normal(MODELS, d + 1, seed).to(X)
    theta, log_size = means + 0.5 * stds * draws[:, :d], SIZE[0] + SIZE[1] * draws[:, d]
    variance = torch.exp(2.0 * log_size)
    K = variance[:, None, None] * kernel(theta, X, X)
    label = torch.where(succeeded, 1.0, -1.0).to(X)
    identity = torch.eye(len(X), dtype=X.dtype)
    f = X.new_zeros(MODELS, len(X))
    for _ in range(STEPS):  # algorithm 3.1
        slope, bend = _probit(label, f)
        root = bend.sqrt()
        factor = cholesky(identity + root[..., :, None] * K * root[..., None, :])
        b = bend * f + slope
        inner = torch.cholesky_solve(root[..., None] * (K @ b[..., None]), factor)
        a = b - root * inner[..., 0]
        new = (K @ a[..., None])[..., 0]
        moved, f = float((new - f).abs().max()), new
        if moved < 1e-8:
            break
    slope, bend = _probit(label, f)
    root = bend.sqrt()
    factor = cholesky(identity + root[..., :, None] * K * root[..., None, :])
    evidence = log_ndtr(label * f).sum(-1) - 0.5 * (a * f).sum(-1)
    evidence = evidence - torch.log(factor.diagonal(dim1=-2, dim2=-1)).sum(-1)  # eq. (3.32)
    share = torch.softmax(evidence, 0)
    kept = share > RARE * share.max()
    weights = share[kept] / share[kept].sum()
    return Survival(kernel, theta[kept], variance[kept], weights, X, slope[kept], root[kept], factor[kept])


def _probit(label: Tensor, f: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient and negated second derivative of ``log Phi(label f)``, eq. (3.16)."""
    z = label * f
    ratio = torch.exp(-0.5 * z.square() - _LOG_SQRT_TWO_PI - log_ndtr(z))
    return label * ratio, (ratio * (ratio + z)).clamp_min(1e-12)


def least_chance(failures: Sequence[bool]) -> float:
    """Logarithm of the least probability of success that is accepted, after these trials of the model, in order.

    It begins at one half. A failure makes the study more careful, a success less: one trial in four is aimed at.

    >>> round(math.exp(least_chance([])), 2), round(math.exp(least_chance([True, True])), 2)
    (0.5, 0.77)
    """
    quantile = 0.0
    for failed in failures:
        quantile = min(max(quantile + GAIN * (failed - FAILING), LOWEST), HIGHEST)
    return float(log_ndtr(torch.tensor(quantile, dtype=torch.float64)))
