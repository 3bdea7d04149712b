"""23 FZooS: the objective against queries and rounds, how good its gradients are, and what it sends.

Shu, Lin, Dai and Low (2023), section 6: synthetic functions of growing heterogeneity and dimension, an attack on
classifiers, a metric without gradient. Every method has the best of as many settings, chosen on another seed's problem.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.core import NotFinite, Run, Status, Stop, solve
from thalweg.core.figure import Figure, Series
from thalweg.distributed.zeroth_order import (
    Ask,
    FederatedBlackBox,
    FedProxZO,
    FedZO,
    FZooS,
    ScaffoldZO,
    ZerothOrder,
    ackley,
    digits_attack,
    metric_of_network,
    quadratic,
)
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

Vector = NDArray[np.float64]
Make = Callable[[int], FederatedBlackBox]
OURS, ALONE = "FZooS", "FZooS without correction"
#: Learning rates, of the others at every number of directions; FZooS has no directions, and as many rates more.
RATES = (0.01, 0.03)
#: Share of the first gap at which rounds are counted.
NEAR = 0.25


@dataclass(frozen=True)
class Size:
    """Dimensions of the synthetic functions, clients, queries of each, rounds at least, local steps, random features,
    judging seeds, learning rates of FZooS, numbers of directions of the others.
    """

    small: int
    large: int
    clients: int
    queries: int
    rounds: int
    local_steps: int
    features: int
    seeds: int
    rates: tuple[float, ...] = RATES
    directions: tuple[int, ...] = (5,)


SIZES: dict[Scale, Size] = {
    "smoke": Size(4, 8, 3, 30, 2, 3, 100, 2),
    "quick": Size(16, 40, 3, 60, 4, 3, 150, 5),
    "full": Size(50, 300, 5, 400, 8, 10, 2000, 5, (0.003, 0.01, 0.03, 0.1), (5, 20)),
}


@dataclass(frozen=True, eq=False)
class Job:
    """A problem, how far methods look around, its least value where that is known; and the runs on it so far."""

    problem: FederatedBlackBox
    queries: int
    rounds: int
    reach: float
    least: float
    kept: dict[tuple[str, int], Course] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Course:
    """After every round, the start first: queries a client, megabytes of all, and the gap to the least value."""

    queries: Vector
    megabytes: Vector
    gaps: Vector

    def rounds_to(self, share: float) -> float:
        """Rounds until the gap is that share of the first; infinite where it never is."""
        below = np.flatnonzero(self.gaps <= share * self.gaps[0])
        return float(below[0]) if len(below) else np.inf


@dataclass(frozen=True)
class Entry:
    """A setting; it counts for the gap after the queries over that at the start. An attack's may fall below zero."""

    label: str
    make: Callable[[float], ZerothOrder]

    def course(self, job: Job, seed: int) -> Course:
        """The run of a seed; kept."""
        if (self.label, seed) not in job.kept:
            problem, rows = job.problem, [(0.0, 0.0, job.problem.metrics(job.problem.x0)["objective"])]

            def look(run: Run) -> bool:
                state = run.state
                rows.append((float(state.queries), state.bytes / 1e6, state.metrics["objective"]))
                return bool(state.queries >= job.queries and state.round >= job.rounds)

            method = self.make(job.reach)
            result = solve(
                problem, method, stop=Stop(steps=10_000), callbacks=[look], seed=seed, progress=False
            )
            if result.status is Status.DIVERGED:
                raise NotFinite(result.message)
            queries, megabytes, values = np.array(rows).T
            job.kept[self.label, seed] = Course(queries, megabytes, values - job.least)
        return job.kept[self.label, seed]

    def __call__(self, job: Job, seed: int) -> float:
        course = self.course(job, seed)
        inside = course.gaps[course.queries <= job.queries]
        return float(inside[-1] / course.gaps[0])


