"""19: light Schrodinger bridge: a plan in closed form from samples that nothing pairs, in seconds on one core.

Korotin, Gushchin and Burnaev (2024), "Light Schrodinger bridge" (arXiv 2310.01174), section 5; pairs with known plans
after Gushchin et al. (2023), arXiv 2306.10161.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core.seeding import generator, torch_generator
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.verdict import Verdict
from thalweg.transport import (
    Bridge,
    EntropicTransport,
    LightSB,
    annealed,
    bw2,
    conditional_bw2_uvp,
    energy_distance,
    eot_pair,
    leave_one_time_out,
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """Dimensions, eps, components and steps of ours, the error in per cent that it has to reach, stages of eps."""

    D: int
    eps: float
    K: int
    steps: int
    required: float
    stages: int = 1

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"D {self.D}, eps {self.eps:g}"


#: The thresholds are those of the median over seeds, for 20 000 samples of each cloud.
PAIRS = (
    Pair(2, 1.0, 20, 600, 0.1),
    Pair(16, 0.1, 50, 1000, 0.8, 2),
    Pair(64, 1.0, 20, 600, 2.0),
    Pair(16, 1.0, 50, 600, 0.8),
)
#: eps, components and steps on the roll, and the energy distance to be reached.
ROLLS = ((0.1, 100, 600, 0.0002), (0.01, 300, 600, 0.001), (0.002, 300, 600, 0.002))


#: Seeds from here on are judged; K, steps and stages above were chosen on seeds 0 to 3.
FIRST = 11
#: Dimensions from which on few samples are a race with Sinkhorn.
RACED = 16


@dataclass(frozen=True)
class Size:
    """Samples of a cloud, of the small race, of a roll; seeds; points that are judged; how many pairs, rolls."""

    samples: int
    few: int
    roll: int
    seeds: int
    judged: int
    pairs: int
    rolls: int
    steps: int | None = None


SIZES: dict[Scale, Size] = {
    "smoke": Size(600, 100, 300, 1, 20, 2, 1, steps=20),
    "quick": Size(20_000, 1000, 5000, 1, 100, 3, 1),
    "full": Size(20_000, 1000, 5000, 5, 200, 4, 3),
}


def normal(n: int, D: int, *seed: int) -> Tensor:
    """Samples of N(0, I)."""
    return torch.randn(n, D, dtype=torch.float64, generator=torch_generator(*seed))


def fitted(x0: Tensor, x1: Tensor, eps: float, K: int, steps: int, seed: int, stages: int = 1) -> Bridge:
    """Ours, with its defaults."""
    problem = EntropicTransport(x0, x1, eps, min(K, len(x1)))
    return problem.bridge(annealed(problem, LightSB(steps), stages=stages, seed=seed).x)


def sinkhorn(x: Tensor, y: Tensor, eps: float, tol: float = 1e-4, most: int = 5000) -> tuple[Tensor, int]:
    """The optimal plan of two samples, rows summing to one, and iterations: Sinkhorn's with absorbed potentials.

    A few iterations are done in logarithms; from there on scalings are kept near one, by moving them into the plan.
    """
    C = torch.cdist(x, y) ** 2 / (2 * eps)
    a, b = -math.log(len(x)), -math.log(len(y))
    g, done = torch.zeros_like(C[0]), 0
    for _ in range(5):
        f = a - (g - C).logsumexp(1)
        g = b - (f[:, None] - C).logsumexp(0)
    while True:
        P = (f[:, None] + g - C).exp()
        if done >= most or float((P.sum(1) - math.exp(a)).abs().sum()) <= tol:
            return P / P.sum(1, keepdim=True), done
        u, v = torch.ones_like(f), torch.ones_like(g)
        for _ in range(50):
            u, v, done = math.exp(a) / (P @ v), math.exp(b) / (P.T @ (math.exp(a) / (P @ v))), done + 1
            if float(v.log().abs().max()) > 30:
                break
        f, g = f + u.log(), g + v.log()


def sinkhorn_error(exact: Bridge, x: Tensor, y: Tensor, rows: int, variance: float) -> tuple[float, int]:
    """cBW2-UVP of the samples' own optimal plan at its first ``rows`` points, and its iterations."""
    P, iterations = sinkhorn(x, y, exact.eps)
    P = P[:rows]
    mean = P @ y
    second = (P @ (y[:, :, None] * y[:, None, :]).flatten(1)).view(rows, *y.shape[1:], -1)
    covariance = second - mean[:, :, None] * mean[:, None, :]
    between = bw2(exact.barycentric(x[:rows]), exact.conditional_covariance(x[:rows]), mean, covariance)
    return float(200 * between.mean() / variance), iterations


