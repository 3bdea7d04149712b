"""Two steps ahead: the improvement now, and the best expected improvement after what it shows.

Frazier (2018), section 4.4; Wu and Frazier (2019), "Practical two-step lookahead Bayesian optimization".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.blackbox.acquisition.base import Acquisition
from thalweg.blackbox.acquisition.improvement import log_improvement
from thalweg.core.validation import require
from thalweg.numerics.gaussian_process import Posterior


@dataclass(frozen=True)
class TwoStepEI(Acquisition):
    """``E[gain now + max_x' EI(x' | what x shows)]``, by Gauss-Hermite quadrature; for one and two dimensions.

    Args:
        posterior: a single model, without noise.
        best: the largest value seen.
        points: where the second evaluation may be, shape (m, d).
        nodes: of the quadrature.

    Cost: m n operations a point, and m^2 numbers are not formed.
    """

    posterior: Posterior
    best: float
    points: Tensor
    nodes: int = 10

    def __post_init__(self) -> None:
        require(self.points.shape[1] <= 2, "TwoStepEI is for d <= 2", got=self.points.shape[1])

    def __call__(self, X: Tensor) -> Tensor:
        nodes, weights = np.polynomial.hermite_e.hermegauss(self.nodes)
        z, w = X.new_tensor(nodes), X.new_tensor(weights / math.sqrt(2.0 * math.pi))
        later_mean, later_variance = self.posterior.predict(self.points)
        mean, variance = self.posterior.predict(X[:, 0])
        cross = self.posterior.covariance_between(X[:, 0], self.points)  # b x m
        spread = (variance + 1e-10).sqrt()
        shift = cross / spread[:, None]
        shown = mean[:, None] + spread[:, None] * z  # b x nodes
        gain = (shown - self.best).clamp_min(0.0)
        new_best = torch.maximum(shown, shown.new_tensor(self.best))
        std = (later_variance - shift.square()).clamp_min(1e-12).sqrt()  # b x m
        new_mean = later_mean + shift[:, None] * z[:, None]  # b x nodes x m
        second = log_improvement((new_mean - new_best[..., None]) / std[:, None]) + torch.log(std)[:, None]
        return ((gain + second.amax(-1).exp()) * w).sum(1)
