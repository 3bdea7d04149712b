"""18 Bayesian optimisation: the tutorial's claims, one by one.

Frazier (2018), "A tutorial on Bayesian optimization": expected improvement, noise, fidelities, gradients, batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from thalweg.blackbox import Fidelity, Real, Study
from thalweg.blackbox.functions import BRANIN, HARTMANN6, ROSENBROCK4, biased_branin
from thalweg.datasets import load
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Table, Tell
from thalweg.studies.verdict import Verdict

Vector = NDArray[np.float64]
Objective = Callable[[Vector], float]

#: Evaluations are worth this many units of regret and no less: what is below counts as found.
FOUND = 1e-6


@dataclass(frozen=True)
class Race:
    """Contestants on one objective: names and options of `Study`, and how each evaluation goes."""

    title: str
    objective: Objective
    dimension: int
    minimum: float
    evaluations: int
    contestants: dict[str, Row]
    noise: float = 0.0
    gradient: Callable[[Vector], Vector] | None = None
    batches: dict[str, int] = field(default_factory=dict)

    def run(self, name: str, seed: int) -> Vector:
        """Regret of what would be used after each evaluation, shape (evaluations,)."""
        rng = np.random.default_rng((seed, len(name)))
        if name == "random":
            values = [self.objective(rng.random(self.dimension)) for _ in range(self.evaluations)]
            return np.asarray(np.minimum.accumulate(values) - self.minimum)
        options = {"noise": "learn" if self.noise else "none", **self.contestants[name]}
        study = Study({f"x{i}": Real(0.0, 1.0) for i in range(self.dimension)}, seed=seed, **options)
        regret: list[float] = []
        while len(regret) < self.evaluations:
            for trial in study.ask(self.batches.get(name, 1)):
                x = np.array(list(trial.point.values()))
                slope = None
                if self.gradient is not None and name == "with gradients":
                    slope = dict(zip(trial.point, map(float, self.gradient(x)), strict=True))
                study.tell(trial, self.objective(x) + self.noise * rng.standard_normal(), gradient=slope)
            regret += [self._regret(study)] * self.batches.get(name, 1)
        return np.array(regret[: self.evaluations])

    def _regret(self, study: Study) -> float:
        if not self.noise:
            return float(study.best.value or 0.0) - self.minimum if study.best is not None else math.inf
        return self.objective(np.array(list(study.recommend().point.values()))) - self.minimum


def _slope(f: Objective) -> Callable[[Vector], Vector]:
    """Central differences, accurate to nine digits on the functions here."""
    return lambda x: np.array([(f(x + h) - f(x - h)) / 2e-6 for h in 1e-6 * np.eye(len(x))])


def _races(scale: Scale) -> list[Race]:
    full = {"smoke": 0.2, "quick": 1.0, "full": 2.0}[scale]

    def n(evaluations: int) -> int:
        return max(round(full * evaluations), 8)

    noise = 10.0  # of values that lie between 0 and 300
    races = [
        Race(
            "Branin",
            BRANIN,
            2,
            BRANIN.minimum,
            n(24),
            {"random": {}, "EI": {}, "max-value entropy": {"acquisition": "mes"}},
        ),
        Race("Hartmann-6", HARTMANN6, 6, HARTMANN6.minimum, n(40), {"random": {}, "EI": {}}),
        Race(
            "Branin with noise",
            BRANIN,
            2,
            BRANIN.minimum,
            n(30),
            {
                "random": {},
                "EI": {"acquisition": "logei"},
                "EI for noise": {"acquisition": "visited-kg"},
                "knowledge gradient": {"acquisition": "kg"},
                "noisy EI": {"acquisition": "noisy-ei"},
            },
            noise=noise,
        ),
        Race(
            "Rosenbrock-4 with gradients",
            lambda u: math.log1p(ROSENBROCK4(u)),
            4,
            0.0,
            n(18),
            {"without": {}, "with gradients": {}},
            gradient=_slope(lambda u: math.log1p(ROSENBROCK4(u))),
        ),
        Race(
            "Branin, four at once",
            BRANIN,
            2,
            BRANIN.minimum,
            n(32),
            {"one at a time": {}, "four at once": {}},
            batches={"four at once": 4},
        ),
    ]
    return [race for race in races if scale != "smoke" or race.title != "Hartmann-6"]


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    seeds = {"smoke": 1, "quick": 5, "full": 20}[scale]
    races = _races(scale)
    found: dict[tuple[str, str], Vector] = {}
    for i, race in enumerate(races):
        for name in race.contestants:
            tell(0.8 * i / len(races), f"{race.title}: {name}")
            found[race.title, name] = np.array([race.run(name, seed) for seed in range(seeds)])
    tell(0.8, "fidelities")
    cost, spent = _fidelities(seeds, {"smoke": 4.0, "quick": 10.0, "full": 24.0}[scale])
    tell(0.9, "support vector machine")
    machine = _support_vectors(seeds, {"smoke": 4, "quick": 18, "full": 40}[scale])
    return Evidence(
        verdicts=[*_verdicts(found), *_more_verdicts(cost, machine)],
        table=_table(races, found, cost, machine),
        figures=[_figure(race, found) for race in races] + [spent],
        costs=_costs(found),
        notes=(
            f"{seeds} seeds; medians, bands are quartiles. Regret is the true value of what would be used, above the "
            "minimum: the best value told without noise, the recommendation with it. Every contestant has the same "
            "defaults and the same budget; random search draws uniformly."
        ),
    )


def _last(found: dict[tuple[str, str], Vector], title: str, name: str) -> float:
    return max(float(np.median(found[title, name][:, -1])), FOUND)


def _verdicts(found: dict[tuple[str, str], Vector]) -> list[Verdict]:
    def against(claim: str, title: str, name: str, other: str, required: float) -> Verdict:
        return Verdict(claim, _last(found, title, name) / _last(found, title, other), required)

    noisy, slopes, batch = "Branin with noise", "Rosenbrock-4 with gradients", "Branin, four at once"
    alone = found[batch, "one at a time"]
    verdicts = [
        against(
            "Branin: EI's regret is at most a tenth of random search's",
            "Branin",
            "EI",
            "random",
            0.1,
        )
    ]
    if ("Hartmann-6", "EI") in found:
        claim = "Hartmann-6: EI's regret is at most half of random search's"
        verdicts.append(against(claim, "Hartmann-6", "EI", "random", 0.5))
    return [
        *verdicts,
        against(
            "Noise: the tutorial's EI for noise has at most plain EI's regret",
            noisy,
            "EI for noise",
            "EI",
            1.0,
        ),
        against(
            "Noise: the knowledge gradient has at most plain EI's regret",
            noisy,
            "knowledge gradient",
            "EI",
            1.0,
        ),
        against(
            "Gradients: at most half of the regret without them",
            slopes,
            "with gradients",
            "without",
            0.5,
        ),
        Verdict(
            "Four at once: the regret is at most that of one at a time after half of the evaluations",
            _last(found, batch, "four at once")
            / max(float(np.median(alone[:, alone.shape[1] // 2 - 1])), FOUND),
            1.0,
        ),
        Verdict(
            "Max-value entropy search is comparable: at most a tenth of random search's regret",
            _last(found, "Branin", "max-value entropy") / _last(found, "Branin", "random"),
            0.1,
        ),
    ]


def _more_verdicts(cost: dict[str, Vector], machine: dict[str, Vector]) -> list[Verdict]:
    return [
        Verdict(
            "Fidelities: the cost at which Branin's regret falls below 1, over that of evaluating the truth only",
            float(np.median(cost["knowledge gradient per cost"]) / np.median(cost["truth only"])),
            0.8,
        ),
        Verdict(
            "Support vector machine on breast_cancer: the error found is at most random search's",
            float(np.median(machine["Bayesian optimisation"][:, -1])),
            float(np.median(machine["random"][:, -1])),
        ),
    ]


def _fidelities(seeds: int, budget: float) -> tuple[dict[str, Vector], Figure]:
    """Cost until the recommendation is good, with cheap evaluations and without; never is the budget."""
    names = ("x0", "x1", "s")
    needed: dict[str, list[float]] = {"truth only": [], "knowledge gradient per cost": []}
    grid = np.linspace(1.0, budget, 60)
    curves: dict[str, list[Vector]] = {name: [] for name in needed}
    for label in needed:
        for seed in range(seeds):
            cheap = label != "truth only"
            space = {name: Real(0.0, 1.0) for name in (names if cheap else names[:2])}
            fidelity = Fidelity("s", lambda p: 0.1 + 0.9 * p["s"]) if cheap else None
            study = Study(space, noise="none", fidelity=fidelity, initial=6, seed=seed)
            spent, course = 0.0, [(0.0, 100.0)]
            while spent < budget:
                trial = study.ask()
                u = np.array([*trial.point.values(), 1.0][:3])
                study.tell(trial, biased_branin(u))
                spent += 0.1 + 0.9 * u[2]
                at = study.recommend().point
                course.append((spent, BRANIN([at["x0"], at["x1"]]) - BRANIN.minimum))
            times, regrets = np.array(course).T
            good = times[regrets < 1.0]
            needed[label].append(float(good[0]) if len(good) else budget)
            curves[label].append(regrets[np.searchsorted(times, grid, side="right") - 1])
    figure = Figure(
        "Branin with a fidelity",
        "Regret of the recommendation over what was spent; one evaluation of the truth costs 1, the cheapest 0.1.",
        "cost",
        "regret",
        [_quartiles(name, grid, np.array(runs)) for name, runs in curves.items()],
        log_y=True,
    )
    return {name: np.array(values) for name, values in needed.items()}, figure


def _support_vectors(seeds: int, evaluations: int) -> dict[str, Vector]:
    """Cross-validated error of an SVM over C and gamma on packaged data: the best so far, (seeds, evaluations)."""
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    data = load("breast_cancer")
    space = {"C": Real(1e-3, 1e3, log=True), "gamma": Real(1e-6, 1e1, log=True)}

    def error(point: Row) -> float:
        model = make_pipeline(StandardScaler(), SVC(**point))
        return 1.0 - float(cross_val_score(model, data.X, data.y, cv=3).mean())

    runs: dict[str, list[Vector]] = {"Bayesian optimisation": [], "random": []}
    for seed in range(seeds):
        study, rng = Study(space, seed=seed), np.random.default_rng(seed)
        for _ in range(evaluations):
            trial = study.ask()
            study.tell(trial, error(trial.point))
        runs["Bayesian optimisation"].append(np.minimum.accumulate([t.value or 1.0 for t in study.trials]))
        drawn = [error(study.space.decode(rng.random(2).tolist())) for _ in range(evaluations)]
        runs["random"].append(np.minimum.accumulate(drawn))
    return {name: np.array(values) for name, values in runs.items()}


def _quartiles(name: str, x: Sequence[float] | Vector, runs: Vector) -> Series:
    low, middle, high = np.maximum(np.quantile(runs, [0.25, 0.5, 0.75], axis=0), FOUND)
    return Series(name, list(map(float, x)), middle.tolist(), low.tolist(), high.tolist())


def _figure(race: Race, found: dict[tuple[str, str], Vector]) -> Figure:
    numbers = np.arange(1.0, race.evaluations + 1.0)
    series = [_quartiles(name, numbers, found[race.title, name]) for name in race.contestants]
    return Figure(race.title, "Median regret, band: quartiles.", "evaluation", "regret", series, log_y=True)


def _table(
    races: list[Race],
    found: dict[tuple[str, str], Vector],
    cost: dict[str, Vector],
    machine: dict[str, Vector],
) -> Table:
    def row(problem: str, method: str, what: str, values: Vector) -> Row:
        low, middle, high = (float(f"{v:.4g}") for v in np.quantile(values, [0.25, 0.5, 0.75]))
        return {
            "problem": problem,
            "method": method,
            "what": what,
            "median": middle,
            "quartiles": f"{low} to {high}",
        }

    rows = [
        row(race.title, name, f"regret after {race.evaluations}", found[race.title, name][:, -1])
        for race in races
        for name in race.contestants
    ]
    rows += [
        row("Branin with a fidelity", name, "cost until regret < 1", values) for name, values in cost.items()
    ]
    return rows + [
        row("SVM, breast_cancer", name, "error", values[:, -1]) for name, values in machine.items()
    ]


def _costs(found: dict[tuple[str, str], Vector]) -> Row:
    """Final regrets of random search and of EI, for the performance profile."""
    titles = [t for t in ("Branin", "Hartmann-6") if (t, "EI") in found]
    return {
        "problems": [f"{t}, seed {s}" for t in titles for s in range(len(found[t, "EI"]))],
        "methods": {
            name: [max(float(v), FOUND) for t in titles for v in found[t, name][:, -1]]
            for name in ("random", "EI")
        },
    }
