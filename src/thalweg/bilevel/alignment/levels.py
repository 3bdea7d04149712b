"""The lower level solved exactly, and what flows through it: two routes with the same three questions.

What is the best policy for this reward? How does G change with the reward, its pairs' law held fixed? How does it
change through the policy? Worlds without end go by soft policy iteration, small ones with a horizon by listing all
trajectories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit

from thalweg.bilevel.alignment.mdp import TabularMDP
from thalweg.bilevel.alignment.objectives import Objective, expected
from thalweg.bilevel.alignment.problem import PreferenceTask
from thalweg.bilevel.alignment.segments import Array, Segments
from thalweg.bilevel.alignment.soft import soft_policy
from thalweg.bilevel.alignment.trajectories import Clipped
from thalweg.core import InvalidProblem

#: Share of the ridge below which the exact Hessian counts as flat: at a maximum it is not.
FLAT = 1e-6


@dataclass(frozen=True, eq=False)
class Ascent:
    """What a step of the reward is made of.

    Args:
        value: G, or its estimate.
        direct: its derivative in nu with the law of pairs held fixed, shape (m,).
        term: what comes through the policy, shape (m,).
        noise: the standard error of ``term``, the length of its vector; 0 where exact.
        gap: of the lower level: how far from solved.
        clipped: eigenvalues of the lower Hessian that were raised.
        warm: where the next lower level begins, shape (S, A).
        asked: pairs that the teacher was asked about.
        skipped: of them, those without an answer.
    """

    value: float
    direct: Array
    term: Array
    noise: float
    gap: float
    clipped: int
    warm: Array
    asked: int = 0
    skipped: int = 0


def exact_ascent(
    task: PreferenceTask,
    nu: Array,
    objective: Objective,
    *,
    warm: Array | None = None,
    inner_steps: int = 100,
    term: bool = True,
) -> Ascent:
    """The derivatives of G by exact expectations over the teacher, the world and the policy.

    Args:
        task: a table with a scripted teacher, or scores.
        nu: the reward's parameters, shape (m,).
        objective: which G.
        warm: where the lower level begins; what the last call gave.
        inner_steps: most Newton steps of the lower level.
        term: False leaves the part through the policy out, at 0.

    Cost: O(k^2) for k states with actions (or trajectories), and one S x S factor whose solves are shared (or an n x n
    eigendecomposition).
    """
    world = task.world
    if not isinstance(world, TabularMDP):
        raise InvalidProblem("Exact ascents need a TabularMDP; for Episodes take SampledAPARL.")
    needs_scores = objective == "utility"
    preferred = None if needs_scores else task.preferred
    scores = task.piece_scores if needs_scores else None
    shape = (world.states, world.actions)
    table = task.reward.table(nu, *shape)
    if task.is_endless:
        soft = soft_policy(world, table, task.entropy, warm, max_steps=inner_steps)
        chances = soft.occupancy()
        found = expected(objective, chances.ravel(), table.ravel(), preferred, scores)
        direct = task.reward.pull(nu, found.by_returns.reshape(shape))
        through = np.zeros_like(nu)
        if term:
            g = chances * soft.evaluate(found.by_chances.reshape(shape))
            through = task.reward.pull(nu, soft.pull(g))
        return Ascent(found.value, direct, through, 0.0, soft.gap, 0, soft.q)
    start = np.zeros(shape) if warm is None else warm
    lived, gap, _ = task.enumerated.solved(table, task.ridge, start, max_steps=inner_steps)
    found = expected(objective, lived.weights, lived.returns, preferred, scores)
    powers = world.discount ** np.arange(lived.segments.length, dtype=np.float64)
    direct = task.reward.pull(nu, counted(lived.segments, found.by_returns[:, None] * powers, shape))
    through, clipped = np.zeros_like(nu), 0
    if term:
        far = found.by_chances - lived.weights @ found.by_chances
        curvature = Clipped.of(lived.hessian(), FLAT * task.ridge)
        x = curvature.solve(lived.scores.T @ (lived.weights * far))
        through = task.reward.pull(nu, counted(lived.segments, lived.mixed_transposed(x), shape))
        clipped = curvature.clipped
    return Ascent(found.value, direct, through, 0.0, gap, clipped, lived.theta)


#: Groups of pairs by whose differences the noise of the term is told.
GROUPS = 16


def sampled_ascent(
    task: PreferenceTask,
    nu: Array,
    objective: Objective,
    pairs: int,
    rng: np.random.Generator,
    *,
    warm: Array | None = None,
    inner_steps: int = 100,
    term: bool = True,
) -> Ascent:
    """The derivatives of G from pairs drawn from the policy, in a world without end; the lower level is exact.

    Segments begin at the start and have ``task.length`` steps. Arguments as `exact_ascent`, and:
        pairs: N, drawn and put to the teacher.
        rng: the stream.

    Cost: O(N L (S + A)) to draw, and 16 solves with one S x S factor.
    """
    world = task.world
    if not isinstance(world, TabularMDP) or not task.is_endless:
        raise InvalidProblem("Sampled pairs with an exact lower level need a TabularMDP without horizon.")
    shape = (world.states, world.actions)
    table = task.reward.table(nu, *shape)
    soft = soft_policy(world, table, task.entropy, warm, max_steps=inner_steps)
    both = world.rollouts(soft.policy, 2 * pairs, task.length, rng)
    first, second = both[:pairs], both[pairs:]
    powers = world.discount ** np.arange(task.length, dtype=np.float64)
    if objective == "utility":
        if task.scores is None:
            raise InvalidProblem("The objective 'utility' needs PreferenceTask(scores=).")
        worth = task.scores[both.observations, both.actions] @ powers
        weights = (worth - worth.mean()).reshape(2, -1) / 2.0
        value, kept, ahead_of = float(worth.mean()), np.ones(pairs, dtype=bool), np.zeros(pairs)
    else:
        value, kept, ahead_of, weights = _asked(task, table, objective, first, second, powers, rng)
    n = int(kept.sum())
    counts = counted(first, ahead_of[:, None] * powers, shape) - counted(
        second, ahead_of[:, None] * powers, shape
    )
    direct = task.reward.pull(nu, counts / max(n, 1))
    through, noise = np.zeros_like(nu), 0.0
    if term and n:
        groups = min(GROUPS, n)
        label = np.full(pairs, -1)
        label[kept] = np.arange(n) % groups
        rows = np.flatnonzero(kept)
        sizes = np.bincount(label[rows], minlength=groups)
        pieces = shape[0] * shape[1]
        g = np.zeros((groups, *shape))
        for side, weight in ((first, weights[0]), (second, weights[1])):
            at = (side.observations * shape[1] + side.actions)[rows] + pieces * label[rows][:, None]
            share = np.repeat(weight[rows] / sizes[label[rows]], task.length)
            g += np.bincount(at.ravel(), weights=share, minlength=groups * pieces).reshape(g.shape)
        each = task.reward.pull(nu, soft.pull(g))
        through = sizes / n @ each
        noise = spread(each)
    asked, skipped = (0, 0) if objective == "utility" else (pairs, pairs - n)
    return Ascent(value, direct, through, noise, soft.gap, 0, soft.q, asked, skipped)


def _asked(
    task: PreferenceTask,
    table: Array,
    objective: Objective,
    first: Segments,
    second: Segments,
    powers: Array,
    rng: np.random.Generator,
) -> tuple[float, np.ndarray, Array, Array]:
    """Of N pairs: G's estimate, which were answered, its slope in ``R0 - R1``, and the weights of the two scores."""
    true = (task.true_rewards(first), task.true_rewards(second))
    known = None if true[0] is None or true[1] is None else (true[0], true[1])
    y = task.asked.label(first, second, known, rng)
    kept = ~np.isnan(y)
    y = np.where(kept, y, 0.5)
    ahead = (table[first.observations, first.actions] - table[second.observations, second.actions]) @ powers
    likelihood = y * log_expit(ahead) + (1.0 - y) * log_expit(-ahead)
    told, ahead_of = (y, 0.0) if objective == "versus" else (likelihood, y - expit(ahead))
    value = float(told[kept].mean()) if kept.any() else 0.0
    return value, kept, np.where(kept, ahead_of, 0.0), score_weights(objective, y, likelihood, kept)


