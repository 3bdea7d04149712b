"""18 Bayesian optimisation: the tutorial's claims, one by one.

Frazier (2018), "A tutorial on Bayesian optimization": expected improvement, noise, fidelities, gradients, batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from thalweg.blackbox import Fidelity, Real, Study
from thalweg.blackbox.functions import BRANIN, HARTMANN6, ROSENBROCK4, biased_branin
from thalweg.core.seeding import generator
from thalweg.datasets import load
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Tell
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

Vector = NDArray[np.float64]
Objective = Callable[[Vector], float]

#: Regret below this counts as this: found.
FOUND = 1e-6
RANDOM, EI, HALF = "random", "EI", "one at a time, half of the evaluations"
ALONE, BATCH, GRADIENTS, PLAIN = "one at a time", "four at once", "with gradients", "without"
ENTROPY, VISITED, KNOWLEDGE = "max-value entropy", "EI for noise", "knowledge gradient"
TRUTH, CHEAP, BAYESIAN = "truth only", "knowledge gradient per cost", "Bayesian optimisation"
DRAWS, NOISE = 1, 2  # streams of random numbers


@dataclass(frozen=True)
class Size:
    """Evaluations, by title; the budget of a run with fidelities, in evaluations of the truth; judging seeds.

    A title that is absent is not run, nor are fidelities without a budget: knowledge gradients take most of the time.
    """

    evaluations: dict[str, int]
    budget: float
    seeds: int


SIZES = {
    "smoke": Size({"Branin": 8, "noise": 8, "gradients": 8, "batch": 8, "machine": 4}, 2.0, 1),
    "quick": Size({"Branin": 16, "Hartmann-6": 40, "gradients": 18, "batch": 32, "machine": 18}, 0.0, 5),
    "full": Size(
        {"Branin": 48, "Hartmann-6": 80, "noise": 60, "gradients": 36, "batch": 64, "machine": 40}, 24.0, 8
    ),
}


@dataclass(frozen=True, eq=False)
class Race:
    """One objective on the unit cube, and what each contestant, by its options of `Study`, reached with a seed."""

    objective: Objective
    dimension: int
    evaluations: int
    contestants: dict[str, Row]
    noise: float = 0.0
    slope: Callable[[Vector], Vector] | None = None
    together: dict[str, int] = field(default_factory=dict)
    courses: dict[tuple[str, int], Vector] = field(default_factory=dict)

    def regret(self, name: str, _: Race, seed: int) -> float:
        """What would be used at the end, above the minimum."""
        if name == HALF:
            return float(max(self.course(ALONE, seed)[self.evaluations // 2 - 1], FOUND))
        return float(max(self.course(name, seed)[-1], FOUND))

    def course(self, name: str, seed: int) -> Vector:
        """Regret after each evaluation, shape (evaluations,)."""
        if (name, seed) not in self.courses:
            self.courses[name, seed] = self._drawn(seed) if name == RANDOM else self._run(name, seed)
        return self.courses[name, seed]

    def _drawn(self, seed: int) -> Vector:
        rng = generator(seed, DRAWS)
        values = [self.objective(rng.random(self.dimension)) for _ in range(self.evaluations)]
        return np.asarray(np.minimum.accumulate(values))

    def _run(self, name: str, seed: int) -> Vector:
        options = {"noise": "learn" if self.noise else "none", **self.contestants[name]}
        study = Study({f"x{i}": Real(0.0, 1.0) for i in range(self.dimension)}, seed=seed, **options)
        rng, size = generator(seed, NOISE), self.together.get(name, 1)
        course: list[float] = []
        while len(course) < self.evaluations:
            for trial in study.ask(size):
                x = np.array(list(trial.point.values()))
                slope = None
                if self.slope is not None and name == GRADIENTS:
                    slope = dict(zip(trial.point, map(float, self.slope(x)), strict=True))
                study.tell(trial, self.objective(x) + self.noise * rng.standard_normal(), gradient=slope)
            course += [self._used(study)] * size
        return np.array(course[: self.evaluations])

    def _used(self, study: Study) -> float:
        """The true value of what would be used: the best told without noise, the recommendation with it."""
        if not self.noise:
            return math.inf if study.best is None else float(study.best.value or 0.0)
        return self.objective(np.array(list(study.recommend().point.values())))


def _over(f: Objective, minimum: float) -> Objective:
    return lambda x: f(x) - minimum


def _slope(f: Objective) -> Callable[[Vector], Vector]:
    """Central differences, accurate to nine digits on the functions here."""
    return lambda x: np.array([(f(x + h) - f(x - h)) / 2e-6 for h in 1e-6 * np.eye(len(x))])


def _rosenbrock(u: Vector) -> float:
    return math.log1p(ROSENBROCK4(u))


def _races(evaluations: dict[str, int]) -> dict[str, Race]:
    """By title; values of Branin lie between 0 and 300, their noise has a deviation of 10."""
    branin = _over(BRANIN, BRANIN.minimum)
    noisy: dict[str, Row] = {
        EI: {"acquisition": "logei"},
        VISITED: {"acquisition": "visited-kg"},
        KNOWLEDGE: {"acquisition": "kg"},
        "noisy EI": {"acquisition": "noisy-ei"},
        RANDOM: {},
    }
    races = {
        "Branin": Race(
            branin, 2, evaluations["Branin"], {EI: {}, ENTROPY: {"acquisition": "mes"}, RANDOM: {}}
        ),
        "log Rosenbrock-4": Race(
            _rosenbrock,
            4,
            evaluations["gradients"],
            {GRADIENTS: {}, PLAIN: {}},
            slope=_slope(_rosenbrock),
        ),
        "Branin in batches": Race(
            branin, 2, evaluations["batch"], {BATCH: {}, ALONE: {}, HALF: {}}, together={BATCH: 4}
        ),
    }
    if "noise" in evaluations:
        races["Branin with noise"] = Race(branin, 2, evaluations["noise"], noisy, noise=10.0)
    if "Hartmann-6" in evaluations:
        hartmann = _over(HARTMANN6, HARTMANN6.minimum)
        races["Hartmann-6"] = Race(hartmann, 6, evaluations["Hartmann-6"], {EI: {}, RANDOM: {}})
    return races


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    seeds = tuple(range(1, size.seeds + 1))
    races, found = _races(size.evaluations), {}
    for i, (title, race) in enumerate(races.items()):
        tell(0.7 * i / len(races), title)
        found[title] = _judged(
            title, {n: partial(race.regret, n) for n in race.contestants}, race, "regret", seeds
        )
    if size.budget:
        tell(0.7, "fidelities")
        plays: dict[str, Callable[[Race | None, int], float]] = {
            CHEAP: partial(_cost, True, size.budget),
            TRUTH: partial(_cost, False, size.budget),
        }
        found[CHEAP] = _judged("Branin with a fidelity", plays, None, "cost until regret < 1", seeds)
    tell(0.9, "support vector machine")
    evaluations = size.evaluations["machine"]
    machine = _judged(
        "SVM, breast_cancer",
        {BAYESIAN: partial(_machine, True, evaluations), RANDOM: partial(_machine, False, evaluations)},
        None,
        "cross-validated error",
        seeds,
    )
    standings = [*found.values(), machine]
    return Evidence(
        verdicts=[*_verdicts(found), *machine.beats(1.0)],
        table=[row for race in standings for row in race.table()],
        figures=[_figure(title, race, seeds) for title, race in races.items()],
        costs=found["Branin"].costs(FOUND),
        notes=" ".join(
            (
                "Regret is the true value of what would be used, above the minimum: the best value told without noise, "
                f"the recommendation with it; below {FOUND:g} it counts as that. All have the same defaults and "
                "budget; random search draws uniformly. With fidelities an evaluation of the truth costs 1, the "
                "cheapest 0.1.",
                *(told for race in standings if (told := race.notes())),
            )
        ),
    )


def _judged(
    title: str,
    contestants: dict[str, Callable[[Race | None, int], float]],
    race: Race | None,
    what: str,
    seeds: tuple[int, ...],
) -> Standings:
    """The first contestant is ours; nobody has settings to tune."""
    entries = {name: {name: play} for name, play in contestants.items()}
    return contest(
        {title: lambda seed: race}, entries, ours=next(iter(entries)), what=what, judging_seeds=seeds
    )


def _verdicts(found: dict[str, Standings]) -> list[Verdict]:
    verdicts = [*found["Branin"].compared(EI, RANDOM, 0.1), *found["Branin"].compared(ENTROPY, RANDOM, 0.1)]
    if "Hartmann-6" in found:
        verdicts += found["Hartmann-6"].compared(EI, RANDOM, 0.5)
    if "Branin with noise" in found:
        verdicts += found["Branin with noise"].compared(VISITED, EI, 1.0)
        verdicts += found["Branin with noise"].compared(KNOWLEDGE, EI, 1.0)
    if CHEAP in found:
        verdicts += found[CHEAP].compared(CHEAP, TRUTH, 0.8)
    return [
        *verdicts,
        *found["log Rosenbrock-4"].beats(0.5),
        *found["Branin in batches"].compared(BATCH, HALF, 1.0),
    ]


def _cost(cheap: bool, budget: float, _: None, seed: int) -> float:
    """Cost until the recommendation's regret on Branin is below 1, infinite where the budget ends before."""
    space = {name: Real(0.0, 1.0) for name in ("x0", "x1", "s")[: 3 if cheap else 2]}
    fidelity = Fidelity("s", lambda p: 0.1 + 0.9 * p["s"]) if cheap else None
    study, spent = Study(space, noise="none", fidelity=fidelity, initial=6, seed=seed), 0.0
    while spent < budget:
        trial = study.ask()
        u = np.array([*trial.point.values(), 1.0][:3])
        study.tell(trial, biased_branin(u))
        spent += 0.1 + 0.9 * u[2]
        at = study.recommend().point
        if BRANIN([at["x0"], at["x1"]]) - BRANIN.minimum < 1.0:
            return spent
    return math.inf


