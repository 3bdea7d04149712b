"""Entropy searches: how much an observation is expected to tell about the maximiser, or about the maximum.

Hennig and Schuler (2012), "Entropy search"; Hernandez-Lobato, Hoffman and Ghahramani (2014), "Predictive entropy
search"; Wang and Jegelka (2017), "Max-value entropy search"; Frazier (2018), section 4.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr

from thalweg.blackbox.acquisition.base import Acquisition, averaged
from thalweg.numerics.bfgs import minimize_many
from thalweg.numerics.gaussian_process import Posterior, draw_paths
from thalweg.numerics.gaussian_process.posterior import cholesky
from thalweg.numerics.quasirandom import sobol, sobol_normal


@dataclass(frozen=True)
class Optima:
    """Where functions drawn from a posterior have their maxima: points, shape (s, d), and values, shape (s,)."""

    points: Tensor
    values: Tensor


def sample_optima(posterior: Posterior, count: int = 16, seed: int = 0) -> Optima:
    """Maximise ``count`` functions drawn from a single posterior, each from its best few of 512 points."""
    paths = draw_paths(posterior, count, seed)
    d, tried = posterior.X.shape[1], 2
    raw = torch.cat([sobol(512, d, seed).to(posterior.X), posterior.X])
    first = raw[paths(raw).topk(tried, dim=1).indices]  # count x tried x d

    def fall(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        leaf = points.detach().requires_grad_(True)
        with torch.enable_grad():
            everywhere = leaf.new_full((count * tried, d), 0.5).index_copy(0, which, leaf)
            value = -paths.each(everywhere.reshape(count, tried, d)).reshape(-1)[which]
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), gradient

    found = minimize_many(fall, first.reshape(-1, d), 0.0, 1.0, max_steps=25, flat=1e-6)
    best = found.values.reshape(count, tried).argmin(1)
    rows = torch.arange(count, device=raw.device)
    return Optima(
        found.x.reshape(count, tried, d)[rows, best], -found.values.reshape(count, tried)[rows, best]
    )


@dataclass(frozen=True)
class MaxValueEntropy(Acquisition):
    """Mutual information of an observation and the maximum's value; cheap, and as good as the others.

    Args:
        posterior: any.
        maxima: draws of the maximum, shape (s,): ``sample_optima(posterior).values``.
    """

    posterior: Posterior
    maxima: Tensor

    def __call__(self, X: Tensor) -> Tensor:
        mean, variance = self.posterior.predict(X)
        z = (self.maxima[:, None] - mean[..., 0]) / variance[..., 0].sqrt()
        log_share = log_ndtr(z)
        ratio = torch.exp(-0.5 * z.square() - 0.5 * math.log(2.0 * math.pi) - log_share)
        return averaged(0.5 * z * ratio - log_share, len(X))


@dataclass(frozen=True)
class PredictiveEntropy(Acquisition):
    """Mutual information of an observation and the maximiser's place, by how much knowing it narrows the prediction.

    For each draw of the maximiser, f there is conditioned to be above f(x) and above the values seen, both by
    matching moments of a truncated normal; that it is a stationary point too is left out.

    Args:
        posterior: a single model.
        optima: draws of the maximiser, shape (s, d): ``sample_optima(posterior).points``.
        best: the largest posterior mean among the visited points.
        noise: variance of an observation.
    """

    posterior: Posterior
    optima: Tensor
    best: float
    noise: float = 0.0

    def __call__(self, X: Tensor) -> Tensor:
        b, s = len(X), len(self.optima)
        pairs = torch.cat([X.expand(b, s, -1)[:, :, None], self.optima.expand(b, s, -1)[:, :, None]], 2)
        mean, covariance = self.posterior.joint(pairs)  # b x s x 2
        before = covariance[..., 0, 0] + self.noise + 1e-10
        mean, covariance = _truncated(mean, covariance, mean.new_tensor([0.0, 1.0]), self.best)
        mean, covariance = _truncated(mean, covariance, mean.new_tensor([-1.0, 1.0]), 0.0)
        after = covariance[..., 0, 0].clamp_min(1e-14) + self.noise + 1e-10
        return 0.5 * (torch.log(before) - torch.log(after)).mean(1)


def _truncated(mean: Tensor, covariance: Tensor, direction: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Moments of a bivariate normal given that its product with ``direction`` is above ``bound``."""
    along = covariance @ direction
    spread = (along @ direction).clamp_min(1e-12).sqrt()
    z = (mean @ direction - bound) / spread
    ratio = torch.exp(-0.5 * z.square() - 0.5 * math.log(2.0 * math.pi) - log_ndtr(z))
    step = along / spread[..., None]
    shrink = ratio * (ratio + z)
    outer = step[..., :, None] * step[..., None, :]
    return mean + step * ratio[..., None], covariance - shrink[..., None, None] * outer


@dataclass(frozen=True)
class EntropySearch(Acquisition):
    """Expected loss of entropy of the maximiser's distribution over ``points``, by its Monte-Carlo definition.

    The distribution is the share of joint draws whose largest value is at each point, smoothed by a softmax so that
    it has a gradient. Costly; for a few dimensions, and to compare the others with.

    Args:
        posterior: a single model.
        points: places the maximiser may be at, shape (m, d).
        noise: variance of an observation.
        draws, outcomes: samples of the function, and of the observation.
        sharpness: of the softmax, in standardised units to the minus one.
    """

    posterior: Posterior
    points: Tensor
    noise: float = 0.0
    draws: int = 512
    outcomes: int = 8
    sharpness: float = 50.0
    seed: int = 0

    def __call__(self, X: Tensor) -> Tensor:
        m = len(self.points)
        normal = sobol_normal(self.draws, m, self.seed)
        shown = sobol_normal(self.outcomes, 1, self.seed + 1)[:, 0]
        mean, covariance = self.posterior.joint(torch.cat([self.points.expand(len(X), -1, -1), X], 1))
        spread = (covariance[:, -1, -1] + self.noise + 1e-10).sqrt()
        shift = covariance[:, :-1, -1] / spread[:, None]
        identity = 1e-8 * torch.eye(m, dtype=X.dtype, device=X.device)
        before = self._entropy(mean[:, None, :-1], cholesky(covariance[:, :-1, :-1] + identity), normal)
        after_covariance = covariance[:, :-1, :-1] - shift[:, :, None] * shift[:, None] + identity
        after_mean = mean[:, None, :-1] + shown[:, None] * shift[:, None]
        after = self._entropy(after_mean, cholesky(after_covariance), normal)
        return before[:, 0] - after.mean(1)

    def _entropy(self, mean: Tensor, factor: Tensor, normal: Tensor) -> Tensor:
        """Entropy of the maximiser for each mean, b x o x m: shape b x o."""
        draws = mean[:, :, None] + (normal @ factor.transpose(-1, -2))[:, None]  # b x o x draws x m
        share = torch.softmax(self.sharpness * draws, -1).mean(2)
        return -(share * torch.log(share.clamp_min(1e-12))).sum(-1)
