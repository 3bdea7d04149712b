"""26 Self-tuning networks against searches at equal wall-clock, and the schedule they find against fixed values.

MacKay et al. (2019), sections 4.1 and 4.2, at the size of two cores: a convolutional network on few digits, an LSTM
over characters.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from thalweg.bilevel import Bilevel, Minibatches, NegativeCurvature, NeumannInverse, StocBiO
from thalweg.bilevel.selftuning import (
    HyperParameter,
    HyperSpace,
    ScheduledTraining,
    SelfTuner,
    SelfTuningTask,
    cutout,
    schedule_of,
    weight_decay,
)
from thalweg.blackbox import Real, Study
from thalweg.core import Stop, solve
from thalweg.core.figure import Figure, Series
from thalweg.core.seeding import generator, torch_generator
from thalweg.datasets import load, load_text
from thalweg.studies.evidence import Evidence, Row, Scale, Table, Tell
from thalweg.studies.intervals import median
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

Values = dict[str, float]
#: Seconds are among the claims: it runs alone.
timed = True
#: The hyper-parameters' range for searches, as shares of u around the start: u from start - 4 to start + 4.
REACH = 4.0
#: How many times along a run the validation loss is looked at; the best counts, for every method.
LOOKS = 3
#: What every method trains the weights with.
ADAM: Row = {"optimizer": torch.optim.Adam, "options": {"lr": 3e-3}}


@dataclass
class Run:
    """What one method came to with one seed."""

    validation: float = np.inf
    test: float = np.nan
    values: Values = field(default_factory=dict)
    trials: int = 0
    seconds: float = 0.0
    schedule: list[Values] = field(default_factory=list)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    seeds = 2 if scale == "smoke" else 5
    tasks = {
        "CNN on digits": (_digits, {"smoke": 2, "quick": 9, "full": 600}[scale]),
        "LSTM on text": (_language, {"smoke": 2, "quick": 6, "full": 400}[scale]),
    }
    if scale == "smoke":
        del tasks["LSTM on text"]
    _compare(_digits(0), 1, 0)  # what is loaded or compiled once takes its time here, and in nobody's budget
    found: dict[str, dict[str, list[Run]]] = {}
    for i, (name, (make, steps)) in enumerate(tasks.items()):
        runs: dict[str, list[Run]] = {}
        for seed in range(1, seeds + 1):
            tell((i + (seed - 1) / seeds) / len(tasks), f"{name}, seed {seed}")
            for method, result in _compare(make(seed), steps, seed).items():
                runs.setdefault(method, []).append(result)
        found[name] = runs
    races = {name: _standings(name, runs) for name, runs in found.items()}
    return Evidence(
        verdicts=[v for pair in races.values() for v in _verdicts(pair)],
        table=[*(row for pair in races.values() for race in pair for row in race.table()), *_table(found)],
        figures=_figures(found),
        notes=(
            f"{seeds} seeds, each with networks, batches and a split of its own. Every method has the "
            "seconds that STN's run took, on one thread; searches spend them on training runs "
            "of as many steps as STN makes, each a plain network, the last one finished. All keep the best validation "
            "loss of three looks along a run, and are judged by the test loss there. "
            "Grid, random and Bayesian search look within 4 of the start in u, where "
            "STN starts too. 'Best fixed' and 'STN's schedule' train the plain network anew, for as many steps, under "
            "the best values that any search found and under the schedule that STN found. Weights by Adam at 0.003. "
            "The hypergradient (stocBiO) has the weight decay only, and SGD."
        ),
    )


def _compare(task: SelfTuningTask, steps: int, seed: int) -> dict[str, Run]:
    results = {"STN": _tuned(task, False, steps, seed)}
    budget = results["STN"].seconds
    results["Delta-STN"] = _tuned(task, True, steps, seed, budget)
    for name, proposals in (("grid", _grid), ("random", _random), ("Bayesian", _bayesian)):
        results[name] = _search(task, proposals(task.space, seed), steps, budget, seed)
    if "decay" in task.space.names:
        results["hypergradient"] = _by_hypergradient(task, budget, seed)
    best = min((results[n] for n in ("grid", "random", "Bayesian")), key=lambda r: r.validation)
    for name, values in (
        ("best fixed", best.values),
        ("STN's last values", results["STN"].schedule[-1]),
        ("STN's schedule", results["STN"].schedule),
    ):
        results[name] = _trained(task, values, steps, seed + 100)
    return results


class _Looks:
    """A callback that keeps the best validation loss of a few looks, its time not counted."""

    def __init__(self, task: SelfTuningTask, steps: int, budget: float = np.inf) -> None:
        self.task, self.every, self.budget = task, max(steps // LOOKS, 1), budget
        self.best, self.spent, self.start = Run(), 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start - self.spent

    def __call__(self, run: Any) -> bool:
        if run.steps % self.every == 0:
            before = time.perf_counter()
            told = self.task.metrics(run.state.x)
            if told["validation"] < self.best.validation:
                self.best.validation, self.best.test = told["validation"], told["test"]
            self.spent += time.perf_counter() - before
        return self.seconds > self.budget


def _tuned(task: SelfTuningTask, delta: bool, steps: int, seed: int, budget: float = np.inf) -> Run:
    looks = _Looks(task, steps, budget)
    method = SelfTuner(delta=delta, hyper_rate=0.02, warmup=steps // 20, **ADAM)
    found = solve(task, method, stop=Stop(steps=steps), callbacks=[looks], seed=seed, progress=False)
    best = looks.best
    best.schedule = schedule_of(found.history.metrics, task.space)
    best.values, best.trials, best.seconds = best.schedule[-1], 1, looks.seconds
    return best


def _trained(task: SelfTuningTask, values: Any, steps: int, seed: int) -> Run:
    looks = _Looks(task, steps)
    solve(
        task,
        ScheduledTraining(values, **ADAM),
        stop=Stop(steps=steps),
        callbacks=[looks],
        seed=seed,
        progress=False,
    )
    looks.best.seconds = looks.seconds
    return looks.best


def _by_hypergradient(task: SelfTuningTask, budget: float, seed: int) -> Run:
    """Implicit differentiation (stocBiO) of the weight decay; dropout and cutout have no gradient and are left out."""
    network = task.fresh_model(seed).eval()

    def on(y: Any, data: Any) -> Tensor:
        return task.loss(functional_call(network, y, data[0]), data[1], None).mean()

    def lower(log: Tensor, y: Any, data: Any) -> Tensor:
        return on(y, data) + log.exp() * sum(v.square().sum() for v in y.values() if v.ndim > 1)

    problem = Bilevel(
        lambda log, y, data: on(y, data),
        lower,
        task.space.u0[task.space.names.index("decay")],
        network,
        upper_batches=Minibatches(tuple(task.validation), task.batch_size),
        lower_batches=Minibatches(tuple(task.train), task.batch_size),
    )
    looks = _Looks(task, 200, budget)

    def look(run: Any) -> bool:
        network.load_state_dict(run.state.x.y)
        return looks(SimpleNamespace(steps=run.steps, state=SimpleNamespace(x=network)))

    method = StocBiO(0.3, 0.1, 10, NeumannInverse(5, 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegativeCurvature)  # a network's loss is not convex
        found = solve(
            problem,
            method,
            stop=Stop(steps=None, seconds=2 * budget),
            callbacks=[look],
            seed=seed,
            progress=False,
        )
    best = looks.best
    best.values, best.seconds, best.trials = {"decay": float(found.x.x.exp())}, looks.seconds, 1
    return best


def _search(
    task: SelfTuningTask,
    proposals: Iterator[tuple[Values, Callable[[float], None]]],
    steps: int,
    budget: float,
    seed: int,
) -> Run:
    """Trials until the time is spent; proposing takes time too."""
    best, seconds, trials = Run(), 0.0, 0
    while seconds < budget:
        start = time.perf_counter()
        values, learn = next(proposals)
        seconds += time.perf_counter() - start
        trial = _trained(task, values, steps, seed)
        start = time.perf_counter()
        learn(trial.validation)
        seconds += trial.seconds + time.perf_counter() - start
        trials += 1
        if trial.validation < best.validation:
            best = trial
            best.values = values
    best.trials, best.seconds = trials, seconds
    return best


def _values(space: HyperSpace, shares: Any) -> Values:
    """Shares in [0, 1] of the range of u as values."""
    u = space.u0 + REACH * (2.0 * torch.as_tensor(np.asarray(shares), dtype=torch.float32) - 1.0)
    return {
        p.name: p.inside(float(p.value(v, whole=False))) for p, v in zip(space.parameters, u, strict=True)
    }


def _nothing(value: float) -> None:
    """Grids and random search learn nothing."""


def _grid(space: HyperSpace, seed: int) -> Iterator[Any]:
    """Two values each, then three, then more, in random order within a grid: the time decides how fine it gets."""
    for side in itertools.count(2):
        points = list(itertools.product(np.linspace(0.0, 1.0, side + 2)[1:-1], repeat=len(space)))
        for i in generator(seed, side).permutation(len(points)):
            yield _values(space, points[i]), _nothing


def _random(space: HyperSpace, seed: int) -> Iterator[Any]:
    rng = generator(seed, 0x26)
    while True:
        yield _values(space, rng.random(len(space))), _nothing


def _bayesian(space: HyperSpace, seed: int) -> Iterator[Any]:
    study = Study({name: Real(0.0, 1.0) for name in space.names}, seed=seed)
    while True:
        trial = study.ask()

        def learn(value: float, trial: Any = trial) -> None:
            study.tell(trial, float(np.log(max(value, 1e-12))))

        yield _values(space, [trial[name] for name in space.names]), learn


def _digits(seed: int) -> SelfTuningTask:
    """A convolutional network on 200 digits; dropout, weight decay, cutout's side."""
    data = load("digits")
    X = torch.tensor(data.X / 16.0, dtype=torch.float32).reshape(-1, 1, 8, 8)
    y = torch.tensor(data.y, dtype=torch.int64)
    order = torch.randperm(len(y), generator=torch_generator(seed, 26))
    X, y = X[order], y[order]
    return SelfTuningTask(
        lambda: nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(),
            nn.Linear(512, 10),
        ),
        HyperSpace(
            HyperParameter("dropout", 0.2, high=0.95),
            HyperParameter("decay", 1e-4, scale="log"),
            HyperParameter("side", 1.5, high=6.0, integer=True),
        ),
        (X[:200], y[:200]),
        (X[200:400], y[200:400]),
        (X[400:800], y[400:800]),
        dropout={"5": "dropout"},
        augment=cutout("side"),
        penalties=[weight_decay("decay")],
        batch_size=32,
    )


