"""17 Sparse misspecified bandits: a near-optimal action from few queries where rewards are nearly linear.

Dong and Yang (2023): elimination of sparse parameters against least squares and the bandits of the field, on features
where all can be computed exactly, and the needle on which nobody can be fast. The paper has no experiments; its claims
are orders of growth, and these instances test what they mean at sizes that people have.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from thalweg.core import Figure, Method, Series, Stop, solve
from thalweg.online import (
    ActionSearch,
    ActionTable,
    EpsilonGreedy,
    ExploreThenCommit,
    GOptimal,
    LazyElimination,
    LinUCB,
    NetElimination,
    NetSize,
    RandomActions,
    Search,
)
from thalweg.online.actions.generators import (
    nearly_linear,
    needle,
    real_actions,
    reed_muller,
    sparse_parameter,
    sphere,
    worst_for_least_squares,
)
from thalweg.studies import misspecified_signs
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Row, Scale, Tell
from thalweg.studies.intervals import median, median_interval, paired_difference, paired_ratio, worst_of
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

OURS, NET, ONE_BY_ONE, LEAST_SQUARES = (
    "polytopes",
    "net",
    "net, one candidate a query",
    "G-optimal least squares",
)
#: (d, s, eps) of spheres with 500 actions.
SPHERES = ((16, 1, 0.1), (64, 1, 0.05), (8, 2, 0.1), (16, 2, 0.1), (32, 2, 0.2), (8, 3, 0.25))
#: The same with 1000 actions.
TALL = ((256, 1, 0.05), (256, 2, 0.03))
UCB, GREEDY, COMMIT, CHANCE = "LinUCB", "epsilon-greedy", "Lasso, then commit", "random"
SHORT = (OURS, LEAST_SQUARES, UCB, GREEDY, COMMIT, CHANCE)
#: Without least squares, whose design is a study of its own at these sizes.
TALL_RIVALS = (OURS, UCB, GREEDY, COMMIT, CHANCE)


@dataclass(frozen=True)
class Instance:
    """A table on a sphere, or of real rows, whose misfit is the worst for least squares, or real."""

    name: str
    d: int
    s: int
    eps: float
    seed: int
    n: int = 500


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    seeds = (1, 2) if scale == "smoke" else tuple(range(1, 13)) if scale == "quick" else tuple(range(1, 21))
    few = seeds if scale == "smoke" else seeds[: 5 if scale == "quick" else 10]
    spheres = SPHERES[:3] if scale == "smoke" else SPHERES
    tell(0.0, "spheres")
    race = _race(spheres, seeds, SHORT)
    tall = _race(
        TALL[:1] if scale == "smoke" else TALL, few if scale == "quick" else seeds, TALL_RIVALS, real=False
    )
    tell(0.3, "growth of least squares")
    dimensions = (8, 16) if scale == "smoke" else (8, 16, 32, 64, 256)
    growth = _least_squares(dimensions, few)
    tell(0.6, "needles")
    needles = _needles({"smoke": {3: 40}, "quick": {3: 250}, "full": {3: 2000, 4: 300}}[scale])
    tell(0.7, "random signs")
    settings = {"smoke": misspecified_signs.SIGNS[:1], "quick": misspecified_signs.SIGNS[:5]}
    fits = misspecified_signs.races(settings.get(scale, misspecified_signs.SIGNS), few)
    return Evidence(
        verdicts=[
            *race.beats(),
            *tall.beats(),
            *_eliminations(spheres, seeds),
            *growth,
            *needles,
            *misspecified_signs.verdicts(fits),
        ],
        table=[*race.table(), *tall.table(), *_sizes(spheres, seeds), *fits.table()],
        figures=[race.bars("Queries until the answer is within 2 eps of the best"), _growth(dimensions, few)],
        costs=race.costs(),
        notes=(
            f"{len(seeds)} judging seeds, {len(few)} for least squares and signs; nothing is tuned, and every "
            "method is told eps and s where it takes them. The "
            "misfit is the worst for least squares on all actions, on random signs a copy of a wrong feature. Queries "
            "are counted until the judge, who knows the table, sees the answer within 2 eps of the best; eliminations "
            f"need no judge and end by themselves. {_unknown(spheres, seeds)} {race.notes()} "
            f"{tall.notes()} {fits.notes()}"
        ),
    )


@functools.lru_cache(maxsize=512)
def _table(at: Instance) -> ActionTable:
    if at.name in ("breast_cancer", "digits"):
        return real_actions(at.name, at.s, at.eps, seed=at.seed)[0]  # type: ignore[arg-type]
    theta = sparse_parameter(at.d, at.s, at.seed)
    return nearly_linear(sphere(at.n, at.d, at.seed), theta, at.eps, "adversarial", seed=at.seed)


def _methods(at: Instance) -> dict[str, ActionSearch]:
    return {
        OURS: LazyElimination(at.s, at.eps),
        LEAST_SQUARES: GOptimal(at.eps),
        UCB: LinUCB(),
        GREEDY: EpsilonGreedy(),
        COMMIT: ExploreThenCommit(weight=2 * at.eps / math.sqrt(at.d)),
        CHANCE: RandomActions(),
        NET: NetElimination(at.s, at.eps),
        ONE_BY_ONE: NetElimination(at.s, at.eps, prune=False),
    }


def _race(
    spheres: Sequence[tuple[int, int, float]], seeds: tuple[int, ...], names: Sequence[str], real: bool = True
) -> Standings:
    """Queries until the answer is within 2 eps, of ours and of methods that are no eliminations."""

    def contestant(name: str) -> dict[str, Callable[[Instance, int], float]]:
        def queries(at: Instance, seed: int) -> float:
            found = solve(
                _table(at),
                _methods(at)[name],
                stop=Stop(below={"gap": 2 * at.eps}),
                seed=seed,
                progress=False,
            )
            # An answer before any query is a guess, and counts as one.
            return max(1.0, float(found.calls)) if found.metrics["gap"] <= 2 * at.eps else math.inf

        return {"default": queries}

    problems = {_named(*setting): functools.partial(_on_sphere, setting) for setting in spheres}
    if real:
        problems["breast cancer, s = 2, eps = 0.02"] = functools.partial(
            Instance, "breast_cancer", 30, 2, 0.02
        )
        problems["digits, s = 2, eps = 0.005"] = functools.partial(Instance, "digits", 61, 2, 0.005)
    return contest(
        problems, {name: contestant(name) for name in names}, ours=OURS, what="queries", judging_seeds=seeds
    )


def _on_sphere(setting: tuple[int, int, float], seed: int) -> Instance:
    return Instance("sphere", *setting, seed, n=1000 if setting[0] > 64 else 500)


def _named(d: int, s: int, eps: float) -> str:
    return f"d = {d}, s = {s}, eps = {eps:g}"


@functools.lru_cache(maxsize=1024)
def _ended(at: Instance, name: str) -> tuple[float, float, float]:
    """Of an elimination at its own end: the gap in units of eps, distinct queries, and the gap that it certifies."""
    table = _table(at)
    found = _finished(_methods(at)[name].begin(table.features), table).result()
    certified = math.inf if found.certificate is None else found.certificate.gap
    return table.metrics(found.action)["gap"] / at.eps, float(found.queries), certified / at.eps


def _ends(setting: tuple[int, int, float], seeds: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Gaps, queries and certified gaps, shape (3, seeds)."""
    return np.array([_ended(_on_sphere(setting, seed), name) for seed in seeds]).T


