"""The policy that is best for a reward and its own entropy, in tables, and how it moves with the reward.

Soft policy iteration: Newton's method on the soft Bellman equation ``Q = r + gamma P tau logsumexp(Q / tau)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.special import logsumexp

from thalweg.bilevel.alignment.mdp import TabularMDP
from thalweg.bilevel.alignment.segments import Array
from thalweg.core import NotFinite

#: Steps without half the gap after which a solution is as good as rounding allows.
STANDING = 10


@dataclass(frozen=True, eq=False)
class SoftSolution:
    """The soft-optimal policy of a reward in an endless `TabularMDP`, with the factor that its derivatives share.

    ``q`` and ``policy`` have shape (S, A); ``gap`` is the largest entry of the soft Bellman residual over the largest
    of q, plus the entropy's weight; ``steps`` the Newton steps taken.

    Cost of each method: a solve with one S x S factor, and a product with the transitions, O(S^2 A).
    """

    world: TabularMDP
    entropy: float
    q: Array
    policy: Array
    gap: float
    steps: int
    factor: tuple[Array, NDArray[np.int32]]

    def occupancy(self) -> Array:
        """``(1 - gamma) sum_t gamma^t`` of the chances of being in a state and taking an action, shape (S, A)."""
        world = self.world
        states = scipy.linalg.lu_solve(self.factor, world.start, trans=1)
        return (1.0 - world.discount) * states[:, None] * self.policy

    def evaluate(self, f: Array) -> Array:
        """``f + gamma P^pi f + ...``: the discounted sum of f from each state and action on, shape (S, A)."""
        values = scipy.linalg.lu_solve(self.factor, (self.policy * f).sum(1))
        return f + self.world.discount * self.world.transitions @ values

    def pull(self, g: Array) -> Array:
        """What ``g``, derivatives in ``ln pi(a|s)``, are in the reward; shape (..., S, A) both.

        ``q = (g - pi sum_b g) / tau``, then ``(I - gamma P^pi)^{-T} q``.
        """
        world = self.world
        q = (g - self.policy * g.sum(-1, keepdims=True)) / self.entropy
        entering = np.einsum("...sa,sat->...t", q, world.transitions)
        flat = np.moveaxis(entering, -1, 0).reshape(world.states, -1)
        states = scipy.linalg.lu_solve(self.factor, flat, trans=1)
        states = np.moveaxis(states.reshape(world.states, *g.shape[:-2]), 0, -1)
        found: Array = q + world.discount * states[..., None] * self.policy
        return found


def soft_policy(
    world: TabularMDP,
    reward: Array,
    entropy: float,
    q0: Array | None = None,
    *,
    tol: float = 1e-12,
    max_steps: int = 100,
) -> SoftSolution:
    """The policy ``softmax(Q / entropy)`` that maximises reward and entropy in an endless world.

    Args:
        world: without a horizon.
        reward: shape (S, A).
        entropy: weight of the policy's entropy, > 0, in units of the reward.
        q0: where to begin, shape (S, A): the last solution, where the reward has moved a little.
        tol: of the relative Bellman residual, above which another step is taken.
        max_steps: fewer leave the lower level unfinished; ``gap`` tells by how much. Rewards of 10^5 times the entropy
            and more lose digits, which ``gap`` tells, too.

    Cost: an S x S factorisation and O(S^2 A) a step; three to six steps from zero, two or three from near.

    >>> world = TabularMDP(np.ones((1, 2, 1)), discount=0.5)
    >>> soft_policy(world, np.array([[0.0, np.log(3.0)]]), entropy=1.0).policy.round(6)
    array([[0.25, 0.75]])
    """
    if not np.isfinite(reward).all():
        raise NotFinite("The reward is not finite: NaN, or grown out of all bounds.")
    q = reward.copy() if q0 is None else q0
    gamma, moves, eye = world.discount, world.transitions, np.eye(world.states)
    best, better = np.inf, 0
    for step in range(max_steps + 1):
        log_sum = logsumexp(q / entropy, axis=1, keepdims=True)
        log_policy = q / entropy - log_sum
        policy = np.exp(log_policy)
        factor = scipy.linalg.lu_factor(eye - gamma * np.einsum("sa,sat->st", policy, moves))
        residual = reward + gamma * moves @ (entropy * log_sum[:, 0]) - q
        gap = float(np.abs(residual).max()) / (entropy + float(np.abs(q).max()))
        if gap < 0.5 * best:
            best, better = gap, step
        if gap <= tol or step == max_steps or step - better >= STANDING:  # rounding allows no more
            return SoftSolution(world, entropy, q, policy, gap, step, factor)
        values = scipy.linalg.lu_solve(factor, (policy * (reward - entropy * log_policy)).sum(1))
        q = reward + gamma * moves @ values
    raise AssertionError("the loop returns")
