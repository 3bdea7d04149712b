"""07 Schedules by refinement: linear decay against the usual ones, and schedules refined from recorded norms.

Defazio, Cutkosky, Mehta and Mishchenko (2023), sections 4 and 5: convex problems with Adam, and networks. Rates are
chosen, and norms recorded, on data set apart, under another seed than those that are judged.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import SGD, Adam, Optimizer

from thalweg.core import Result, solve
from thalweg.datasets import load_series
from thalweg.studies import convex_schedules, tasks
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Tell
from thalweg.studies.standings import Standings, together
from thalweg.studies.verdict import Verdict
from thalweg.training import (
    GradientNormRecorder,
    LinearDecay,
    ProfileSchedule,
    Refined,
    RefinedSchedule,
    Train,
    TrainingTask,
    fit_warmup_poly,
    refine,
)

OURS, REFINED, COSINE = "linear", "refined", "cosine"
#: Warm-up shares the paper states for its recorded sequences, by the first word of the file's name.
WARMUPS = {
    "dlrm": 0.2,
    "gpt": 0.28,
    "iwslt14": 0.08,
    "roberta": 0.45,
    "vit": 0.07,
    "mri": 0.4,
    "rcnn": 0.0,
    "imagenet": 0.01,
}


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale; svmlight files in ``THALWEG_DATA`` are more convex problems, and recorded norms
    in ``THALWEG_DATA/norms`` are refined.
    """
    seeds = tuple(range(1, {"smoke": 3, "quick": 6, "full": 11}[scale]))
    folder = Path(os.environ.get("THALWEG_DATA", "no such folder"))
    problems = convex_schedules.problems(sorted(folder.glob("*.svm")))
    if scale == "smoke":  # one of each kind, and the user's
        problems = [problems[0], problems[4], *problems[6:]]
    steps = {"smoke": 20, "quick": 300, "full": 5000}[scale]
    convex, refined = convex_schedules.race(problems, steps, seeds, lambda s, what: tell(0.4 * s, what))
    settings = _settings(scale)
    deep = []
    for i, setting in enumerate(settings):
        tell(0.4 + 0.6 * i / len(settings), setting.name)
        found, shape = _race(setting, seeds[:5])
        deep.append(found)
        refined[setting.name] = shape
    networks = together(deep, "score")
    recorded = {p.stem: p for p in sorted((folder / "norms").glob("*.csv"))}
    return Evidence(
        verdicts=[
            *_convex_verdicts(convex, problems),
            *networks.compared(OURS, COSINE, 1.0),
            *networks.compared(REFINED, OURS, 1.0),
            *_recorded_verdicts(recorded),
        ],
        table=[*convex.table(), *(row for found in deep for row in found.table())],
        figures=[
            convex.bars("Convex problems"),
            *(found.bars(found.what) for found in deep),
            _shapes(refined),
        ],
        costs=convex.costs(least=1e-6),
        notes=(
            f"{convex.seeds} judging seeds; each schedule at the rate, of the same {len(convex_schedules.RATES)} "
            f"({len(settings[0].rates)} for networks), that was best under another seed on data set apart. Convex: "
            f"logistic regression, Adam, batches of {convex_schedules.BATCH}, the loss of the last iterate on all of "
            "the data it trains on. A refined schedule is made from the norms of one run with linear decay on the "
            "data set apart. Noisy: of the labels of breast_cancer a tenth is drawn anew, of those of digits a fifth. "
            "Where a model comes to fit every example, the gradient goes to zero, its inverse grows without bound, and "
            "the refined schedule spends its steps at the very end: refinement is for runs whose gradients do not "
            f"vanish. {convex.notes()} {networks.notes()}"
        ),
    )


def _convex_verdicts(convex: Standings, problems: Sequence[convex_schedules.Convex]) -> list[Verdict]:
    fixed = {
        problem: {n: v for n, v in found.items() if n != REFINED} for problem, found in convex.scores.items()
    }
    parted = {p.name: p.parted for p in problems}
    overlap, apart = ([name for name in convex.scores if parted[name] == kind] for kind in (False, True))
    return [
        *replace(convex, scores=fixed)
        .ranks(name="convex problems, six fixed schedules")
        .beats(0.0, "difference"),
        *_mean(convex, list(convex.scores), "convex").compared(OURS, COSINE, 1.0),
        *_mean(convex, overlap, "convex, classes overlap").compared(REFINED, OURS, 1.0),
        *_mean(convex, apart, "convex, a plane parts the classes").compared(REFINED, OURS, 1.0),
    ]


