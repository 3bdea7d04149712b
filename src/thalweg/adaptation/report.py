"""What a run did, and what its domains have in common: distances, fronts, pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler

from thalweg.adaptation.adapt import Adapt
from thalweg.adaptation.combiners import FixedWeights, GradientCombiner
from thalweg.adaptation.problem import AdaptationTask
from thalweg.core import Figure, InvalidProblem, Result, Series, solve
from thalweg.core.validation import as_real, check_finite

#: Steps over which a curve is averaged, as a share of the run.
WINDOW = 0.05


def a_distance(source: ArrayLike, target: ArrayLike) -> float:
    """Proxy A-distance of two clouds of features, 0 (alike) to 2 (told apart by a hyperplane).

    ``2 (1 - 2 e)``, e the mean error of the two domains of a logistic regression, cross-validated five-fold; below zero
    counts as zero.

    Raises:
        InvalidProblem: other columns, fewer than five rows.

    Source: Ben-David et al. (2007); Ganin et al. (2016), section 5.1.3.

    >>> x = np.random.default_rng(0).standard_normal((60, 2))
    >>> a_distance(x, x + 20.0)
    2.0
    """
    clouds = [as_real(name, values) for name, values in (("source", source), ("target", target))]
    if (
        any(c.ndim != 2 for c in clouds)
        or clouds[0].shape[1] != clouds[1].shape[1]
        or min(map(len, clouds)) < 5
    ):
        raise InvalidProblem(
            f"a_distance needs two tables with the same columns, five rows or more; got shapes {clouds[0].shape} and "
            f"{clouds[1].shape}."
        )
    for name, cloud in zip(("source", "target"), clouds, strict=True):
        check_finite(name, cloud)
    X = np.vstack(clouds)
    largest = np.abs(X).max(0)
    X = StandardScaler().fit_transform(X / np.where(largest > 0, largest, 1.0))
    domain = np.repeat([0, 1], [len(c) for c in clouds])
    judge = LogisticRegression(max_iter=1000, class_weight="balanced")
    said = cross_val_predict(judge, X, domain, cv=5)
    error = float(np.mean([(said[domain == k] != k).mean() for k in (0, 1)]))
    return max(2.0 * (1.0 - 2.0 * error), 0.0)


def summary(result: Result) -> dict[str, float]:
    """The run in numbers: means of weights, cosine, shares of conflicts, of balance, and of steps that lost the guide.

    >>> from thalweg.core import History, Status
    >>> history = History()
    >>> history.record(1, 0.0, {"cosine": -0.5, "balance": 1.0})
    >>> found = summary(Result(None, Status.EXHAUSTED, {}, 1, 0.0, 0, history, ""))
    >>> found["conflicts"], found["balance"]
    (1.0, 1.0)
    """
    history, found = result.history, dict[str, float]()
    for name in history.names:
        values = history[name]
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        if name.startswith("weight_") or name in ("cosine", "balance", "guide_dropped", "dropped"):
            found[name] = float(values.mean())
        if name == "cosine":
            found["conflicts"] = float((values < 0).mean())
    return found


def run_figures(result: Result) -> list[Figure]:
    """Weights, losses and cosines over time, smoothed over a twentieth of the run.

    >>> from thalweg.core import History, Status
    >>> history = History()
    >>> history.record(1, 0.0, {"weight_source": 0.5, "weight_target": 0.5, "source": 2.0, "target": 1.0})
    >>> [f.title for f in run_figures(Result(None, Status.EXHAUSTED, {}, 1, 0.0, 0, history, ""))]
    ['Weights of the objectives', 'Objectives']
    """
    names = result.history.names
    groups = (
        ("Weights of the objectives", "weight", [n for n in names if n.startswith("weight_")]),
        ("Objectives", "loss", [n for n in ("source", "align", "target", "guide") if n in names]),
        ("Source against alignment", "cosine of gradients", [n for n in ("cosine",) if n in names]),
        ("Steps that balance", "share", [n for n in ("balance",) if n in names]),
    )
    caption = "Mean over a twentieth of the run."
    return [
        Figure(title, caption, "step", unit, [_smooth(result, name) for name in chosen])
        for title, unit, chosen in groups
        if chosen
    ]


def _smooth(result: Result, name: str) -> Series:
    values = result.history[name]
    here = np.isfinite(values)
    steps, values = np.asarray(result.history.steps, dtype=float)[here], values[here]
    width = max(1, round(WINDOW * len(values)))
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(width, len(values) + 1)
    mean: NDArray[np.float64] = (total[at] - total[at - width]) / width
    return Series(
        name.removeprefix("weight_"), [float(s) for s in steps[width - 1 :]], [float(v) for v in mean]
    )


def front(
    task: AdaptationTask,
    values: Sequence[float] = (0.0, 0.1, 0.3, 1.0),
    seed: int = 0,
    **options: object,
) -> pd.DataFrame:
    """The Pareto front by sweeps: a run for each fixed weight of the target objective, and one of the programme.

    Columns ``weight`` (NaN for the programme) and the task's metrics. Cost: as many runs.

    >>> import torch
    >>> source = torch.randn(40, 5), torch.arange(40) % 3
    >>> make = lambda: torch.nn.Linear(5, 4), lambda: torch.nn.Linear(4, 3)
    >>> task = AdaptationTask(*make, source, (torch.randn(30, 5),), steps=3)
    >>> len(front(task, (0.0, 1.0), hidden=8))
    3
    """
    base = str(options.pop("base", "dann"))
    ones = 1 if base == "source-only" else 2
    combiners: list[tuple[float, str | GradientCombiner]] = [
        (weight, FixedWeights((*[1.0] * ones, weight))) for weight in values
    ]
    rows = []
    for weight, combiner in [*combiners, (float("nan"), "preference")]:
        method = Adapt(base, combiner, **options)  # type: ignore[arg-type]
        rows.append({"weight": weight, **solve(task, method, seed=seed, progress=False).metrics})
    return pd.DataFrame(rows)
