"""20 Sequential gradient coding: total time against gradient coding, repeated rounds and no coding; exactness.

Krishnan, Ebrahimi and Khisti (2023), section 5, on generated profiles: parameters are chosen on one and judged on
others.
"""

from __future__ import annotations

import time
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
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Surface, Table, Tell
from thalweg.studies.verdict import Verdict

#: Seconds are among the claims: it runs alone.
timed = True
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


CROWDS = (16, 64, 256, 1024, 10_000)
SIZES = {
    "smoke": Size(16, 30, (2.0, 20.0), (0.3, 1.0), 1, 20, (16, 32)),
    "quick": Size(
        256, 150, (2.0, 8.0, 32.0, 128.0), (0.25, 0.5, 0.75, 1.0), 3, 200, (16, 64, 256, 1024, 10_000)
    ),
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


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    cells = {}
    pairs = [(slope, leave) for slope in size.slopes for leave in size.leaves]
    for k, (slope, leave) in enumerate(pairs):
        tell(0.8 * k / len(pairs), f"{slope:g} s for all the data, recovery {leave:g}")
        cells[slope, leave] = [_cell(size, slope, leave, seed) for seed in range(size.seeds)]
    tell(0.8, "choosing among thousands of settings")
    seconds, tried = _search(size)
    tell(0.82, "up to ten thousand workers")
    crowd = _crowd(size)
    tell(0.88, "training")
    training = _training(size)
    return Evidence(
        verdicts=[*_verdicts(size, cells), *_speed(size, seconds, tried), *_exact(size, training)],
        table=_table(cells),
        figures=[*_maps(size, cells), crowd, training["figure"], *_picture(size)],
        notes="Parameters of every kind are chosen on one generated profile and judged on another of the same sort. "
        "A round lasts one second and the load's, five times the second for stragglers, with 5 % of jitter.",
    )


def _profile(size: Size, slope: float, leave: float, seed: int) -> DelayProfile:
    """Two of a hundred workers begin to straggle in a round."""
    return DelayProfile.generated(size.rounds, size.workers, slope=slope, enter=0.02, leave=leave, seed=seed)


def _cell(size: Size, slope: float, leave: float, seed: int) -> dict[str, tuple[Scheme, float]]:
    """Each kind's best on one profile, with its seconds on another."""
    chosen = plan(_profile(size, slope, leave, 2 * seed), most_B=6, most_W=10)
    other = _profile(size, slope, leave, 2 * seed + 1)
    return {KINDS[type(s).__name__]: (s, replay(other, s).total) for s, _ in chosen.ranked}


def _search(size: Size) -> tuple[float, int]:
    profile = DelayProfile.generated(2 * size.rounds, size.workers, slope=32.0, seed=7)
    start = time.perf_counter()
    found = plan(profile, most_B=3, most_W=9)
    return time.perf_counter() - start, found.tried


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


def _mean(cells: list[dict[str, tuple[Scheme, float]]], kind: str) -> float:
    return float(np.mean([cell[kind][1] for cell in cells]))


def _share(size: Size, slope: float, cells: list[dict[str, tuple[Scheme, float]]]) -> float:
    """The load's part of GC's round."""
    return float(np.mean([slope * c["GC"][0].load * size.rounds / c["GC"][1] for c in cells]))


def _verdicts(size: Size, cells: dict[tuple[float, float], Any]) -> list[Verdict]:
    below = {key: 1.0 - _mean(c, "M-SGC") / _mean(c, "GC") for key, c in cells.items()}
    regime = [key for key, c in cells.items() if _share(size, key[0], c) >= 0.3]
    between = [
        _mean(cells[key], "M-SGC") <= _mean(cells[key], "SR-SGC") <= 1.005 * _mean(cells[key], "GC")
        for key in regime
    ]
    rest = [below[key] for key in cells if key not in regime]
    return [
        Verdict(
            f"Load at least 30 % of GC's round ({len(regime)} of {len(cells)} cells): M-SGC's time below GC's, median",
            float(np.median([below[key] for key in regime])) if regime else np.nan,
            0.16,
            ">=",
        ),
        Verdict("The same: smallest gain", min((below[key] for key in regime), default=np.nan), 0.16, ">="),
        Verdict(
            "Smaller load: M-SGC's time below GC's, median",
            float(np.median(rest)) if rest else np.nan,
            0.0,
            ">=",
        ),
        Verdict(
            "SR-SGC between M-SGC and GC, share of those cells",
            float(np.mean(between)) if between else np.nan,
            0.9,
            ">=",
        ),
    ]


def _speed(size: Size, seconds: float, tried: int) -> list[Verdict]:
    name = f"Seconds to replay {tried} settings, {size.workers} workers x {2 * size.rounds} rounds"
    return [Verdict(name, seconds, 30.0)]


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


def _table(cells: dict[tuple[float, float], Any]) -> Table:
    rows = []
    for (slope, leave), found in cells.items():
        row: Row = {"seconds for all data": slope, "chance to recover": leave}
        for kind in KINDS.values():
            row[kind] = round(_mean(found, kind), 1)
        scheme = found[0]["M-SGC"][0]
        row["M-SGC's"] = f"B={scheme.B}, W={scheme.W}, lam={scheme.lam}"
        row["GC's s"] = found[0]["GC"][0].s
        row["SR-SGC's s"] = found[0]["SR-SGC"][0].s
        row["fastest"] = min(KINDS.values(), key=lambda kind: _mean(found, kind))
        rows.append(row)
    return rows


def _maps(size: Size, cells: dict[tuple[float, float], Any]) -> list[Figure]:
    def surface(against: str) -> Surface:
        z = [
            [100 * (1 - _mean(cells[s, b], "M-SGC") / _mean(cells[s, b], against)) for b in size.leaves]
            for s in size.slopes
        ]
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
        for against in ("GC", "SR-SGC", "uncoded")
    ]


def _picture(size: Size) -> list[Figure]:
    profile = _profile(size, size.slopes[-1], size.leaves[-1], 1)
    best = plan(profile).best
    few = DelayProfile(profile.seconds[:60], slope=profile.slope)
    return waterfall(replay(few, best), few, f"{type(best).__name__}: sixty rounds")
