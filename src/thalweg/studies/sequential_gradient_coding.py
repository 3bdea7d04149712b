"""20 Sequential gradient coding: total time against gradient coding, repeated rounds and no coding; exactness.

Krishnan, Ebrahimi and Khisti (2023), section 5, on generated profiles: parameters are chosen on one and judged on
others. Seconds are virtual, those of a profile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from thalweg.core import Run, Stop, solve
from thalweg.core.seeding import generator
from thalweg.datasets import load
from thalweg.distributed.coding import (
    CodedTraining,
    DataParallel,
    DelayProfile,
    GradientCode,
    GradientCoding,
    Multiplexed,
    Scheme,
    Uncoded,
    VirtualCluster,
    plan,
    replay,
    waterfall,
)
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Surface, Table, Tell
from thalweg.studies.intervals import median, median_interval, paired_ratio
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Relation, Verdict

OURS, PLAIN, BETWEEN = "M-SGC", "GC", "SR-SGC"
KINDS = {"Uncoded": "uncoded", "GradientCoding": "GC", "SelectiveRepeat": "SR-SGC", "Multiplexed": "M-SGC"}


@dataclass(frozen=True)
class Size:
    """Workers, rounds, seconds that all the data cost (the base of a round is one), chances to recover, seeds."""

    workers: int
    rounds: int
    slopes: tuple[float, ...]
    leaves: tuple[float, ...]
    seeds: int
    steps: int
    crowds: tuple[int, ...]


SIZES: dict[Scale, Size] = {
    "smoke": Size(16, 30, (2.0, 20.0), (0.3, 1.0), 2, 20, (16, 32)),
    "quick": Size(128, 120, (2.0, 8.0, 32.0, 128.0), (0.25, 0.5, 0.75, 1.0), 5, 120, (16, 64, 256)),
    "full": Size(
        256,
        480,
        (2.0, 8.0, 16.0, 32.0, 64.0, 128.0),
        (0.2, 0.4, 0.6, 0.8, 1.0),
        5,
        480,
        (16, 64, 256, 1024, 10_000),
    ),
}
#: Share of GC's round that the load takes, from which on the gain is claimed; and the gain.
REGIME, GAIN = 0.3, 0.16


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    seeds = tuple(range(1, size.seeds + 1))
    cells: dict[str, Cell] = {}
    pairs = [(slope, leave) for slope in size.slopes for leave in size.leaves]
    for k, (slope, leave) in enumerate(pairs):
        tell(0.7 * k / len(pairs), f"{slope:g} s for all the data, recovery {leave:g}: choosing")
        cells[f"{slope:g} s, recovery {leave:g}"] = _cell(size, slope, leave)
    scores = contest(
        {name: functools.partial(_judged, size, cell) for name, cell in cells.items()},
        {kind: {"the best found": _entry(kind)} for kind in KINDS.values()},
        ours=OURS,
        what="seconds",
        tuning_seeds=(),
        judging_seeds=seeds,
        needs_convergence=False,
        tell=lambda share, what: tell(0.7 + 0.1 * share, what),
    )
    tell(0.8, "more and more workers")
    crowd = _crowd(size)
    tell(0.88, "training")
    training = _training(size)
    return Evidence(
        verdicts=[*_verdicts(scores, cells), *_exact(size, training)],
        table=[*scores.table(), *_chosen(cells)],
        figures=[*_maps(size, scores), crowd, training["figure"], *_picture(size)],
        costs=scores.costs(),
        notes=(
            f"{scores.seeds} judging seeds. The parameters of every kind are the best of all that it can have, with "
            "bursts of at most 6 and windows of at most 10, on a profile of another seed; judged on others of the same "
            "sort. A round lasts one second and the load's, five times the second for stragglers, 5 % of jitter. "
            f"Whether the load takes {REGIME:.0%} of GC's round is read from the profile that is chosen on. "
            f"{scores.notes()}"
        ),
    )


@dataclass(frozen=True)
class Cell:
    """A sort of profiles: seconds for all the data, chance to recover; each kind's best scheme on one of them, and
    the load's share of GC's round.
    """

    slope: float
    leave: float
    schemes: Mapping[str, Scheme]
    share: float


def _profile(size: Size, slope: float, leave: float, seed: int) -> DelayProfile:
    """Two of a hundred workers begin to straggle in a round."""
    return DelayProfile.generated(size.rounds, size.workers, slope=slope, enter=0.02, leave=leave, seed=seed)


def _cell(size: Size, slope: float, leave: float) -> Cell:
    ranked = plan(_profile(size, slope, leave, 0), most_B=6, most_W=10).ranked
    schemes = {KINDS[type(scheme).__name__]: scheme for scheme, _ in ranked}
    seconds = {KINDS[type(scheme).__name__]: total for scheme, total in ranked}
    return Cell(slope, leave, schemes, slope * schemes[PLAIN].load * size.rounds / seconds[PLAIN])


def _judged(size: Size, cell: Cell, seed: int) -> tuple[Cell, DelayProfile]:
    return cell, _profile(size, cell.slope, cell.leave, seed)


def _entry(kind: str) -> Callable[[tuple[Cell, DelayProfile], int], float]:
    """What the kind's scheme takes on a profile."""
    return lambda job, seed: replay(job[1], job[0].schemes[kind]).total


