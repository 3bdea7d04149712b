"""What the upper level wants, ``G = E[U]``, and its derivatives where the law of the pieces is known.

Pieces are anything that has a chance and a sum of rewards: states with actions, drawn by occupancy, or whole
trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from scipy.special import expit, log_expit

from thalweg.bilevel.alignment.segments import Array
from thalweg.core import UnknownName

#: ``loglik``: the log-likelihood of labels of the policy's own pairs (the paper's). ``versus``: the chance to be
#: preferred to the frozen policy. ``loglik+versus``: the first trains the reward with the pairs' law held fixed, the
#: second goes through the policy. ``utility``: the expected score.
Objective = Literal["loglik", "versus", "loglik+versus", "utility"]


def check_objective(name: str) -> None:
    """Refuse a name that is none."""
    if name not in get_args(Objective):
        raise UnknownName("objective", name, get_args(Objective))


@dataclass(frozen=True, eq=False)
class Derivatives:
    """Of G: its ``value``; ``by_returns``, the derivative in each piece's sum of rewards with the law held fixed, shape
    (pieces,); ``by_chances``, the derivative in each piece's chance, shape (pieces,), up to a constant.
    """

    value: float
    by_returns: Array
    by_chances: Array


def expected(
    objective: Objective,
    chances: Array,
    returns: Array,
    preferred: Array | None = None,
    scores: Array | None = None,
    reference: Array | None = None,
) -> Derivatives:
    """G and its derivatives, exact.

    Args:
        objective: which U.
        chances: of each piece under the policy, shape (n,).
        returns: each piece's sum of rewards under the model, shape (n,).
        preferred: ``P(i preferred to j)`` by the teacher, shape (n, n), ``P + P' = 1``; not for ``utility``.
        scores: the piece's score, shape (n,), for ``utility``.
        reference: the frozen policy's chances for ``versus``; by default ``chances``.

    Cost: O(n^2), one logistic function of each pair; O(n) for ``utility``.

    >>> d, P = np.array([0.5, 0.5]), np.array([[0.5, 0.9], [0.1, 0.5]])
    >>> expected("loglik", d, np.zeros(2), P).by_returns
    array([ 0.2, -0.2])
    """
    if objective == "utility":
        worth = cast(Array, scores)
        return Derivatives(float(chances @ worth), np.zeros_like(returns), worth)
    likes = cast(Array, preferred)
    frozen = chances if reference is None else reference
    wins = likes @ frozen
    if objective == "versus":
        return Derivatives(float(chances @ wins), np.zeros_like(returns), wins)
    ahead = returns[:, None] - returns[None, :]
    log_chance = log_expit(ahead)
    by_returns = 2.0 * chances * ((likes - expit(ahead)) @ chances)
    u = likes * log_chance + likes.T * log_chance.T
    toward = u @ chances
    value = float(chances @ toward)
    return Derivatives(value, by_returns, 2.0 * toward if objective == "loglik" else wins)