class _Characters(nn.Module):
    """Embedding, LSTM and a head, with dropout between them."""

    def __init__(self, alphabet: int, width: int) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(alphabet, width), nn.LSTM(width, width, batch_first=True)
        self.inside, self.outside = nn.Dropout(), nn.Dropout()
        self.head = nn.Linear(width, alphabet)

    def forward(self, codes: Tensor) -> Tensor:
        states, _ = self.lstm(self.inside(self.embedding(codes)))
        logits: Tensor = self.head(self.outside(states))
        return logits


def _language(seed: int) -> SelfTuningTask:
    """The next character of the language reference behind ``help()``, from 2900 characters; two dropouts."""
    corpus = load_text(characters=60_000)
    windows = torch.tensor(corpus.windows(24), dtype=torch.int64)
    order = torch.randperm(len(windows), generator=torch_generator(seed, 27))
    inputs, targets = windows[order][:, :-1], windows[order][:, 1:]
    cuts = slice(0, 120), slice(400, 520), slice(800, 1000)
    train, validation, test = ((inputs[c], targets[c]) for c in cuts)
    return SelfTuningTask(
        lambda: _Characters(len(corpus.alphabet), 48),
        HyperSpace(HyperParameter("inside", 0.1, high=0.95), HyperParameter("outside", 0.1, high=0.95)),
        train,
        validation,
        test,
        dropout={"inside": "inside", "outside": "outside"},
        batch_size=32,
    )


