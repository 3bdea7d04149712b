"""Neur2RO: column and constraint generation with a network for the worst case.

Dumouchelle et al. (2024), "Neur2RO: neural two-stage robust optimization" (arXiv 2310.04345), section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg.core import InvalidProblem, Method, State, Status
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.robust.adversary import Adversary, dearest
from thalweg.robust.embedding import Bounds, Embedding
from thalweg.robust.milp import Array, Columns, Model, Solver
from thalweg.robust.problem import TwoStageRobust
from thalweg.robust.programs import span
from thalweg.robust.value_network import PRETRAINED_FOR, ValueNetwork, ValueSurrogate, pretrained_value

Form = Literal["argmax", "max"]

#: Relative difference of main problem and adversary at which the loop ends, and the distance of a repeated scenario.
CLOSE, SAME = 1e-4, 1e-3
#: Relative gap of main problems.
MAIN_GAP = 1e-3


@dataclass(frozen=True)
class Main:
    """The main problem's decision, what the network says it costs (without certain costs), and whether time was up."""

    x: Array
    predicted: float
    is_cut_short: bool


def surrogate_for(problem: TwoStageRobust, network: ValueNetwork | None) -> ValueSurrogate:
    """The network put to the problem; of None the shipped one for its class.

    Raises:
        InvalidProblem: the network does not fit, or there is no shipped one.
    """
    if network is not None:
        if not isinstance(network, ValueNetwork):
            raise InvalidProblem(
                f"network is a {type(network).__name__}; expected a ValueNetwork, as train_value and load_value give."
            )
        return ValueSurrogate(network, problem)
    kind = type(problem).__name__
    if kind not in PRETRAINED_FOR:
        raise InvalidProblem(
            f"No network is shipped for {kind}. Train one with train_value and pass network=."
        )
    return ValueSurrogate(pretrained_value(PRETRAINED_FOR[kind]), problem)


def main_problem(
    surrogate: ValueSurrogate,
    scenarios: Array,
    feasible: Array,
    *,
    form: Form = "argmax",
    bounds: Bounds = "interval",
    seconds: float = math.inf,
    patience: float = math.inf,
    solver: Solver = "auto",
) -> Main:
    """The decision that is best against these scenarios, shape (s, d), by the network.

    In the ``"argmax"`` form the network only chooses the scenario, by selectors b_s that are 1 at a largest
    prediction; the cost is that of a true plan there. In the ``"max"`` form the largest prediction is the cost.
    ``feasible``, shape (f, d): scenarios at which x has to leave some feasible plan.
    """
    problem = surrogate.problem
    first, affine, model = problem.first_stage, problem.affine, Model()
    certain = affine.at_zero.c * (not affine.c.any())
    x = first.add_to(model, certain)
    embedding = Embedding(model, x, surrogate, bounds)
    told = [embedding.value(xi) for xi in scenarios]
    m = model.columns(
        1, max(low for _, low, _ in told), max(high for *_, high in told), cost=float(form == "max")
    )
    for column, _, _ in told:
        model.rows([(m, [[1.0]]), (column, [[-1.0]])], lower=0.0)
    if form == "argmax":
        _add_selected_plan(model, problem, x, m, told, scenarios)
    for xi in feasible:
        problem.add_plan(model, x, xi)
    found = model.minimize(solver, seconds=seconds, gap=MAIN_GAP, patience=patience)
    if found.x is None:
        words = (
            "has no decision that leaves a feasible plan"
            if found.status == "infeasible"
            else "ran out of time"
        )
        raise InvalidProblem(
            f"{type(problem).__name__}: the main problem {words} at {len(scenarios)} scenarios."
        )
    decision = first.rounded(found.x[x])
    return Main(decision, float(found.x[m[0]]), found.status == "limit")


def _add_selected_plan(
    model: Model,
    problem: TwoStageRobust,
    x: Columns,
    m: Columns,
    told: list[tuple[Columns, float, float]],
    scenarios: Array,
) -> None:
    """Selectors of the largest prediction, and one plan whose true cost at the selected scenario is paid."""
    affine, first = problem.affine, problem.first_stage
    base, is_certain = affine.at_zero, not affine.c.any()
    chosen = model.columns(len(scenarios), 0.0, 1.0, integer=True)
    model.rows([(chosen, np.ones((1, len(scenarios))))], 1.0, 1.0)
    y = model.columns(len(base.d), 0.0, base.upper, integer=base.integer)
    z = model.columns(1, -math.inf, math.inf, cost=1.0)
    moving = affine.W.any((1, 2)) | affine.T.any((1, 2)) | affine.h.any(1)
    if not moving.all():
        model.rows([(y, base.W[~moving]), (x, base.T[~moving])], upper=base.h[~moving])
    parts = [affine.at(xi) for xi in scenarios]
    costs = [at.c * (not is_certain) for at in parts]
    spans = [span(c, first.lower, first.upper, at.d, base.upper) for c, at in zip(costs, parts, strict=True)]
    lowest, top = min(low for low, _ in spans), max(high for *_, high in told)
    for s, (at, c, (column, low, _)) in enumerate(zip(parts, costs, told, strict=True)):
        b = chosen[s : s + 1]
        model.rows([(m, [[1.0]]), (column, [[-1.0]]), (b, [[top - low]])], upper=top - low)
        M = spans[s][1] - lowest
        model.rows([(z, [[1.0]]), (x, -c), (y, -at.d), (b, [[-M]])], lower=-M)
        if moving.any():
            W, T, h = at.W[moving], at.T[moving], at.h[moving]
            most = np.maximum(W, 0.0) @ base.upper + np.maximum(T * first.lower, T * first.upper).sum(1)
            room = np.maximum(most - h, 0.0)
            model.rows([(y, W), (x, T), (b, room[:, None])], upper=h + room)


