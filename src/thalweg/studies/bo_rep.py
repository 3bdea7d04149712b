"""31 BO-REP: recurrent networks in bilevel problems, at equal oracle calls; Hao, Gong and Liu (2024), section 6.

Steps of x are chosen on a problem of another seed than those that are judged.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
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
    NegativeCurvature,
    NeumannInverse,
    SmoothnessMonitor,
    StocBiO,
)
from thalweg.core import Method, Result, Stop, solve
from thalweg.core.figure import Figure, Series
from thalweg.studies.bilevel_tasks import TextSize, hyper_representation, text_cleaning, text_penalties
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Scale, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.standings import Standings, together
from thalweg.studies.verdict import Verdict

OURS = "BO-REP"
#: Terms of every Neumann series.
TERMS = 5


@dataclass(frozen=True)
class Size:
    """The problems with recurrent networks, oracle calls on them and on the exponential one, steps of the monitor,
    judging seeds, shares of wrong labels.
    """

    text: TextSize
    calls: int
    exponential: int
    steps: int
    seeds: int
    noises: tuple[float, ...] = (0.3,)


SIZES: dict[Scale, Size] = {
    "smoke": Size(TextSize(48, 3, 6), 6, 20, 5, 2),
    "quick": Size(TextSize(100, 4, 8), 60, 300, 12, 5),
    "full": Size(TextSize(1000, 20, 32, 32, 20), 600, 2500, 300, 5, (0.2, 0.4)),
}


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    seeds = tuple(range(1, size.seeds + 1))
    problems: dict[str, tuple[Callable[[int], Bilevel], tuple[float, ...]]] = {
        "hyper-representation": (lambda seed: hyper_representation(seed, 4, size.text), (0.3, 1.0, 3.0)),
        "penalties of a GRU": (lambda seed: text_penalties(seed, size.text), (0.1, 0.3, 1.0)),
    }
    for noise in size.noises:
        problems[f"hyper-cleaning, noise {noise}"] = (
            lambda seed, noise=noise: text_cleaning(seed, noise, size.text),  # type: ignore[misc]
            (1.0, 10.0, 100.0),
        )
    if scale == "smoke":
        problems = dict(list(problems.items())[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NegativeCurvature)  # recurrent lower levels are not convex
        tell(0.0, "a lower level under an exponential")
        exponential = _race(
            "exponential upper level", _exponential, _exponential_grids(), size.exponential, (1,), False
        )
        races = []
        for i, (name, (problem, steps)) in enumerate(problems.items()):

            def told(share: float, what: str, i: int = i) -> None:
                tell(0.1 + 0.8 * (i + share) / len(problems), what)

            races.append(_race(name, problem, _grids(steps), size.calls, seeds, tell=told))
        tell(0.95, "smoothness along a run")
        monitors = [_smoothness(hyper_representation(seed, 4, size.text), size.steps) for seed in seeds]
    scores = together(races)
    ranks = [float(spearmanr(m.gradients, m.smoothness).statistic) for m in monitors]
    claim = "GRU encoder: smoothness grows with the gradient, rank correlation"
    return Evidence(
        verdicts=[
            *exponential.compared(OURS, "StocBiO", 0.5),
            *exponential.beats(1.0),
            *scores.beats(0.0, by="difference"),
            Verdict(claim, median(ranks), 0.5, ">=", median_interval(ranks)),
        ],
        table=[*exponential.table(), *scores.table()],
        figures=[scores.bars("Share of wrong answers at equal oracle calls"), _monitor_figure(monitors[0])],
        costs=scores.costs(least=1e-3),
        notes=(
            f"{scores.seeds} judging seeds, {size.calls} oracle calls a run. Sequences come from a documented grammar "
            "(Markov chains that classes share in part); encoders and classifiers are GRUs. Each method has three "
            "steps of x, on the exponential problem seven, chosen on a problem of another seed, and one step of y. "
            "BO-REP's steps of x are lengths: a third of the others' numbers. Five terms in every Neumann series, "
            "momentum 0.9 throughout. A second-order product counts as one call. Recurrent lower levels are not "
            "strongly convex: the papers' theory does not cover them, their experiments do. "
            f"{exponential.notes()} {scores.notes()}"
        ),
    )


def _race(
    name: str,
    problem: Callable[[int], Bilevel],
    grids: dict[str, list[Method]],
    calls: int,
    seeds: tuple[int, ...],
    random: bool = True,
    tell: Tell = lambda share, what: None,
) -> Standings:
    return contest(
        {name: problem},
        grids,
        _error if random else _upper,
        ours=OURS,
        what="share of wrong answers" if random else "gap at equal calls",
        stop=Stop(steps=None, calls=calls),
        judging_seeds=seeds,
        needs_convergence=False,
        random=random,
        tell=tell,
    )


def _error(result: Result[Any]) -> float:
    return 1.0 - result.metrics["accuracy"]


def _upper(result: Result[Any]) -> float:
    return result.metrics["upper"]


def _exponential(seed: int) -> Bilevel:
    """``f = sum cosh(2 y)``, ``y*(x) = x``, from x = 5: curvature from 4 e^10 to 4. Nothing is random."""
    start = torch.full((5,), 5.0, dtype=torch.float64)
    return Bilevel(
        lambda x, y: torch.cosh(2.0 * y).sum() - 5.0, lambda x, y: 0.5 * (y - x).square().sum(), start, start
    )


def _exponential_grids() -> dict[str, list[Method]]:
    """Seven steps each: lengths from 0.01 to 1, fixed steps by decades from 1 down."""
    series, lengths = NeumannInverse(TERMS, 0.9), np.geomspace(0.01, 1.0, 7)
    return {
        OURS: [BOREP(float(a), inverse=series, inner_step_size=0.5) for a in lengths],
        "StocBiO": [StocBiO(10.0**-k, 0.5, 5, series) for k in range(7)],
        "StocBiO, clipped": [StocBiO(float(a), 0.5, 5, series, clip=1.0) for a in lengths],
    }


def _grids(steps: tuple[float, ...], g: float = 0.5) -> dict[str, list[Method]]:
    series = NeumannInverse(TERMS, g)
    return {
        OURS: [BOREP(a / 3.0, inverse=series, inner_step_size=g) for a in steps],
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
    method = StocBiO(0.1, 0.3, 5, NeumannInverse(TERMS, 0.3))
    solve(problem, method, stop=Stop(steps=steps), callbacks=[monitor], progress=False)
    return monitor


def _monitor_figure(monitor: SmoothnessMonitor) -> Figure:
    return Figure(
        "Local smoothness of a recurrent upper level",
        "Change of the gradient in the encoder's weights over their change, along hyper-gradient descent; first seed.",
        "norm of the gradient",
        "local smoothness",
        [Series("steps", monitor.gradients, monitor.smoothness, dots=True)],
        log_x=True,
        log_y=True,
    )
