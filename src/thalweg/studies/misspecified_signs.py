"""Estimates of sparse parameters from few random queries, where features are random signs: a part of study 17."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from thalweg.core.seeding import generator
from thalweg.online import ActionTable
from thalweg.online.actions.generators import signs, sparse_parameter
from thalweg.online.actions.sparse_fit import lasso_fit, refitted, shortest_fit
from thalweg.studies.contest import contest
from thalweg.studies.intervals import paired_ratio, worst_of
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

#: (d, s, queries) of random signs with 1500 actions.
SIGNS = ((256, 2, 40), (256, 4, 60), (256, 8, 100), (256, 16, 160), (1024, 4, 70), (512, 4, 60))
SIGNS_EPS = 0.02
LP, LASSO, REFIT, SHORTEST = (
    "linear program",
    "Lasso",
    "linear program, refitted",
    "minimum-norm least squares",
)


@dataclass(frozen=True)
class Fit:
    """Random signs, a parameter of entries +-1/s, and a misfit that copies a feature which does not matter."""

    d: int
    s: int
    queries: int
    seed: int


@functools.lru_cache(maxsize=32)
def _signed(at: Fit) -> tuple[ActionTable, NDArray[np.float64]]:
    features, theta = signs(1500, at.d, at.seed), sparse_parameter(at.d, at.s, at.seed, alike=True)
    wrong = int(np.flatnonzero(theta == 0)[at.seed])
    return ActionTable(features, features @ theta + SIGNS_EPS * features[:, wrong]), theta


@functools.lru_cache(maxsize=256)
def _fit(at: Fit, name: str) -> NDArray[np.float64]:
    """The parameter that a method makes of the instance's random queries."""
    table, _ = _signed(at)
    plan = generator(at.seed, 17).choice(len(table.features), at.queries, replace=False)
    features, rewards = table.features[plan], cast("NDArray[np.float64]", table.rewards)[plan]
    if name == LASSO:
        return lasso_fit(features, rewards, 2 * SIGNS_EPS)
    if name == SHORTEST:
        return np.asarray(np.linalg.lstsq(features, rewards, rcond=None)[0])
    if name == REFIT:
        return refitted(features, rewards, _fit(at, LP), at.s)
    found = shortest_fit(features, rewards, SIGNS_EPS)
    return np.full(at.d, np.inf) if found is None else found


def races(settings: Sequence[tuple[int, int, int]], seeds: tuple[int, ...]) -> Standings:
    """Largest error of an estimate, in units of eps, from the same random queries."""

    def error(at: Fit, seed: int, name: str) -> float:
        table, theta = _signed(at)
        return float(np.abs(table.features @ (_fit(at, name) - theta)).max()) / SIGNS_EPS

    return contest(
        {f"signs, d = {d}, s = {s}, {q} queries": functools.partial(Fit, d, s, q) for d, s, q in settings},
        {name: {"default": functools.partial(error, name=name)} for name in (LP, LASSO, REFIT, SHORTEST)},
        ours=LP,
        what="sup error / eps",
        judging_seeds=seeds,
    )


def verdicts(fits: Standings) -> list[Verdict]:
    """The program stays below 4 eps whatever d and s; the Lasso grows with s; both beat minimum norm."""
    largest, interval = worst_of([found[LP] for found in fits.scores.values()])
    size = [int(name.split("s = ")[1].split(",")[0]) for name in fits.scores]
    shares = [-found[LASSO] / s for found, s in zip(fits.scores.values(), size, strict=True)]
    least, (low, high) = worst_of(shares)
    over, between = worst_of([paired_ratio(found[LP], found[SHORTEST]) for found in fits.scores.values()])
    return [
        Verdict(
            f"signs, the worst of {len(size)}: sup error / eps of the {LP}", largest, 4.0, interval=interval
        ),
        Verdict(
            f"signs, the least of {len(size)}: sup error / (eps s) of the {LASSO} with weight 2 eps",
            -least,
            1.5,
            ">=",
            (-high, -low),
        ),
        Verdict(
            f"signs, the worst of {len(size)}: sup error, {LP} / {SHORTEST}", over, 0.2, interval=between
        ),
    ]
