"""31 BO-REP: recurrent networks in bilevel problems, at equal oracle calls; Hao, Gong and Liu (2024), section 6."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from thalweg.bilevel import (
    BOREP,
    MASOBA,
    MRBO,
    SABA,
    TTSA,
    Bilevel,
    Decay,
    NeumannInverse,
    SmoothnessMonitor,
    StocBiO,
)
from thalweg.core import Stop, solve
from thalweg.core.figure import Figure, Series
from thalweg.studies.bilevel_tasks import (
    Entry,
    TextSize,
    hyper_representation,
    race,
    text_cleaning,
    text_penalties,
)
from thalweg.studies.evidence import Evidence, Row, Scale, Table, Tell
from thalweg.studies.verdict import Verdict

#: Terms of every Neumann series.
TERMS = 5


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = {
        "smoke": TextSize(48, 3, 6),
        "quick": TextSize(),
        "full": TextSize(2000, 50, 64, 64, 20),
    }[scale]
    calls = {"smoke": 15, "quick": 500, "full": 20_000}[scale]
    seeds = {"smoke": 1, "quick": 3, "full": 5}[scale]
    tell(0.0, "a lower level under an exponential")
    synthetic = race(_synthetic_grids(), _exponential, {"smoke": 40}.get(scale, 2500), 1)
    tasks: Row = {
        "hyper-representation": (lambda seed: hyper_representation(seed, 4, size), (0.3, 1.0, 3.0)),
        "penalties of a GRU": (lambda seed: text_penalties(seed, size), (0.1, 0.3, 1.0)),
    }
    for noise in (0.2, 0.3, 0.4) if scale == "full" else (0.3,):
        tasks[f"hyper-cleaning, noise {noise}"] = (
            lambda seed, noise=noise: text_cleaning(seed, noise, size),
            (1.0, 10.0, 100.0),
        )
    races = {}
    for i, (name, (problem, steps)) in enumerate(tasks.items()):

        def told(share: float, what: str, i: int = i, name: str = name) -> None:
            tell((i + share) / len(tasks), f"{name}: {what}")

        races[name] = race(_grids(steps), problem, calls, seeds, told)
    tell(0.99, "smoothness along a run")
    smooth = _smoothness(hyper_representation(1, 4, size), {"smoke": 8}.get(scale, 150))
    return Evidence(
        verdicts=_verdicts(synthetic, races, smooth),
        table=_table(synthetic, races),
        figures=_figures(races, smooth),
        notes=(
            "Sequences come from a documented grammar (Markov chains that classes share in part); encoders and "
            "classifiers are GRUs. Each method has three steps of x, chosen by validation loss on a problem of its "
            "own, and the same step of y. BO-REP's steps of x are lengths: a third of the others' numbers. Five terms "
            "in every Neumann series, momentum 0.9 throughout. A second-order product counts as one call. Recurrent "
            "lower levels are not strongly convex: the papers' theory does not cover them, their experiments do."
        ),
    )


def _exponential(seed: int) -> Bilevel:
    """``f = sum cosh(2 y)``, ``y*(x) = x``, from x = 5: curvature from 4 e^10 to 4."""
    start = torch.full((5,), 5.0, dtype=torch.float64)
    return Bilevel(
        lambda x, y: torch.cosh(2.0 * y).sum() - 5.0, lambda x, y: 0.5 * (y - x).square().sum(), start, start
    )


def _synthetic_grids() -> dict[str, list[Any]]:
    series = NeumannInverse(TERMS, 0.9)
    return {
        "BO-REP": [BOREP(a, inverse=series, inner_step_size=0.5) for a in (0.03, 0.1, 0.3)],
        "StocBiO": [StocBiO(10.0**-k, 0.5, 5, series) for k in range(7)],
        "StocBiO, clipped": [StocBiO(a, 0.5, 5, series, clip=1.0) for a in (0.03, 0.1, 0.3)],
    }


def _grids(steps: tuple[float, ...], g: float = 0.5) -> dict[str, list[Any]]:
    series = NeumannInverse(TERMS, g)
    return {
        "BO-REP": [BOREP(a / 3.0, inverse=series, inner_step_size=g) for a in steps],
        "StocBiO": [StocBiO(a, g, 5, series) for a in steps],
        "StocBiO, clipped": [StocBiO(a, g, 5, series, clip=0.1) for a in steps],
        "TTSA": [
            TTSA(Decay(a, 0.6, 50.0), Decay(g, 0.4, 50.0), inverse=NeumannInverse(TERMS, g, True))
            for a in steps
        ],
        "SABA": [SABA(a, g) for a in steps],
        "MA-SOBA": [MASOBA(a, g) for a in steps],
        "MRBO": [MRBO(a, g, inverse=series) for a in steps],
    }


def _smoothness(problem: Bilevel, steps: int) -> SmoothnessMonitor:
    """Smoothness of f in the encoder's weights beside its gradient, along plain hyper-gradient descent."""
    monitor = SmoothnessMonitor()
    solve(
        problem,
        StocBiO(0.1, 0.3, 5, NeumannInverse(TERMS, 0.3)),
        stop=Stop(steps=steps),
        callbacks=[monitor],
        progress=False,
    )
    return monitor


def _verdicts(
    synthetic: list[Entry], races: dict[str, list[Entry]], smooth: SmoothnessMonitor
) -> list[Verdict]:
    ours, fixed = (e.median("upper") for e in synthetic[:2])
    verdicts = [
        Verdict(
            "Exponential upper level: BO-REP's gap over that of StocBiO with its best fixed step, equal calls",
            ours / fixed,
            0.5,
        )
    ]
    for name, entries in races.items():
        best = max(e.median("accuracy") for e in entries[1:] if np.isfinite(e.median("accuracy")))
        verdicts.append(
            Verdict(
                f"{name}: BO-REP's test accuracy above the best of six, equal calls",
                entries[0].median("accuracy") - best,
                0.0,
                ">=",
            )
        )
    rank = float(spearmanr(smooth.gradients, smooth.smoothness).statistic)
    verdicts.append(
        Verdict("GRU encoder: smoothness grows with the gradient, rank correlation", rank, 0.5, ">=")
    )
    return verdicts


def _table(synthetic: list[Entry], races: dict[str, list[Entry]]) -> Table:
    rows = [{"task": "exponential", "method": e.name, **e.row(("upper",))} for e in synthetic]
    return rows + [
        {"task": name, "method": e.name, **e.row(("accuracy", "upper"))}
        for name, entries in races.items()
        for e in entries
    ]


def _figures(races: dict[str, list[Entry]], smooth: SmoothnessMonitor) -> list[Figure]:
    figures = [
        Figure(
            name[0].upper() + name[1:],
            "The first problem.",
            "oracle calls",
            "validation loss",
            [Series.of(e.name, e.calls, e.curve) for e in entries if np.isfinite(e.curve).any()],
        )
        for name, entries in races.items()
    ]
    dots = Series("steps", smooth.gradients, smooth.smoothness, dots=True)
    return [
        *figures,
        Figure(
            "Local smoothness of a recurrent upper level",
            "Change of the gradient in the encoder's weights over their change, along hyper-gradient descent.",
            "norm of the gradient",
            "local smoothness",
            [dots],
            log_x=True,
            log_y=True,
        ),
    ]
