"""Compact programs: one plan for all scenarios, a plan for each of a few, a few plans for many.

Robust counterparts by linear duality: Ben-Tal et al. (2004), section 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thalweg.robust.milp import Array, Columns, Model, Outcome, Solver
from thalweg.robust.stages import Affine, FirstStage
from thalweg.robust.uncertainty import UncertaintySet

#: Relative gap of programs here.
PROGRAM_GAP = 1e-4


@dataclass(frozen=True)
class Decision:
    """What a program chose: x, its plans (shape (plans, m)), their cost as the program sees it, and its bound.

    x is None where nothing was found; ``is_cut_short`` says that the time was up.
    """

    x: Array | None
    plans: Array
    value: float
    bound: float
    is_cut_short: bool


def static_program(
    first: FirstStage,
    affine: Affine,
    scenarios: UncertaintySet,
    *,
    relaxed: bool = False,
    seconds: float = math.inf,
    solver: Solver = "auto",
) -> Decision:
    """One plan for all scenarios. With ``relaxed``, plans need not be whole.

    The worst case of a cost or row, ``max g'xi`` over the set, is the minimum of its dual:
    ``b'l + upper'm - lower'k`` with ``A'l + m - k = g`` and l, m, k >= 0.
    """
    base, model = affine.at_zero, Model()
    x = first.add_to(model, base.c)
    y = model.columns(len(base.d), 0.0, base.upper, integer=base.integer & (not relaxed), cost=base.d)
    _add_dual(
        model, scenarios, [(x, affine.c.T), (y, affine.d.T)], np.zeros(scenarios.dimension), as_cost=True
    )
    for r in range(len(base.h)):
        blocks = [(x, base.T[r]), (y, base.W[r])]
        slopes = [(x, affine.T[r].T), (y, affine.W[r].T)]
        if affine.T[r].any() or affine.W[r].any() or affine.h[r].any():
            blocks.append(_add_dual(model, scenarios, slopes, -affine.h[r], as_cost=False))
        model.rows(blocks, upper=base.h[r])
    return _decision(model.minimize(solver, seconds=seconds, gap=PROGRAM_GAP), first, x, [y])


def _add_dual(
    model: Model,
    scenarios: UncertaintySet,
    slopes: list[tuple[Columns, Array]],
    constant: Array,
    as_cost: bool,
) -> tuple[Columns, Array]:
    """Columns whose weighted sum is at least the worst case of ``(slopes + constant)'xi``, and their weights."""
    (low, high), (A, b) = scenarios.ends, scenarios.system
    weights, d = np.concatenate([b, high, -low]), scenarios.dimension
    dual = model.columns(len(weights), 0.0, math.inf, cost=weights * as_cost)
    matrix = np.hstack([A.T, np.eye(d), -np.eye(d)])
    model.rows([(dual, matrix), *((columns, -S) for columns, S in slopes)], lower=constant, upper=constant)
    return dual, weights


def scenario_program(
    first: FirstStage,
    affine: Affine,
    scenarios: Array,
    *,
    relaxed: bool = False,
    seconds: float = math.inf,
    solver: Solver = "auto",
) -> Decision:
    """The best decision against these scenarios only, a plan for each; its bound is one for all of the set."""
    model = Model()
    x = first.add_to(model)
    worst = model.columns(1, -math.inf, math.inf, cost=1.0)
    plans = []
    for xi in scenarios:
        at = affine.at(xi)
        y = model.columns(len(at.d), 0.0, at.upper, integer=at.integer & (not relaxed))
        if len(at.h):
            model.rows([(y, at.W), (x, at.T)], upper=at.h)
        model.rows([(worst, [[1.0]]), (x, -at.c), (y, -at.d)], lower=0.0)
        plans.append(y)
    return _decision(model.minimize(solver, seconds=seconds, gap=PROGRAM_GAP), first, x, plans)


def adaptable_program(
    first: FirstStage,
    affine: Affine,
    scenarios: Array,
    K: int,
    *,
    seconds: float = math.inf,
    solver: Solver = "auto",
) -> Decision:
    """K plans, of which each of these scenarios uses one; its bound is one for K plans over all of the set."""
    model, base = Model(), affine.at_zero
    x = first.add_to(model)
    worst = model.columns(1, -math.inf, math.inf, cost=1.0)
    plans = [model.columns(len(base.d), 0.0, base.upper, integer=base.integer) for _ in range(K)]
    parts = [affine.at(xi) for xi in scenarios]
    spans = [span(at.c, first.lower, first.upper, at.d, base.upper) for at in parts]
    lowest = min(low for low, _ in spans)
    for s, (at, (_, highest)) in enumerate(zip(parts, spans, strict=True)):
        used = model.columns(K, 0.0, [1.0 if k <= s else 0.0 for k in range(K)], integer=True)
        model.rows([(used, np.ones((1, K)))], lower=1.0, upper=1.0)
        M, one = highest - lowest, np.ones(1)
        for k, y in enumerate(plans):
            row = [(worst, one), (x, -at.c), (y, -at.d), (used[k : k + 1], -M * one)]
            model.rows(row, lower=-M)
            if len(at.h):
                most = np.maximum(at.W, 0.0) @ base.upper
                most += np.maximum(at.T * first.lower, at.T * first.upper).sum(1)
                room = np.maximum(most - at.h, 0.0)
                model.rows([(y, at.W), (x, at.T), (used[k : k + 1], room[:, None])], upper=at.h + room)
    return _decision(model.minimize(solver, seconds=seconds, gap=PROGRAM_GAP), first, x, plans)


def span(c: Array, low: Array, high: Array, d: Array, upper: Array) -> tuple[float, float]:
    """Between what ``c'x + d'y`` lies."""
    ends = np.stack([c * low, c * high])
    return (
        float(ends.min(0).sum() + np.minimum(d, 0.0) @ upper),
        float(ends.max(0).sum() + np.maximum(d, 0.0) @ upper),
    )


def _decision(found: Outcome, first: FirstStage, x: Columns, plans: list[Columns]) -> Decision:
    short = found.status == "limit"
    if found.x is None:
        bound = math.inf if found.status == "infeasible" else found.bound
        return Decision(None, np.zeros((0, 0)), math.inf, bound, short)
    chosen = first.rounded(found.x[x])
    return Decision(chosen, np.stack([found.x[y] for y in plans]), found.value, found.bound, short)
