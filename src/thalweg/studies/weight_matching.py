"""29: networks from different seeds are linearly connected once units are permuted, though they stay far apart.

Ito, Yamada and Kumagai (2025), "Analysis of linear mode connectivity via permutation-based weight matching" (arXiv
2402.04051); Ainsworth, Hayase and Srinivasa (2023), "Git re-basin" (arXiv 2209.04836). The claims on digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.core import Method, solve
from thalweg.datasets import load
from thalweg.landscape import LossSurface, interpolate
from thalweg.landscape.branches import train_together
from thalweg.landscape.permutation import (
    ActivationMatching,
    PermutationSpec,
    Rebasin,
    StraightThrough,
    WeightMatching,
    alignment,
    merge_many,
    mixed,
    trace_permutations,
)
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.verdict import Verdict

State = dict[str, Tensor]
TRAIN, POINTS, SEEDS = 1300, 11, 4


@dataclass(frozen=True)
class Size:
    """Hidden units, steps of training, learning rate, groups of four networks, steps of the straight-through method."""

    width: int
    steps: int
    rate: float
    groups: int
    through: int


SIZES: dict[Scale, Size] = {
    "smoke": Size(16, 60, 1e-2, 1, 10),
    "quick": Size(64, 800, 1e-2, 1, 300),
    "full": Size(64, 800, 1e-2, 5, 300),
}


def digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Thirteen hundred digits to train on, the other 497 to judge by; drawn at random."""
    table = load("digits")
    X = torch.tensor(np.asarray(table.X) / 16.0, dtype=torch.float32)
    y = torch.tensor(np.asarray(table.y)).long()
    order = torch.from_numpy(np.random.default_rng(0x29).permutation(len(y)))
    return (X[order[:TRAIN]], y[order[:TRAIN]]), (X[order[TRAIN:]], y[order[TRAIN:]])


def network(width: int, seed: int) -> nn.Sequential:
    """64-w-w-10, rectified."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        )


def cosine(step: int, steps: int) -> float:
    """A factor of the learning rate that falls to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * step / steps))


def trained(size: Size, group: int, data: tuple[Tensor, Tensor]) -> list[State]:
    """Four networks from different seeds, trained as one stack by Adam with L2 3e-4."""
    starts = [
        {n: p.detach() for n, p in network(size.width, SEEDS * group + k).named_parameters()}
        for k in range(SEEDS)
    ]

    def optimizer(parameters: object) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=size.rate, weight_decay=3e-4)  # type: ignore[arg-type]

    return train_together(
        network(size.width, 0),
        starts,
        data,
        optimizer,
        steps=size.steps,
        batch_size=64,
        schedule=cosine,
        seed=group,
    )