def _crowd(size: Size) -> Figure:
    """Seconds a round of each kind's best, of more and more workers; all the data cost each 32 seconds."""
    found: dict[str, list[float]] = {name: [] for name in KINDS.values()}
    for workers in size.crowds:
        profiles = [
            DelayProfile.generated(60, workers, slope=32.0, enter=0.02, leave=0.75, seed=seed)
            for seed in (1, 2)
        ]
        for scheme, _ in plan(profiles[0], most_B=2, most_W=4).ranked:
            found[KINDS[type(scheme).__name__]].append(replay(profiles[1], scheme).total / 60)
    return Figure(
        "More workers",
        "Parameters chosen on one profile, judged on another; 32 s for all the data by one worker.",
        "workers",
        "seconds a round",
        [Series(name, [float(n) for n in size.crowds], values) for name, values in found.items()],
        log_x=True,
    )


def _verdicts(scores: Standings, cells: Mapping[str, Cell]) -> list[Verdict]:
    """About ratios of M-SGC's time to GC's, seed by seed, over the cells where the load counts, and over the others."""
    ratio = {name: paired_ratio(found[OURS], found[PLAIN]) for name, found in scores.scores.items()}
    counts = [name for name in ratio if cells[name].share >= REGIME]
    rest = [name for name in ratio if name not in counts]
    where = f"load at least {REGIME:.0%} of GC's round, {len(counts)} of {len(cells)} cells"
    between = [
        (found[OURS] <= found[BETWEEN]) & (found[BETWEEN] <= 1.005 * found[PLAIN])
        for found in (scores.scores[name] for name in counts)
    ]

    def over(names: list[str], pick: Callable[..., Any]) -> Any:
        return pick([ratio[name] for name in names], axis=0) if names else np.full(scores.seeds, np.inf)

    fastest = [
        found[OURS] / np.min([v for kind, v in found.items() if kind != OURS], axis=0)
        for found in (scores.scores[name] for name in counts)
    ]
    shares = np.mean(between, axis=0) if counts else np.zeros(scores.seeds)
    best = np.median(fastest, axis=0) if counts else np.full(scores.seeds, np.inf)

    def verdict(claim: str, values: Any, required: float, relation: Relation = "<=") -> Verdict:
        return Verdict(claim, median(values), required, relation, median_interval(values))

    return [
        verdict(f"{where}: seconds, M-SGC / GC, median cell", over(counts, np.median), 1.0 - GAIN),
        verdict("the same, the worst cell", over(counts, np.max), 1.0 - GAIN),
        verdict(f"{where}: seconds, M-SGC / best of the other 3, median cell", best, 1.0),
        verdict("smaller load: seconds, M-SGC / GC, median cell", over(rest, np.median), 1.0),
        verdict(
            f"{where}: share in which SR-SGC is between M-SGC and GC, within half a per cent",
            shares,
            0.9,
            ">=",
        ),
    ]


def _digits() -> DataParallel:
    data = load("digits")
    X = torch.tensor(data.X / 16.0, dtype=torch.float32)
    y = torch.tensor(data.y, dtype=torch.int64)
    return DataParallel(
        lambda: nn.Linear(64, 10), lambda out, y: nn.functional.cross_entropy(out, y, reduction="sum"), X, y
    )