def _grids(size: Size) -> dict[str, dict[str, Entry]]:
    baselines: dict[str, Callable[..., FedZO]] = {
        "FedZO": FedZO,
        "FedProx": FedProxZO,
        "SCAFFOLD I": functools.partial(ScaffoldZO, option=1),
        "SCAFFOLD II": functools.partial(ScaffoldZO, option=2),
    }

    steps = size.local_steps

    def surrogate(rate: float, gamma: float = FZooS.gamma) -> Callable[[float], ZerothOrder]:
        return lambda reach: FZooS(
            local_steps=steps, lr=rate, radius=reach, gamma=gamma, features=size.features
        )

    def differences(
        make: Callable[..., FedZO], rate: float, directions: int
    ) -> Callable[[float], ZerothOrder]:
        return lambda reach: make(local_steps=steps, lr=rate, directions=directions, mu=reach)

    made = {
        OURS: {f"rate {r:g}": surrogate(r) for r in size.rates},
        ALONE: {f"rate {r:g}": surrogate(r, gamma=0.0) for r in size.rates},
    }
    for name, make in baselines.items():
        made[name] = {
            f"rate {r:g}, {q} directions": differences(make, r, q) for r in RATES for q in size.directions
        }
    return {
        name: {label: Entry(f"{name}, {label}", make) for label, make in grid.items()}
        for name, grid in made.items()
    }


def _tasks(size: Size) -> dict[str, Callable[[int], Job]]:
    def job(make: Make, reach: float = 0.01, least: float = 0.0) -> Callable[[int], Job]:
        return functools.cache(lambda seed: Job(make(seed), size.queries, size.rounds, reach, least))

    def bowl(d: int, C: float) -> Callable[[int], Job]:
        return job(lambda seed: quadratic(d, size.clients, C, seed), least=(1 - d / 4) / (10 * d))

    # A metric is constant in places: all its methods look further around.
    return {
        f"quadratic, d = {size.small}, C = 0.5": bowl(size.small, 0.5),
        f"quadratic, d = {size.small}, C = 5": bowl(size.small, 5.0),
        f"quadratic, d = {size.large}, C = 5": bowl(size.large, 5.0),
        f"Ackley, d = {size.small}, C = 1": job(lambda seed: ackley(size.small, size.clients, 1.0, seed)),
        "attack on digits": job(lambda seed: digits_attack(size.clients, seed=seed)[0]),
        "F1 of a network": job(lambda seed: metric_of_network(clients=size.clients, seed=seed), reach=0.1),
    }


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    seeds = (1, 2) if scale == "smoke" else tuple(range(1, size.seeds + 1))
    tasks, grids = _tasks(size), _grids(size)
    mild, hard, large = list(tasks)[:3]
    if scale == "smoke":
        tasks = {name: tasks[name] for name in (mild, hard, large)}
    what = "gap at equal queries / at the start"
    scores = contest(
        tasks,
        {name: grid for name, grid in grids.items() if name != ALONE},
        ours=OURS,
        what=what,
        judging_seeds=seeds,
        needs_convergence=False,
        tell=lambda share, what: tell(0.8 * share, what),
    )
    tell(0.8, "without the correction")
    alone = contest(
        {hard: tasks[hard]},
        {name: grids[name] for name in (OURS, ALONE)},
        ours=OURS,
        what=what,
        judging_seeds=seeds,
        needs_convergence=False,
    )
    courses = {name: _courses(scores, grids, name, tasks[name], seeds) for name in tasks}
    rounds = replace(
        scores,
        what=f"rounds to {NEAR:.0%} of the first gap",
        scores={hard: {n: np.array([c.rounds_to(NEAR) for c in cs]) for n, cs in courses[hard].items()}},
        breakdowns=(),
    )
    tell(0.9, "gradients")
    cosines = np.array(
        [_cosines(quadratic(size.small, size.clients, 5.0, seed), size, seed) for seed in seeds]
    )
    return Evidence(
        verdicts=[
            *scores.beats(0.0, by="difference"),
            _more(scores, mild, hard, "heterogeneity"),
            _more(scores, hard, large, "the dimension"),
            *alone.compared(OURS, ALONE, 1.0),
            *rounds.beats(1.0),
            *_gradients(cosines),
        ],
        table=[*scores.table(), *alone.table(), *rounds.table(), *_sent(courses)],
        figures=[*(_figure(name, found) for name, found in courses.items()), _cosine_figure(cosines)],
        costs=scores.costs(least=1e-4),
        notes=(
            f"{len(seeds)} judging seeds. {size.clients} clients, {size.queries} queries each. Each method has the "
            f"best of {len(size.rates)} settings on another seed's problem: the rates {size.rates} for FZooS, without "
            f"directions, and the rates {RATES} with {size.directions} directions for the others. Evaluating the "
            "objective is not counted. "
            "A gap is the objective less its least value where that is known (quadratics), else the objective. Finite "
            f"differences get as many queries for a gradient as FZooS asks in a local step. {scores.notes()}"
        ),
    )


