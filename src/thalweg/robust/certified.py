"""The best of network, relaxed plans and one plan for all, with a proof of how good it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thalweg.core import InvalidProblem, Method, State, Status
from thalweg.core.validation import is_real, is_whole, require
from thalweg.robust.ccg import NeuralCCG, surrogate_for
from thalweg.robust.milp import Array, Solver
from thalweg.robust.problem import TwoStageRobust
from thalweg.robust.programs import static_program
from thalweg.robust.value_network import ValueNetwork

#: Gap at which there is nothing left to gain.
ENOUGH = 1e-4
SOURCES = ("relaxed recourse", "static", "network")


@dataclass(kw_only=True)
class CertifiedState(State):
    """The best decision with its cost, and the scenarios of the network's loop."""

    scenarios: Array  # (s, d)
    feasible: Array  # (f, d)
    seed: int
    costs: Array  # (3,) the best exact worst case of each source so far, infinite where it has none
    cost: float = math.inf
    rounds: int = 0


def standings(costs: Array) -> str:
    """Who won, and the exact worst cases of all that took part.

    >>> standings(np.array([-5.0, -4.0, np.inf]))
    'Best: relaxed recourse (worst case -5; static -4).'
    """
    order = [k for k in np.argsort(costs, kind="stable") if math.isfinite(costs[k])]
    rest = "".join(f"; {SOURCES[k]} {costs[k]:.6g}" for k in order[1:])
    return f"Best: {SOURCES[order[0]]} (worst case {costs[order[0]]:.6g}{rest})."


@dataclass(frozen=True)
class Certified(Method[TwoStageRobust, CertifiedState]):
    """Relaxed recourse, then one plan for all, then rounds of `NeuralCCG`; the best exact worst case wins.

    The method of choice where one wants an answer with a proof: ``gap`` is between its exact worst case and a bound
    that no decision is below. Relaxed recourse takes part where only costs are uncertain.

    Args:
        network: from `train_value`. Default None: the shipped one where it fits, else none.
        most_scenarios: of the network's loop. Default 20.
        seconds: of each program. Default 60.
        solver: of programs, default ``"auto"``.

    Ends CONVERGED when all have had their say, or at a gap of 1e-4; the message names the winner.

    Cost: two programs, then a `NeuralCCG` step and a worst case a step.

    >>> from thalweg import solve
    >>> from thalweg.robust import RobustKnapsack
    >>> solve(RobustKnapsack.random(20, seed=5), Certified(), progress=False).metrics["gap"] < 0.03
    True
    """

    network: ValueNetwork | None = None
    most_scenarios: int = 20
    seconds: float = 60.0
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        whole = is_whole(self.most_scenarios) and self.most_scenarios >= 1
        require(whole, "Certified needs most_scenarios >= 1", got=self.most_scenarios)
        require(is_real(self.seconds) and self.seconds > 0, "Certified needs seconds > 0", got=self.seconds)

    def init(self, problem: TwoStageRobust, seed: int) -> CertifiedState:
        if self.network is not None:
            surrogate_for(problem, self.network)
        d = problem.uncertainty.dimension
        return CertifiedState(
            x=problem.start(),
            scenarios=problem.nominal[None].copy(),
            feasible=np.zeros((0, d)),
            seed=seed,
            costs=np.full(len(SOURCES), math.inf),
        )

    def step(self, problem: TwoStageRobust, state: CertifiedState) -> CertifiedState:
        scenarios, feasible, reason = state.scenarios, state.feasible, ""
        candidate: Array | None = None
        if state.rounds < 2:
            relaxed = state.rounds == 0
            if not relaxed or problem.affine.has_certain_rows:
                args = problem.first_stage, problem.affine, problem.uncertainty
                candidate = static_program(*args, relaxed=relaxed, seconds=self.seconds, solver=self.solver).x
            if not relaxed and not self._has_network(problem):
                reason = "No network fits this problem."
        else:
            loop = NeuralCCG(self.network, seconds=self.seconds, solver=self.solver)
            turn = loop.turn(problem, scenarios, feasible, state.seed)
            candidate, scenarios, feasible, reason = turn.x, turn.scenarios, turn.feasible, turn.reason
            if len(scenarios) + len(feasible) >= self.most_scenarios:
                reason = reason or f"{self.most_scenarios} scenarios."
        x, cost, costs = state.x, state.cost, state.costs.copy()
        if candidate is not None:
            worst, of = problem.worst_case(candidate), min(state.rounds, 2)
            costs[of] = min(costs[of], worst.value)
            if worst.value < cost:
                x, cost = candidate, worst.value
        gap = problem.gap(cost, problem.bound)
        if gap <= ENOUGH:
            reason = "Nothing is left to gain."
        if reason and not np.isfinite(costs).any():
            raise InvalidProblem(
                f"{type(problem).__name__}: no decision was found that leaves a plan everywhere."
            )
        return CertifiedState(
            x=x,
            scenarios=scenarios,
            feasible=feasible,
            seed=state.seed,
            cost=cost,
            costs=costs,
            rounds=state.rounds + 1,
            metrics={
                "cost": cost,
                "bound": problem.bound,
                "gap": gap,
                "scenarios": float(len(scenarios) + len(feasible)),
            },
            status=Status.CONVERGED if reason else None,
            message=f"{standings(costs)} {reason}" if reason else "",
        )

    def _has_network(self, problem: TwoStageRobust) -> bool:
        try:
            surrogate_for(problem, self.network)
        except InvalidProblem:
            return False
        return True
