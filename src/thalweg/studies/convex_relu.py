"""21: two-layer ReLU networks by convex optimization, against Adam from many starts.

Bai, Gautam and Sojoudi (2023), arXiv 2201.01965; the robust part also arXiv 2105.12237. An exact global optimum, a
trained network polished, refinement against plain sampling, sampled neurons, the factored ADMM, and adversarial
training.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from thalweg.convex import (
    ConvexReLU,
    ReLUADMM,
    RobustConvexReLU,
    SampledNeurons,
    all_patterns,
    polish,
    refine_patterns,
    sample_neurons,
    sample_patterns,
)
from thalweg.convex.relu.network import TwoLayerNetwork
from thalweg.core import InvalidProblem, Stop, solve
from thalweg.core.figure import Figure, Series
from thalweg.datasets import load
from thalweg.studies.evidence import Evidence, Row, Scale, Table, Tell
from thalweg.studies.intervals import log_slope, median, median_interval
from thalweg.studies.verdict import Verdict


@dataclass(frozen=True)
class Size:
    """Adam's starts of each width, its steps, judging seeds, rounds of refinement, sampled neurons, digits."""

    starts: int
    steps: int
    seeds: int
    rounds: int
    neurons: int
    digits: int
    attack: int


SIZES: dict[Scale, Size] = {
    "smoke": Size(3, 150, 1, 1, 500, 40, 10),
    "quick": Size(20, 3000, 1, 5, 5000, 80, 20),
    "full": Size(20, 3000, 5, 5, 5000, 80, 40),
}
#: Weight decay on the small example and on the diabetes data.
SMALL, DIABETES = 0.1, 10.0


