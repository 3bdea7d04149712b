"""What a study looks like: its course, slices of its model, how far that can be trusted, and what matters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from thalweg.blackbox.acquisition import LogEI
from thalweg.blackbox.choice import Knowledge
from thalweg.blackbox.extensions import Environment
from thalweg.blackbox.parameters import Integer, Point, Real
from thalweg.blackbox.space import Space
from thalweg.blackbox.trial import Recommendation, Trial
from thalweg.core.figure import Figure, Series, Surface
from thalweg.numerics.gaussian_process import Posterior
from thalweg.numerics.gaussian_process.surrogate import Belief
from thalweg.numerics.quasirandom import sobol


class Studied(Protocol):
    """What a figure asks of a study."""

    space: Space
    direction: str
    environment: Environment | None

    @property
    def done(self) -> list[Trial]:
        """The trials with a value."""

    @property
    def posterior(self) -> Belief:
        """What is believed of the objective, in the unit cube."""

    def recommend(self) -> Recommendation:
        """The point to use."""

    def predict(self, points: Sequence[Point]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the objective at points."""

    def knowledge(self) -> Knowledge:
        """What the next acquisition is made of."""


def convergence(study: Studied) -> Figure:
    """Every value told, and the best so far."""
    done = [t for t in study.done if t.value is not None]
    numbers, values = [t.number + 1.0 for t in done], np.array([t.value for t in done], dtype=float)
    feasible = np.array([t.feasible for t in done])
    worst = np.inf if study.direction == "minimize" else -np.inf
    running = np.minimum if study.direction == "minimize" else np.maximum
    best = running.accumulate(np.where(feasible, values, worst))
    series = [
        Series("told", numbers, values.tolist(), dots=True),
        Series("best so far", numbers, best.tolist()),
    ]
    caption = "Each evaluation, and the best feasible value so far."
    return Figure("Course", caption, "evaluation", "value", series, kind="steps")


def slices(study: Studied, points: int = 101) -> list[Figure]:
    """Mean and two standard deviations along each number, the others as recommended; in 1-D the acquisition too."""
    recommended = study.recommend().point
    if study.environment is not None:
        recommended = {**study.environment.conditions[0], **recommended}
    figures = []
    for name, parameter in study.space.parameters.items():
        if not isinstance(parameter, Real | Integer) or not study.space.active(name, recommended):
            continue
        values = list(dict.fromkeys(parameter.decode([u]) for u in np.linspace(0.0, 1.0, points)))
        mean, std = study.predict([{**recommended, name: value} for value in values])
        x = [float(v) for v in values]
        band = Series("model", x, mean.tolist(), (mean - 2 * std).tolist(), (mean + 2 * std).tolist())
        series = [
            band,
            Series("recommended", [float(recommended[name])], [study.recommend().mean], dots=True),
        ]
        if len(study.space.parameters) == 1:
            told = sorted((float(t.point[name]), t.value or 0.0) for t in study.done)
            series.append(Series("told", [a for a, _ in told], [b for _, b in told], dots=True))
        caption = "Posterior mean with two standard deviations; the other parameters are as recommended."
        figures.append(Figure(f"Slice: {name}", caption, name, "value", series, log_x=parameter.log))
    if len(study.space.parameters) == 1 and study.space.continuous:
        figures.append(_worth(study, points))
    return figures


def contours(study: Studied, points: int = 41) -> Figure | None:
    """The mean over the two numbers that matter most, the others as recommended; None with fewer than two."""
    recommended = study.recommend().point
    if study.environment is not None:
        recommended = {**study.environment.conditions[0], **recommended}
    shares = importance(study)
    ranked = sorted(zip(shares.series[0].y, shares.categories, strict=True), reverse=True)
    numbers = {n: k for n, k in study.space.parameters.items() if isinstance(k, Real | Integer)}
    names = [n for _, n in ranked if n in numbers and study.space.active(n, recommended)][:2]
    if len(names) < 2:
        return None
    across, up = names
    grid = np.linspace(0.0, 1.0, points)
    xs, ys = ([float(v) for v in dict.fromkeys(numbers[n].decode([u]) for u in grid)] for n in names)
    whole = {n: int if isinstance(numbers[n], Integer) else float for n in names}
    mean, _ = study.predict(
        [{**recommended, across: whole[across](x), up: whole[up](y)} for y in ys for x in xs]
    )
    told = [t for t in study.done if across in t.point and up in t.point]
    dots = Series(
        "told", [float(t.point[across]) for t in told], [float(t.point[up]) for t in told], dots=True
    )
    return Figure(
        f"Slice: {across}, {up}",
        "Posterior mean over the two parameters that matter most; dots: where it was evaluated.",
        across,
        up,
        [dots],
        log_x=numbers[across].log,
        log_y=numbers[up].log,
        surface=Surface(xs, ys, mean.reshape(len(ys), len(xs)).tolist()),
    )


