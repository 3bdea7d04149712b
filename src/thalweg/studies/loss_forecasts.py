"""35, the forecasts: how far off the loss ten times ahead is, by AutoLRS's exponential fit and by simple guesses."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import SGD, Adam, Optimizer

from thalweg.core import solve
from thalweg.studies import tasks
from thalweg.studies.evidence import Scale, Table
from thalweg.studies.intervals import median, median_interval, paired_ratio
from thalweg.studies.verdict import Verdict
from thalweg.training import LossForecaster, Train, TrainingTask

Vector = NDArray[np.float64]


def _tasks(
    scale: Scale, steps: int
) -> list[tuple[TrainingTask, Callable[..., Optimizer], tuple[float, ...]]]:
    """Tasks whose loss stays well above zero, without which a relative error says nothing: text, and digits of which a
    fifth of the labels is drawn anew.
    """
    small = scale != "full"
    digits = tasks.digits(steps, 128, network="mlp" if small else "cnn")
    X, y = digits.train
    random = torch.Generator().manual_seed(0)
    drawn = torch.randint(10, y.shape, generator=random)
    y = torch.where(torch.rand(len(y), generator=random) < 0.2, drawn, y)
    momentum = functools.partial(SGD, momentum=0.9)
    text = tasks.text(steps, 16, length=16, width=16) if small else tasks.text(steps, 32)
    return [
        (text, Adam, (3e-3, 1e-2, 3e-2)),
        (dataclasses.replace(digits, train=(X, y)), momentum, (0.01, 0.03, 0.1)),
    ]


def errors(scale: Scale) -> dict[str, Vector]:
    """Relative errors ten times ahead, the median of three places of each course, shape (courses,)."""
    steps = {"smoke": 80, "quick": 200, "full": 3000}[scale]
    found = []
    for task, make, rates in _tasks(scale, steps):
        for rate in rates:
            course = solve(task, Train(make, {"lr": rate}), seed=1, progress=False)
            found.append(_of_course(course.history["loss"]))
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def _of_course(losses: Vector) -> dict[str, float]:
    off: dict[str, list[float]] = {"exponential fit": [], "last value": [], "straight line": []}
    for start in (0, len(losses) // 10, len(losses) // 4):
        length = (len(losses) - start) // 10
        seen, tau = losses[start : start + length], 10 * length
        there = losses[start + tau - length : start + tau].mean()
        slope, level = np.polyfit(np.arange(length, dtype=float), seen, 1)
        middle = tau - (length + 1) / 2.0  # `there` is the mean over a window before tau
        guesses = (
            float(LossForecaster().fit(seen)(middle)),
            float(seen[-max(length // 10, 1) :].mean()),
            float(level + slope * middle),
        )
        for name, guess in zip(off, guesses, strict=True):
            off[name].append(abs(guess - there) / there)
    return {name: median(values) for name, values in off.items()}


def verdicts(found: dict[str, Vector]) -> list[Verdict]:
    """Of the exponential fit, by itself and against the two simplest guesses."""
    fit = found["exponential fit"]

    def verdict(claim: str, values: Sequence[float] | Vector, most: float) -> Verdict:
        return Verdict(
            f"Forecast ten times ahead: {claim}", median(values), most, "<=", median_interval(values)
        )

    return [
        verdict("relative error of the exponential fit", fit, 0.2),
        verdict("its error / the last value's", paired_ratio(fit, found["last value"]), 1.0),
        verdict("its error / a straight line's", paired_ratio(fit, found["straight line"]), 1.0),
    ]


def table(found: dict[str, Vector]) -> Table:
    """A row for each way to forecast."""
    return [
        {"problem": f"forecasts, {len(v)} courses", "contestant": name, "relative error": median(v)}
        for name, v in found.items()
    ]
