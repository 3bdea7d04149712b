"""24 Groupwise regret: every group of rows as well off as by a model of its own.

Acharya, Arunachaleswaran, Kannan, Roth and Ziani (2024), section 4: online ridge regression combined over groups,
against one for all rows. The synthetic streams are the paper's; its two real tables are not packaged anywhere, and
`thalweg solve online` reruns them on a user's file.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core import Figure, Series, solve
from thalweg.core.seeding import generator
from thalweg.datasets import load
from thalweg.online import (
    GroupedStream,
    Groupwise,
    GroupwiseLeader,
    GroupwiseRegressor,
    OneForAll,
    PerturbedLeader,
    ShortestPath,
    horizon_noise,
)
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Tell
from thalweg.studies.intervals import median, median_interval, paired_difference, worst_of
from thalweg.studies.standings import Standings, together
from thalweg.studies.verdict import Verdict

OURS, ONE = "groupwise, mean", "one model for all"
METHODS = {
    OURS: Groupwise(),
    "groupwise, draw": Groupwise(combine="draw"),
    "groupwise, mixable": Groupwise(combine="mixable"),
    "smallest group's own": Groupwise(combine="smallest"),
    ONE: OneForAll(),
}
SHAPES, COLOURS = ("circle", "triangle", "square"), ("red", "green")
GROUPS = (*SHAPES, *COLOURS, "everyone")
RULES = ("mean", "min", "max", "permutation")
#: Stretches of the sorted stream: rows in the order of their shape.
SORTED = "min, sorted by shape"


@dataclass(frozen=True)
class Question:
    """The regret of one group on one stream."""

    stream: str
    group: str
    rounds: int
    seed: int


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    rounds = {"smoke": 1000, "quick": 10_000, "full": 100_000}[scale]
    paths = {"smoke": 300, "quick": 3000, "full": 3000}[scale]
    seeds = (1, 2) if scale == "smoke" else (1, 2, 3, 4, 5)
    streams = [*RULES, SORTED]
    races = {}
    for i, name in enumerate([*streams, "diabetes"]):
        tell(0.6 * i / (len(streams) + 1), name)
        races[name] = _race(name, rounds, seeds)
    tell(0.6, "shortest paths")
    walks = _walks(paths, seeds)
    tell(0.95, "bounds")
    shares = np.array([_largest_share(seed, min(rounds, 5000)) for seed in seeds])
    synthetic = together([races[name] for name in streams])
    return Evidence(
        verdicts=[
            *(_every_group(races[name], name) for name in streams),
            _half(walks),
            *_diabetes(races["diabetes"]),
            Verdict(
                "largest regret of a group to its own learner, share of its bound, after any row of the streams",
                median(shares),
                1.0,
                interval=median_interval(shares),
            ),
        ],
        table=[*synthetic.table(), *races["diabetes"].table(), *walks.table()],
        figures=[_bars(races[name], name) for name in ("min", SORTED)] + [_curves("min", rounds)],
        costs={},
        notes=(
            f"{len(seeds)} judging seeds, {rounds} rows a stream; nothing is tuned, every contestant has its default. "
            "Regret is the sum of squared errors less that of the best linear model for the group in hindsight, in "
            "units of the labels' range. 'Draw' is scored by what it drew, the paper by the expected loss. "
            "The medical-cost and census tables of the paper are not packaged: thalweg solve online insurance.csv "
            "--target charges --groups sex,smoker,age:35:50,bmi:18.5:25:30 reruns the first. "
            f"{synthetic.notes()}"
        ),
    )


def stream(name: str, rounds: int, seed: int) -> GroupedStream:
    """A synthetic stream: 20 features, a shape and a colour, and labels by a linear model of each.

    >>> stream("min", 50, 0).names
    ('circle', 'triangle', 'square', 'red', 'green', 'everyone')
    """
    rng = generator(seed, 24)
    rule = name.partition(",")[0]
    shape = rng.choice(3, rounds, p=(0.5, 0.3, 0.2))
    if name == SORTED:
        shape = np.sort(shape)
    colour = 3 + rng.choice(2, rounds, p=(0.6, 0.4))
    mask = np.zeros((rounds, 5), dtype=bool)
    row = np.arange(rounds)
    mask[row, shape] = mask[row, colour] = True
    x = rng.random((rounds, 20))
    own = x @ rng.random((20, 5)) + 0.16 * rng.standard_normal((rounds, 5))
    both = np.column_stack([own[row, shape], own[row, colour]])
    if rule == "permutation":
        rank = rng.permutation(5)
        y = np.where(rank[shape] < rank[colour], both[:, 0], both[:, 1])
    else:
        y = {"mean": both.mean(1), "min": both.min(1), "max": both.max(1)}[rule]
    return GroupedStream(
        np.column_stack([x, mask]),
        (y - y.min()) / (y.max() - y.min()),
        mask,
        names=GROUPS[:-1],
        low=0.0,
        high=1.0,
    )


def diabetes(seed: int) -> GroupedStream:
    """The packaged table of 442 patients in random order: groups by sex, and by thirds of age and body mass."""
    data = load("diabetes")
    order = generator(seed, 442).permutation(len(data.X))
    X, y = data.X[order], data.numbers()[order]
    low, high = X.min(0), X.max(0)
    mask = [X[:, 1] > 0, X[:, 1] <= 0]
    for column in (0, 2):
        third = np.digitize(X[:, column], np.quantile(X[:, column], (1 / 3, 2 / 3)))
        mask += [third == k for k in range(3)]
    groups = np.column_stack(mask)
    features = np.column_stack([(X - low) / (high - low), groups, np.ones(len(X))])
    names = ["male", "female", "young", "middle", "old", "light", "medium", "heavy"]
    return GroupedStream(features, y, groups, names=names)


@functools.lru_cache(maxsize=64)
def _made(name: str, rounds: int, seed: int) -> GroupedStream:
    return diabetes(seed) if name == "diabetes" else stream(name, rounds, seed)


@functools.lru_cache(maxsize=256)
def _ledger(name: str, rounds: int, seed: int, method: str) -> dict[str, float]:
    problem = _made(name, rounds, seed)
    return problem.ledger(solve(problem, METHODS[method], seed=seed, progress=False).x)


def _race(name: str, rounds: int, seeds: tuple[int, ...]) -> Standings:
    def contestant(method: str) -> Callable[[Question, int], float]:
        return lambda question, seed: _ledger(question.stream, question.rounds, seed, method)[question.group]

    groups = _made(name, rounds, seeds[0]).names
    return contest(
        {f"{name}: {g}": functools.partial(Question, name, g, rounds) for g in groups},
        {method: {"default": contestant(method)} for method in METHODS},
        ours=OURS,
        what="regret",
        judging_seeds=seeds,
    )


def _every_group(race: Standings, name: str) -> Verdict:
    """Whether ours is below the one model on all groups: the largest difference over them."""
    differences = [paired_difference(found[OURS], found[ONE]) for found in race.scores.values()]
    measured, interval = worst_of(differences)
    return Verdict(
        f"{name}: regret, {OURS} less {ONE}, on the group where that is largest",
        measured,
        0.0,
        interval=interval,
    )


def _diabetes(race: Standings) -> list[Verdict]:
    """Where groups add nothing: the price of having them."""
    found = race.scores["diabetes: everyone"]
    ratios = found[OURS] / found[ONE]
    return [
        Verdict(
            f"diabetes, where groups do not help: regret of everyone, {OURS} / {ONE}",
            median(ratios),
            1.15,
            interval=median_interval(ratios),
        )
    ]


def _grid(side: int = 4) -> ShortestPath:
    node = {place: i for i, place in enumerate(itertools.product(range(side), repeat=2))}
    steps = [((i, j), (i, j + 1)) for i in range(side) for j in range(side - 1)]
    steps += [((i, j), (i + 1, j)) for i in range(side - 1) for j in range(side)]
    return ShortestPath([(node[a], node[b]) for a, b in steps], 0, side * side - 1)


@dataclass(frozen=True)
class Walk:
    """Rounds of paths through a grid: costs (rounds, edges) and groups (rounds, 3)."""

    costs: NDArray[np.float64]
    mask: NDArray[np.bool_]

    @classmethod
    def made(cls, rounds: int, seed: int) -> Walk:
        """Costs in [0, 1/6] an edge, so that a path of six costs at most one: the mean over the row's own groups.

        Rows of neither group have costs of their own, too.
        """
        rng = generator(seed, 16)
        edges = len(_grid().edges)
        mask = np.column_stack(
            [rng.random(rounds) < 0.5, rng.random(rounds) < 0.3, np.ones(rounds, dtype=bool)]
        )
        own = rng.random((3, edges))
        alone = np.column_stack([mask[:, :2], ~mask[:, :2].any(1)])
        mix = alone @ own / alone.sum(1, keepdims=True)
        return cls(np.clip(mix + 0.3 * rng.standard_normal((rounds, edges)), 0, 1) / 6.0, mask)


@functools.lru_cache(maxsize=64)
def _walked(rounds: int, seed: int, method: str) -> tuple[float, float, float]:
    """Regrets of the three groups."""
    walk, path = Walk.made(rounds, seed), _grid()
    edges = len(path.edges)
    noise = horizon_noise(12.0, 1.0, edges / 6.0, rounds)
    groups = 3 if method == OURS else 1
    leader = GroupwiseLeader(
        [PerturbedLeader(path, edges, noise, 100 * seed + g) for g in range(groups)], seed
    )
    losses = np.empty(rounds)
    for t in range(rounds):
        leader.decide(walk.mask[t] if groups == 3 else np.ones(1, dtype=bool))
        losses[t] = leader.learn(walk.costs[t])
    found = []
    for g in range(3):
        rows = walk.mask[:, g]
        total = walk.costs[rows].sum(0)
        found.append(float(losses[rows].sum() - total @ path(total)))
    return found[0], found[1], found[2]


def _walks(rounds: int, seeds: tuple[int, ...]) -> Standings:
    def contestant(method: str, group: int) -> dict[str, Callable[[int, int], float]]:
        return {"default": lambda _, seed: _walked(rounds, seed, method)[group]}

    races = [
        contest(
            {f"paths: group of {share}": lambda seed: seed},
            {OURS: contestant(OURS, g), ONE: contestant(ONE, g)},
            ours=OURS,
            what="regret",
            judging_seeds=seeds,
        )
        for g, share in enumerate(("50 %", "30 %", "all"))
    ]
    return together(races)


def _half(walks: Standings) -> Verdict:
    """Half of the single leader's regret on every group: the largest of ours less half of it."""
    differences = [paired_difference(found[OURS], found[ONE] / 2) for found in walks.scores.values()]
    measured, interval = worst_of(differences)
    return Verdict(
        "shortest paths: regret, groupwise leaders less half of one leader's, on the group where that is largest",
        measured,
        0.0,
        interval=interval,
    )


def _largest_share(seed: int, rounds: int) -> float:
    """Of a bound, over all streams, groups and times, a look each hundred rows."""
    largest = 0.0
    for name in (*RULES, SORTED):
        problem = _made(name, rounds, seed)
        model = GroupwiseRegressor(low=0.0, high=1.0, everyone=False, fit_intercept=False)
        for rows in np.array_split(np.arange(rounds), rounds // 100):
            model.partial_fit(problem.X[rows], problem.y[rows], problem.groups[rows])
            largest = max(largest, float((model.regrets_ / np.maximum(model.bounds_, 1e-300)).max()))
    return largest


def _bars(race: Standings, name: str) -> Figure:
    return race.bars(f"Regret by group: {name}")


def _curves(name: str, rounds: int) -> Figure:
    """Regret of the smallest shape as its rows come."""
    problem = _made(name, rounds, 1)
    series = []
    for method in (OURS, ONE):
        x = solve(problem, METHODS[method], seed=1, progress=False).x
        series.append(Series.of(method, *problem.curve(x, "square")))
    return Figure(
        f"The squares of the stream '{name}'",
        "Regret against the best linear model for squares, as they come. One seed.",
        "rows of the group",
        "regret",
        series,
    )