def _median(runs: list[Run], what: str = "test") -> float:
    return median([getattr(r, what) for r in runs])


def _standings(name: str, runs: Mapping[str, list[Run]]) -> tuple[Standings, Standings, Standings]:
    """STN and Delta-STN, each against everything else at equal wall-clock; STN's schedule against fixed values."""
    losses = {method: np.nan_to_num([r.test for r in found], nan=np.inf) for method, found in runs.items()}
    rivals: list[str] = [m for m in ("grid", "random", "Bayesian", "hypergradient") if m in losses]

    def of(ours: str, others: list[str], what: str) -> Standings:
        return Standings(what, ours, {name: {method: losses[method] for method in (ours, *others)}})

    equal = "test loss at equal wall-clock"
    schedule = of("STN's schedule", ["best fixed"], "test loss of as many steps")
    return of("STN", rivals, equal), of("Delta-STN", rivals, equal), schedule


def _verdicts(races: tuple[Standings, Standings, Standings]) -> list[Verdict]:
    return [verdict for race in races for verdict in race.beats(1.0)]


def _table(found: Mapping[str, dict[str, list[Run]]]) -> Table:
    return [
        {
            "problem": name,
            "contestant": method,
            "validation loss": float(f"{_median(results, 'validation'):.4g}"),
            "test loss": float(f"{_median(results):.4g}"),
            "seconds": float(f"{_median(results, 'seconds'):.3g}"),
            "training runs": _median(results, "trials") or 1.0,
            "values, first seed": ", ".join(f"{k} {v:.3g}" for k, v in results[0].values.items()),
        }
        for name, runs in found.items()
        for method, results in runs.items()
    ]


def _figures(found: Mapping[str, dict[str, list[Run]]]) -> list[Figure]:
    figures = []
    for name, runs in found.items():
        schedule = runs["STN"][0].schedule
        steps = np.arange(1, len(schedule) + 1)
        largest = {k: max(max(s[k] for s in schedule), 1e-12) for k in schedule[0]}
        series = [Series.of(k, steps, [s[k] / largest[k] for s in schedule]) for k in schedule[0]]
        figures.append(
            Figure(
                f"{name}: the schedule STN found",
                "The first seed; each hyper-parameter as a share of its largest value.",
                "training step",
                "share of the largest",
                series,
            )
        )
    return figures