@dataclass(frozen=True)
class Turn:
    """A round: the decision, both predictions, the scenarios after it, and why the loop ends, if it does."""

    x: Array
    main: float
    adversary: float
    scenarios: Array
    feasible: Array
    reason: str


@dataclass(kw_only=True)
class NeuralState(State):
    """The decision and the scenarios so far."""

    scenarios: Array  # (s, d)
    feasible: Array  # (f, d), scenarios at which some decision had no plan
    seed: int
    rounds: int = 0


@dataclass(frozen=True)
class NeuralCCG(Method[TwoStageRobust, NeuralState]):
    """Decide by the network against a few scenarios, find the one that the network fears most, add it, repeat.

    Use it where rows are uncertain and plans whole, where there is no compact program: `CapitalBudgeting`, your own.
    Where only costs are uncertain, `RelaxedRecourse` is faster and mostly better. `Certified` runs both and keeps the
    best. What comes out has no proof of its own: the problem's ``gap`` says how good it is.

    Args:
        network: from `train_value`. Default None: the shipped one for the problem's class.
        form: ``"argmax"``, the default: the network chooses the scenario and a true plan is paid. ``"max"``: the
            network's value is the cost; its errors become decisions.
        adversary: ``"swaps"`` (default), ``"gradient"``, ``"milp"``; see `thalweg.robust.adversary.dearest`.
        samples: scenarios that the adversary looks at first. Default 1000.
        most_scenarios: the loop ends there. Default 20.
        bounds: of ReLUs, ``"interval"`` (default) or ``"lp"``.
        seconds, patience: of each main problem: in all, default 60, and without a better decision, default 180.
        solver: ``"auto"`` (default), ``"highs"``, ``"scipy"``, ``"scip"``.

    The loop ends CONVERGED when adversary and main problem agree to 1e-4, or a scenario comes again; EXHAUSTED at
    ``most_scenarios``.

    Raises:
        InvalidProblem: the network does not fit; no decision leaves a plan at every scenario.

    Cost per step: a program with 64 ReLUs, and 8, a selector and a row for each scenario; and the adversary.

    >>> from thalweg import solve
    >>> from thalweg.robust import RobustKnapsack
    >>> problem = RobustKnapsack.random(20, seed=5)
    >>> result = solve(problem, NeuralCCG(), progress=False)
    >>> result.converged, result.metrics["gap"] < 0.1
    (True, True)
    """

    network: ValueNetwork | None = None
    form: Form = "argmax"
    adversary: Adversary = "swaps"
    samples: int = 1000
    most_scenarios: int = 20
    bounds: Bounds = "interval"
    seconds: float = 60.0
    patience: float = 180.0
    solver: Solver = "auto"

    def __post_init__(self) -> None:
        for name, known in (
            ("form", ("argmax", "max")),
            ("adversary", ("swaps", "gradient", "milp")),
            ("bounds", ("interval", "lp")),
        ):
            value = getattr(self, name)
            require(value in known, f"NeuralCCG: {name} is {' or '.join(known)}", got=value)
        for name in ("samples", "most_scenarios"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"NeuralCCG needs {name} >= 1", got=value)
        for name in ("seconds", "patience"):
            value = getattr(self, name)
            require(is_real(value) and value > 0, f"NeuralCCG needs {name} > 0", got=value)

    def init(self, problem: TwoStageRobust, seed: int) -> NeuralState:
        surrogate_for(problem, self.network)
        d = problem.uncertainty.dimension
        return NeuralState(
            x=problem.start(), scenarios=problem.nominal[None].copy(), feasible=np.zeros((0, d)), seed=seed
        )

    def step(self, problem: TwoStageRobust, state: NeuralState) -> NeuralState:
        turn = self.turn(problem, state.scenarios, state.feasible, state.seed)
        full = len(turn.scenarios) >= self.most_scenarios
        status = Status.CONVERGED if turn.reason else (Status.EXHAUSTED if full else None)
        return NeuralState(
            x=turn.x,
            scenarios=turn.scenarios,
            feasible=turn.feasible,
            seed=state.seed,
            rounds=state.rounds + 1,
            metrics={"main": turn.main, "adversary": turn.adversary, "scenarios": float(len(turn.scenarios))},
            status=status,
            message=turn.reason or (f"{self.most_scenarios} scenarios." if full else ""),
        )

    def turn(self, problem: TwoStageRobust, scenarios: Array, feasible: Array, seed: int) -> Turn:
        """One round from these scenarios."""
        surrogate = surrogate_for(problem, self.network)
        main = main_problem(
            surrogate,
            scenarios,
            feasible,
            form=self.form,
            bounds=self.bounds,
            seconds=self.seconds,
            patience=self.patience,
            solver=self.solver,
        )
        rng = generator(seed, 0x1E, len(scenarios), len(feasible))
        value, xi = dearest(
            surrogate,
            main.x,
            rng,
            how=self.adversary,
            samples=self.samples,
            seconds=self.seconds,
            known=scenarios,
        )
        if math.isinf(problem.recourse(main.x, xi)[0]):
            return Turn(main.x, main.predicted, value, scenarios, np.vstack([feasible, xi]), "")
        reason = ""
        if abs(value - main.predicted) <= CLOSE * abs(value):
            reason = "Main problem and adversary agree."
        elif (problem.uncertainty.apart(scenarios, xi) < SAME).any():
            reason = "A scenario has come again."
        if reason and main.is_cut_short:
            reason += " The last main problem ended at its time limit."
        if not reason:
            scenarios = np.vstack([scenarios, xi])
        return Turn(main.x, main.predicted, value, scenarios, feasible, reason)
