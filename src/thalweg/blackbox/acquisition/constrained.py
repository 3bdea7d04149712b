"""Constraints that are expensive too, and evaluations that fail.

Gardner, Kusner, Xu, Weinberger and Cunningham (2014), "Bayesian optimization with inequality constraints";
Frazier (2018), section 5.3.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Constrained(Acquisition):
    """A log acquisition times the probability of feasibility; that probability alone while nothing is feasible.

    Args:
        base: a log acquisition, e.g. `LogEI` over the best feasible value, or `KnowledgeGradient`; None while no
            feasible point is known.
        constraints: pairs of a posterior and the bound its value must not exceed.
    """

    base: Acquisition | None
    constraints: Sequence[tuple[Posterior, float]]

    def __call__(self, X: Tensor) -> Tensor:
        # points of a batch are feasible one by one
        parts = [log_feasibility(X[:, i : i + 1], self.constraints) for i in range(X.shape[1])]
        feasible = torch.stack(parts).sum(0)
        return feasible if self.base is None else self.base(X) + feasible