def small_example(seed: int) -> tuple[Any, Any]:
    """16 points in the plane, with a column of ones."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((16, 2))
    y = np.sin(2 * x[:, 0]) + x[:, 0] * x[:, 1] + 0.1 * rng.standard_normal(16)
    return np.column_stack([x, np.ones(16)]), y


def diabetes() -> tuple[Any, Any]:
    """The diabetes data, standardised, without the column of ones."""
    data = load("diabetes")
    X, y = np.asarray(data.X), np.asarray(data.y, dtype=np.float64)
    return (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()


def adam(
    X: Any, y: Any, beta: float, width: int, seeds: Sequence[int], steps: int, rate: float = 1e-2
) -> Any:
    """Networks without output bias from several starts: hidden (s, m, d), output (s, m), objectives (s,)."""
    data, target = torch.tensor(X), torch.tensor(y)
    hidden, output = [], []
    for seed in seeds:
        generator = torch.Generator().manual_seed(1000 * width + seed)
        bounds = X.shape[1] ** -0.5, width**-0.5
        hidden.append(
            (2 * torch.rand(width, X.shape[1], generator=generator, dtype=torch.float64) - 1) * bounds[0]
        )
        output.append((2 * torch.rand(width, generator=generator, dtype=torch.float64) - 1) * bounds[1])
    W, a = torch.stack(hidden).requires_grad_(), torch.stack(output).requires_grad_()
    optimizer = torch.optim.Adam([W, a], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def objectives() -> torch.Tensor:
        f = torch.einsum("smn,sm->sn", torch.relu(W @ data.T), a)
        return 0.5 * (f - target).square().sum(1) + 0.5 * beta * (W.square().sum((1, 2)) + a.square().sum(1))

    for _ in range(steps):
        optimizer.zero_grad()
        objectives().sum().backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return W.numpy(), a.numpy(), objectives().numpy()


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    table: Table = []
    tell(0.0, "exact on a small example")
    verdicts, figure = _exact(size, table)
    tell(0.35, "diabetes")
    verdicts += _diabetes(size, table)
    tell(0.65, "time of an iteration")
    more, times = _iterations(table)
    tell(0.75, "adversaries")
    verdicts += [*more, *_robust(size, table)]
    notes = (
        "Adam has a cosine schedule from 0.01 and is run from many starts at once; nothing of ours was tuned. "
        "Objectives are regularised ones, of the recovered networks. The speed against an interior-point method is "
        "in the benchmarks."
    )
    return Evidence(verdicts, table, [figure, times], notes=notes)


def _exact(size: Size, table: Table) -> tuple[list[Verdict], Figure]:
    """Claim A: all 242 patterns, against Adam from many starts."""
    gaps, ratios, medians, series = [], [], [], []
    for seed in range(size.seeds):
        X, y = small_example(seed)
        problem = ConvexReLU(X, y, all_patterns(X), SMALL)
        result = solve(problem, stop=Stop(below={"gap": 1e-3, "violation": 1e-3}, steps=500), progress=False)
        value = result.metrics["objective"]
        found = {m: adam(X, y, SMALL, m, range(size.starts), size.steps)[2] for m in (5, 10, 50)}
        gaps.append(result.metrics["gap"])
        ratios.append(value / min(float(v.min()) for v in found.values()))
        medians.append(float(np.median(found[5])) / value)
        row: Row = {
            "workload": f"16 points, seed {seed}",
            "ours": value,
            "lower bound": problem.lower_bound(result.x),
        }
        row |= {f"Adam m={m}": f"{v.min():.4f} (median {np.median(v):.4f})" for m, v in found.items()}
        table.append(row)
        if seed == 0:
            series = [
                Series(f"Adam, {m} neurons", list(range(len(v))), np.sort(v).tolist())
                for m, v in found.items()
            ]
            series.append(Series("all patterns", [0.0, size.starts - 1.0], [value, value]))
    figure = Figure(
        "16 points: objectives by start",
        "Sorted; the line is the global optimum.",
        "start",
        "objective",
        series,
    )
    return [
        _verdict("16 points, all patterns: certified relative gap", gaps, 1e-3),
        _verdict("16 points: objective over the best of Adam's at widths 5, 10, 50", ratios, 1.001),
        _verdict("16 points: Adam's median at width 5 over the global optimum", medians, 1.1, least=True),
    ], figure


def _diabetes(size: Size, table: Table) -> list[Verdict]:
    """Claims B, C and C2: polish, refinement and sampled neurons, beside Adam's best."""
    inputs, y = diabetes()
    X = np.column_stack([inputs, np.ones(len(y))])
    hidden, output, values = adam(X, y, DIABETES, 50, range(max(size.seeds, 1)), size.steps)
    best = float(values.min())
    falls, ends, drawn = [], [], []
    for seed in range(size.seeds):
        start = TwoLayerNetwork(hidden[seed], output[seed][:, None], np.zeros(1))
        found = polish(_module(start), inputs, y, beta=DIABETES)
        plain = ConvexReLU(X, y, sample_patterns(X, 40, seed=seed), DIABETES)
        before = solve(plain, progress=False).metrics["objective"]
        problem, x = refine_patterns(plain, rounds=size.rounds, seed=seed)
        after = problem.metrics(x)["objective"]
        scp = SampledNeurons(X, y, sample_neurons(X, size.neurons, seed=seed), DIABETES)
        neurons = solve(scp, progress=False).metrics["objective"]
        falls.append(1.0 - after / before)
        ends.append(after / best)
        drawn.append(neurons / best)
        table.append(
            {
                "workload": f"diabetes, seed {seed}",
                "Adam m=50": float(values[seed]),
                "polished": found.after,
                "lower bound": found.certificate.lower,
                "40 patterns": before,
                "refined": after,
                f"{size.neurons} neurons": neurons,
            }
        )
    return [
        _verdict(
            "Diabetes: share by which refinement of 40 patterns lowers the objective", falls, 0.08, least=True
        ),
        _verdict("Diabetes: refined patterns over Adam's best", ends, 1.03),
        _verdict(f"Diabetes: {size.neurons} sampled neurons over Adam's best", drawn, 1.05),
    ]


def _module(network: TwoLayerNetwork) -> torch.nn.Sequential:
    module = network.to_module(hidden_bias=True)
    last = torch.nn.Linear(network.width, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(np.array(network.output.T)))
    return torch.nn.Sequential(module[0], module[1], last)


def _iterations(table: Table) -> tuple[list[Verdict], Figure]:
    """Claim D, what is ours of it: a certified optimum at 20 patterns, and the power of P in an iteration's time."""
    inputs, y = diabetes()
    X = np.column_stack([inputs, np.ones(len(y))])
    problem = ConvexReLU(X, y, sample_patterns(X, 20), DIABETES)
    result = solve(problem, progress=False)
    counts, seconds = [50, 100, 200, 400], []
    for count in counts:
        case = ConvexReLU(X, y, sample_patterns(X, count), DIABETES)
        method = ReLUADMM(balancing=False)
        state = method.step(case, method.init(case, 0))
        took = []
        for _ in range(3):
            begun = time.perf_counter()
            state = method.step(case, state)
            took.append((time.perf_counter() - begun) / method.iterations)
        seconds.append(min(took))
    power = log_slope(counts, seconds)
    table.append(
        {
            "workload": "diabetes, 20 patterns",
            "ours": result.metrics["objective"],
            "iterations": 20 * result.steps,
        }
    )
    series = [Series("measured", [float(c) for c in counts], seconds, dots=True)]
    caption = f"ADMM, diabetes. The power of a least-squares line is {power:.2f}."
    figure = Figure("An iteration's time", caption, "patterns", "seconds", series, log_x=True, log_y=True)
    return [
        Verdict("Diabetes, 20 patterns: certified relative gap of ADMM", result.metrics["gap"], 1e-3),
        Verdict("An iteration's time is linear in the patterns: power of P", power, (0.7, 1.3), "within"),
    ], figure