def _eliminations(spheres: Sequence[tuple[int, int, float]], seeds: tuple[int, ...]) -> list[Verdict]:
    """At their own ends: gaps well below what is guaranteed, and few queries; the largest median over the spheres."""
    ends = {name: [_ends(at, seeds, name) for at in spheres] for name in (OURS, NET, ONE_BY_ONE)}
    gaps = {name: worst_of([found[0] for found in ends[name]]) for name in (OURS, NET)}
    queries = {name: worst_of([found[1] for found in ends[name]]) for name in (OURS, NET)}
    pruned = worst_of([paired_ratio(a[1], b[1]) for a, b in zip(ends[NET], ends[ONE_BY_ONE], strict=True)])
    halved = worst_of([paired_ratio(a[2], b[2]) for a, b in zip(ends[OURS], ends[NET], strict=True)])
    return [
        _verdict("net: gap / eps at its end, where 4 are guaranteed", gaps[NET], 2.0),
        _verdict("polytopes: gap / eps at their end, where 2 are guaranteed", gaps[OURS], 1.0),
        _verdict("net: distinct queries to its end", queries[NET], 40.0),
        _verdict("polytopes: distinct queries to their end", queries[OURS], 40.0),
        _verdict("gap certified, polytopes / net", halved, 0.75),
        _verdict("net: queries, all contradicted removed / one candidate a query", pruned, 1.0),
    ]