def score_weights(objective: Objective, y: Array, likelihood: Array, kept: np.ndarray) -> Array:
    """What multiplies the score of the first and of the second piece of each pair, shape (2, N).

    ``loglik``: U less its mean on both. The others: the chance to be preferred, less a half, on either side, each of
    which stands for the other's frozen copy.
    """
    if objective == "loglik":
        middle = likelihood[kept].mean() if kept.any() else 0.0
        return np.where(kept, likelihood - middle, 0.0)[None].repeat(2, axis=0)
    won = np.where(kept, y - 0.5, 0.0)
    return np.stack([won, -won]) / 2.0


def counted(segments: Segments, weights: Array, shape: tuple[int, int]) -> Array:
    """The sum of weights (N, L) over the steps at each state and action, shape (S, A)."""
    at = segments.observations * shape[1] + segments.actions
    each = np.broadcast_to(weights, at.shape).ravel()
    found: Array = np.bincount(at.ravel(), weights=each, minlength=shape[0] * shape[1]).astype(np.float64)
    return found.reshape(shape)


def spread(each: Array) -> float:
    """The length of the standard error of the mean of rows."""
    return float(np.sqrt(each.var(axis=0, ddof=1).sum() / len(each))) if len(each) > 1 else np.inf


def is_worth(term: Array, noise: float) -> bool:
    """Whether a noisy term helps: its squared length, less what noise adds to it, exceeds the squared standard error.

    >>> is_worth(np.array([3.0]), 2.0), is_worth(np.array([2.5]), 2.0)
    (True, False)
    """
    return float(term @ term) > 2.0 * noise**2
