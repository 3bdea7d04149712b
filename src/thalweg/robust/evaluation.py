"""What a first decision costs in the worst case, exactly.

Three ways, by what is uncertain and what the second stage decides:

- only costs are uncertain: cutting planes. The worst scenario against all plans is found against the plans seen so
  far, one linear program in the scenario; its best plan is the next one.
- plans are whole numbers (or say themselves what their continuous part does): branch and bound over the scenarios. The
  best plan at a node's scenario either costs what it costs, or breaks one of its rows; each is a branch with one
  inequality more (after Subramanyam, Gounaris and Wiesemann, 2020, section 3.2).
- plans are continuous, with certain costs and coefficients: the cost is convex in the scenario, and the worst one a
  vertex; all are tried.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import numpy as np

from thalweg.core import InvalidProblem
from thalweg.robust._cuts import WorstOfPlans
from thalweg.robust.milp import Array, Model
from thalweg.robust.stages import Affine, Pieces, WorstCase
from thalweg.robust.uncertainty import UncertaintySet

#: The best plan at a scenario: its cost, a bound below it, and the plan.
Price = Callable[[Array, Array], tuple[float, float, Array]]
Describe = Callable[[Array, Array], Pieces]

#: Relative gap at which a worst case is known.
GAP = 1e-4
#: Most plans that are looked at.
MOST = 2000
#: Relative gap, scenarios that are looked at first, and most nodes of the branching.
BRANCH_GAP, PROBES, MOST_NODES = 1e-3, 50, 5000
#: Most vertices that are tried one by one.
VERTICES = 5000


def evaluated(
    affine: Affine, scenarios: UncertaintySet, x: Array, price: Price, describe: Describe | None, name: str
) -> WorstCase:
    """The worst case of x, by the way that fits."""
    if affine.has_certain_rows:
        return by_plans(affine, scenarios, x, price)
    if describe is not None:
        return by_branching(scenarios, x, price, describe)
    if affine.d.any() or affine.W.any():
        raise InvalidProblem(
            f"{name}: the second stage has continuous plans whose costs or coefficients are uncertain beside its rows; "
            f"there is no exact worst case for that here. Override {name}.worst_case."
        )
    if affine.at_zero.integer.any():
        raise InvalidProblem(
            f"{name}: the second stage mixes whole and continuous plans under uncertain rows; there is no exact worst "
            f"case for that here. Override {name}.worst_case, or pieces and has_exact_plans."
        )
    return by_vertices(scenarios, x, price, name)


def by_plans(affine: Affine, scenarios: UncertaintySet, x: Array, price: Price) -> WorstCase:
    """Cutting planes: the worst scenario against the plans seen so far, until no plan is better there."""
    worst = WorstOfPlans(scenarios)
    xi, best, value, lower = scenarios.centre, scenarios.centre, math.inf, -math.inf
    for rounds in range(1, MOST + 1):
        cost, proved, y = price(x, xi)
        if math.isinf(cost):
            return WorstCase(math.inf, math.inf, xi, rounds)
        if proved > lower:
            best, lower = xi, proved
        if math.isfinite(value) and value - lower <= GAP * max(abs(value), abs(lower)):
            break
        a, g = affine.cost(x, y)
        worst.add(a, g)
        before = xi
        above, xi = worst.solve()
        value = min(value, above)
        if scenarios.apart(xi, before) <= 1e-12:
            break  # the last plan is the best one there, to the solver's tolerance
    return WorstCase(max(value, lower), lower, best, rounds)


def by_branching(scenarios: UncertaintySet, x: Array, price: Price, describe: Describe) -> WorstCase:
    """Branch and bound over scenarios, the dearest node first, to a relative gap of 1e-3.

    Cost: a linear program in the scenario for each node, tens to thousands; it grows with the scenario's dimension and
    with how many plans are the best one somewhere.
    """
    best, lower, size = scenarios.centre, -math.inf, 0.0
    for xi in scenarios.sample(PROBES, np.random.default_rng(0)):
        cost, proved, _ = price(x, xi)
        if math.isinf(cost):
            return WorstCase(math.inf, math.inf, xi)
        size = max(size, abs(cost))
        if proved > lower:
            best, lower = xi, proved
    close = BRANCH_GAP * max(
        abs(lower), 0.1 * size
    )  # costs near zero are measured by those of other scenarios
    middle, half = (sum(scenarios.ends) / 2, (scenarios.ends[1] - scenarios.ends[0]) / 2)
    empty = np.zeros((0, scenarios.dimension + 1))
    heap: list[tuple[float, int, Array, Array, Array]] = [
        (-math.inf, 0, empty, np.zeros(0), scenarios.centre)
    ]
    value, cut, nodes, made = math.inf, -math.inf, 0, 0
    while heap and nodes < MOST_NODES:
        top, _, rows, levels, xi = heapq.heappop(heap)
        value, nodes = -top, nodes + 1
        cost, proved, y = price(x, xi)
        if math.isinf(cost):
            return WorstCase(math.inf, math.inf, xi, nodes)
        if proved > lower:
            best, lower = xi, proved
        if value - lower <= close:
            cut = max(cut, value)
            break
        plan = describe(x, y)
        most = plan.breaks_a + plan.breaks_g @ middle + np.abs(plan.breaks_g) @ half
        can = most > plan.room
        ways = np.vstack(
            [np.c_[-plan.G, np.ones(len(plan.a))], np.c_[-plan.breaks_g, np.zeros(len(can))][can]]
        )
        ends = np.r_[plan.a, (plan.breaks_a - plan.room)[can]]
        for way, end in zip(ways, ends, strict=True):
            child, level = np.vstack([rows, way]), np.r_[levels, end]
            above, point = _dearest(scenarios, child, level)
            above = min(above, value)
            if point is not None and above - lower > close:
                made += 1
                heapq.heappush(heap, (-above, made, child, level, point))
            else:
                cut = max(cut, above)
    # what was cut, and what is open, may still be dearer
    value = max(lower, cut, -heap[0][0] if heap else -math.inf)
    return WorstCase(value, lower, best, nodes)


def _dearest(scenarios: UncertaintySet, rows: Array, levels: Array) -> tuple[float, Array | None]:
    """The largest z over scenarios with ``rows @ (xi, z) <= levels``; infinite where z has no limit yet."""
    model = Model()
    xi = scenarios.add_to(model)
    limited = bool(rows[:, -1].any())
    z = model.columns(1, -math.inf if limited else 0.0, math.inf if limited else 0.0, cost=-1.0)
    model.rows([(np.r_[xi, z], rows)], upper=levels)
    found = model.minimize()
    if found.x is None:
        return -math.inf, None
    return (-found.value if limited else math.inf), found.x[xi]


def worst_against(
    seen: list[Pieces], scenarios: UncertaintySet, floor: float = -math.inf
) -> tuple[float, Array]:
    """The scenario at which the best of these plans is dearest, and a bound above its cost there.

    A scenario that no plan survives counts as dearer than all: its cost is infinite.
    """
    low, high = scenarios.ends
    middle, half = (low + high) / 2, (high - low) / 2
    tops = [float((p.a + p.G @ middle + np.abs(p.G) @ half).max()) for p in seen]
    top = max(max(tops), floor)
    size = max(abs(top), *(float(np.abs(p.a).max() + np.abs(p.G).max(initial=0.0)) for p in seen))
    ceiling = top + (0.1 * size or 1.0)  # reached only where no plan survives
    model = Model()
    xi = scenarios.add_to(model)
    z = model.columns(1, -math.inf, ceiling, cost=-1.0)
    for plan in seen:
        _add_plan(model, plan, xi, z, ceiling, middle, half)
    found = model.minimize(gap=GAP / 10, integrality=1e-9)
    if found.x is None:
        raise InvalidProblem(f"The worst scenario was not found: the program is {found.status}.")
    value = -found.bound
    point = found.x[xi]
    if value > top + 0.05 * (ceiling - top) and float(found.x[z[0]]) > top + 0.05 * (ceiling - top):
        value = math.inf
    return value, point


def _add_plan(
    model: Model, plan: Pieces, xi: np.ndarray, z: np.ndarray, ceiling: float, middle: Array, half: Array
) -> None:
    """z is at most the plan's cost, one piece of it, unless it breaks a row."""
    most = plan.breaks_a + plan.breaks_g @ middle + np.abs(plan.breaks_g) @ half
    open_rows = np.flatnonzero(most > plan.room)
    ways = len(plan.a) + len(open_rows)
    if ways == 1:
        model.rows([(z, [[1.0]]), (xi, -plan.G)], upper=plan.a)
        return
    chosen = model.columns(ways, 0.0, 1.0, integer=True)
    model.rows([(chosen, np.ones((1, ways)))], lower=1.0)
    k = len(plan.a)
    least = plan.a + plan.G @ middle - np.abs(plan.G) @ half
    M = ceiling - least
    model.rows([(z, np.ones((k, 1))), (xi, -plan.G), (chosen[:k], np.diag(M))], upper=plan.a + M)
    if len(open_rows):
        a, G, room = plan.breaks_a[open_rows], plan.breaks_g[open_rows], plan.room[open_rows]
        least = a + G @ middle - np.abs(G) @ half
        M = np.maximum(room - least, 0.0)
        model.rows([(xi, G), (chosen[k:], np.diag(-M))], lower=room - a - M)


def by_vertices(scenarios: UncertaintySet, x: Array, price: Price, name: str) -> WorstCase:
    """Every vertex in turn."""
    corners = scenarios.all_vertices(VERTICES)
    if corners is None:
        raise InvalidProblem(
            f"{name}: the worst case of continuous plans is at a vertex, and the set is no box or budget set with at "
            f"most {VERTICES} of them. Override {name}.worst_case."
        )
    value, at = -math.inf, corners[0]
    for xi in corners:
        cost = price(x, xi)[0]
        if cost > value:
            value, at = cost, xi
    return WorstCase(value, value, at, len(corners))
