"""Derivatives of a softmax table's value from weighted trajectories: all of them, or a sample.

With ``g_h = grad ln pi(a_h|s_h)`` and ``S_h = g_0 + ... + g_h``: ``grad V = E sum_h gamma^h r_h S_h``, the mixed
derivative ``E sum_h gamma^h S_h (grad_nu r_h)'``, and the Hessian
``E sum_h gamma^h r_h [S_h S_h' + sum_{j<=h} hess ln pi(a_j|s_j)]``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy.linalg
from scipy.special import softmax

from thalweg.bilevel.alignment.mdp import TabularMDP
from thalweg.bilevel.alignment.segments import Array, Segments
from thalweg.core import InvalidProblem
from thalweg.core.validation import require

#: Most trajectories that are listed one by one.
MOST = 3000


@dataclass(frozen=True, eq=False)
class Trajectories:
    """N trajectories of H steps with what the derivatives need.

    Args:
        segments: numbered states and actions.
        theta: the policy's logits, shape (S, A).
        rewards: of each step under the model, shape (N, H).
        weights: of each trajectory, shape (N,), summing to one: its chance, or 1/N.
        discount: gamma.
        ridge: lam, of ``-(lam/2)|theta|^2`` in the value.

    Each step's mean reward is taken off the rewards: with all trajectories this changes nothing, with a sample it takes
    noise away.

    Cost: O(N H n) for gradients, O(N H n^2) for the Hessian, n = S A.
    """

    segments: Segments
    theta: Array
    rewards: Array
    weights: Array
    discount: float
    ridge: float

    def _scores(self) -> Array:
        """S_h of all, shape (N, H, n)."""
        states, actions = self.segments.observations, self.segments.actions
        policy = softmax(self.theta, axis=1)
        N, H = states.shape
        g = np.zeros((N, H, *self.theta.shape))
        i, h = np.ogrid[:N, :H]
        g[i, h, states] = -policy[states]
        g[i, h, states, actions] += 1.0
        return np.cumsum(g.reshape(N, H, -1), axis=1)

    @property
    def scores(self) -> Array:
        """``grad ln rho(tau)``, shape (N, n)."""
        return self._scores()[:, -1]

    @property
    def _discounts(self) -> Array:
        return self.discount ** np.arange(self.segments.length, dtype=np.float64)

    @property
    def returns(self) -> Array:
        """The discounted sum of rewards of each, shape (N,)."""
        found: Array = self.rewards @ self._discounts
        return found

    def _centred(self) -> Array:
        return (self.rewards - self.weights @ self.rewards) * self._discounts

    def gradient(self) -> Array:
        """``grad V``, shape (n,)."""
        slopes = np.einsum("i,ih,ihn->n", self.weights, self._centred(), self._scores(), optimize=True)
        found: Array = slopes - self.ridge * self.theta.ravel()
        return found

    def mixed_transposed(self, v: Array) -> Array:
        """``(d2V / dtheta dr)' v`` for the rewards of the steps, shape (N, H): weights and discounts included."""
        along = self._scores() @ v
        return self.weights[:, None] * self._discounts * (along - self.weights @ along)

    def hessian(self, *, outer: bool = True) -> Array:
        """``d2V / dtheta2``, shape (n, n); without ``outer`` the products S S' are left out, which is wrong."""
        r, S, n = self._centred(), self._scores(), self.theta.size
        found = np.zeros((n, n))
        if outer:
            for h in range(self.segments.length):
                found += (S[:, h].T * (self.weights * r[:, h])) @ S[:, h]
        to_go = np.cumsum(r[:, ::-1], axis=1)[:, ::-1] * self.weights[:, None]
        policy, A = softmax(self.theta, axis=1), self.theta.shape[1]
        shares = np.bincount(
            self.segments.observations.ravel(), weights=to_go.ravel(), minlength=len(self.theta)
        )
        for s, share in enumerate(shares):
            block = slice(s * A, (s + 1) * A)
            found[block, block] -= share * (np.diag(policy[s]) - np.outer(policy[s], policy[s]))
        return found - self.ridge * np.eye(n)


