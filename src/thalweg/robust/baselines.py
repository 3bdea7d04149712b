"""What a network has to beat: the nominal decision, one plan for all, relaxed plans, a few plans, and the exact loop.

Ben-Tal et al. (2004) for one plan; Hanasusanto, Kuhn and Wiesemann (2015) and Subramanyam, Gounaris and Wiesemann
(2020) for K plans; Zeng and Zhao (2013) for the loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thalweg.core import InvalidProblem, Method, State, Status
from thalweg.core.validation import is_real, is_whole, require, require_positive
from thalweg.robust.evaluation import worst_against
from thalweg.robust.milp import Array, Solver
from thalweg.robust.problem import TwoStageRobust
from thalweg.robust.programs import Decision, adaptable_program, scenario_program, static_program


def _checked_seconds(method: Method, seconds: float) -> None:
    require(is_real(seconds) and seconds > 0, f"{type(method).__name__} needs seconds > 0", got=seconds)


def _decision_of(problem: TwoStageRobust, found: Decision, what: str) -> Array:
    """x, or why there is none."""
    if found.x is None:
        words = (
            "ran out of time before its first decision" if found.is_cut_short else "has no feasible decision"
        )
        raise InvalidProblem(f"{type(problem).__name__}: {what} {words}.")
    return found.x


def _decided(problem: TwoStageRobust, found: Decision, what: str) -> State:
    """The state after a single program."""
    x = _decision_of(problem, found, what)
    status, message = Status.CONVERGED, ""
    if found.is_cut_short:
        status, message = (
            Status.EXHAUSTED,
            f"Time limit; {what} is between {found.bound:.6g} and {found.value:.6g}.",
        )
    metrics = {"value": found.value, "program_bound": found.bound}
    return State(x=x, metrics=metrics, status=status, message=message)


#: Scenarios that differ by less than this, in units of their coordinates, are one.
SAME = 1e-9


@dataclass(frozen=True)
class Nominal(Method[TwoStageRobust, State]):
    """Plan for the nominal scenario, and do not think of the others.

    Args:
        seconds: most time. Default 60.
        solver: of programs, default ``"auto"``.

    Cost: one program of the two stages.

    >>> from thalweg import solve
    >>> from thalweg.robust import RobustKnapsack
    >>> solve(RobustKnapsack.random(8, seed=0), Nominal(), progress=False).converged
    True
    """

    seconds: float = 60.0
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        _checked_seconds(self, self.seconds)

    def init(self, problem: TwoStageRobust, seed: int) -> State:
        return State(x=problem.start())

    def step(self, problem: TwoStageRobust, state: State) -> State:
        args = problem.first_stage, problem.affine, problem.nominal[None]
        found = scenario_program(*args, seconds=self.seconds, solver=self.solver)
        return _decided(problem, found, "the nominal problem")


@dataclass(frozen=True)
class StaticRobust(Method[TwoStageRobust, State]):
    """One plan for all scenarios, chosen with the decision: K-adaptability with K = 1, as one program.

    Its value is above the decision's worst case, which may do better with a plan for each scenario.

    Args:
        seconds, solver: as those of `Nominal`.

    Raises:
        InvalidProblem: no plan is feasible in all scenarios.

    Cost: one program of the two stages, with the dual of the set for the cost and each uncertain row.

    >>> from thalweg import solve
    >>> from thalweg.robust import RobustKnapsack
    >>> problem = RobustKnapsack.random(8, seed=0)
    >>> result = solve(problem, StaticRobust(), progress=False)
    >>> bool(result.metrics["cost"] <= result.history["value"][-1] + 1e-6)
    True
    """

    seconds: float = 60.0
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        _checked_seconds(self, self.seconds)

    def init(self, problem: TwoStageRobust, seed: int) -> State:
        return State(x=problem.start())

    def step(self, problem: TwoStageRobust, state: State) -> State:
        args = problem.first_stage, problem.affine, problem.uncertainty
        found = static_program(*args, seconds=self.seconds, solver=self.solver)
        return _decided(problem, found, "the static problem")


@dataclass(frozen=True)
class RelaxedRecourse(Method[TwoStageRobust, State]):
    """One plan for all scenarios, not whole: its value is a lower bound, and the decision mostly a good one.

    For uncertain costs only: over convex plans minimum and maximum may change places, so that the value is that of
    relaxed plans chosen late, which no whole plan is below.

    Args:
        seconds, solver: as those of `Nominal`.

    Raises:
        InvalidProblem: rows are uncertain.

    Cost: as `StaticRobust`, with whole columns for the decision alone.

    >>> from thalweg import solve
    >>> from thalweg.robust import RobustKnapsack
    >>> solve(RobustKnapsack.random(20, seed=5), RelaxedRecourse(), progress=False).metrics["gap"] < 0.05
    True
    """

    seconds: float = 60.0
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        _checked_seconds(self, self.seconds)

    def init(self, problem: TwoStageRobust, seed: int) -> State:
        if not problem.affine.has_certain_rows:
            raise InvalidProblem(
                f"RelaxedRecourse needs uncertain costs only; {type(problem).__name__} has uncertain rows, where "
                "minimum and maximum do not change places. Use NeuralCCG, StaticRobust or ColumnConstraint."
            )
        return State(x=problem.start())

    def step(self, problem: TwoStageRobust, state: State) -> State:
        args = problem.first_stage, problem.affine, problem.uncertainty
        found = static_program(*args, relaxed=True, seconds=self.seconds, solver=self.solver)
        return _decided(problem, found, "the relaxed problem")


@dataclass(kw_only=True)
class ScenarioState(State):
    """The best decision, and the scenarios of the main problem."""

    scenarios: Array  # (s, d)
    cost: float = math.inf
    bound: float = -math.inf


@dataclass(frozen=True)
class ColumnConstraint(Method[TwoStageRobust, ScenarioState]):
    """A plan for each scenario found so far; evaluate the decision exactly; add its worst scenario.

    Exact where the second stage is continuous (`FacilityLocation`), in few rounds. With whole plans it is exact, too,
    but main problems grow by a whole second stage a round: for small problems, or for its bound.

    Args:
        tol: relative gap at which it ends. Default 1e-4, or 1e-3 where worst cases are known to no more.
        seconds, solver: of each main problem, as those of `Nominal`.

    Cost per step: a program with a plan for each scenario, and a worst case.

    >>> from thalweg import solve
    >>> from thalweg.robust import FacilityLocation
    >>> solve(FacilityLocation.random(4, 6, seed=0), ColumnConstraint(), progress=False).metrics["gap"] <= 2e-4
    True
    """

    tol: float = 1e-4
    seconds: float = 60.0
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        _checked_seconds(self, self.seconds)
        require_positive(self, "tol", zero=True)

    def init(self, problem: TwoStageRobust, seed: int) -> ScenarioState:
        return ScenarioState(x=problem.start(), scenarios=problem.nominal[None].copy())

    def step(self, problem: TwoStageRobust, state: ScenarioState) -> ScenarioState:
        args = problem.first_stage, problem.affine, state.scenarios
        found = scenario_program(*args, seconds=self.seconds, solver=self.solver)
        decision = _decision_of(problem, found, "the main problem")
        worst = problem.worst_case(decision)
        bound, x, cost = max(state.bound, found.bound), state.x, state.cost
        if worst.value < cost:
            x, cost = decision, worst.value
        gap = problem.gap(cost, bound)
        seen = bool((problem.uncertainty.apart(state.scenarios, worst.xi) < SAME).any())
        status, message = None, ""
        if gap <= self.tol:
            status, message = Status.CONVERGED, f"Cost {cost:.6g} is at most {gap:.2g} above the bound."
        elif seen:
            status = Status.EXHAUSTED if found.is_cut_short else Status.CONVERGED
            message = f"The worst scenario has come again; gap {gap:.2g}, that of programs and worst cases."
        return ScenarioState(
            x=x,
            scenarios=np.vstack([state.scenarios, worst.xi]),
            cost=cost,
            bound=bound,
            metrics={"cost": cost, "bound": bound, "gap": gap},
            status=status,
            message=message,
        )


@dataclass(frozen=True)
class KAdaptable(Method[TwoStageRobust, ScenarioState]):
    """K plans chosen with the decision, of which the best is used when the scenario is known.

    A program assigns a plan to each scenario found so far; the scenario at which all K are dearest is added.

    Args:
        K: 1 or more, default 2. K = 1 is `StaticRobust`.
        seconds, solver: of each program, as those of `Nominal`.

    Raises:
        InvalidProblem: plans are continuous; no K plans are feasible in all scenarios.

    Cost per step: a program with K plans and K selectors for each scenario, growing fast in both.

    >>> from thalweg import solve
    >>> from thalweg.robust import RobustKnapsack
    >>> solve(RobustKnapsack.random(5, seed=0), KAdaptable(2), progress=False).converged
    True
    """

    K: int = 2
    seconds: float = 60.0
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        require(is_whole(self.K) and self.K >= 1, "KAdaptable needs K >= 1", got=self.K)
        _checked_seconds(self, self.seconds)

    def init(self, problem: TwoStageRobust, seed: int) -> ScenarioState:
        if not problem.has_exact_plans:
            raise InvalidProblem(
                f"KAdaptable needs whole plans; those of {type(problem).__name__} are continuous. Use ColumnConstraint."
            )
        return ScenarioState(x=problem.start(), scenarios=problem.nominal[None].copy())

    def step(self, problem: TwoStageRobust, state: ScenarioState) -> ScenarioState:
        args = problem.first_stage, problem.affine, state.scenarios
        found = adaptable_program(*args, self.K, seconds=self.seconds, solver=self.solver)
        decision = _decision_of(problem, found, f"the {self.K}-adaptable problem")
        value, xi = worst_against([problem.pieces(decision, y) for y in found.plans], problem.uncertainty)
        bound = max(state.bound, found.bound)
        x, cost = (decision, value) if value < state.cost or math.isinf(state.cost) else (state.x, state.cost)
        status, message = None, ""
        if problem.gap(cost, bound) <= 1e-3 or (problem.uncertainty.apart(state.scenarios, xi) < SAME).any():
            status = Status.EXHAUSTED if found.is_cut_short else Status.CONVERGED
            message = f"{self.K} plans cost {cost:.6g} at most."
        return ScenarioState(
            x=x,
            scenarios=np.vstack([state.scenarios, xi]),
            cost=cost,
            bound=bound,
            metrics={"value": cost, "program_bound": bound, "scenarios": float(len(state.scenarios))},
            status=status,
            message=message,
        )
