"""30: Neur2RO: a network chooses the worst case in column and constraint generation.

Dumouchelle et al. (2024), "Neur2RO: neural two-stage robust optimization" (arXiv 2310.04345), section 5: knapsacks with
uncertain costs, capital budgeting with uncertain rows; and the ablation of the main problem's form, appendix.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from thalweg.core import InvalidProblem, Method, Stop, solve
from thalweg.robust import (
    CapitalBudgeting,
    KAdaptable,
    NeuralCCG,
    Nominal,
    RelaxedRecourse,
    RobustKnapsack,
    StaticRobust,
    TwoStageRobust,
)
from thalweg.robust.knapsack import Correlation
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import Scores, median, median_interval
from thalweg.studies.verdict import Verdict

KINDS: tuple[Correlation, ...] = ("UN", "WC", "ASC", "SC")

#: Instances from this seed on are judged; networks are trained on others.
FIRST = 100
OURS, MAX, RELAXED, STATIC, NOMINAL = "argmax form", "max form", "relaxed", "static", "nominal"
BEST = "best of three"
METHODS: dict[str, Method] = {
    OURS: NeuralCCG(),
    MAX: NeuralCCG(form="max"),
    RELAXED: RelaxedRecourse(),
    STATIC: StaticRobust(),
    NOMINAL: Nominal(),
}


@dataclass(frozen=True)
class Size:
    """Sizes of knapsacks and instances of each; sizes of capital budgeting, instances; the most argmax may be off."""

    knapsacks: tuple[int, ...]
    instances: int
    budgeting: tuple[int, ...]
    budgets: int
    seconds: float
    required: float


SIZES: dict[Scale, Size] = {
    "smoke": Size((20,), 1, (), 0, 20.0, 4.0),
    "quick": Size((20,), 3, (), 0, 20.0, 4.0),
    "full": Size((20, 30), 20, (10,), 5, 20.0, 2.5),
}


def knapsack(n: int, seed: int) -> RobustKnapsack:
    """One of the published settings, by the seed."""
    k = seed - FIRST
    spread, h, budget = (1.0, 0.5, 0.1)[k % 3], (40, 80)[k // 2 % 2], (0.15, 0.2, 0.1)[k % 3]
    return RobustKnapsack.random(n, seed, KINDS[k % 4], spread=spread, h=h, budget=budget)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size, table, verdicts = SIZES[scale], list[dict[str, object]](), list[Verdict]()
    figures = []
    for i, n in enumerate(size.knapsacks):
        gaps = _knapsacks(n, size, table, lambda share, what, i=i: tell((i + share) / 3, what))  # type: ignore[misc]
        verdicts += [
            _verdict(
                f"knapsack, n {n}: argmax form, gap to the proved bound in %", gaps[OURS], size.required
            ),
            _verdict(f"knapsack, n {n}: argmax form less nominal, in %", gaps[OURS] - gaps[NOMINAL], 0.0),
            _verdict(f"knapsack, n {n}: argmax form less max form, in %", gaps[OURS] - gaps[MAX], 0.0),
            _verdict(f"knapsack, n {n}: best of argmax, relaxed and static, gap in %", gaps[BEST], 1.2),
            _verdict(
                f"knapsack, n {n}: relaxed recourse less argmax form, in %", gaps[RELAXED] - gaps[OURS], 0.0
            ),
        ]
        figures.append(_figure(n, gaps))
    for n in size.budgeting:
        tell(0.8, f"capital budgeting, n {n}")
        verdicts.append(_budgeting(n, size, table))
    notes = (
        f"Gaps are (exact worst case - bound) / |worst case|; the bound is that of relaxed recourse, proved. Instances "
        f"from seed {FIRST} on; the shipped networks were trained on others, and nothing was tuned on these. A program "
        f"of the max form ends after {size.seconds:g} s, as do all others. Below five instances there is no interval. "
        "Capital budgeting: worst cases are exact to 1e-3; K = 2 has as many seconds as the network's loop took."
    )
    return Evidence(verdicts, table, figures, notes=notes)


def _knapsacks(n: int, size: Size, table: Table, tell: Tell) -> dict[str, Scores]:
    """Gaps in per cent, by method."""
    gaps: dict[str, list[float]] = {name: [] for name in (*METHODS, BEST)}
    for k in range(size.instances):
        tell(k / size.instances, f"knapsack, n {n}, {k + 1} of {size.instances}")
        problem = knapsack(n, FIRST + k)
        row: dict[str, object] = {"problem": f"knapsack, n {n}, {KINDS[k % 4]}", "seed": FIRST + k}
        for name, method in METHODS.items():
            gaps[name].append(100 * _solved(problem, method, size.seconds, name, row))
        gaps[BEST].append(min(gaps[name][-1] for name in (OURS, RELAXED, STATIC)))
        table.append({**row, **{f"{name}, gap %": gaps[name][-1] for name in gaps}})
    return {name: np.array(values) for name, values in gaps.items()}


def _solved(
    problem: TwoStageRobust, method: Method, seconds: float, name: str, row: dict[str, object]
) -> float:
    """Gap of a method's decision; infinite where it has none."""
    start = time.perf_counter()
    try:
        result = solve(problem, replace(method, seconds=seconds), progress=False)  # type: ignore[type-var]
    except InvalidProblem:
        return math.inf
    row[f"{name}, s"] = time.perf_counter() - start
    return float(result.metrics["gap"])


def _budgeting(n: int, size: Size, table: Table) -> Verdict:
    """Worst cases of the network's loop and of two plans for the same time, as shares of the better one."""
    differences = []
    for seed in range(FIRST, FIRST + size.budgets):
        problem, start = CapitalBudgeting.random(n, seed), time.perf_counter()
        ours = _cost(problem, lambda p=problem: solve(p, NeuralCCG(seconds=size.seconds), progress=False).x)  # type: ignore[misc]
        spent = time.perf_counter() - start
        rival = _cost(problem, lambda p=problem, s=spent: _two_plans(p, s))  # type: ignore[misc]
        differences.append(100 * (ours - rival) / max(abs(ours), abs(rival)))
        table.append(
            {"problem": f"capital budgeting, n {n}", "seed": seed, "argmax form": ours, "K = 2": rival}
        )
    return _verdict(
        f"capital budgeting, n {n}: worst case of argmax form less K = 2 at equal time, in %",
        np.array(differences),
        0.0,
    )


def _two_plans(problem: TwoStageRobust, seconds: float) -> np.ndarray:
    method = KAdaptable(2, seconds=max(seconds, 0.1))
    return np.asarray(solve(problem, method, stop=Stop(seconds=seconds), progress=False).x)


def _cost(problem: TwoStageRobust, decide: Callable[[], np.ndarray]) -> float:
    try:
        return problem.worst_case(decide()).value
    except InvalidProblem:
        return math.inf


def _figure(n: int, gaps: dict[str, Scores]) -> Figure:
    names = [OURS, MAX, RELAXED, STATIC, NOMINAL, BEST]
    series = [
        Series(name, [float(i) for i in range(1, len(gaps[name]) + 1)], sorted(gaps[name])) for name in names
    ]
    return Figure(
        f"Knapsacks of {n} items", "Sorted by method.", "instance", "gap to the proved bound, %", series
    )


def _verdict(claim: str, values: Scores, required: float) -> Verdict:
    interval = median_interval(values) if len(values) >= 5 else None
    return Verdict(claim, median(values), required, "<=", interval)