def _verdict(claim: str, found: tuple[float, tuple[float, float]], required: float) -> Verdict:
    return Verdict(f"spheres, the worst of them: {claim}", found[0], required, interval=found[1])


def _sizes(spheres: Sequence[tuple[int, int, float]], seeds: tuple[int, ...]) -> list[Row]:
    """A row a sphere: candidates of the net, and medians at the ends."""
    rows = []
    for setting in spheres:
        d, s, eps = setting
        size = NetSize.of(_table(_on_sphere(setting, seeds[0])).features, s, eps)
        row: Row = {
            "problem": _named(d, s, eps),
            "candidates of the net": size.count,
            "supports": size.supports,
        }
        for name in (OURS, NET, ONE_BY_ONE):
            found = _ends(setting, seeds, name)
            row |= {f"queries, {name}": median(found[1]), f"gap / eps, {name}": round(median(found[0]), 3)}
            row[f"certified gap / eps, {name}"] = round(median(found[2]), 3)
        rows.append(row)
    return rows


def _unknown(spheres: Sequence[tuple[int, int, float]], seeds: tuple[int, ...]) -> str:
    """How often a certificate with an eps that the search has found itself says too little."""
    wrong, gaps = 0, []
    for setting in spheres:
        for seed in seeds:
            at = _on_sphere(setting, seed)
            table = _table(at)
            search = LazyElimination(at.s).begin(table.features, seed=seed)
            proof = _finished(search, table).result().certificate
            gap = table.metrics(search.answer())["gap"]
            wrong += proof is None or gap > proof.gap + 1e-9
            gaps.append(gap / at.eps)
    return (
        f"Without eps, found from below: median gap {median(gaps):.2g} eps, largest {max(gaps):.2g}; in {wrong} of "
        f"{len(gaps)} runs the best action was better by more than the certificate says, whose condition is not proved."
    )


def _finished(search: Search, table: ActionTable) -> Search:
    rewards = cast("NDArray[np.float64]", table.rewards)
    while not search.done:
        search.observe(float(rewards[search.next_action()]))
    return search


@functools.lru_cache(maxsize=128)
def _fitted(d: int, seed: int) -> tuple[float, float, float, float, float]:
    """Least squares on a design under its worst misfit: error, gap, queries; and ours: gap, queries; in eps."""
    eps, n = 0.05, 1000 if d > 64 else 500
    features, theta = sphere(n, d, seed), sparse_parameter(d, 1, seed)
    linear = features @ theta
    table = ActionTable(features, linear + worst_for_least_squares(features, linear, eps))
    search = _finished(GOptimal(eps).begin(features), table)
    estimates = cast("NDArray[np.float64]", search.estimates)  # type: ignore[attr-defined]
    ours = solve(table, LazyElimination(1, eps), progress=False)
    gap = table.metrics(search.answer())["gap"]
    error = float(np.abs(estimates - linear).max())
    return error / eps, gap / eps, float(search.queries), ours.metrics["gap"] / eps, float(ours.calls)


