"""Which learning rate to try next: Bayesian optimisation on its logarithm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from thalweg.core.figure import Figure, Series
from thalweg.core.validation import is_real, is_whole, require
from thalweg.numerics.gaussian_process import GaussianProcess, Matern
from thalweg.numerics.gaussian_process.compiled import CompiledSurrogate

#: Rates on the grid of the acquisition; the closest that two tried rates may be, as a share of the range.
GRID, APART = 513, 0.005
#: A stage is lost when, past this share of it, its loss is above what the rate's own trial came to: by this share of
#: that, or half the way to the loss of the very first step, at which a killed network sits. Less than the last share of
#: the first loss is noise.
GUARDED, ABOVE, NOISE = 0.4, 0.25, 0.02


@dataclass(frozen=True)
class Candidate:
    """A rate that was tried, and what was made of it.

    Args:
        stage, rate: when and what.
        losses: training or validation losses, at these ``times`` in steps.
        forecast: loss expected at the stage's end; NaN for a rate that diverged.
        rule: how: ``"fit"``; ``"last"``, the last losses because they lay above the stage's start; ``"diverged"``;
            ``"not validated"``, ``validate`` gave no finite loss though training's were finite.
        level: training loss of its second half, on average.
    """

    stage: int
    rate: float
    losses: tuple[float, ...]
    times: tuple[float, ...]
    forecast: float
    rule: str
    level: float


@dataclass(frozen=True)
class Stage:
    """A stage that training went on in: its first step, its steps, and the rate."""

    first: int
    steps: int
    rate: float


def check_settings(s: Mapping[str, Any], least_steps: int) -> None:
    """Refuse settings of a search outside their range; a stage has ``least_steps`` or more."""
    low, high = s["lr_min"], s["lr_max"]
    fits = is_real(low) and is_real(high) and 0 < low < high < math.inf
    require(fits, "AutoLRS needs 0 < lr_min < lr_max", got=(low, high))
    for name, least in (
        ("total_steps", 1),
        ("stage_steps", least_steps),
        ("explore", 1),
        ("warmup_steps", 0),
    ):
        fits = is_whole(s[name]) and s[name] >= least
        require(fits, f"AutoLRS needs a whole number {name} >= {least}", got=s[name])
    require(isinstance(s["guard"], bool), "AutoLRS needs guard True or False", got=s["guard"])
    longest = s["max_stage_steps"]
    fits = is_whole(longest) and longest >= s["stage_steps"]
    require(fits, "AutoLRS needs a whole number max_stage_steps >= stage_steps", got=longest)
    fits = is_real(s["explore_fraction"]) and 0 < s["explore_fraction"] <= 1
    require(fits, "AutoLRS needs explore_fraction in (0, 1]", got=s["explore_fraction"])
    fits = s["warmup_steps"] < s["total_steps"]
    require(fits, "AutoLRS needs warmup_steps < total_steps", got=s["warmup_steps"])
    require(is_real(s["kappa"]) and s["kappa"] >= 0, "AutoLRS needs kappa >= 0", got=s["kappa"])


def next_rate(
    rates: Sequence[float], losses: Sequence[float], low: float, high: float, kappa: float, seed: int = 0
) -> float:
    """The rate in ``[low, high]`` with the least ``mean - kappa std``, not one that was tried.

    The model is a Gaussian process on the logarithm of the rate, Matern 5/2, its parameters the most probable ones.

    Args:
        rates: tried ones; none gives the middle.
        losses: what each came to; NaN and infinity stand for the worst seen and as much again.

    Cost: a millisecond.

    >>> round(next_rate([], [], 1e-4, 1.0, 2.0), 6)
    0.01
    """
    if not rates:
        return math.sqrt(low * high)
    span = math.log(high / low)
    X = torch.tensor([[math.log(rate / low) / span] for rate in rates], dtype=torch.float64)
    process = CompiledSurrogate(GaussianProcess(Matern()), seed)
    process.update(X, torch.tensor(told(losses), dtype=torch.float64))
    grid = torch.linspace(0.0, 1.0, GRID, dtype=torch.float64)[:, None]
    mean, variance = process.predict(grid)
    bound = mean - kappa * variance.clamp_min(0.0).sqrt()
    bound[((grid - X.T).abs() < APART).any(1)] = torch.inf
    return min(max(low * math.exp(span * float(grid[bound.argmin(), 0])), low), high)


def told(losses: Sequence[float]) -> list[float]:
    """Losses with a number for those that are none: the worst of the others, and their spread on top of it.

    >>> told([1.0, 3.0, float("nan")])
    [1.0, 3.0, 5.0]
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        return [0.0] * len(losses)
    worst = max(finite) + (max(max(finite) - min(finite), 0.1 * abs(max(finite))) or 1.0)
    return [loss if math.isfinite(loss) else worst for loss in losses]


def is_lost(level: float, own: float, first: float, share: float) -> bool:
    """Whether a stage, ``share`` of it done, has fallen behind what its rate's ``own`` trial came to.

    >>> is_lost(2.30, own=0.4, first=2.3, share=0.5), is_lost(0.42, own=0.4, first=2.3, share=0.5)
    (True, False)
    """
    above = min(ABOVE * abs(own), 0.5 * (first - own))
    return share >= GUARDED and level > own + max(above, NOISE * abs(first))


def next_lower(tried: Sequence[Candidate], rate: float) -> float | None:
    """The next rate below that was tried and did not diverge; None if there is none."""
    return max((c.rate for c in tried if c.rate < rate and math.isfinite(c.forecast)), default=None)


def search_figures(rates: NDArray[np.float64], candidates: Sequence[Candidate]) -> list[Figure]:
    """The rate of each training step, and the forecasts of the candidates, stage by stage."""
    found = Figure(
        "The schedule that was found",
        "Learning rate of each training step; trials are not counted.",
        "training step",
        "learning rate",
        [Series.of("AutoLRS", np.arange(len(rates)), rates, points=1000)],
        kind="steps",
        log_y=True,
    )
    trials = []
    for stage in sorted({c.stage for c in candidates}):
        some = [c for c in candidates if c.stage == stage and math.isfinite(c.forecast)]
        series = Series(f"stage {stage + 1}", [c.rate for c in some], [c.forecast for c in some], dots=True)
        trials.append(series)
    caption = "Loss forecast for the stage's end, of every rate tried; those that diverged are left out."
    return [found, Figure("Trials", caption, "learning rate", "forecast loss", trials, log_x=True)]