def _mean(convex: Standings, problems: Sequence[str], name: str) -> Standings:
    """Geometric means of the losses on some problems, seed by seed."""
    with np.errstate(divide="ignore"):
        means = {
            contestant: np.exp(np.mean([np.log(convex.scores[p][contestant]) for p in problems], axis=0))
            for contestant in convex.contestants
        }
    return Standings("geometric mean of the loss", OURS, {name: means}, random=convex.random)


def _recorded_verdicts(recorded: dict[str, Path]) -> list[Verdict]:
    verdicts = []
    for stem, path in recorded.items():
        stated = WARMUPS.get(stem.split("_")[0])
        if stated is not None:
            fit = fit_warmup_poly(refine(load_series(path), "l1" if "l1" in stem else "l2"))
            claim = f"{stem}: share of the steps for warm-up, {stated:.0%} stated"
            verdicts.append(Verdict(claim, fit.warmup, (stated - 0.05, stated + 0.05), "within"))
    return verdicts


# -- networks


@dataclass(frozen=True)
class Setting:
    """A network to train, its optimizer, the rates that each schedule is tried at, and what is judged."""

    name: str
    task: Callable[..., TrainingTask]
    optimizer: Callable[..., Optimizer]
    rates: tuple[float, ...]
    geometry: Any
    score: Callable[[Result[torch.nn.Module]], float]
    what: str


def _error(result: Result[torch.nn.Module]) -> float:
    return 1.0 - result.metrics["accuracy"]


def _loss(result: Result[torch.nn.Module]) -> float:
    return result.metrics["test_loss"]


def _settings(scale: Scale) -> list[Setting]:
    momentum, wrong = functools.partial(SGD, momentum=0.9), "share of wrong answers"
    steps, words = {"smoke": (12, 0), "quick": (120, 60), "full": (800, 800)}[scale]
    images, rates = ["cnn", "resnet"] if scale == "full" else ["mlp"], (0.03, 0.1, 0.3)

    def digits(network: str) -> Setting:
        task = functools.partial(tasks.digits, steps, network=network)
        return Setting(f"digits {network}, SGD momentum", task, momentum, rates, "l2", _error, wrong)

    size = 32 if scale == "full" else 16
    text = functools.partial(tasks.text, words, length=size, width=size)
    letters = Setting("character transformer, Adam", text, Adam, (3e-3, 1e-2, 3e-2), "l1", _loss, "test loss")
    return [*map(digits, images), letters] if words else [*map(digits, images)]


def _race(setting: Setting, seeds: tuple[int, ...]) -> tuple[Standings, Refined]:
    apart, task = setting.task(tuning=True), setting.task()
    refined = _refined(setting, apart)
    schedules: dict[str, Callable[[Optimizer, int], Any]] = {
        OURS: LinearDecay,
        COSINE: functools.partial(ProfileSchedule, profile="cosine"),
        REFINED: functools.partial(RefinedSchedule, refined=refined),
    }
    grids = {
        name: {f"rate {r:g}": Train(setting.optimizer, {"lr": r}, schedule) for r in setting.rates}
        for name, schedule in schedules.items()
    }
    found = contest(
        {setting.name: lambda seed: task},
        grids,
        setting.score,
        ours=OURS,
        what=setting.what,
        tuning_problems={setting.name: lambda seed: apart},
        judging_seeds=seeds,
        needs_convergence=False,
    )
    return found, refined


def _refined(setting: Setting, apart: TrainingTask) -> Refined:
    """From the norms of a run with linear decay on the data set apart, at its best rate."""
    best, norms = np.inf, None
    for rate in setting.rates:
        recorders: list[GradientNormRecorder] = []

        def recorded(
            optimizer: Optimizer, steps: int, into: list[GradientNormRecorder] = recorders
        ) -> LinearDecay:
            into.append(GradientNormRecorder(optimizer))
            return LinearDecay(optimizer, steps)

        result = solve(apart, Train(setting.optimizer, {"lr": rate}, recorded), seed=100, progress=False)
        if norms is None or setting.score(result) < best:
            best, norms = setting.score(result), recorders[0].norms(setting.geometry)
    assert norms is not None
    return refine(norms, setting.geometry)


def _shapes(refined: dict[str, Refined]) -> Figure:
    z: NDArray[np.float64] = np.linspace(0.0, 1.0, 201)
    shapes = [Series.of(name, z, made(z)) for name, made in refined.items()]
    caption = "As recorded runs ask for."
    return Figure("Refined schedules", caption, "share of the steps", "multiple of the highest rate", shapes)