@cache
def _error(C: float, gamma: float) -> float:
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    data = load("breast_cancer")
    model = make_pipeline(StandardScaler(), SVC(C=C, gamma=gamma))
    return 1.0 - float(cross_val_score(model, data.X, data.y, cv=3).mean())


def _machine(model: bool, evaluations: int, _: None, seed: int) -> float:
    """The least cross-validated error of an SVM over C and gamma on packaged data."""
    study = Study({"C": Real(1e-3, 1e3, log=True), "gamma": Real(1e-6, 1e1, log=True)}, seed=seed)
    rng, errors = generator(seed, DRAWS), []
    for _i in range(evaluations):
        if model:
            trial = study.ask()
            study.tell(trial, _error(**trial.point))
            errors.append(_error(**trial.point))
        else:
            errors.append(_error(**study.space.decode(rng.random(2).tolist())))
    return min(errors)


def _figure(title: str, race: Race, seeds: Sequence[int]) -> Figure:
    numbers = np.arange(1.0, race.evaluations + 1.0)
    series = []
    for name in race.contestants:
        if name == HALF:
            continue
        runs = np.maximum([race.course(name, seed) for seed in seeds], FOUND)
        low, middle, high = np.quantile(runs, [0.25, 0.5, 0.75], axis=0)
        series.append(Series(name, numbers.tolist(), middle.tolist(), low.tolist(), high.tolist()))
    return Figure(title, "Median regret, band: quartiles.", "evaluation", "regret", series, log_y=True)
