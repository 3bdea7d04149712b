"""11 REX: schedules for a known budget.

Chen, Wolfe and Kyrillidis (2022), tables 4 to 8: the rank of each schedule over budgets, each at the best of the same
learning rates. Rates are chosen here on data set apart, under another seed than those that are judged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.optim import SGD, Adam, Optimizer

from thalweg.core import Figure, Result, Series
from thalweg.studies import tasks
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Tell
from thalweg.studies.standings import Standings, together
from thalweg.training import PROFILES, ProfileSchedule, Train, TrainingTask

OURS = "rex"
SCHEDULES = (OURS, "linear", "cosine", "step", "onecycle")
BUDGETS = (0.05, 0.10, 0.25, 1.0)


@dataclass(frozen=True)
class Setting:
    """A task with an optimizer: what the schedules race on."""

    name: str
    task: Callable[..., TrainingTask]
    steps: int  # of the whole budget
    optimizer: Callable[..., Optimizer]
    rates: tuple[float, ...]
    score: Callable[[Result[torch.nn.Module]], float]
    what: str

    def problem(self, budget: float) -> str:
        """The name of a budget of this setting."""
        return f"{self.name}, {budget:.0%}"


def _error(result: Result[torch.nn.Module]) -> float:
    return 1.0 - result.metrics["accuracy"]


def _loss(result: Result[torch.nn.Module]) -> float:
    return result.metrics["test_loss"]


def _settings(scale: Scale) -> list[Setting]:
    network, text = "mlp", functools.partial(tasks.text, length=16, width=16)
    steps, words = {"smoke": (20, 20), "quick": (80, 28), "full": (1200, 600)}[scale]
    sgd: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0)
    adam: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3)
    if scale == "full":
        network, text = "cnn", functools.partial(tasks.text)
        sgd, adam = (0.01, 0.03, *sgd), (0.001, 0.003, *adam)
    digits, momentum = functools.partial(tasks.digits, network=network), functools.partial(SGD, momentum=0.9)
    wrong = "share of wrong answers"
    settings = [
        Setting(f"digits {network}, SGD momentum", digits, steps, momentum, sgd, _error, wrong),
        Setting(f"digits {network}, Adam", digits, steps, Adam, adam, _error, wrong),
        Setting("character transformer, Adam", text, words, Adam, adam, _loss, "test loss"),
    ]
    return settings[:1] if scale == "smoke" else settings


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    settings = _settings(scale)
    races = []
    for i, setting in enumerate(settings):

        def told(share: float, what: str, done: int = i) -> None:
            tell((done + share) / len(settings), what)

        races.append(_race(setting, scale, told))
    scores = together(races, "score")
    ranks = scores.ranks(name="all tasks and budgets")
    small = scores.ranks([s.problem(b) for s in settings for b in BUDGETS[:2]], "the two smallest budgets")
    return Evidence(
        verdicts=[
            *ranks.place(2.0),
            *ranks.beats(0.5, by="difference"),
            *small.compared("step", OURS, 1.0, ">=", by="difference"),
        ],
        table=[*ranks.table(), *small.table(), *(row for race in races for row in race.table())],
        figures=[ranks.bars("Mean rank"), *_curves(settings, races), _shapes()],
        costs=scores.costs(least=1e-4),
        notes=(
            f"{scores.seeds} judging seeds. For every task and budget each schedule has the learning rate, of the same "
            f"{len(settings[0].rates)}, that was best under another seed on examples set apart from those that judge. "
            "The score is the share of wrong answers on digits, the cross-entropy on text; ranks are of scores seed by "
            "seed, 1 the best of 5, and their mean is over tasks and budgets. The whole budget is "
            + ", ".join(f"{s.steps} steps ({s.name})" for s in settings)
            + f". {scores.notes()}"
        ),
    )


def _race(setting: Setting, scale: Scale, tell: Tell) -> Standings:
    def problems(tuning: bool) -> dict[str, Callable[[int], TrainingTask]]:
        def of(budget: float) -> Callable[[int], TrainingTask]:
            task = setting.task(max(round(budget * setting.steps), 1), tuning=tuning)
            return lambda seed: task  # the data are fixed; a seed draws weights and batches

        return {setting.problem(budget): of(budget) for budget in BUDGETS}

    def entry(schedule: str, rate: float) -> Train:
        return Train(setting.optimizer, {"lr": rate}, functools.partial(ProfileSchedule, profile=schedule))

    return contest(
        problems(tuning=False),
        {name: {f"rate {rate:g}": entry(name, rate) for rate in setting.rates} for name in SCHEDULES},
        setting.score,
        ours=OURS,
        what=setting.what,
        tuning_problems=problems(tuning=True),
        judging_seeds=(1, 2) if scale == "smoke" else (1, 2, 3, 4, 5),
        needs_convergence=False,  # a budget is always used up
        tell=tell,
    )


def _curves(settings: list[Setting], races: list[Standings]) -> list[Figure]:
    return [
        race.curves(
            {s.problem(b): 100.0 * b for b in BUDGETS}, s.name, "budget, % of full training", log_y=False
        )
        for s, race in zip(settings, races, strict=True)
    ]


def _shapes() -> Figure:
    z = np.linspace(0, 1, 101)
    return Figure(
        "The schedules",
        "Multiple of the base learning rate over the share of the budget used.",
        "share of the budget",
        "multiple of the base rate",
        [Series.of(name, z, PROFILES[name](z)) for name in SCHEDULES],
    )
