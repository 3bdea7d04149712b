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
from thalweg.numerics.gaussian_process import Posterior


def log_feasibility(X: Tensor, constraints: Sequence[tuple[Posterior, float]]) -> Tensor:
    """Log probability that every constraint is at most its bound at single points, b x 1 x d: shape (b,)."""
    total = X.new_zeros(len(X))
    for posterior, bound in constraints:
        mean, variance = posterior.predict(X)
        total = total + averaged(log_ndtr((bound - mean[..., 0]) / variance[..., 0].sqrt()), len(X), log=True)
    return total


#: Where success is less likely than this, nothing is looked for; what one unit of its logarithm then costs; and below
#: what a log acquisition is nothing, so that it cannot outweigh that.
RISK, COST, NOTHING = math.log(0.2), 1e3, -200.0


@dataclass(frozen=True)
class Survival:
    """Log probability that an evaluation does not fail, by a vote of all told trials; differentiable in the points.

    A trial at distance r has ``r^-(d + 4)`` votes (Shepard, 1968, "A two-dimensional interpolation function for
    irregularly-spaced data"). A Gaussian process of the labels finds the parameters that matter, but goes back to their
    mean away from data; the vote does not. It is about the ratio of the distances to what has worked and to what has
    not, so that a region of failures stays one between the trials in it, and a single odd failure among successes is
    avoided only next by.

    Args:
        succeeded, failed: points, shape (n, d) and (m, d); at least one of each.
    """

    succeeded: Tensor
    failed: Tensor

    def __call__(self, X: Tensor) -> Tensor:
        """At single points, b x 1 x d: shape (b,)."""
        return torch.nn.functional.logsigmoid(self._votes(self.succeeded, X) - self._votes(self.failed, X))

    def _votes(self, points: Tensor, X: Tensor) -> Tensor:
        squares = (X - points).square().sum(-1) + 1e-12
        return torch.logsumexp(-0.5 * (X.shape[-1] + 4) * torch.log(squares), -1)


@dataclass(frozen=True)
class Constrained(Acquisition):
    """A log acquisition times the probability of feasibility; that probability alone while nothing is feasible.

    Where the vote is that an evaluation fails, nothing is looked for: however little is left to gain elsewhere.

    Args:
        base: a log acquisition, e.g. `LogEI` over the best feasible value, or `KnowledgeGradient`; None while no
            feasible point is known.
        constraints: pairs of a posterior and the bound its value must not exceed.
        survival: the vote on failing; None where nothing has failed.
    """

    base: Acquisition | None
    constraints: Sequence[tuple[Posterior, float]]
    survival: Survival | None = None

    def __call__(self, X: Tensor) -> Tensor:
        singles = X.split(1, 1)  # points of a batch are feasible one by one
        total = torch.stack([log_feasibility(x, self.constraints) for x in singles]).sum(0)
        if self.base is not None:
            total = total + self.base(X)
        if self.survival is None:
            return total
        risk = sum((RISK - self.survival(x)).clamp_min(0.0) for x in singles)
        return total.clamp_min(NOTHING) - COST * risk
