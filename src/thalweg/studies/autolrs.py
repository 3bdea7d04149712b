"""35 AutoLRS: the rate found on the fly against tuned schedules, population-based training and Optuna.

Jin et al. (2021), section 5: steps to the accuracy of the hand-tuned schedule, what the search costs, and how far the
forecasts are off.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.core import MissingExtra
from thalweg.core.figure import Figure, Series
from thalweg.studies import tasks
from thalweg.studies.evidence import Evidence, Scale, Table, Tell
from thalweg.studies.verdict import Verdict
from thalweg.training import PROFILES, AutoLRS, LossForecaster, TrainingTask

Vector = NDArray[np.float64]
SCHEDULES = ("cosine", "linear", "step")
#: Evaluations on held-out data during a run; members and readiness of population-based training; rates Optuna tries.
EVALUATIONS, POPULATION, EXPLOITS, TRIALS = 20, 4, 5, 4


@dataclass(frozen=True)
class Setting:
    """A task, its optimizer, the hand's grid of rates, and the range for those who search."""

    name: str
    task: TrainingTask
    optimizer: Callable[..., Optimizer]
    rates: tuple[float, ...]
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Run:
    """Held-out loss after each share of training, and what it took: training steps, and steps of search beside."""

    losses: Vector
    training: int
    search: int
    rates: Vector


