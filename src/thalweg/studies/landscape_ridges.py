"""32: mountainside and ridge: runs that part early end in different valleys, late ones share one.

Singh, Adilova, Kamp, Fischer, Schoelkopf and Hofmann (2024), "Landscaping linear mode connectivity" (arXiv 2406.16300).
The abstract's claims, on networks of our own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.datasets import load
from thalweg.landscape import LossSurface, Mountainside, Ridges, Spawned, layer_table, plane, ridges, spawn
from thalweg.landscape.branches import rank_correlation
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.verdict import Pair, Relation, Verdict

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Size:
    """Shared steps, steps of a branch, branches, seeds, pairs of the toy, points on a side of the plane."""

    after: tuple[int, ...]
    steps: int
    branches: int
    seeds: int
    pairs: int
    plane: int


SIZES: dict[Scale, Size] = {
    "smoke": Size((0, 20), 20, 2, 1, 60, 5),
    "quick": Size((0, 100, 1000), 600, 3, 1, 500, 15),
    "full": Size((0, 30, 100, 300, 1000, 2000), 600, 4, 5, 500, 31),
}
#: Shared steps of the toy's pairs.
TOY = (0, 10, 20, 40, 80, 160)
RATE, BATCH, ROWS = 0.05, 8, 1300


def digits() -> tuple[Tensor, Tensor]:
    """Thirteen hundred digits, and their labels."""
    data = load("digits")
    X = torch.tensor(np.asarray(data.X)[:ROWS] / 16.0, dtype=torch.float32)
    return X, torch.tensor(np.asarray(data.y)[:ROWS]).long()


def network(seed: int) -> nn.Module:
    """64-32-32-10, rectified."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))


@dataclass(frozen=True, eq=False)
class Measured:
    """One seed's branches, and what was measured."""

    surface: LossSurface
    spawned: Spawned
    found: Ridges
    layers: Array  # (2, moments x layers): the rise where a layer moves, and its prediction
    connected: float  # barrier at 0 with four times the batch


def measured(size: Size, seed: int, data: tuple[Tensor, Tensor]) -> Measured:
    """Spawn, and measure between the branches."""
    module = network(seed)

    def optimizer(parameters: object) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=RATE, momentum=0.9)  # type: ignore[arg-type]

    spawned = spawn(
        module,
        data,
        optimizer,
        after=size.after,
        steps=size.steps,
        batch_size=BATCH,
        branches=size.branches,
        seed=seed,
    )
    larger = spawn(module, data, optimizer, after=[0], steps=size.steps, batch_size=4 * BATCH, seed=seed)
    surface = LossSurface(module, data)
    tables = [layer_table(surface, *ends[:2]) for ends in spawned.ends.values()]
    layers = np.array([np.concatenate([getattr(t, name) for t in tables]) for name in ("alone", "predicted")])
    connected = float(ridges(surface, larger).barrier[0, 0])
    return Measured(surface, spawned, ridges(surface, spawned), layers, connected)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    data = digits()
    table: Table = []
    found = []
    for seed in range(1, size.seeds + 1):
        tell(0.8 * (seed - 1) / size.seeds, f"branches, seed {seed}")
        found.append(measured(size, seed, data))
        frame = found[-1].found.to_frame()
        table += frame.assign(seed=seed).to_dict("records")  # type: ignore[arg-type]
    tell(0.8, "mountainside")
    toy, shares = _toy(size, table)
    tell(0.9, "a plane")
    first = found[0]
    picture = plane(
        first.surface, first.spawned.roots[0], *first.spawned.ends[0][:2], resolution=size.plane
    ).figure("The plane of the start and two ends")
    notes = (
        "Networks 64-32-32-10 on 1300 digits, SGD with momentum 0.9, rate 0.05, batches of 8. Barriers are those of "
        "the training loss. At quick scale claims are about one seed, and have no interval."
    )
    return Evidence(
        [*_verdicts(found, size), *toy], table, [first.found.figure(), picture, shares], notes=notes
    )


def _verdicts(found: list[Measured], size: Size) -> list[Verdict]:
    """Claims A to D, a number a seed."""
    after = np.asarray(size.after)
    barriers = np.array([m.found.barrier.mean(1) for m in found])  # (seeds, moments)
    early, late = barriers[:, after <= 100].mean(1), barriers[:, after >= min(1000, after.max())].mean(1)
    falling = [rank_correlation(after, row) for row in barriers]
    predicted = [m.found.rank_agreement for m in found]
    chord = [rank_correlation(m.found.distance.ravel(), m.found.barrier.ravel()) for m in found]
    layers = [rank_correlation(m.layers[0], m.layers[1]) for m in found]
    gain = [p - c for p, c in zip(predicted, chord, strict=True)]
    return [
        _verdict("mean barrier, up to 100 shared steps", early, 0.15, ">="),
        _verdict("mean barrier, 1000 shared steps and more", late, 0.05, "<="),
        _verdict("Spearman of barrier and shared steps", falling, -0.7, "<="),
        _verdict("Spearman of barrier and its prediction from the ends", predicted, 0.75, ">="),
        _verdict("the same, less that of the chord's length", gain, 0.0, ">="),
        _verdict("Spearman of a layer's rise and its prediction", layers, 0.7, ">="),
        _verdict("barrier without shared steps, batches of 32", [m.connected for m in found], 0.05, "<="),
    ]


def _verdict(claim: str, values: Array | list[float], required: float | Pair, relation: Relation) -> Verdict:
    interval = median_interval(values) if len(values) >= 5 else None
    return Verdict(claim, median(values), required, relation, interval)


def _toy(size: Size, table: Table) -> tuple[list[Verdict], Figure]:
    """Claim E: on the mountainside pairs that part late share a valley, and only those have no barrier."""
    toy, shares, barriers, apart = Mountainside(), [], [], []
    for k in TOY:
        _, a, b = toy.spawned(k, size.pairs)
        same, barrier = toy.valley(a) == toy.valley(b), toy.barrier(a, b)
        shares.append(float(same.mean()))
        barriers.append(float(barrier.mean()))
        apart.append(float(((barrier < 0.5) == same).mean()))
        table.append({"after": k, "toy: share in one valley": shares[-1], "toy: mean barrier": barriers[-1]})
    x = [k + 1.0 for k in TOY]
    figure = Figure(
        "On the mountainside",
        f"{size.pairs} pairs of noisy descents.",
        "shared steps + 1",
        "share, or barrier",
        [Series("share in one valley", x, shares), Series("mean barrier", x, barriers)],
        log_x=True,
    )
    rise = float(np.diff(shares).min())
    return [
        Verdict("toy: share in one valley, no shared step", shares[0], 0.35, "<="),
        Verdict("toy: share in one valley, 160 shared steps", shares[-1], 0.95, ">="),
        Verdict(
            "toy: least growth of that share from one number of shared steps to the next", rise, 0.0, ">="
        ),
        Verdict(
            "toy: least share of pairs whose barrier is below 0.5 where and only where they share a valley",
            min(apart),
            1.0,
            ">=",
        ),
    ], figure