def _least_squares(dimensions: Sequence[int], seeds: tuple[int, ...]) -> list[Verdict]:
    """Errors grow as sqrt(d); at the largest d least squares ends with a bad action from many queries."""
    shares = [[-_fitted(d, seed)[0] / math.sqrt(d) for seed in seeds] for d in dimensions]
    least, (low, high) = worst_of(shares)
    verdicts = [
        Verdict(
            f"{LEAST_SQUARES}, s = 1: sup error / (eps sqrt(d)), the least over d = {', '.join(map(str, dimensions))}",
            -least,
            0.6,
            ">=",
            (-high, -low),
        )
    ]
    d = dimensions[-1]
    if d < 256:
        return verdicts
    found = np.array([_fitted(d, seed) for seed in seeds]).T
    more, queries = paired_difference(found[1], found[3]), paired_ratio(found[4], found[2])
    return [
        *verdicts,
        Verdict(
            f"d = {d}, s = 1: gap / eps of {LEAST_SQUARES}",
            median(found[1]),
            4.0,
            ">=",
            median_interval(found[1]),
        ),
        Verdict(
            f"d = {d}, s = 1: gap / eps of {LEAST_SQUARES} less that of {OURS}",
            median(more),
            4.0,
            ">=",
            median_interval(more),
        ),
        Verdict(
            f"d = {d}, s = 1: queries, {OURS} / {LEAST_SQUARES}",
            median(queries),
            0.05,
            "<=",
            median_interval(queries),
        ),
    ]


def _growth(dimensions: Sequence[int], seeds: tuple[int, ...]) -> Figure:
    x = [float(d) for d in dimensions]
    errors = [median([_fitted(d, seed)[0] for seed in seeds]) for d in dimensions]
    gaps = [median([_fitted(d, seed)[1] for seed in seeds]) for d in dimensions]
    ours = [median([_fitted(d, seed)[3] for seed in seeds]) for d in dimensions]
    return Figure(
        "Least squares under its worst misfit",
        "One entry matters, eps = 0.05; medians over the seeds, in units of eps.",
        "features d",
        "error or gap / eps",
        [
            Series("largest error of its estimates", x, errors),
            Series("gap of its action", x, gaps),
            Series(f"gap of {OURS}", x, ours),
            Series("0.6 sqrt(d)", x, [0.6 * math.sqrt(d) for d in dimensions]),
        ],
    )


def _needles(runs: Mapping[int, int]) -> list[Verdict]:
    """Queries to find the needle, over (n + 1) / 2: the mean, with the normal interval of so many runs."""
    methods: dict[str, Method] = {
        "random": RandomActions(),
        "LinUCB": LinUCB(),
        "epsilon-greedy": EpsilonGreedy(),
    }
    verdicts = []
    for m, count in runs.items():
        words = reed_muller(m)
        tables = [needle(words, 0.1, seed=seed)[0] for seed in range(count)]
        for name, method in methods.items():
            found = np.array([_to_find(table, method, seed) for seed, table in enumerate(tables)])
            found = found / ((len(words) + 1) / 2)
            mean, half = float(found.mean()), 1.645 * float(found.std(ddof=1)) / math.sqrt(count)
            verdicts.append(
                Verdict(
                    f"needle among {len(words)}, {count} runs: mean queries of {name} / ((n + 1) / 2)",
                    mean,
                    (0.8, 1.2),
                    "within",
                    (mean - half, mean + half),
                )
            )
    return verdicts


def _to_find(table: ActionTable, method: Method, seed: int) -> int:
    return solve(table, method, stop=Stop(below={"gap": 0.0}), seed=seed, progress=False).calls
