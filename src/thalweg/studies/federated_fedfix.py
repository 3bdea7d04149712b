"""16 FedFix: loss against virtual time for clients of very different speed, and where uncorrected weights lead.

Fraboni, Vidal, Kameni and Lorenzi (2023), section 5: quadratic clients with known optima, and digits shared out by
class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from thalweg.core import Run, Stop, solve
from thalweg.datasets import load, load_text
from thalweg.distributed.federated import (
    Aggregation,
    AsyncFedAvg,
    ClientTimes,
    FedAvg,
    FedBuff,
    Federated,
    Federation,
    FedFix,
    design,
    dirichlet,
)
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.verdict import Verdict

SCHEMES: dict[str, Aggregation] = {
    "FedAvg": FedAvg(),
    "FedFix": FedFix(0.5),
    "FedBuff": FedBuff(10),
    "Async FedAvg": AsyncFedAvg(),
    "Async FedAvg, uncorrected": AsyncFedAvg(corrected=False),
}
#: Server rates tried, the best by the loss at the end taken for all seeds alike; those of asynchronous FedAvg, each of
#: whose aggregations moves the model by a whole client's weight, are lower.
RATES, ARRIVAL_RATES = (0.3, 1.0, 2.0), (0.03, 0.1, 0.3)


def _tried(name: str, clients: int) -> tuple[Aggregation, ...]:
    """A scheme at the paces it can be set to: where clients are 80 % faster, half a second or a quarter in both."""
    if name == "FedFix":
        return FedFix(0.5), FedFix(0.25)
    if name == "FedBuff":
        return FedBuff(clients), FedBuff(clients // 2)
    return (SCHEMES[name],)


@dataclass(frozen=True)
class Size:
    """Clients, virtual seconds (the slowest client's task is one), seeds, shares by which the fastest is faster."""

    clients: int
    seconds: float
    seeds: int
    faster: tuple[float, ...]
    crowd: tuple[int, ...]
    steps: int


SIZES = {
    "smoke": Size(4, 2.0, 1, (0.0, 0.8), (100,), 60),
    "quick": Size(20, 12.0, 3, (0.0, 0.8), (1000, 10_000, 100_000), 700),
    "full": Size(50, 100.0, 5, (0.0, 0.2, 0.4, 0.6, 0.8), (1000, 10_000, 100_000), 4000),
}


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    curves: dict[tuple[str, float], list[tuple[np.ndarray, np.ndarray]]] = {}
    for k, faster in enumerate(size.faster):
        for j, name in enumerate(SCHEMES):
            tell(0.75 * (k + j / len(SCHEMES)) / len(size.faster), f"digits, {faster:.0%} faster, {name}")
            curves[name, faster] = _best(size, name, faster)
    tell(0.75, "optima of quadratic clients")
    optima = {faster: _optima(faster, size.steps) for faster in (0.0, 0.2, 0.4, 0.6, 0.8)}
    tell(0.85, "next characters")
    text = {name: [_text_curve(size, SCHEMES[name], seed) for seed in range(size.seeds)] for name in TEXT}
    tell(0.92, "crowds")
    crowd = _crowd(size)
    masses = _masses(size)
    return Evidence(
        verdicts=[*_verdicts(size, curves, optima)],
        table=[*_table(curves), *_optima_table(optima)],
        figures=[*_figures(size, curves), _optima_figure(optima), _text_figure(text), crowd, *masses],
        notes=f"Every scheme has the best of three server rates for each speed, by the mean final loss: {RATES}, and "
        f"{ARRIVAL_RATES} for asynchronous FedAvg. FedFix and FedBuff also have the better of two paces: every half or "
        "quarter second, as many updates as clients or half as many. "
        "Loss is that of all clients, with equal importances of examples. Crowds are trained one by one, not sampled.",
    )


def _digits(clients: int, seed: int) -> Federated:
    data = load("digits")
    assert data.y is not None
    X, y = torch.tensor(data.X / 16.0, dtype=torch.float32), torch.tensor(data.y, dtype=torch.int64)
    parts = [torch.from_numpy(rows) for rows in dirichlet(data.y, clients, 0.1, seed)]
    shared = [(X[rows], y[rows]) for rows in parts]
    return Federated.from_module(lambda: nn.Linear(64, 10), nn.functional.cross_entropy, shared, seed=seed)


def _best(size: Size, name: str, faster: float) -> Any:
    """Curves of the seeds at the pace and server rate with the smallest final loss."""
    best, least = None, np.inf
    for scheme in _tried(name, size.clients):
        for rate in ARRIVAL_RATES if isinstance(scheme, AsyncFedAvg) else RATES:
            runs = [_curve(size, scheme, faster, rate, seed) for seed in range(size.seeds)]
            end = float(np.mean([losses[-5:].mean() for _, losses in runs]))
            if best is None or end < least:
                best, least = runs, end
    return best


def _curve(size: Size, scheme: Aggregation, faster: float, rate: float, seed: int) -> Any:
    times = ClientTimes.heterogeneous(size.clients, faster, "lognormal", 0.1)
    every = design(scheme, ClientTimes(times.means)).interval
    judge = max(int(size.seconds / every / 60), 1)
    method = Federation(scheme, times, lr=0.3, server_lr=rate, local_steps=5, batch=16, judge=judge)
    points = [(0.0, _digits(size.clients, seed).metrics(_digits(size.clients, seed).x0)["loss"])]

    def look(run: Run) -> bool:
        metrics = run.state.metrics
        if "loss" in metrics:
            points.append((metrics["seconds"], metrics["loss"]))
        return bool(metrics["seconds"] >= size.seconds)

    solve(_digits(size.clients, seed), method, stop=Stop(steps=100_000), seed=seed, callbacks=[look])
    seconds, losses = np.array(points).T
    grid = np.linspace(0.0, size.seconds, 60)
    return grid, np.interp(grid, seconds, losses)


def _optima(faster: float, steps: int) -> dict[str, float]:
    """How far from the optimum of equal importances ten quadratic clients end, the fast ones on the right."""
    clients = [(torch.full((1, 1), float(i)), torch.zeros(1)) for i in range(10)]
    problem = Federated(lambda theta, X, y: 0.5 * ((theta - X) ** 2).mean(), torch.zeros(1), clients)
    found = {}
    for name, scheme in {**SCHEMES, "FedFix, uncorrected": FedFix(0.5, False)}.items():
        tail: list[float] = []

        def look(run: Run, tail: list[float] = tail) -> None:
            tail.append(float(run.state.x[0]))

        method = Federation(
            scheme, ClientTimes.heterogeneous(10, faster), lr=0.02, local_steps=1, judge=10**9
        )
        solve(problem, method, stop=Stop(steps=steps), callbacks=[look])
        found[name] = abs(float(np.mean(tail[-steps // 2 :])) - 4.5)
    return found


def _crowd(size: Size) -> Figure:
    """Seconds between aggregations and updates taken, of many clients with log-normal times."""
    schemes = {"FedAvg": FedAvg(), "FedFix, mean time": FedFix(1.0), "FedBuff, a tenth": None}
    series = {name: [] for name in schemes}  # type: ignore[var-annotated]
    for clients in size.crowd:
        random = np.random.default_rng(0)
        times = ClientTimes(np.exp(0.5 * random.standard_normal(clients)))
        for name, scheme in schemes.items():
            made = FedBuff(clients // 10) if scheme is None else scheme
            found = design(made, times)
            series[name].append(float(found.participation.sum() / found.interval))
    return Figure(
        "Updates a second of virtual time",
        "Clients whose mean times spread as exp(0.5 normal).",
        "clients",
        "updates a second",
        [Series(name, [float(c) for c in size.crowd], values) for name, values in series.items()],
        log_x=True,
        log_y=True,
    )


#: Of the schemes, those that learn the text.
TEXT = ("FedAvg", "FedFix", "FedBuff")
CONTEXT = 4


def _text_clients(clients: int, windows: int) -> Federated:
    """Pieces of a text one after another, each about its own things; a character from the four before it."""
    corpus = load_text(characters=clients * windows * CONTEXT + 1)
    cut = torch.from_numpy(corpus.windows(CONTEXT).astype(np.int64))
    letters = len(corpus.alphabet)

    def model() -> nn.Module:
        return nn.Sequential(nn.Embedding(letters, 8), nn.Flatten(), nn.Linear(8 * CONTEXT, letters))

    parts = torch.tensor_split(cut[: clients * windows], clients)
    shared = [(part[:, :-1], part[:, -1]) for part in parts]
    return Federated.from_module(model, nn.functional.cross_entropy, shared)


def _text_curve(size: Size, scheme: Aggregation, seed: int) -> Any:
    """Mean loss of the next character in virtual time, the fastest client four times as fast."""
    problem = _text_clients(size.clients, 200 if size.clients > 6 else 20)
    times = ClientTimes.heterogeneous(size.clients, 0.75, "lognormal", 0.1)
    method = Federation(scheme, times, lr=0.5, local_steps=10, batch=16, judge=2)
    points = [(0.0, problem.metrics(problem.x0)["loss"])]

    def look(run: Run) -> bool:
        metrics = run.state.metrics
        if "loss" in metrics:
            points.append((metrics["seconds"], metrics["loss"]))
        return bool(metrics["seconds"] >= size.seconds)

    solve(problem, method, stop=Stop(steps=100_000), seed=seed, callbacks=[look], progress=False)
    seconds, losses = np.array(points).T
    grid = np.linspace(0.0, size.seconds, 30)
    return grid, np.interp(grid, seconds, losses)


def _text_figure(text: Any) -> Figure:
    series = [Series.of(name, runs[0][0], np.array([v for _, v in runs])) for name, runs in text.items()]
    caption = "Pieces of Python's own reference, a client each; mean and range of the seeds. Server rate one."
    return Figure("Next characters", caption, "virtual seconds", "mean loss", series)


def _masses(size: Size) -> list[Figure]:
    """Loss in virtual time of up to 10^5 clients whose mean times spread as exp(0.5 normal): least squares in five
    dimensions, four examples each, the weights of a client their own.
    """
    figures = []
    for count in size.crowd:
        made = torch.Generator().manual_seed(count)
        X = torch.randn(count, 4, 5, generator=made)
        w = 1.0 + torch.randn(count, 5, 1, generator=made)
        y = (X @ w)[..., 0]
        problem = Federated(
            lambda theta, X, y: 0.5 * ((X @ theta - y) ** 2).mean(),
            torch.zeros(5),
            list(zip(X, y, strict=True)),
        )
        times = ClientTimes(np.exp(0.5 * np.random.default_rng(0).standard_normal(count)))
        series = []
        for name, scheme in {"FedAvg": FedAvg(), "FedFix, mean time": FedFix(1.0)}.items():
            method, seconds = Federation(scheme, times, lr=0.1, local_steps=2), 2.5 * float(times.means.max())
            state = method.init(problem, 0)
            points = [(0.0, state.metrics["loss"])]
            while state.clock < seconds and len(points) <= 10:
                state = method.step(problem, state)
                points.append((state.clock, state.metrics["loss"]))
            series.append(Series.of(name, *np.array(points).T))
        caption = "Clients with log-normal mean times; two rounds of the slowest, or ten aggregations."
        figures.append(Figure(f"{count:,} clients", caption, "virtual seconds", "mean loss", series))
    return figures


def _time_to(runs: Any, level: float) -> float:
    """Median seconds to a loss; infinity where it is not reached."""
    reached = [grid[losses <= level][0] if (losses <= level).any() else np.inf for grid, losses in runs]
    return float(np.median(reached))


def _ripple(runs: Any) -> float:
    """Mean absolute change of the loss between points of the second half, over the mean loss there."""
    return float(np.mean([np.abs(np.diff(v[30:])).mean() / v[30:].mean() for _, v in runs]))


def _verdicts(size: Size, curves: Any, optima: Any) -> list[Verdict]:
    far = size.faster[-1]
    level = 1.05 * float(np.mean([losses[-1] for _, losses in curves["FedAvg", far]]))
    to = {name: _time_to(curves[name, far], level) for name in SCHEMES}
    last = {name: float(np.mean([v[-1] for _, v in curves[name, far]])) for name in SCHEMES}
    corrected = max(optima[0.8][name] for name in ("FedAvg", "FedFix", "FedBuff", "Async FedAvg"))
    wrong = [optima[f]["Async FedAvg, uncorrected"] for f in optima]
    spread = f"{far:.0%} faster"
    return [
        Verdict(
            f"{spread}: FedFix's time to FedAvg's final loss over FedAvg's", to["FedFix"] / to["FedAvg"], 0.8
        ),
        Verdict(
            f"{spread}: Async FedAvg's loss at a tenth of the time over FedAvg's",
            float(
                np.mean([v[6] for _, v in curves["Async FedAvg", far]])
                / np.mean([v[6] for _, v in curves["FedAvg", far]])
            ),
            1.0,
        ),
        Verdict(
            f"{spread}: ripple of FedFix's loss over Async FedAvg's",
            _ripple(curves["FedFix", far]) / _ripple(curves["Async FedAvg", far]),
            1.0,
        ),
        Verdict(
            f"{spread}: FedFix's final loss over the least of all", last["FedFix"] / min(last.values()), 1.1
        ),
        Verdict("Quadratic clients: corrected schemes' distance from the optimum, largest", corrected, 0.15),
        Verdict("Quadratic clients, 80 % faster: uncorrected distance", wrong[-1], 0.5, ">="),
        Verdict(
            "The same grows with heterogeneity, smallest increase", float(np.diff(wrong).min()), 0.0, ">="
        ),
    ]


def _table(curves: Any) -> Table:
    return [
        {
            "task": f"digits, {faster:.0%} faster",
            "scheme": name,
            "loss at a tenth": round(float(np.mean([v[6] for _, v in runs])), 3),
            "final loss": round(float(np.mean([v[-1] for _, v in runs])), 3),
            "ripple": round(_ripple(runs), 4),
        }
        for (name, faster), runs in curves.items()
    ]


def _optima_table(optima: Any) -> Table:
    return [
        {"task": "quadratic clients", "scheme": name}
        | {f"distance, {faster:.0%} faster": round(found[name], 3) for faster, found in optima.items()}
        for name in next(iter(optima.values()))
    ]


def _figures(size: Size, curves: Any) -> list[Figure]:
    return [
        Figure(
            f"Digits, fastest client {faster:.0%} faster",
            f"{size.clients} clients, Dirichlet(0.1); mean and range of the seeds.",
            "virtual seconds",
            "mean loss",
            [
                Series.of(name, curves[name, faster][0][0], np.array([v for _, v in curves[name, faster]]))
                for name in SCHEMES
            ],
            log_y=True,
        )
        for faster in size.faster
    ]


def _optima_figure(optima: Any) -> Figure:
    return Figure(
        "Quadratic clients: distance from the optimum",
        "Ten clients; the optimum of equal importances is known.",
        "how much faster the fastest client is",
        "distance",
        [
            Series(name, list(optima), [found[name] for found in optima.values()])
            for name in next(iter(optima.values()))
        ],
    )
