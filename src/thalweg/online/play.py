"""A policy that plays a table of losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, Method, State
from thalweg.online.policy import Policy
from thalweg.online.problem import LossTable


@dataclass(kw_only=True)
class PlayState(State):
    """``x`` holds the arms played; the sums make the regret of a step cheap."""

    policy: Policy
    round: int = 0
    total: float = 0.0
    sums: NDArray[np.float64]  # (arms,) what each arm alone would have cost so far


@dataclass(frozen=True, eq=False)
class Play(Method[LossTable, PlayState]):
    """A policy that plays every round; it sees the loss of the arm that it has drawn, and no other.

    The metrics of a step are ``regret`` so far, the round's ``loss``, and the rounds ``left``. Cost per step: the
    policy's own.

    >>> from thalweg import solve
    >>> from thalweg.online import TsallisINF
    >>> rng = np.random.default_rng(0)
    >>> table = LossTable(rng.random((500, 3)) + [0.0, 0.5, 0.5])
    >>> solve(table, Play(TsallisINF(3))).metrics["regret"] < 60
    True
    """

    in_place = True

    policy: Policy

    @property
    def name(self) -> str:
        """The policy's."""
        return type(self.policy).__name__

    def init(self, problem: LossTable, seed: int) -> PlayState:
        if self.policy.arms != problem.arms:
            raise InvalidProblem(f"{self.name} has {self.policy.arms} arms; the table has {problem.arms}.")
        if self.policy.needs_context and problem.contexts is None:
            raise InvalidProblem(f"{self.name} needs a context before each round. Give LossTable contexts=.")
        x = np.full(problem.rounds, -1)
        return PlayState(x=x, policy=self.policy.started(seed), sums=np.zeros(problem.arms))

    def step(self, problem: LossTable, state: PlayState) -> PlayState:
        t, losses = state.round, problem.losses[state.round]
        arm = state.policy.act(None if problem.contexts is None else float(problem.contexts[t]))
        state.policy.learn(arm, float(losses[arm]))
        state.x[t], state.round, state.total = arm, t + 1, state.total + float(losses[arm])
        state.sums += losses
        state.metrics = {
            "regret": state.total - float(state.sums.min()),
            "loss": float(losses[arm]),
            "left": float(problem.rounds - state.round),
        }
        return state