def _training(size: Size) -> Row:
    """Digits with sixteen workers: loss by seconds, and the worst distance from synchronous training by jobs."""
    schemes: dict[str, Scheme] = {
        "uncoded": Uncoded(16),
        "GC, s = 3": GradientCoding(16, 3),
        "M-SGC, B = 1, W = 2, lam = 4": Multiplexed(16, 1, 2, 4),
    }
    profile = DelayProfile.generated(size.steps, 16, slope=16.0, enter=0.03, leave=0.8, seed=11)
    curves, models = [], {}
    for name, scheme in schemes.items():
        seen: list[Any] = []

        def look(run: Run, seen: list[Any] = seen) -> None:
            seen.append((run.state.jobs, run.state.models, run.state.metrics))

        solve(
            _digits(),
            CodedTraining(scheme, VirtualCluster(profile), lr=2.0),
            stop=Stop(steps=size.steps),
            callbacks=[look],
            progress=False,
        )
        done = [(m["seconds"], m["loss"]) for _, _, m in seen if "loss" in m]
        curves.append(Series.of(name, *np.array(done).T))
        models[name] = (scheme.delay + 1, seen)
    reference = {jobs: rows[0] for jobs, rows, _ in models["uncoded"][1]}
    worst = 0.0
    for count, seen in models.values():
        for jobs, rows, _ in seen:
            own = (jobs + count - 1) // count  # steps of the first model
            if own in reference:
                gap = torch.linalg.vector_norm(rows[0] - reference[own]) / torch.linalg.vector_norm(
                    reference[own]
                )
                worst = max(worst, float(gap))
    figure = Figure(
        "Training digits, sixteen workers",
        "The first of the interleaved models; virtual seconds. M-SGC trains two models in that time.",
        "seconds",
        "mean loss",
        curves,
        log_y=True,
    )
    return {"figure": figure, "worst": worst}


def _exact(size: Size, training: Row) -> list[Verdict]:
    random, worst = generator(0, 0x20), 0.0
    for s in {1, max(size.workers // 16 - 1, 1), max(size.workers // 16, 1), size.workers // 8}:
        code = GradientCode(size.workers, s)
        g = random.standard_normal((size.workers, 50))
        for _ in range(10):
            arrived = np.sort(random.permutation(size.workers)[: size.workers - s])
            total = code.decoding(arrived) @ (code.encoding @ g)[arrived]
            worst = max(worst, float(np.linalg.norm(total - g.sum(0)) / np.linalg.norm(g.sum(0))))
    return [
        Verdict(f"Decoded gradients, {size.workers} workers: largest relative error", worst, 1e-6),
        Verdict(
            "Parameters by step against uncoded training: largest relative distance", training["worst"], 1e-3
        ),
    ]


def _chosen(cells: Mapping[str, Cell]) -> Table:
    return [
        {
            "problem": name,
            "contestant": kind,
            "setting": repr(scheme),
            "load": scheme.load,
            "load's share": cell.share,
        }
        for name, cell in cells.items()
        for kind, scheme in cell.schemes.items()
    ]


def _maps(size: Size, scores: Standings) -> list[Figure]:
    def surface(against: str) -> Surface:
        def gain(slope: float, leave: float) -> float:
            found = scores.scores[f"{slope:g} s, recovery {leave:g}"]
            return 100.0 * (1.0 - median(paired_ratio(found[OURS], found[against])))

        z = [[gain(slope, leave) for leave in size.leaves] for slope in size.slopes]
        return Surface(list(size.leaves), [float(np.log2(s)) for s in size.slopes], z)

    return [
        Figure(
            f"M-SGC below {against}, per cent of its time",
            "Left: long bursts; right: single late rounds. Up: computing counts more.",
            "chance to recover in a round",
            "log2 of the seconds that all the data cost",
            [],
            surface=surface(against),
        )
        for against in (PLAIN, BETWEEN, "uncoded")
    ]


def _picture(size: Size) -> list[Figure]:
    profile = _profile(size, size.slopes[-1], size.leaves[-1], 1)
    best = plan(profile).best
    few = DelayProfile(profile.seconds[:60], slope=profile.slope)
    return waterfall(replay(few, best), few, f"{type(best).__name__}: sixty rounds")
