"""33: what the term through the policy costs beside the alternation's step, and products beside a matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.race import Row, race
from thalweg.bilevel.alignment import (
    APARL,
    Alternation,
    NetworkPolicy,
    PreferenceTask,
    ScriptedTeacher,
    Segments,
    TableReward,
    TrajectorySurrogate,
    gridworld,
    responses,
)
from thalweg.bilevel.alignment.rewards import NetworkReward

STEPS = 20
#: So large that the sampled Hessian is definite, and both reach the solution.
RIDGE = 30.0


def rows() -> Iterator[Row]:
    """Tables of three sizes, then a network."""
    for side in (4, 6, 10):
        yield table(side)
    yield network()


def table(side: int) -> Row:
    """A step with the term against one without, both from the same reward: near the truth."""
    world = gridworld(side, side)
    task = PreferenceTask(world, TableReward(side * side, 4), ScriptedTeacher(3.0))

    def run(method: APARL) -> float:
        state = method.init(task, 0)
        for _ in range(STEPS):
            state = method.step(task, state)
        return task.metrics(state.x)["share"]

    (ours, reached), (theirs, other) = race(lambda: run(APARL()), lambda: run(Alternation()))
    return Row(
        "33",
        f"a step, {side} x {side}, exact",
        ours / STEPS,
        "alternation (no term)",
        theirs / STEPS,
        reached,
        other,
    )


def network() -> Row:
    """``M^{-1} b`` of 450 parameters: some products against the matrix and its factors."""
    rng = np.random.default_rng(0)
    policy, reward = NetworkPolicy(4, 2, hidden=(64,)), NetworkReward(4, 2, False, hidden=(32, 32))
    lives = Segments(rng.standard_normal((32, 50, 4)), rng.integers(2, size=(32, 50)))
    made = TrajectorySurrogate(
        policy,
        reward,
        lives,
        policy.start(0),
        torch.from_numpy(reward.start(0)),
        discount=0.99,
        entropy=0.01,
        ridge=RIDGE,
    )
    b = torch.from_numpy(rng.standard_normal((1, policy.size)))

    def residual(how: str) -> float:
        x = responses(made.hessian_product, b, how, 1e-3, steps=60).x[0]  # type: ignore[arg-type]
        return float(
            torch.linalg.vector_norm(b[0] + made.hessian_product(x)) / torch.linalg.vector_norm(b[0])
        )

    (ours, found), (theirs, other) = race(lambda: residual("cg"), lambda: residual("dense"), rounds=2)
    return Row(
        "33", f"a solve, {policy.size} parameters, products", ours, "matrix of n x n", theirs, found, other
    )