def threes_and_eights(count: int, seed: int) -> tuple[Any, Any, Any, Any]:
    """Digits 3 and 8 in [0, 1] with a column of ones: ``count`` rows to train on, and the rest."""
    data = load("digits")
    labels = np.asarray(data.y)
    kept = np.isin(labels, (3, 8))
    X = np.column_stack([np.asarray(data.X)[kept] / 16.0, np.ones(int(kept.sum()))])
    y = np.where(labels[kept] == 3, 1.0, -1.0)
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:count], order[count:]
    return X[train], y[train], X[test], y[test]


def attacked(network: TwoLayerNetwork, X: Any, y: Any, radius: float, steps: int) -> float:
    """Accuracy after projected gradient ascent on the margin, signs of gradients, from the rows; ones stay."""
    W, a = network.hidden, network.output[:, 0]
    moved, mask = X.copy(), np.ptp(X, axis=0) > 0
    wrong = y * network.outputs(X)[:, 0] <= 0
    for _ in range(steps):
        g = ((moved @ W.T > 0) * a) @ W
        moved = moved - 2.5 * radius / steps * y[:, None] * np.sign(g) * mask
        moved = np.clip(moved, X - radius, X + radius)
        wrong |= y * network.outputs(moved)[:, 0] <= 0
    return 1.0 - float(wrong.mean())


def _robust(size: Size, table: Table) -> list[Verdict]:
    """Claim E: exact cones are refused beyond margins, and bound attacks below; the relaxed program is of use."""
    gains, bounded = [], []
    radius, refused = 0.1, 0
    for seed in range(max(size.seeds, 2)):
        X, y, X_test, y_test = threes_and_eights(size.digits, seed)
        patterns = sample_patterns(X, 6, seed=seed, radius=radius, mask=np.ptp(X, axis=0) > 0)
        try:
            RobustConvexReLU(X, y, patterns, 1.0, radius)
        except InvalidProblem:
            refused += 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            relaxed = RobustConvexReLU(X, y, patterns, 1e-2, radius, exact=False)
            plain = ConvexReLU(X, y, patterns, 1e-2, "hinge")
            nets = (
                relaxed.network(solve(relaxed, progress=False).x),
                plain.network(solve(plain, progress=False).x),
            )
        hit = [attacked(net, X_test, y_test, radius, size.attack) for net in nets]
        clean = [float((y_test * net.outputs(X_test)[:, 0] > 0).mean()) for net in nets]
        gains.append(hit[0] - hit[1])
        bounded.append(_bounded(seed, size.attack))
        table.append(
            {
                "workload": f"digits 3 v 8, seed {seed}",
                "relaxed, attacked": hit[0],
                "plain, attacked": hit[1],
                "relaxed": clean[0],
                "plain": clean[1],
            }
        )
    return [
        Verdict(
            "Digits, radius 0.1: share of draws whose exact robust cones are refused",
            refused / max(size.seeds, 2),
            1.0,
            ">=",
        ),
        _verdict("Small radius: attacked hinge losses over the exact robust objective", bounded, 1.0),
        _verdict(
            "Digits, radius 0.1: accuracy under attack, relaxed less plain convex", gains, 0.2, least=True
        ),
    ]


def _bounded(seed: int, steps: int) -> float:
    """The largest sum of hinge losses that an attack reaches on the rows, over the robust objective; radius 0.02."""
    X, y = small_example(seed)
    labels = np.where(y > 0, 1.0, -1.0)
    patterns = sample_patterns(X, 60, seed=seed, radius=0.02)
    problem = RobustConvexReLU(X, labels, patterns, 0.05, 0.02)
    result = solve(problem, progress=False)
    network, moved = problem.network(result.x), X.copy()
    worst = np.maximum(1 - labels * network.outputs(X)[:, 0], 0.0)
    for _ in range(steps):
        g = ((moved @ network.hidden.T > 0) * network.output[:, 0]) @ network.hidden
        moved = np.clip(moved - 0.01 * labels[:, None] * np.sign(g) * [1, 1, 0], X - 0.02, X + 0.02)
        worst = np.maximum(worst, np.maximum(1 - labels * network.outputs(moved)[:, 0], 0.0))
    return float(worst.sum()) / result.metrics["objective"]


def _verdict(claim: str, values: list[float], required: float, *, least: bool = False) -> Verdict:
    """The median over seeds with its interval; one seed is told without."""
    interval = median_interval(values) if len(values) >= 5 else None
    return Verdict(claim, median(values), required, ">=" if least else "<=", interval)