@dataclass(frozen=True, eq=False)
class Clipped:
    """``M^{-1} b`` with ``M = -Hessian`` made symmetric and its eigenvalues raised to a floor where they are below.

    ``clipped`` counts the eigenvalues raised.

    >>> Clipped.of(-np.diag([2.0, -1.0]), 0.5).solve(np.ones(2))
    array([0.5, 2. ])
    """

    values: Array
    vectors: Array
    clipped: int

    @classmethod
    def of(cls, hessian: Array, floor: float) -> Clipped:
        """Of a Hessian of the value; O(n^3)."""
        values, vectors = scipy.linalg.eigh(-0.5 * (hessian + hessian.T))
        low = values < floor * (1.0 - 1e-9)
        return cls(np.where(low, floor, values), vectors, int(low.sum()))

    def solve(self, b: Array) -> Array:
        """``M^{-1} b``."""
        found: Array = self.vectors @ ((self.vectors.T @ b) / self.values)
        return found


@dataclass(frozen=True, eq=False)
class Enumerated:
    """All trajectories of a small world with a horizon, and the chance that the world gives each.

    Raises:
        InvalidProblem: no horizon, or more than 3000 trajectories.

    >>> Enumerated.of(TabularMDP(np.full((3, 2, 3), 1 / 3), np.full(3, 1 / 3), horizon=3)).segments.length
    3
    """

    world: TabularMDP
    segments: Segments
    chances: Array  # (N,), without the policy's

    @classmethod
    def of(cls, world: TabularMDP) -> Enumerated:
        """List them."""
        require(world.horizon is not None, "Enumerated needs a world with a horizon", error=InvalidProblem)
        horizon = cast(int, world.horizon)
        states = np.flatnonzero(world.start)[:, None]
        chances, actions = world.start[states[:, 0]], np.zeros((len(states), 0), dtype=np.int64)
        for h in range(horizon):
            n, A = len(states), world.actions
            states, chances = np.repeat(states, A, axis=0), np.repeat(chances, A)
            actions = np.c_[np.repeat(actions, A, axis=0), np.tile(np.arange(A), n)]
            if h < horizon - 1:
                moves = world.transitions[states[:, -1], actions[:, -1]]
                row, after = np.nonzero(moves)
                states = np.c_[states[row], after]
                actions, chances = actions[row], chances[row] * moves[row, after]
            if len(states) > MOST:
                raise InvalidProblem(
                    f"A world of {world.states} states, {A} actions and {world.horizon} steps has more than {MOST} "
                    "trajectories: take SampledAPARL, or a world without a horizon."
                )
        return cls(world, Segments(states, actions), chances)

    def at(self, theta: Array, reward: Array, ridge: float) -> Trajectories:
        """All of them under a policy's logits and a reward, shape (S, A) both."""
        states, actions = self.segments.observations, self.segments.actions
        policy = softmax(theta, axis=1)
        weights = self.chances * policy[states, actions].prod(1)
        return Trajectories(
            self.segments, theta, reward[states, actions], weights, self.world.discount, ridge
        )

    def solved(
        self, reward: Array, ridge: float, theta: Array, *, tol: float = 1e-12, max_steps: int = 200
    ) -> tuple[Trajectories, float, int]:
        """The logits that maximise ``V``, from ``theta`` on: the trajectories, the gradient's length and the steps.

        Newton's method with eigenvalues raised to the ridge, and halved steps until the value rises.
        """
        found = self.at(theta, reward, ridge)
        for step in range(max_steps + 1):
            g = found.gradient()
            size = float(np.linalg.norm(g))
            if size <= tol or step == max_steps:
                return found, size, step
            along = Clipped.of(found.hessian(), ridge).solve(g).reshape(theta.shape)
            value, share = _value(found), 1.0
            while share > 1e-10:
                new = self.at(found.theta + share * along, reward, ridge)
                if _value(new) >= value - 1e-15 * (1.0 + abs(value)):
                    break
                share *= 0.5
            found = new
        raise AssertionError("the loop returns")


def _value(t: Trajectories) -> float:
    return float(t.weights @ t.returns) - 0.5 * t.ridge * float((t.theta**2).sum())
