"""16 FedFix: loss against virtual time for clients of very different speed, and where uncorrected weights lead.

Fraboni, Vidal, Kameni and Lorenzi (2023), section 5: quadratic clients with known optima, digits shared out by class,
and pieces of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from thalweg.core import NotFinite, Run, Status, Stop, solve
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
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.standings import Standings
from thalweg.studies.verdict import Verdict

Vector = NDArray[np.float64]
OURS, ARRIVALS, WAITING, WRONG = "FedFix", "Async FedAvg", "FedAvg", "Async FedAvg, uncorrected"
#: Points of a curve over virtual time; the end of a run is the mean of the last five.
POINTS, END = 40, 4
CONTEXT = 4  # characters from which the next is told


@dataclass(frozen=True)
class Size:
    """Clients, virtual seconds, judging seeds; share by which the fastest is faster; quadratics; crowds."""

    clients: int
    seconds: float
    seeds: int
    windows: int  # of text, a client
    local_steps: int
    steps: int  # aggregations of quadratic clients
    spreads: tuple[float, ...]
    crowds: tuple[int, ...]


SIZES: dict[Scale, Size] = {
    "smoke": Size(3, 0.6, 2, 20, 1, 10, (0.0, 0.8), (50,)),
    "quick": Size(5, 3.5, 5, 60, 2, 100, (0.0, 0.4, 0.8), (1000,)),
    "full": Size(20, 30.0, 5, 200, 5, 4000, (0.0, 0.2, 0.4, 0.6, 0.8), (1000, 10_000, 100_000)),
}


@dataclass(frozen=True, eq=False)
class Race:
    """A federation in virtual time, where a task of the slowest client takes a second, and the runs on it so far."""

    problem: Federated
    times: ClientTimes
    seconds: float
    lr: float
    local_steps: int
    kept: dict[tuple[Aggregation, float, int], Vector] = field(default_factory=dict)

    def curve(self, scheme: Aggregation, rate: float, seed: int) -> Vector:
        """Losses at `POINTS` times, shape (POINTS,)."""
        if (scheme, rate, seed) not in self.kept:
            every = design(scheme, ClientTimes(self.times.means)).interval
            method = Federation(
                scheme,
                self.times,
                lr=self.lr,
                server_lr=rate,
                local_steps=self.local_steps,
                batch=16,
                judge=max(int(self.seconds / every / POINTS), 1),
            )
            self.kept[scheme, rate, seed] = _curve(self.problem, method, self.seconds, seed)
        return self.kept[scheme, rate, seed]


@dataclass(frozen=True)
class Entry:
    """A scheme at a server rate; what it counts for is its loss at the end."""

    scheme: Aggregation
    rate: float

    def curve(self, race: Race, seed: int) -> Vector:
        """Losses at `POINTS` times."""
        return race.curve(self.scheme, self.rate, seed)

    def __call__(self, race: Race, seed: int) -> float:
        return float(self.curve(race, seed)[-END:].mean())


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    grids, made = _grids(size.clients), _races(size)
    seeds = (1, 2) if scale == "smoke" else tuple(range(1, size.seeds + 1))
    last = contest(
        made,
        grids,
        ours=OURS,
        what="final loss",
        judging_seeds=seeds,
        needs_convergence=False,
        tell=lambda share, what: tell(0.8 * share, what),
    )
    curves = {
        problem: {
            name: [grids[name][_label(chosen)].curve(make(seed), seed) for seed in seeds]
            for name, chosen in last.settings[problem].items()
        }
        for problem, make in made.items()
        if not np.isinf(list(last.scores[problem].values())).any()
    }
    tell(0.8, "optima of quadratic clients")
    optima = {faster: _optima(faster, size.steps) for faster in size.spreads}
    tell(0.9, "crowds")
    crowds = [_crowd(count) for count in size.crowds]
    told = {name: _told(last, curves, name) for name in ("early", "time", "swing")}
    return Evidence(
        verdicts=[
            *last.beats(1.1),
            *told["time"].compared(OURS, WAITING, 0.8),
            *replace(told["early"], ours=ARRIVALS).beats(1.0),
            *told["swing"].compared(OURS, ARRIVALS, 1.0),
            *_quadratic(optima),
        ],
        table=[
            *(row for found in (last, *told.values()) for row in found.table()),
            *_optima_table(optima),
        ],
        figures=[
            *(_figure(problem, found, size) for problem, found in curves.items()),
            _optima_figure(optima),
            *crowds,
        ],
        costs=last.costs(),
        notes=(
            f"{last.seeds} judging seeds, which draw split, weights, times and batches; each scheme has "
            "the best of four settings under another seed: server rates, for FedFix and FedBuff two of them at two "
            f"paces. {size.clients} clients, the fastest 80 % faster than the slowest (digits, Dirichlet 0.1) or 75 % "
            "(text); the loss is that of all clients. FedAvg's final loss is reached at 1.05 of it. A swing is the "
            f"mean rise of the loss from one of {POINTS} points of time to the next, in the second half, over the mean "
            f"loss there. {last.notes()}"
        ),
    )


def _grids(clients: int) -> dict[str, dict[str, Entry]]:
    """Four settings each; arrivals move the model by a whole client's weight, and their rates are lower."""

    def at(schemes: Mapping[str, Aggregation], rates: tuple[float, ...]) -> dict[str, Entry]:
        return {f"{name}rate {r:g}": Entry(scheme, r) for name, scheme in schemes.items() for r in rates}

    paces = {"every half second, ": FedFix(0.5), "every quarter, ": FedFix(0.25)}
    buffers = {"of all, ": FedBuff(clients), "of half, ": FedBuff(clients // 2)}
    return {
        WAITING: at({"": FedAvg()}, (1.0, 2.0, 4.0, 8.0)),
        OURS: at(paces, (1.0, 3.0)),
        "FedBuff": at(buffers, (1.0, 3.0)),
        ARRIVALS: at({"": AsyncFedAvg()}, (0.1, 0.3, 1.0, 3.0)),
        WRONG: at({"": AsyncFedAvg(corrected=False)}, (0.1, 0.3, 1.0, 3.0)),
    }


def _races(size: Size) -> dict[str, Callable[[int], Race]]:
    kept: dict[tuple[str, int], Race] = {}

    def of(name: str, make: Callable[[Size, int], Federated], faster: float) -> Callable[[int], Race]:
        def race(seed: int) -> Race:
            if (name, seed) not in kept:
                times = ClientTimes.heterogeneous(size.clients, faster, "lognormal", 0.1)
                kept[name, seed] = Race(make(size, seed), times, size.seconds, 0.3, size.local_steps)
            return kept[name, seed]

        return race

    return {"digits": of("digits", _digits, 0.8), "text": of("text", _text, 0.75)}


def _digits(size: Size, seed: int) -> Federated:
    data = load("digits")
    assert data.y is not None
    X, y = torch.tensor(data.X / 16.0, dtype=torch.float32), torch.tensor(data.y, dtype=torch.int64)
    parts = [torch.from_numpy(rows) for rows in dirichlet(data.y, size.clients, 0.1, seed)]
    shared = [(X[rows], y[rows]) for rows in parts]
    return Federated.from_module(lambda: nn.Linear(64, 10), functional.cross_entropy, shared, seed=seed)


def _text(size: Size, seed: int) -> Federated:
    """Pieces of a text one after another, each about its own things; a character from the four before it."""
    corpus = load_text(characters=size.clients * size.windows * CONTEXT + 1)
    cut = torch.from_numpy(corpus.windows(CONTEXT).astype(np.int64))[: size.clients * size.windows]
    letters = len(corpus.alphabet)

    def model() -> nn.Module:
        return nn.Sequential(nn.Embedding(letters, 8), nn.Flatten(), nn.Linear(8 * CONTEXT, letters))

    shared = [(part[:, :-1], part[:, -1]) for part in torch.tensor_split(cut, size.clients)]
    return Federated.from_module(model, functional.cross_entropy, shared, seed=seed)


def _curve(problem: Federated, method: Federation, seconds: float, seed: int) -> Vector:
    points = [(0.0, problem.metrics(problem.x0)["loss"])]

    def look(run: Run) -> bool:
        metrics = run.state.metrics
        if "loss" in metrics:
            points.append((metrics["seconds"], metrics["loss"]))
        return bool(metrics["seconds"] >= seconds)

    result = solve(problem, method, stop=Stop(steps=100_000), seed=seed, callbacks=[look], progress=False)
    if result.status is Status.DIVERGED:
        raise NotFinite(result.message)
    return np.interp(np.linspace(0.0, seconds, POINTS), *np.array(points).T)


def _label(chosen: str) -> str:
    """A setting without the word that it is the last of its grid."""
    return chosen.partition(" (")[0]


def _early(losses: Vector, _: Vector) -> float:
    return float(losses[POINTS // 10])


def _time_to(losses: Vector, waiting: Vector) -> float:
    """The share of the time until the loss is, within 5 %, that at which FedAvg ends; infinite where it never is."""
    reached = np.flatnonzero(losses <= 1.05 * waiting[-END:].mean())
    return float(max(reached[0], 1) / (POINTS - 1)) if len(reached) else np.inf


def _swing(losses: Vector, _: Vector) -> float:
    half = losses[POINTS // 2 :]
    return float(np.maximum(np.diff(half), 0.0).mean() / half.mean())


def _told(last: Standings, curves: Mapping[str, Mapping[str, list[Vector]]], what: str) -> Standings:
    """The judged runs by another number of theirs; a problem on which one of them failed has none."""
    names = {
        "early": ("loss at a tenth of the time", _early),
        "time": ("share of the time to FedAvg's final loss", _time_to),
        "swing": ("swing of the loss in the second half", _swing),
    }
    name, score = names[what]
    scores = {
        problem: {
            scheme: np.array([score(own, w) for own, w in zip(runs, found[WAITING], strict=True)])
            for scheme, runs in found.items()
        }
        for problem, found in curves.items()
    }
    return replace(last, what=name, scores=scores, breakdowns=())


def _optima(faster: float, steps: int) -> dict[str, float]:
    """How far from the optimum of equal importances ten quadratic clients end, the fast ones on the right."""
    clients = [(torch.full((1, 1), float(i)), torch.zeros(1)) for i in range(10)]
    problem = Federated(lambda theta, X, y: 0.5 * ((theta - X) ** 2).mean(), torch.full((1,), 4.5), clients)
    schemes: dict[str, Aggregation] = {
        WAITING: FedAvg(),
        OURS: FedFix(0.5),
        "FedBuff": FedBuff(10),
        ARRIVALS: AsyncFedAvg(),
        WRONG: AsyncFedAvg(corrected=False),
        "FedFix, uncorrected": FedFix(0.5, False),
    }
    found = {}
    for name, scheme in schemes.items():
        tail: list[float] = []

        def look(run: Run, tail: list[float] = tail) -> None:
            tail.append(float(run.state.x[0]))

        times = ClientTimes.heterogeneous(10, faster)
        method = Federation(scheme, times, lr=0.05, local_steps=1, judge=10**9)
        solve(problem, method, stop=Stop(steps=steps), callbacks=[look], progress=False)
        found[name] = abs(float(np.mean(tail[-steps // 2 :])) - 4.5)
    return found


def _by_arrivals(faster: float) -> float:
    """How far off the optimum is that weights clients by how often they arrive."""
    often = 1.0 / ClientTimes.heterogeneous(10, faster).means
    return float(abs(often @ np.arange(10.0) / often.sum() - 4.5))


def _quadratic(optima: Mapping[float, Mapping[str, float]]) -> list[Verdict]:
    far = max(optima)
    corrected = max(optima[far][name] for name in (WAITING, OURS, "FedBuff", ARRIVALS))
    wrong = [found[WRONG] for found in optima.values()]
    claim = f"quadratic clients, {far:.0%} faster: distance from the optimum"
    return [
        Verdict(f"{claim}, the largest of four corrected schemes", corrected, 0.15),
        Verdict(
            f"{claim}, uncorrected / that of weights by arrivals",
            wrong[-1] / _by_arrivals(far),
            (0.9, 1.1),
            "within",
        ),
        Verdict(
            "quadratic clients: the least growth of the uncorrected distance from one speed of the fastest to the next",
            float(np.diff(wrong).min()),
            0.05,
            ">=",
        ),
    ]


def _optima_table(optima: Mapping[float, Mapping[str, float]]) -> Table:
    return [
        {"problem": "quadratic clients", "contestant": name}
        | {f"distance, {faster:.0%} faster": round(found[name], 3) for faster, found in optima.items()}
        for name in next(iter(optima.values()))
    ]


def _figure(problem: str, found: Mapping[str, list[Vector]], size: Size) -> Figure:
    seconds = np.linspace(0.0, size.seconds, POINTS)
    series = [Series.of(name, seconds, np.array(runs)) for name, runs in found.items()]
    caption = f"{size.clients} clients; mean and range of the judging seeds."
    return Figure(f"Loss on {problem}", caption, "virtual seconds", "loss", series, log_y=True)


def _optima_figure(optima: Mapping[float, Mapping[str, float]]) -> Figure:
    return Figure(
        "Quadratic clients: distance from the optimum",
        "Ten clients; the optimum of equal importances is known.",
        "how much faster the fastest client is",
        "distance",
        [
            Series(n, list(optima), [found[n] for found in optima.values()])
            for n in next(iter(optima.values()))
        ],
    )


def _crowd(count: int) -> Figure:
    """Least squares in five dimensions of clients whose mean times spread as exp(0.5 normal), weights of their own."""
    made = torch.Generator().manual_seed(count)
    X = torch.randn(count, 4, 5, generator=made)
    y: Tensor = (X @ (1.0 + torch.randn(count, 5, 1, generator=made)))[..., 0]
    clients = list(zip(X, y, strict=True))
    problem = Federated(lambda theta, X, y: 0.5 * ((X @ theta - y) ** 2).mean(), torch.zeros(5), clients)
    times = ClientTimes(np.exp(0.5 * np.random.default_rng(0).standard_normal(count)))
    seconds, series = 2.5 * float(times.means.max()), []
    schemes: dict[str, Aggregation] = {WAITING: FedAvg(), "FedFix, mean time": FedFix(1.0)}
    for name, scheme in schemes.items():
        points = [(0.0, problem.metrics(problem.x0)["loss"])]

        def look(run: Run, points: list[tuple[float, float]] = points) -> bool:
            points.append((run.state.metrics["seconds"], run.state.metrics["loss"]))
            return points[-1][0] >= seconds

        method = Federation(scheme, times, lr=0.1, local_steps=2)
        solve(problem, method, stop=Stop(steps=10), callbacks=[look], progress=False)
        series.append(Series.of(name, *np.array(points).T))
    caption = "Clients with log-normal mean times; two rounds of the slowest, or ten aggregations."
    return Figure(f"{count:,} clients", caption, "virtual seconds", "mean loss", series)