class Batches:
    """Batches of shuffled examples, an epoch each time it is iterated over, in an order from the global generator."""

    def __init__(self, task: TrainingTask) -> None:
        self.data, self.size = task.train, min(task.batch_size, len(task.train[0]))

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        order = torch.randperm(len(self.data[0]))
        for batch in order[: len(order) // self.size * self.size].split(self.size):
            yield tuple(t[batch] for t in self.data)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    seeds = {"smoke": 1, "quick": 3, "full": 5}[scale]
    settings = _settings(scale)
    found: dict[str, dict[str, list[Run]]] = {}
    for i, setting in enumerate(settings):
        found[setting.name] = {}
        for j, name in enumerate(("hand", "AutoLRS", "PBT", "Optuna")):
            tell((i + j / 4) / len(settings), f"{setting.name}: {name}")
            contestants = _hand(setting, seeds) if name == "hand" else {name: _searched(setting, name, seeds)}
            found[setting.name] |= contestants
    tell(0.95, "forecasts")
    errors = _forecast_errors({"smoke": 120, "quick": 600, "full": 5000}[scale])
    return Evidence(
        verdicts=[v for s in settings for v in _verdicts(s.name, found[s.name])] + _forecast_verdicts(errors),
        table=[*_table(found), *_forecast_table(errors)],
        figures=_figures(found),
        costs={
            "problems": [f"{s.name}, seed {seed}" for s in settings for seed in range(seeds)],
            "methods": {
                name: [float(r.losses[-1]) for s in settings for r in found[s.name][name]]
                for name in (*SCHEDULES, "AutoLRS", "PBT", "Optuna")
            },
        },
        notes=(
            f"{seeds} seeds. The score is the loss on held-out data. Hand: each schedule at the best of "
            f"{len(settings[0].rates)} rates, whose other runs count as its search. AutoLRS, PBT ({POPULATION} "
            f"members) and Optuna (TPE and median pruning over {TRIALS} short runs, then one whole run with a cosine) "
            "have the same budget of twice the training steps. Steps to the target are training steps until the loss "
            "is within 5 % of the best hand-tuned schedule's at its end. Stages here are of a hundred steps and not of "
            "thousands, as at the paper's scale: a trial of ten steps does not see that a rate diverges after thirty. "
            "On networks without normalisation, and with rates in the range that kill them, AutoLRS chose such a rate "
            "in its first stage; the digits' network here has batch normalisation, as the paper's networks do."
        ),
    )


def _settings(scale: Scale) -> list[Setting]:
    momentum = functools.partial(torch.optim.SGD, momentum=0.9)
    steps = {"smoke": 40, "quick": 400, "full": 16000}[scale]
    digits = tasks.digits(steps, network="resnet" if scale == "full" else "cnn-bn")
    settings = [
        Setting("digits, SGD momentum", digits, momentum, (0.03, 0.1, 0.3), 0.01, 1.0),
        Setting(
            "character transformer, Adam", tasks.text(steps), torch.optim.Adam, (3e-3, 1e-2, 3e-2), 1e-4, 0.1
        ),
    ]
    return settings[:1] if scale == "smoke" else settings


def _step(task: TrainingTask, model: nn.Module, optimizer: Optimizer, batch: Any) -> Tensor:
    optimizer.zero_grad(set_to_none=True)
    loss = task.loss(model, *batch)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _held_out(task: TrainingTask, model: nn.Module) -> float:
    loss = task.metrics(model)["test_loss"]
    return loss if math.isfinite(loss) else 1e6


def _endless(task: TrainingTask) -> Iterator[Any]:
    while True:
        yield from Batches(task)


def _with_profile(setting: Setting, profile: str, rate: float, seed: int) -> Run:
    task, shape = setting.task, PROFILES[profile]
    torch.manual_seed(seed)
    model = task.fresh_model(seed)
    optimizer = setting.optimizer(model.parameters(), lr=rate)
    rates = rate * shape(np.arange(task.steps) / task.steps)
    every, losses, batches = max(task.steps // EVALUATIONS, 1), [], _endless(task)
    for step in range(task.steps):
        optimizer.param_groups[0]["lr"] = float(rates[step])
        _step(task, model, optimizer, next(batches))
        if (step + 1) % every == 0:
            losses.append(_held_out(task, model))
    return Run(np.array(losses), task.steps, 0, rates)


def _hand(setting: Setting, seeds: int) -> dict[str, list[Run]]:
    found = {}
    for profile in SCHEDULES:
        runs = {
            rate: [_with_profile(setting, profile, rate, s) for s in range(seeds)] for rate in setting.rates
        }
        best = min(runs, key=lambda rate: float(np.mean([r.losses[-1] for r in runs[rate]])))
        search = (len(setting.rates) - 1) * setting.task.steps
        found[profile] = [Run(r.losses, r.training, search, r.rates) for r in runs[best]]
    return found


def _searched(setting: Setting, name: str, seeds: int) -> list[Run]:
    method = {"AutoLRS": _auto, "PBT": _population, "Optuna": _optuna}[name]
    return [method(setting, seed) for seed in range(seeds)]


def _auto(setting: Setting, seed: int) -> Run:
    task = setting.task
    torch.manual_seed(seed)
    model = task.fresh_model(seed)
    optimizer = setting.optimizer(model.parameters(), lr=setting.low)
    auto = AutoLRS(
        model,
        optimizer,
        setting.low,
        setting.high,
        total_steps=task.steps,
        stage_steps=task.steps // 4,
        max_stage_steps=task.steps // 2,
        seed=seed,
    )
    every, losses = max(task.steps // EVALUATIONS, 1), []
    for batch in auto.steps(Batches(task)):
        training = not auto.exploring
        auto.step(_step(task, model, optimizer, batch))
        if training and auto.trained % every == 0:
            losses.append(_held_out(task, model))
    return Run(np.array(losses), auto.trained, auto.explored, auto.rates())


def _population(setting: Setting, seed: int) -> Run:
    """Population-based training (Jaderberg et al., 2017): the worse half copies the better and perturbs its rate.

    Each member trains for half of the training steps, so that all of them together take twice as many.
    """
    task, rng = setting.task, np.random.default_rng((seed, 35))
    torch.manual_seed(seed)
    span = math.log(setting.high / setting.low)
    rates = setting.low * np.exp(span * (np.arange(POPULATION) + rng.random(POPULATION)) / POPULATION)
    models = [task.fresh_model(seed) for _ in rates]
    optimizers = [setting.optimizer(m.parameters(), lr=float(r)) for m, r in zip(models, rates, strict=True)]
    steps = 2 * task.steps // POPULATION
    every, losses, history, batches = max(steps // EVALUATIONS, 1), [], [], _endless(task)
    scores = np.full(POPULATION, np.inf)
    for step in range(steps):
        for model, optimizer in zip(models, optimizers, strict=True):
            _step(task, model, optimizer, next(batches))
        ready = (step + 1) % max(steps // EXPLOITS, 1) == 0
        if (step + 1) % every == 0 or ready:
            scores = np.array([_held_out(task, model) for model in models])
        if (step + 1) % every == 0:
            losses.append(float(scores.min()))
        history.append(optimizers[int(scores.argmin())].param_groups[0]["lr"])
        if ready and step + 1 < steps:
            order = scores.argsort()
            for worse, better in zip(order[POPULATION // 2 :], order[: POPULATION // 2], strict=True):
                models[worse].load_state_dict(models[better].state_dict())
                optimizers[worse].load_state_dict(copy.deepcopy(optimizers[better].state_dict()))
                optimizers[worse].param_groups[0]["lr"] *= float(rng.choice([0.8, 1.2]))
    return Run(np.array(losses), steps, 2 * task.steps - steps, np.array(history))


def _optuna(setting: Setting, seed: int) -> Run:
    """TPE over the rate with median pruning, on short runs; then a whole run with a cosine at the best rate."""
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "studies") from None

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    task, length, spent = setting.task, setting.task.steps // TRIALS, 0

    def objective(trial: Any) -> float:
        nonlocal spent
        rate = trial.suggest_float("rate", setting.low, setting.high, log=True)
        torch.manual_seed(seed)
        model = task.fresh_model(seed)
        optimizer = setting.optimizer(model.parameters(), lr=rate)
        batches, loss = _endless(task), math.inf
        for step in range(length):
            _step(task, model, optimizer, next(batches))
            spent += 1
            if (step + 1) % max(length // 4, 1) == 0:
                loss = _held_out(task, model)
                trial.report(loss, step)
                if trial.should_prune():
                    raise optuna.TrialPruned
        return loss

    pruner = optuna.pruners.MedianPruner(n_startup_trials=2)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=2), pruner=pruner
    )
    while spent < task.steps:
        study.optimize(objective, n_trials=1)
    whole = _with_profile(setting, "cosine", float(study.best_params["rate"]), seed)
    return Run(whole.losses, whole.training, spent, whole.rates)


def _steps_to(run: Run, target: float) -> float:
    """Training steps until the held-out loss is at most ``target``, infinite if never."""
    reached = np.flatnonzero(run.losses <= target)
    share = run.training / len(run.losses)
    return float((reached[0] + 1) * share) if len(reached) else math.inf


def _compared(found: dict[str, list[Run]]) -> dict[str, Vector]:
    """Steps to within 5 % of the best hand-tuned schedule's mean final loss, for every contestant and seed."""
    target = 1.05 * min(float(np.mean([r.losses[-1] for r in found[name]])) for name in SCHEDULES)
    return {name: np.array([_steps_to(r, target) for r in runs]) for name, runs in found.items()}


def _verdicts(setting: str, found: dict[str, list[Run]]) -> list[Verdict]:
    needed = {name: float(np.median(values)) for name, values in _compared(found).items()}
    last = {name: float(np.mean([r.losses[-1] for r in runs])) for name, runs in found.items()}
    hand = min(SCHEDULES, key=lambda name: last[name])
    return [
        Verdict(
            f"{setting}: AutoLRS' training steps to the tuned hand schedule's loss, over that schedule's",
            needed["AutoLRS"] / needed[hand],
            1.0,
        ),
        Verdict(
            f"{setting}: AutoLRS' final loss over PBT's, same budget", last["AutoLRS"] / last["PBT"], 1.0
        ),
        Verdict(
            f"{setting}: AutoLRS' final loss over Optuna's, same budget",
            last["AutoLRS"] / last["Optuna"],
            1.0,
        ),
    ]


# -- forecasts


def _noisy_tasks(steps: int) -> list[tuple[TrainingTask, Callable[..., Optimizer], tuple[float, ...]]]:
    """Tasks whose loss stays well above zero, without which a relative error says nothing: text, and digits of which a
    fifth of the labels is drawn anew.
    """
    digits = tasks.digits(steps, 128)
    X, y = digits.train
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(10, y.shape, generator=generator)
    y = torch.where(torch.rand(len(y), generator=generator) < 0.2, drawn, y)
    digits = dataclasses.replace(digits, train=(X, y))
    momentum = functools.partial(torch.optim.SGD, momentum=0.9)
    return [
        (tasks.text(steps, 32), torch.optim.Adam, (3e-3, 1e-2, 3e-2)),
        (digits, momentum, (0.01, 0.03, 0.1)),
    ]


def _forecast_errors(steps: int) -> dict[str, Vector]:
    """Relative errors ten times ahead, on training losses at constant rates, from several places of each run."""
    errors: dict[str, list[float]] = {"exponential fit": [], "last value": [], "straight line": []}
    for task, make, rates in _noisy_tasks(steps):
        for rate in rates:
            torch.manual_seed(0)
            model = task.fresh_model(0)
            optimizer = make(model.parameters(), lr=rate)
            batches = _endless(task)
            losses = np.array([float(_step(task, model, optimizer, next(batches))) for _ in range(steps)])
            if np.isfinite(losses).all():
                _note_errors(losses, errors)
    return {name: np.array(values) for name, values in errors.items()}


def _note_errors(losses: Vector, errors: dict[str, list[float]]) -> None:
    steps = len(losses)
    for start in (0, steps // 10, steps // 4):
        length = (steps - start) // 10
        seen, tau = losses[start : start + length], 10 * length
        there = losses[start + tau - length : start + tau].mean()
        slope, level = np.polyfit(np.arange(length, dtype=float), seen, 1)
        middle = tau - (length + 1) / 2.0  # `there` is the mean over a window before tau
        guesses = {
            "exponential fit": float(LossForecaster().fit(seen)(middle)),
            "last value": float(seen[-max(length // 10, 1) :].mean()),
            "straight line": float(level + slope * middle),
        }
        for name, guess in guesses.items():
            errors[name].append(abs(guess - there) / there)


def _forecast_verdicts(errors: dict[str, Vector]) -> list[Verdict]:
    median = {name: float(np.median(values)) for name, values in errors.items()}
    fit = median["exponential fit"]
    return [
        Verdict("Forecast ten times ahead: median relative error", fit, 0.05),
        Verdict("Forecast: median error over the last value's", fit / median["last value"], 1.0),
        Verdict("Forecast: median error over a straight line's", fit / median["straight line"], 1.0),
    ]


def _table(found: dict[str, dict[str, list[Run]]]) -> Table:
    rows = []
    for setting, contestants in found.items():
        needed = _compared(contestants)
        for name, runs in contestants.items():
            last = np.array([r.losses[-1] for r in runs])
            steps = float(np.median(needed[name]))
            search = float(np.mean([r.search for r in runs]))
            rows.append(
                {
                    "task": setting,
                    "method": name,
                    "final loss": float(f"{last.mean():.4g}"),
                    "spread": float(f"{last.std():.2g}"),
                    "steps to target": steps if math.isfinite(steps) else "never",
                    "search steps": round(search),
                    "with search": steps + search if math.isfinite(steps) else "never",
                }
            )
    return rows


def _forecast_table(errors: dict[str, Vector]) -> Table:
    return [
        {
            "task": f"forecasts, {len(v)} series",
            "method": name,
            "final loss": None,
            "median error": float(f"{np.median(v):.3g}"),
        }
        for name, v in errors.items()
    ]


def _figures(found: dict[str, dict[str, list[Run]]]) -> list[Figure]:
    figures = []
    for setting, contestants in found.items():
        curves, rates = [], []
        for name, runs in contestants.items():
            length = min(len(r.losses) for r in runs)
            steps = runs[0].training / len(runs[0].losses) * np.arange(1, length + 1)
            curves.append(Series.of(name, steps, np.stack([r.losses[:length] for r in runs])))
            rates.append(Series.of(name, np.arange(len(runs[0].rates)), runs[0].rates, points=400))
        words = "Over training steps, search left out; band: range over seeds. PBT: its best member."
        figures += [
            Figure(setting, words, "training step", "held-out loss", curves, log_y=True),
            Figure(
                f"{setting}: rates",
                "Of the first seed.",
                "training step",
                "learning rate",
                rates,
                kind="steps",
                log_y=True,
            ),
        ]
    return figures
