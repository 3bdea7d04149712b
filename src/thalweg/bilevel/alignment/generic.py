"""Other leaders of one follower: payoffs for what it does, and rewards that shape it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from thalweg.bilevel.alignment.mdp import TabularMDP
from thalweg.bilevel.alignment.problem import PreferenceTask
from thalweg.bilevel.alignment.rewards import LinearReward, TableReward
from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real


def stackelberg(
    world: TabularMDP,
    own: ArrayLike,
    incentives: ArrayLike,
    payoff: ArrayLike,
    *,
    entropy: float | None = None,
    ridge: float | None = None,
) -> PreferenceTask:
    """A leader who sets incentives, and a follower who acts for its own reward and them.

    Solve it with ``APARL(objective="utility")``; its ``penalty`` is the price of incentives, c |nu|^2.
    A follower with little entropy hardly answers to small incentives, so that there is no slope to begin with: take an
    entropy of about the differences in its own reward.

    Args:
        world: where the follower acts.
        own: the follower's own reward, shape (S, A) or (S,).
        incentives: what a unit of each of the m incentives pays, shape (S, A, m).
        payoff: the leader's, for what the follower does, shape (S, A) or (S,).
        entropy, ridge: of the follower, as `PreferenceTask`.

    >>> from thalweg import Stop, solve
    >>> from thalweg.bilevel.alignment import APARL
    >>> choice = TabularMDP(np.ones((1, 2, 1)), discount=0.0)  # left pays the follower 1, right the leader
    >>> task = stackelberg(choice, [[1.0, 0.0]], [[[0.0], [1.0]]], [[0.0, 1.0]], entropy=0.5)
    >>> found = solve(task, APARL(objective="utility", penalty=0.02), stop=Stop(steps=100))
    >>> bool(found.x[0] > 1.0), found.metrics["utility"] > 0.9
    (True, True)
    """
    base = world.checked_table("own", own)
    features = as_real("incentives", incentives)
    if features.ndim != 3 or features.shape[:2] != base.shape:
        raise InvalidProblem(
            f"stackelberg: incentives have shape {features.shape}; expected ({world.states}, {world.actions}, m)."
        )
    return PreferenceTask(
        world,
        LinearReward(features, base),
        scores=world.checked_table("payoff", payoff),
        entropy=entropy,  # type: ignore[arg-type]
        ridge=ridge,  # type: ignore[arg-type]
    )


def reward_shaping(
    world: TabularMDP,
    score: ArrayLike,
    *,
    features: ArrayLike | None = None,
    base: ArrayLike | None = None,
    entropy: float | None = None,
) -> PreferenceTask:
    """A reward to be designed so that the policy it leads to has a high score.

    Solve it with ``APARL(objective="utility")``. Without the term through the policy nothing would move the reward.

    Args:
        world: where the policy acts.
        score: what counts in the end, shape (S, A) or (S,): sparse, or not what the policy is trained on.
        features: of the reward, shape (S, A, m); by default a number for each state and action.
        base: a reward that stays, shape (S, A) or (S,); needs features. Default 0.
        entropy: as `PreferenceTask`.

    >>> from thalweg import Stop, solve
    >>> from thalweg.bilevel.alignment import APARL, gridworld
    >>> world = gridworld(3, traps=1)
    >>> task = reward_shaping(world, world.reward)
    >>> solve(task, APARL(objective="utility"), stop=Stop(steps=60)).metrics["share"] > 0.95
    True
    """
    if features is None:
        if base is not None:
            raise InvalidProblem("reward_shaping: a base needs features; without them the table holds all.")
        model: LinearReward | TableReward = TableReward(world.states, world.actions)
    else:
        fixed = np.zeros((world.states, world.actions)) if base is None else world.checked_table("base", base)
        model = LinearReward(as_real("features", features), fixed)
    return PreferenceTask(world, model, scores=world.checked_table("score", score), entropy=entropy)  # type: ignore[arg-type]