def _courses(
    scores: Standings,
    grids: Mapping[str, Mapping[str, Entry]],
    task: str,
    make: Callable[[int], Job],
    seeds: tuple[int, ...],
) -> dict[str, list[Course]]:
    """The judged runs of the contestants none of whose runs failed."""
    return {
        name: [grids[name][label.partition(" (")[0]].course(make(seed), seed) for seed in seeds]
        for name, label in scores.settings[task].items()
        if np.isfinite(scores.scores[task][name]).all()
    }


def _more(scores: Standings, less: str, more: str, what: str) -> Verdict:
    """How much further ours is ahead of the best baseline of a seed on the second task than on the first."""
    lead = {
        task: np.min([found[rival] for rival in scores.rivals], axis=0) - found[OURS]
        for task, found in ((less, scores.scores[less]), (more, scores.scores[more]))
    }
    with np.errstate(invalid="ignore"):
        grown = np.nan_to_num(lead[more] - lead[less], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    claim = f"lead of FZooS over the best baseline grows with {what}: {more} - {less}"
    return Verdict(claim, median(grown), 0.0, ">=", median_interval(grown))


def _cosines(problem: FederatedBlackBox, size: Size, seed: int) -> list[list[float]]:
    """Cosines with the true gradient of the mean at the server's x: surrogates', and finite differences'."""
    method = FZooS(local_steps=size.local_steps, features=size.features)
    rough, count = FedZO(directions=5), len(problem.clients)
    found: list[list[float]] = [[], []]

    def look(run: Run) -> None:
        state = run.state
        x = state.x.clone().requires_grad_()
        (true,) = torch.autograd.grad(torch.stack([f(x[None])[0] for f in problem.clients]).mean(), x)
        at = state.x.expand(count, -1)
        surrogate = method.surrogates(state.broadcast, state.memory).gradient(at).mean(0)
        ask = Ask(lambda X: problem.values(X, range(count)), range(count), seed, 1000 + run.steps)
        estimate = rough.begin(ask, state.broadcast, {}).direction(at, 0).mean(0)
        for series, g in zip(found, (surrogate, estimate), strict=True):
            series.append(float(torch.nn.functional.cosine_similarity(g, true, dim=0)))

    solve(problem, method, stop=Stop(steps=size.rounds), callbacks=[look], seed=seed, progress=False)
    return found


def _gradients(cosines: Vector) -> list[Verdict]:
    """Of cosines, shape (seeds, 2, rounds)."""
    ours, third = cosines[:, 0], max(cosines.shape[2] // 3, 1)
    grown = ours[:, -third:].mean(1) - ours[:, :third].mean(1)
    ahead = ours.mean(1) - cosines[:, 1].mean(1)
    claims = {
        "surrogates' cosine with the true gradient, last third - first third of the rounds": grown,
        "surrogates' cosine - finite differences', equal queries, mean over the rounds": ahead,
    }
    return [Verdict(name, median(v), 0.0, ">=", median_interval(v)) for name, v in claims.items()]


def _sent(courses: Mapping[str, Mapping[str, list[Course]]]) -> list[dict[str, object]]:
    return [
        {"problem": task, "contestant": name, "megabytes a round": median([c.megabytes[1] for c in found])}
        for task, contestants in courses.items()
        for name, found in contestants.items()
    ]


def _figure(task: str, courses: Mapping[str, list[Course]]) -> Figure:
    series = []
    for name, found in courses.items():
        length = min(len(c.gaps) for c in found)
        gaps = np.array([c.gaps[:length] for c in found])
        series.append(Series.of(name, found[0].queries[:length], gaps))
    return Figure(f"FZooS: {task}", "Mean and range over seeds.", "queries a client", "gap", series)


def _cosine_figure(cosines: Vector) -> Figure:
    rounds = np.arange(1, cosines.shape[2] + 1)
    names = ("surrogates", "finite differences")
    series = [Series.of(name, rounds, cosines[:, k]) for k, name in enumerate(names)]
    caption = "At the server's x after each round, quadratic, C = 5; mean and range over seeds."
    return Figure("Gradients", caption, "round", "cosine with the true gradient", series)