class Judge:
    """Losses, accuracies and matchings of one architecture on the digits."""

    def __init__(self, size: Size, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> None:
        self.module = network(size.width, 0)
        self.train, self.test = train, test
        self.surface = LossSurface(self.module, train)
        self.spec: PermutationSpec = trace_permutations(self.module)

    def barrier(self, a: State, b: State) -> float:
        return interpolate(self.surface, a, b, POINTS).barrier

    def curve(self, a: State, b: State) -> list[float]:
        return interpolate(self.surface, a, b, POINTS).values.tolist()

    def accuracy(self, state: State) -> float:
        with torch.no_grad():
            found = torch.func.functional_call(self.module, state, (self.test[0],)).argmax(1)
        return float((found == self.test[1]).double().mean())

    def matched(self, a: State, b: State, method: Method, seed: int = 0) -> State:
        problem = Rebasin(a, b, self.spec, self.module, self.train)
        return self.spec.apply(b, solve(problem, method, seed=seed, progress=False).x)


def distance(a: State, b: State) -> float:
    """Between weights."""
    return math.sqrt(sum(float((a[n] - b[n]).double().square().sum()) for n in a))


def aligned(a: State, b: State, gamma: float) -> float:
    """R of two networks."""
    return alignment(a, b, gamma).total


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    train, test = digits()
    judge = Judge(size, train, test)
    methods: dict[str, Callable[[State, State], State]] = {
        "none": lambda a, b: b,
        "weights": lambda a, b: judge.matched(a, b, WeightMatching()),
        "activations": lambda a, b: judge.matched(a, b, ActivationMatching()),
        "straight through": lambda a, b: judge.matched(a, b, StraightThrough(steps=size.through), 1),
    }
    rows: list[dict[str, dict[str, float]]] = []
    many: list[dict[str, float]] = []
    curves: list[Series] = []
    for group in range(size.groups):
        tell(group / size.groups, f"four networks, group {group + 1}")
        states = trained(size, group, train)
        measured, firsts = _group(judge, states, methods)
        rows.append(measured)
        many.append(_many(judge, states[:3]))
        if not curves:
            at = np.linspace(0, 1, POINTS).tolist()
            curves = [Series(n, at, judge.curve(states[0], moved)) for n, moved in firsts.items()]
    table: Table = [
        {"method": name, **{key: float(np.mean([r[name][key] for r in rows])) for key in rows[0][name]}}
        for name in methods
    ]
    table.append({"method": "merge of three", **{k: float(np.mean([m[k] for m in many])) for k in many[0]}})
    figure = Figure(
        "Loss between two networks",
        "On the training data, by how the second's units were matched to the first's.",
        "place",
        "loss",
        curves,
    )
    notes = (
        f"Networks 64-{size.width}-{size.width}-10; three pairs of four seeds a group, "
        f"{size.groups} groups; numbers are medians over groups of means over pairs. "
        "Straight through begins at a random permutation."
    )
    return Evidence(_verdicts(rows, many), table, [figure], notes=notes)


def _group(
    judge: Judge, states: list[State], methods: dict[str, Callable[[State, State], State]]
) -> tuple[dict[str, dict[str, float]], dict[str, State]]:
    """For each method the means over pairs (first, other), the barrier between two others; and the first of these."""
    a, others = states[0], states[1:]
    found: dict[str, dict[str, float]] = {}
    firsts = {}
    for name, method in methods.items():
        moved = [method(a, b) for b in others]
        firsts[name] = moved[0]
        middles = [mixed([a, m], [0.5, 0.5]) for m in moved]
        values = {
            "barrier": [judge.barrier(a, m) for m in moved],
            "accuracy": [judge.accuracy(m) for m in middles],
            "ends": [(judge.accuracy(a) + judge.accuracy(b)) / 2 for b in others],
            "distance": [distance(a, m) / distance(a, b) for m, b in zip(moved, others, strict=True)],
            "R 0": [aligned(a, m, 0.0) for m in moved],
            "R 0.3": [aligned(a, m, 0.3) for m in moved],
            "R 0.5": [aligned(a, m, 0.5) for m in moved],
            "R of midpoint": [aligned(a, m, 0.3) for m in middles],
        }
        found[name] = {key: float(np.mean(v)) for key, v in values.items()}
        found[name]["between others"] = judge.barrier(moved[0], moved[1])
    return found, firsts


def _many(judge: Judge, states: list[State]) -> dict[str, float]:
    mean, _ = merge_many(states, judge.spec, module=judge.module)
    share = [1 / len(states)] * len(states)
    return {
        "merged": judge.accuracy(mean),
        "naive": judge.accuracy(mixed(states, share)),
        "single": float(np.mean([judge.accuracy(s) for s in states])),
    }


def _verdicts(rows: list[dict[str, dict[str, float]]], many: list[dict[str, float]]) -> list[Verdict]:
    def number(method: str, key: str) -> np.ndarray:
        return np.array([r[method][key] for r in rows])

    weights, none, through, alike = "weights", "none", "straight through", "activations"

    def rise(key: str) -> np.ndarray:
        return number(weights, key) - number(none, key)

    def share(key: str, one: str, other: str) -> np.ndarray:
        return number(one, key) / number(other, key)

    lost = number(weights, "ends") - number(weights, "accuracy")
    gained = np.array([m["merged"] - m["naive"] for m in many])
    short = np.array([m["single"] - m["merged"] for m in many])
    third = "barrier between two matched to a third"
    found = [
        ("barrier after weight matching over before", share("barrier", weights, none), 0.12, "<="),
        ("accuracy of the ends less that of the midpoint", lost, 0.03, "<="),
        ("distance after weight matching over before", number(weights, "distance"), (0.6, 0.95), "within"),
        ("rise of R at 0.3", rise("R 0.3"), 0.2, ">="),
        ("R of the midpoint, matched less not", rise("R of midpoint"), 0.08, ">="),
        ("barrier, activations over weights", share("barrier", alike, weights), (0.5, 2.0), "within"),
        ("R at 0.3, activations over weights", share("R 0.3", alike, weights), (0.5, 2.0), "within"),
        ("R at 0.3, straight through over weights", share("R 0.3", through, weights), 0.7, "<="),
        (f"{third}, weights over none", share("between others", weights, none), 0.35, "<="),
        (f"{third}, straight through over weights", share("between others", through, weights), 2.0, ">="),
        ("accuracy of a merge of three less the naive mean's", gained, 0.1, ">="),
        ("accuracy of one network less that of a merge of three", short, 0.04, "<="),
    ]
    return [_verdict(*row) for row in found]  # type: ignore[arg-type]


def _verdict(claim: str, values: np.ndarray, required: float | tuple[float, float], relation: str) -> Verdict:
    interval = median_interval(values) if len(values) >= 5 else None
    return Verdict(claim, median(values), required, relation, interval)  # type: ignore[arg-type]
