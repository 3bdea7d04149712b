"""Several points at once, by Monte Carlo with reparameterised gradients.

Wang, Clark, Liu and Frazier (2020), "Parallel Bayesian global optimization of expensive functions"; Frazier (2018),
section 5.2; Gonzalez, Dai, Hennig and Lawrence (2016) for local penalisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr

from thalweg.blackbox.acquisition.base import Acquisition, averaged
from thalweg.numerics.gaussian_process import Posterior
from thalweg.numerics.gaussian_process.posterior import cholesky
from thalweg.numerics.quasirandom import sobol_normal

#: Width of the smoothing of ``max`` in standardised units; values below it have a gradient still.
SMOOTHING = 1e-3


def _draws(posterior: Posterior, X: Tensor, pending: Tensor | None, samples: int, seed: int) -> Tensor:
    """Joint draws at the q points and the pending ones, shape (samples, *models, b, q + pending)."""
    if pending is not None and len(pending):
        X = torch.cat([X, pending.expand(len(X), *pending.shape)], 1)
    mean, covariance = posterior.joint(X)
    normal = sobol_normal(samples, X.shape[1], seed)
    factor = cholesky(covariance + 1e-8 * torch.eye(X.shape[1], dtype=X.dtype, device=X.device))
    return mean + torch.einsum("...ij,sj->s...i", factor, normal)


@dataclass(frozen=True)
class QEI(Acquisition):
    """Expected improvement of the best of q points, eq. (15); for figures and tests. Maximise `QLogEI`.

    Args:
        pending: points being evaluated, shape (p, d), whose values are not known yet.
        samples: of the quasi-Monte-Carlo integral; always the same ones, so that it has a gradient.
    """

    posterior: Posterior
    best: float
    pending: Tensor | None = None
    samples: int = 256
    seed: int = 0

    def __call__(self, X: Tensor) -> Tensor:
        draws = _draws(self.posterior, X, self.pending, self.samples, self.seed)
        return averaged((draws.amax(-1) - self.best).clamp_min(0.0).mean(0), len(X))


@dataclass(frozen=True)
class QLogEI(Acquisition):
    """Logarithm of a smoothed `QEI`, whose gradient does not vanish where no draw improves.

    For several points chosen together, and for pending ones under models that `pending_ei` does not take.
    """

    posterior: Posterior
    best: float
    pending: Tensor | None = None
    samples: int = 128
    seed: int = 0

    def __call__(self, X: Tensor) -> Tensor:
        draws = _draws(self.posterior, X, self.pending, self.samples, self.seed)
        gains = (draws - self.best) / SMOOTHING
        largest = torch.logsumexp(gains, -1)
        # softplus in logarithms: log log(1 + e^g), which is g itself far below zero
        logs = torch.where(
            largest < -30.0, largest, torch.log(torch.nn.functional.softplus(largest.clamp_min(-31.0)))
        )
        worth = torch.logsumexp(logs, 0) - math.log(self.samples)
        return averaged(worth, len(X), log=True)


@dataclass(frozen=True)
class Penalised(Acquisition):
    """A log acquisition with a ball around each pending point excluded as far as a Lipschitz constant says.

    Args:
        base: e.g. `LogEI`.
        pending: shape (p, d).
        lipschitz: of the function, e.g. the largest gradient of the posterior mean (`lipschitz_constant`).
        best: the largest value seen.
    """

    base: Acquisition
    posterior: Posterior
    pending: Tensor
    lipschitz: float
    best: float

    def __call__(self, X: Tensor) -> Tensor:
        mean, variance = self.posterior.predict(self.pending)
        mean, variance = (
            mean.reshape(-1, len(self.pending)).mean(0),
            variance.reshape(-1, len(self.pending)).mean(0),
        )
        distance = (X - self.pending).square().sum(-1).clamp_min(1e-16).sqrt()  # b x p
        z = (self.lipschitz * distance - (self.best - mean)) / (2.0 * variance).sqrt()
        return self.base(X) + log_ndtr(z).sum(-1)


def lipschitz_constant(posterior: Posterior, points: Tensor) -> float:
    """The largest gradient of the posterior mean at ``points``, shape (m, d)."""
    leaf = points.detach().requires_grad_(True)
    mean = posterior.mean(leaf)
    (slope,) = torch.autograd.grad(mean.reshape(-1, len(points)).mean(0).sum(), leaf)
    return max(float(slope.norm(dim=1).max()), 1e-6)