def roll(n: int, seed: int) -> Tensor:
    """The Swiss roll of two dimensions, noise 0.8, over 7.5."""
    drawn = generator(seed, 0x19)
    angle = 1.5 * math.pi * (1 + 2 * drawn.random(n))
    points = np.stack([angle * np.cos(angle), angle * np.sin(angle)], 1) + 0.8 * drawn.standard_normal((n, 2))
    return torch.from_numpy(points / 7.5)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size, table, verdicts = SIZES[scale], list[dict[str, object]](), list[Verdict]()
    errors: dict[str, tuple[list[float], list[float]]] = {}
    for i, pair in enumerate(PAIRS[: size.pairs]):
        tell(0.7 * i / size.pairs, pair.name)
        found = [_judged(pair, seed, size) for seed in range(FIRST, FIRST + size.seeds)]
        table += [row for row, *_ in found]
        many, few, rival = (np.array([f[k] for f in found], float) for k in (1, 2, 3))
        verdicts.append(
            _verdict(f"{pair.name}: cBW2-UVP in per cent, {size.samples} samples", many, pair.required)
        )
        if pair.D >= RACED:
            errors[pair.name] = list(few), list(rival)
            claim = f"{pair.name}: cBW2-UVP from {size.few} samples over that of Sinkhorn's plan of them"
            verdicts.append(_verdict(claim, few / rival, 1 / 3))
    rolls, noise = _rolls(size, table, tell)
    tell(0.95, "snapshots")
    rolls.append(_snapshots(size, table))
    names = list(errors)
    figure = Figure(
        "From a thousand samples",
        "Error of the conditional plan in per cent, the median over seeds.",
        "pair " + ", ".join(f"{i + 1}: {n}" for i, n in enumerate(names)),
        "cBW2-UVP, %",
        [
            Series(label, [float(i + 1) for i in range(len(names))], [median(errors[n][k]) for n in names])
            for k, label in enumerate(("LightSB (ours)", "Sinkhorn"))
        ],
        log_y=True,
    )
    notes = (
        "x of N(0, I), five potentials of radius 5 with rotated covariances. Sinkhorn's iteration is our own, to 1e-4 "
        "of the marginals; it answers at its own samples only. K, steps and stages of eps were chosen on seeds 0 to 3. "
        "At quick scale claims are about one seed, without interval."
    )
    return Evidence([*verdicts, *rolls], table, [figure, noise], notes=notes)


