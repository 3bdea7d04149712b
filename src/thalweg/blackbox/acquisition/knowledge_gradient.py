"""The knowledge gradient: how much an observation is expected to raise the best posterior mean.

Frazier, Powell and Dayanik (2009); Wu and Frazier (2016), "The parallel knowledge gradient method"; Frazier (2018),
sections 4.2, 5.1 and 5.4 to 5.6. What is observed and what is to be raised are both given as lists of points, so
that one class serves noise, fidelities, environments, tasks, gradients and whole traces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.special import log_ndtr

from thalweg.blackbox.acquisition.base import TINY, Acquisition
from thalweg.numerics.bfgs import minimize_many
from thalweg.numerics.gaussian_process import Posterior
from thalweg.numerics.gaussian_process.posterior import cholesky, solve_lower
from thalweg.numerics.quasirandom import sobol_normal


def expected_maximum(a: Tensor, b: Tensor) -> Tensor:
    """``E max_i (a_i + b_i Z) - max_i a_i`` for a standard normal Z, exactly; a and b of shape (..., m).

    Frazier, Powell and Dayanik (2009), algorithm 1: the upper envelope of lines, here by comparing all pairs, which
    has a gradient and takes batches.

    Cost: m^2 operations.

    >>> expected_maximum(torch.zeros(2), torch.tensor([0.0, 1.0]))  # E max(0, Z) = phi(0)
    tensor(0.3989)
    """
    with torch.no_grad():  # where each line is on top, z in (low, high)
        gap, slope = a[..., None, :] - a[..., :, None], b[..., :, None] - b[..., None, :]
        crossing = gap / torch.where(slope == 0, 1.0, slope)
        low = torch.where(slope > 0, crossing, -torch.inf).amax(-1)
        high = torch.where(slope < 0, crossing, torch.inf).amin(-1)
        order = torch.arange(a.shape[-1], device=a.device)
        same = (slope == 0) & ((gap > 0) | ((gap == 0) & (order[None, :] < order[:, None])))
        on_top = (low < high) & ~same.any(-1)
        low, high = torch.where(on_top, low, 0.0), torch.where(on_top, high, 0.0)
        share = torch.exp(log_ndtr(high)) - torch.exp(log_ndtr(low))
        density = (torch.exp(-0.5 * low.square()) - torch.exp(-0.5 * high.square())) / math.sqrt(
            2.0 * math.pi
        )
    # The ends move with a and b, but there neighbours are equal: their motion does not count (envelope theorem).
    value = (a * share + b * density).sum(-1)
    return (value - a.amax(-1)).clamp_min(0.0)


Observes = Callable[[Tensor], Tensor]


def _paired(samples: int, dimension: int, seed: int) -> Tensor:
    """Normal points and their negatives: the mean of maxima over them is never below the maximum of means."""
    half = sobol_normal((samples + 1) // 2, dimension, seed)
    return torch.cat([half, -half])[:samples]


@dataclass(frozen=True)
class KnowledgeGradient(Acquisition):
    """Expected rise of the largest mean among ``targets``, by what evaluating at x shows.

    Args:
        posterior: a single model.
        targets: points whose means count, shape (m, d), or (m, k, d) with ``weights``, shape (k,): a target is then
            a weighted sum, e.g. over environmental conditions.
        noise: variance of an observation.
        observes: what choosing x shows, b x d to b x r x d': x itself by default. With gradients, the codes of a
            `Derivative` kernel; with a fidelity, the trace.
        cost: of choosing x, b x d to b; the rise is divided by it.
        own_target: the target that x adds, b x d to b x 1 x k x d: x itself by default; None for none.
        samples: for observations of more than one number.

    With targets = the visited points this is the tutorial's expected improvement for noise (section 5.1).

    Cost: n^2 + m n operations and m^2 a point; the targets' part is worked out once.
    """

    posterior: Posterior
    targets: Tensor
    weights: Tensor | None = None
    noise: float = 0.0
    observes: Observes | None = None
    cost: Callable[[Tensor], Tensor] | None = None
    own_target: Callable[[Tensor], Tensor] | None = lambda x: x[:, None, None]
    samples: int = 64
    seed: int = 0

    def __call__(self, X: Tensor) -> Tensor:
        x = X[:, 0]
        observed = X if self.observes is None else self.observes(x)  # b x r x d
        mean, shift = self._fixed_targets(observed)
        if self.own_target is not None:
            own_mean, own_shift = self._own(self.own_target(x), observed)
            mean, shift = torch.cat([mean, own_mean], 1), torch.cat([shift, own_shift], 1)
        if shift.shape[-1] == 1:
            rise = expected_maximum(mean, shift[..., 0])
        else:
            normal = _paired(self.samples, shift.shape[-1], self.seed)
            rise = (mean + torch.einsum("bmr,sr->sbm", shift, normal)).amax(-1).mean(0) - mean.amax(-1)
        return torch.log((rise / (1.0 if self.cost is None else self.cost(x))).clamp_min(TINY))

    @cached_property
    def _whitened_targets(self) -> tuple[Tensor, Tensor, Tensor]:
        """The targets' points, (m k, d), their means, (m, k), and their whitened covariance with the data."""
        blocks = self.targets if self.targets.ndim == 3 else self.targets[:, None]
        flat = blocks.reshape(-1, blocks.shape[-1])
        process, posterior = self.posterior.process, self.posterior
        cross = process.kernel(process.kernel_theta(posterior.theta), posterior.X, flat)
        return flat, posterior.mean(flat).reshape(blocks.shape[:2]), solve_lower(posterior.factor, cross)

    def _fixed_targets(self, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the targets, (b, m), and how far a standard normal of each observation moves them, (b, m, r)."""
        flat, means, whitened = self._whitened_targets
        process, posterior = self.posterior.process, self.posterior
        theta, shown = process.kernel_theta(posterior.theta), observed.reshape(-1, observed.shape[-1])
        seen = solve_lower(posterior.factor, process.kernel(theta, posterior.X, shown))
        cross = process.kernel(theta, flat, shown) - whitened.T @ seen  # m k x b r
        cross = cross.reshape(*means.shape, *observed.shape[:2]).permute(2, 0, 1, 3)
        shift = solve_lower(self._root(observed)[:, None, None], cross[..., None])[..., 0]
        weights = self._weights(means)
        return (means @ weights).expand(len(observed), -1), torch.einsum("bmkr,k->bmr", shift, weights)

    def _own(self, own: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the target that x adds, points b x 1 x k x d."""
        k = own.shape[2]
        mean, covariance = self.posterior.joint(torch.cat([own[:, 0], observed], 1))
        shift = solve_lower(self._root(observed)[:, None], covariance[:, :k, k:, None])[..., 0]
        weights = self._weights(mean)
        return (mean[:, :k] @ weights)[:, None], torch.einsum("bkr,k->br", shift, weights)[:, None]

    def _root(self, observed: Tensor) -> Tensor:
        _, covariance = self.posterior.joint(observed)
        return cholesky(
            covariance
            + (self.noise + 1e-10)
            * torch.eye(observed.shape[1], dtype=observed.dtype, device=observed.device)
        )

    def _weights(self, like: Tensor) -> Tensor:
        return like.new_ones(1) if self.weights is None else self.weights


def _risen(posterior: Posterior, X: Tensor, points: Tensor, normal: Tensor, noise: float) -> Tensor:
    """The mean at ``points``, b x k x d, once x, b x 1 x d, has shown what ``normal`` says: ... x b x k."""
    mean, covariance = posterior.joint(torch.cat([points, X], 1))
    spread = (covariance[:, -1, -1:] + noise + 1e-10).sqrt()
    return mean[:, :-1] + covariance[:, :-1, -1] / spread * normal


@dataclass(frozen=True)
class ContinuousKG(Acquisition):
    """The knowledge gradient over the whole cube: for each fantasy the new mean is maximised, not just compared.

    The gradient is that of the fantasies' best points held fixed (the envelope theorem; Wu and Frazier, 2016), with
    common random numbers, so that BFGS can climb it where the original takes stochastic steps.

    Args:
        posterior: a single model.
        best: the largest posterior mean in the cube.
        starts: points from which each fantasy's mean is climbed, shape (s, d); the best mean's among them.
        noise: variance of an observation.
        samples: fantasies.
    """

    posterior: Posterior
    best: float
    starts: Tensor
    noise: float = 0.0
    samples: int = 16
    seed: int = 0

    def __call__(self, X: Tensor) -> Tensor:
        normal = _paired(self.samples, 1, self.seed)[:, 0]
        best = self._best_points(X.detach(), normal)  # b x samples x d
        return torch.log(
            (_risen(self.posterior, X, best, normal, self.noise).mean(1) - self.best).clamp_min(TINY)
        )

    def _best_points(self, X: Tensor, normal: Tensor) -> Tensor:
        b, s = len(X), len(normal)
        with torch.no_grad():
            everywhere = self.starts.expand(b, -1, -1)
            risen = _risen(self.posterior, X, everywhere, normal[:, None, None], self.noise)  # s x b x starts
            first = self.starts[risen.argmax(-1).T.reshape(-1)]

        def fall(points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
            leaf = points.detach().requires_grad_(True)
            with torch.enable_grad():
                at, z = X[which // s], normal[which % s]
                value = -_risen(self.posterior, at, leaf[:, None], z[:, None], self.noise)[:, 0]
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            return value.detach(), gradient

        return minimize_many(fall, first, 0.0, 1.0, max_steps=20).x.reshape(b, s, -1)


@dataclass(frozen=True)
class OneShotKG(Acquisition):
    """`ContinuousKG` with the fantasies' best points as variables of the same climb: q = 1 + samples points.

    Balandat, Karrer, Jiang, Daulton, Letham, Wilson and Bakshy (2020), "BoTorch". A lower bound of the knowledge
    gradient everywhere, and equal to it at the maximum.
    """

    posterior: Posterior
    best: float
    noise: float = 0.0
    samples: int = 8
    seed: int = 0

    def __call__(self, X: Tensor) -> Tensor:
        normal = _paired(self.samples, 1, self.seed)[:, 0]
        return _risen(self.posterior, X[:, :1], X[:, 1:], normal, self.noise).mean(1) - self.best
