"""Constraints that are expensive too, and evaluations that fail.

Gardner, Kusner, Xu, Weinberger and Cunningham (2014), "Bayesian optimization with inequality constraints";
Frazier (2018), section 5.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import log_ndtr

from thalweg.blackbox.acquisition.base import Acquisition, averaged
from thalweg.blackbox.acquisition.failing import Survival
from thalweg.numerics.gaussian_process import Posterior


def log_feasibility(X: Tensor, constraints: Sequence[tuple[Posterior, float]]) -> Tensor:
    """Log probability that every constraint is at most its bound at single points, b x 1 x d: shape (b,)."""
    total = X.new_zeros(len(X))
    for posterior, bound in constraints:
        mean, variance = posterior.predict(X)
        total = total + averaged(log_ndtr((bound - mean[..., 0]) / variance[..., 0].sqrt()), len(X), log=True)
    return total


#: What one unit of the logarithm of a chance below the least costs, and below what a log acquisition is nothing, so
#: that it cannot outweigh that.
COST, NOTHING = 1e3, -200.0


@dataclass(frozen=True)
class Constrained(Acquisition):
    """A log acquisition times the probability of feasibility; that probability alone while nothing is feasible.

    Where success is less likely than ``least``, nothing is looked for, however little is left to gain elsewhere: the
    probability alone is outvoted by a log acquisition that falls by tens between a place that fails and one that works.

    Args:
        base: a log acquisition, e.g. `LogEI` over the best feasible value, or `KnowledgeGradient`; None while no
            feasible point is known.
        constraints: pairs of a posterior and the bound its value must not exceed.
        survival: the log probability of success; None where nothing has failed.
        least: the logarithm of the least such probability, as `least_chance` has it.
    """

    base: Acquisition | None
    constraints: Sequence[tuple[Posterior, float]]
    survival: Survival | None = None
    least: float = math.log(0.5)

    def __call__(self, X: Tensor) -> Tensor:
        singles = X.split(1, 1)  # points of a batch are feasible one by one
        total = torch.stack([log_feasibility(x, self.constraints) for x in singles]).sum(0)
        if self.base is not None:
            total = total + self.base(X)
        if self.survival is None:
            return total
        chances = torch.stack([self.survival(x) for x in singles])
        risk = (self.least - chances).clamp_min(0.0).sum(0)
        return total.clamp_min(NOTHING) + chances.sum(0) - COST * risk