def _worth(study: Studied, points: int) -> Figure:
    known = study.knowledge()
    u = torch.linspace(0.0, 1.0, points, dtype=torch.float64)[:, None]
    with torch.no_grad():
        worth = LogEI(known.posterior, known.best)(u[:, None]).exp()
    ((name, parameter),) = study.space.parameters.items()
    x = [float(cast(float, parameter.decode([float(v)]))) for v in u]
    return Figure(
        "Where to look next",
        "Expected improvement, in standardised units.",
        name,
        "expected improvement",
        [Series("expected improvement", x, worth.tolist())],
        log_x=isinstance(parameter, Real) and parameter.log,
    )


def calibration(study: Studied) -> Figure | None:
    """Each value predicted from all others: how often it fell below each quantile. None with a model of gradients."""
    posterior = study.posterior
    if not isinstance(posterior, Posterior) or posterior.theta.ndim > 1:
        return None
    mean, variance = posterior.leave_one_out()
    levels = norm.cdf(((posterior.y - mean) / variance.sqrt()).numpy())
    quantiles = np.linspace(0.0, 1.0, 41)
    shares = (levels[:, None] <= quantiles).mean(0)
    diagonal = Series("perfect", [0.0, 1.0], [0.0, 1.0])
    return Figure(
        "Calibration",
        "Leave-one-out: the share of values below each predicted quantile. Near the diagonal the model's spread is "
        "right; an S around it says that it is too sure, or not sure enough.",
        "predicted quantile",
        "share below it",
        [Series("leave-one-out", quantiles.tolist(), shares.tolist()), diagonal],
    )


def importance(study: Studied, samples: int = 1024) -> Figure:
    """Total Sobol indices of the posterior mean: the share of its variation that each parameter is involved in.

    Saltelli et al. (2010), "Variance based sensitivity analysis of model output", table 2 (f).
    """
    posterior = study.posterior
    d = study.space.dimension
    both = sobol(samples, 2 * d, 0)
    A, B = study.space.snap(both[:, :d]), study.space.snap(both[:, d:])

    def mean(U: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            values: torch.Tensor = posterior.mean(U)
        return values.reshape(-1, len(U)).mean(0)

    base, total = mean(A), float(mean(torch.cat([A, B])).var())
    names, shares = [], []
    for name, _, at in study.space.slices:
        mixed = A.clone()
        mixed[:, at] = B[:, at]
        shares.append(0.5 * float((base - mean(mixed)).square().mean()) / total if total > 1e-12 else 0.0)
        names.append(name)
    return Figure(
        "Importance",
        "Total Sobol indices: the share of the model's variation that each parameter is involved in.",
        "",
        "share",
        [Series("total index", [float(i) for i in range(len(names))], shares)],
        kind="bars",
        categories=names,
    )


def parallel_coordinates(study: Studied, lines: int = 20) -> Figure:
    """The best trials as lines over the parameters' coordinates."""
    sign = 1.0 if study.direction == "minimize" else -1.0
    ranked = sorted(study.done, key=lambda t: sign * (t.value if t.value is not None else math.inf))[:lines]
    axes = [float(i) for i in range(study.space.dimension)]
    series = [Series(f"{t.value:.4g}", axes, list(t.u)) for t in ranked[:9]]
    names = ", ".join(f"{i}: {name}" for i, (name, _, _) in enumerate(study.space.slices))
    return Figure(
        "The best trials",
        f"Coordinates in the unit cube. {names}.",
        "coordinate",
        "share of its range",
        series,
    )


def figures(study: Studied) -> list[Figure]:
    """All of them."""
    trust = calibration(study)
    found = [convergence(study), *slices(study)]
    if len(study.space.parameters) > 1:
        found += [*filter(None, [contours(study)]), importance(study), parallel_coordinates(study)]
    return [*found, trust] if trust is not None else found