def _judged(pair: Pair, seed: int, size: Size) -> tuple[dict[str, object], float, float, float]:
    """A row of the table; errors of ours from many samples and from few, and Sinkhorn's from the few."""
    exact = eot_pair(pair.D, pair.eps, seed=seed)
    steps = size.steps or pair.steps
    x0, before = normal(size.samples, pair.D, seed, 0), normal(size.samples, pair.D, seed, 1)
    x1 = exact.sample(before, torch_generator(seed, 2))
    variance, x = float(x1.var(0).sum()), x0[: size.judged]
    ours = conditional_bw2_uvp(exact, fitted(x0, x1, pair.eps, pair.K, steps, seed, pair.stages), x, variance)
    row: dict[str, object] = {"pair": pair.name, "seed": seed, f"ours, {size.samples} samples": ours}
    if pair.D < RACED:
        return row, ours, math.nan, math.nan
    few0, few1 = x0[: size.few], x1[: size.few]
    small = conditional_bw2_uvp(
        exact, fitted(few0, few1, pair.eps, 20, steps, seed, pair.stages), x, variance
    )
    rival, iterations = sinkhorn_error(exact, few0, few1, size.judged, variance)
    row[f"ours, {size.few} samples"], row[f"Sinkhorn, {size.few} samples"] = small, rival
    row["Sinkhorn's iterations"] = iterations
    return row, ours, small, rival


def _rolls(size: Size, table: Table, tell: Tell) -> tuple[list[Verdict], Figure]:
    """Energy distances of drawn ends to new samples of the roll, and the noise that is left."""
    verdicts, noises, epsilons = [], [], []
    for i, (eps, K, steps, required) in enumerate(ROLLS[: size.rolls]):
        tell(0.7 + 0.3 * i / size.rolls, f"roll, eps {eps:g}")
        distances, noise = [], []
        for seed in range(FIRST, FIRST + size.seeds):
            bridge = fitted(
                normal(size.roll, 2, seed, 3), roll(size.roll, seed), eps, K, size.steps or steps, seed
            )
            x = normal(size.roll, 2, seed, 4)
            end = bridge.sample(x, torch_generator(seed, 5))
            distances.append(energy_distance(end, roll(size.roll, 1000 + seed)))
            inside = bridge.conditional_covariance(x[:1000]).diagonal(dim1=1, dim2=2)
            noise.append(float(inside.sum(1).mean()))
            table.append(
                {
                    "pair": f"roll, eps {eps:g}",
                    "seed": seed,
                    "energy distance": distances[-1],
                    "noise": noise[-1],
                }
            )
        verdicts.append(_verdict(f"Swiss roll, eps {eps:g}: energy distance", np.array(distances), required))
        noises.append(median(noise))
        epsilons.append(eps)
    figure = Figure(
        "Noise that is left on the roll",
        "",
        "eps",
        "total variance of y given x",
        [Series("LightSB (ours)", epsilons, noises)],
        log_x=True,
        log_y=True,
    )
    return verdicts, figure


def branching(seed: int, n: int = 400, D: int = 10) -> list[Array]:
    """A population at five times: one heap that parts into three branches, which turn half way."""
    drawn = generator(seed, 0x19, n)
    ways = drawn.standard_normal((2, 3, D))
    ways /= np.linalg.norm(ways, axis=2, keepdims=True)
    found = []
    for t in range(5):
        branch = drawn.integers(3, size=n)
        mean = min(t, 2) * ways[0][branch] + max(t - 2, 0) * ways[1][branch]
        found.append(2.0 * mean + 0.3 * drawn.standard_normal((n, D)))
    return found


def _snapshots(size: Size, table: Table) -> Verdict:
    """Each time left out in turn: how far the bridge of its neighbours passes, against lines of random pairs."""
    ratios = []
    for seed in range(FIRST, FIRST + size.seeds):
        steps = size.steps or 600
        found = leave_one_time_out(
            branching(seed), most=200, seed=seed, eps=0.1, n_components=10, steps=steps
        )
        ratios.append(float(found.bridge.mean() / found.line.mean()))
        means = {f"left out: {name}": float(found[name].mean()) for name in ("bridge", "line", "same")}
        table.append({"pair": "branches", "seed": seed, **means})
    claim = "branching population, a time left out: distance of the bridge over that of lines of random pairs"
    return _verdict(claim, np.array(ratios), 1.0)


def _verdict(claim: str, values: Array, required: float) -> Verdict:
    interval = median_interval(values) if len(values) >= 5 else None
    return Verdict(claim, median(values), required, "<=", interval)
