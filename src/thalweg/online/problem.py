"""Rounds whose losses are known to the judge: what is given, and a policy that plays them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, Method, Problem, State, Stop
from thalweg.core.validation import check_finite, check_vector
from thalweg.online.policy import Policy


@dataclass(frozen=True, eq=False)
class LossTable(Problem):
    """Rounds in which one of several arms is chosen, with every arm's loss known to the judge alone.

    Args:
        losses: shape (rounds, arms), finite and >= 0.
        contexts: a number known before each round, shape (rounds,), for policies that need one.

    The answer is the arms played, shape (rounds,), -1 for rounds to come. The metrics are ``loss``, its mean over the
    rounds played, and ``regret``, what the best single arm in hindsight would have saved in total.

    Raises:
        InvalidProblem: no rounds, no arms, a negative loss, contexts of another length.
        NotFinite: NaN or infinity in the losses or the contexts.

    >>> table = LossTable([[0.0, 1.0], [0.5, 0.0]])
    >>> table.metrics(np.array([1, 1]))
    {'loss': 0.5, 'regret': 0.5}
    """

    losses: NDArray[np.float64]
    contexts: NDArray[np.float64] | None = None

    def __init__(self, losses: ArrayLike, contexts: ArrayLike | None = None) -> None:
        table = np.array(losses, dtype=np.float64)
        if table.ndim != 2 or table.size == 0:
            raise InvalidProblem(f"LossTable: losses have shape {table.shape}; expected (rounds, arms).")
        check_finite("losses", table)
        if (table < 0).any():
            where = np.argwhere(table < 0)[0]
            raise InvalidProblem(
                f"LossTable: the loss of arm {where[1]} in round {where[0]} is {table[tuple(where)]:g}, below zero. "
                "Add a constant to all losses."
            )
        object.__setattr__(self, "losses", table)
        known = None if contexts is None else check_vector("contexts", contexts, len(table))
        object.__setattr__(self, "contexts", known)

    @property
    def rounds(self) -> int:
        """How many."""
        return len(self.losses)

    @property
    def arms(self) -> int:
        """How many."""
        return self.losses.shape[1]

    def recommended_stop(self) -> Stop:
        """The last round."""
        return Stop(steps=self.rounds)

    def metrics(self, x: NDArray[np.int64]) -> dict[str, float]:
        """``loss`` and ``regret`` of the rounds played."""
        played = np.flatnonzero(np.asarray(x) >= 0)
        if played.size == 0:
            return {"loss": 0.0, "regret": 0.0}
        mine, best = self.losses[played, x[played]].sum(), self.losses[played].sum(0).min()
        return {"loss": float(mine) / played.size, "regret": float(mine - best)}


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

    The metrics of a step are ``regret`` so far and the round's ``loss``. Cost per step: the policy's own.

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
        state.metrics = {"regret": state.total - float(state.sums.min()), "loss": float(losses[arm])}
        return state
