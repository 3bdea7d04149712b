"""11 REX: schedules for a known budget.

Chen, Wolfe and Kyrillidis (2022), tables 4 to 8: the rank of each schedule over budgets, each at the best of
the same learning rates.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from thalweg.core import solve
from thalweg.studies import tasks
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Tell, Verdict
from thalweg.training import ProfileSchedule, Train, TrainingTask

PROFILES = ("rex", "linear", "cosine", "step", "onecycle")
BUDGETS = (0.05, 0.10, 0.25, 1.0)


@dataclass(frozen=True)
class Setting:
    """A task with an optimizer: what the schedules are ranked on."""

    name: str
    task: Callable[[int], TrainingTask]
    full: int  # steps of the whole budget
    optimizer: Callable[..., Any]
    rates: tuple[float, ...]
    metric: str  # the smaller the better


def _settings(scale: Scale) -> list[Setting]:
    sgd = functools.partial(torch.optim.SGD, momentum=0.9)
    digits, text = tasks.digits, tasks.text
    full, words = {"smoke": (20, 20), "quick": (200, 80), "paper": (4000, 4000)}[scale]
    settings = [
        Setting("digits CNN, SGD momentum", digits, full, sgd, (0.03, 0.1, 0.3), "error"),
        Setting("digits CNN, Adam", digits, full, torch.optim.Adam, (1e-3, 3e-3, 1e-2), "error"),
        Setting("character transformer, Adam", text, words, torch.optim.Adam, (3e-3, 1e-2), "test_loss"),
    ]
    return settings[:1] if scale == "smoke" else settings


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    seeds = {"smoke": 1, "quick": 3, "paper": 5}[scale]
    settings = _settings(scale)
    total = len(settings) * len(BUDGETS) * len(PROFILES)
    scores = np.empty((len(settings), len(BUDGETS), len(PROFILES), seeds))
    table, done = [], 0
    for i, setting in enumerate(settings):
        for j, budget in enumerate(BUDGETS):
            for k, profile in enumerate(PROFILES):
                tell(done / total, f"{setting.name}, {budget:.0%}, {profile}")
                rate, scores[i, j, k] = _best_rate(setting, budget, profile, seeds)
                table.append(
                    {
                        "setting": setting.name,
                        "budget": f"{budget:.0%}",
                        "schedule": profile,
                        "best rate": rate,
                        setting.metric: round(float(scores[i, j, k].mean()), 4),
                        "spread": round(float(scores[i, j, k].std()), 4),
                    }
                )
                done += 1
    # (settings, budgets, schedules): ranks by the mean over seeds
    ranks = rankdata(scores.mean(-1), axis=2)
    return Evidence(
        verdicts=_verdicts(ranks),
        table=[*_rank_rows(settings, ranks), *table],
        figures=_figures(settings, scores, ranks),
        costs={
            "problems": [f"{s.name}, {b:.0%}" for s in settings for b in BUDGETS],
            "methods": {
                p: np.maximum(scores.mean(-1)[:, :, k].ravel(), 1e-4).tolist() for k, p in enumerate(PROFILES)
            },
        },
        notes=(
            f"{seeds} seeds; each schedule at the best of the same learning rates for each budget. The score is the "
            "share of wrong answers on digits, and the cross-entropy on text; ranks are of its mean over the seeds, "
            "1 the best of 5. The full budget is "
            + ", ".join(f"{s.full} steps ({s.name})" for s in settings)
            + ". The profile of scores counts how far each schedule is above the best one of each setting."
        ),
    )


def _best_rate(
    setting: Setting, budget: float, profile: str, seeds: int
) -> tuple[float, NDArray[np.float64]]:
    task = setting.task(max(round(budget * setting.full), 1))
    schedule = functools.partial(ProfileSchedule, profile=profile)
    results = {}
    for rate in setting.rates:
        method = Train(setting.optimizer, {"lr": rate}, schedule)
        judged = [solve(task, method, seed=seed, progress=False).metrics for seed in range(seeds)]
        values = [1.0 - m["accuracy"] if setting.metric == "error" else m["test_loss"] for m in judged]
        results[rate] = np.array(values)
    best = min(results, key=lambda rate: float(np.nan_to_num(results[rate], nan=np.inf).mean()))
    return best, results[best]


def _verdicts(ranks: NDArray[np.float64]) -> list[Verdict]:
    mean = ranks.mean((0, 1))
    rex, step = PROFILES.index("rex"), PROFILES.index("step")
    place = float(rankdata(mean, method="min")[rex])
    low = ranks[:, :2].mean((0, 1))
    return [
        Verdict("REX has the best or second best average rank of 5 schedules", place, 2.0),
        Verdict(
            "REX's average rank is within half a rank of the best schedule's",
            float(mean[rex] - mean.min()),
            0.5,
        ),
        Verdict(
            "At the two smallest budgets the step schedule ranks below REX by at least one",
            float(low[step] - low[rex]),
            1.0,
            ">=",
        ),
    ]


def _rank_rows(settings: list[Setting], ranks: NDArray[np.float64]) -> list[dict[str, Any]]:
    rows = [
        {
            "setting": setting.name,
            "budget": "mean rank",
            "schedule": profile,
            "rank": round(float(ranks[i, :, k].mean()), 2),
            "spread": round(float(ranks[i, :, k].std()), 2),
        }
        for i, setting in enumerate(settings)
        for k, profile in enumerate(PROFILES)
    ]
    every = [
        {
            "setting": "all",
            "budget": "mean rank",
            "schedule": profile,
            "rank": round(float(ranks[:, :, k].mean()), 2),
            "spread": round(float(ranks[:, :, k].std()), 2),
        }
        for k, profile in enumerate(PROFILES)
    ]
    return every + rows


def _figures(
    settings: list[Setting], scores: NDArray[np.float64], ranks: NDArray[np.float64]
) -> list[Figure]:
    shares = [100 * b for b in BUDGETS]
    figures = [
        Figure(
            setting.name,
            "Each schedule at its own best learning rate; band: range over seeds.",
            "budget, % of full training",
            setting.metric,
            [Series.of(p, shares, scores[i, :, k].T) for k, p in enumerate(PROFILES)],
            log_x=True,
        )
        for i, setting in enumerate(settings)
    ]
    means = ranks.mean(1)
    bars = Figure(
        "Mean rank over budgets",
        "1 is the best of 5.",
        "",
        "mean rank",
        [Series(s.name, list(range(len(PROFILES))), means[i].tolist()) for i, s in enumerate(settings)],
        kind="bars",
        categories=PROFILES,
    )
    z = np.linspace(0, 1, 101)
    from thalweg.training import PROFILES as ALL

    shapes = Figure(
        "The schedules",
        "Multiple of the base learning rate over the share of the budget used.",
        "share of the budget",
        "multiple of the base rate",
        [Series.of(p, z, ALL[p](z)) for p in PROFILES],
    )
    return [bars, *figures, shapes]
