"""27, the search that found Lion: evolution from AdamW against a tuned AdamW, a tuned Lion, drift and random programs.

Chen, Liang, Huang et al. (2023), "Symbolic discovery of optimization algorithms", section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core import Method, Stop, solve
from thalweg.discovery import (
    ADAMW,
    LION,
    DigitsMLP,
    ProgramSearch,
    RandomPrograms,
    RegularizedEvolution,
    parse,
)
from thalweg.studies.evidence import Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import median, median_interval, paired_ratio
from thalweg.studies.verdict import Verdict

RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
EVOLUTION, DRIFT, RANDOM = "evolution", "no selection", "random programs"
TOURNAMENT, RACE = 8, 5


@dataclass(frozen=True)
class Size:
    """Steps of training, networks a proxy, evaluations a search, programs alive, seeds of the search."""

    steps: int
    networks: int
    evaluations: int
    population: int
    seeds: int


SIZES: dict[Scale, Size] = {
    "smoke": Size(12, 1, 20, 10, 1),
    "quick": Size(40, 1, 100, 30, RACE),
    "full": Size(120, 2, 400, 60, RACE),
}


def _task(size: Size, seed: int) -> ProgramSearch:
    """The proxy of a seed; searches begin at AdamW with the rate .002."""
    networks = tuple(range(100 * (seed + 1), 100 * (seed + 1) + size.networks))
    return ProgramSearch(DigitsMLP(size.steps, seeds=networks), parse(_at(ADAMW.source, "0.001", 2e-3)))


def _held_out(size: Size, seed: int) -> ProgramSearch:
    """Another task: images turned and inverted, a network twice as wide, other examples to be judged on."""
    networks = tuple(range(100 * (seed + 1) + 50, 100 * (seed + 1) + 50 + size.networks))
    return ProgramSearch(DigitsMLP(size.steps, width=64, seeds=networks, shifted=True, part="held out"))


def _at(source: str, old: str, rate: float) -> str:
    return source.replace(f"{old} * lr", f"{rate!r} * lr")


def _methods(scale: Scale) -> dict[str, Method[ProgramSearch]]:
    """Ours, the same without selection, and at full scale random programs of AdamW's length."""
    size = SIZES[scale]
    found: dict[str, Method[ProgramSearch]] = {
        EVOLUTION: RegularizedEvolution(size.population, TOURNAMENT),
        DRIFT: RegularizedEvolution(size.population, 1),
    }
    if scale == "full":  # one in seventy is valid, so that they take their time
        found[RANDOM] = RandomPrograms(statements=len(ADAMW))
    return found


def evidence(scale: Scale, tell: Tell) -> tuple[list[Verdict], Table, list[Figure], str]:
    """Verdicts, rows, figures and a note of the search."""
    size = SIZES[scale]
    losses: dict[str, list[float]] = {}
    held: dict[str, list[float]] = {}
    methods = _methods(scale)
    shares: dict[str, list[Mapping[str, float]]] = {name: [] for name in methods}
    curves: dict[str, list[NDArray[np.float64]]] = {name: [] for name in methods}
    late: list[float] = []
    for seed in range(size.seeds):
        task, other = _task(size, seed), _held_out(size, seed)
        found: dict[str, str] = {}
        for name, old, source in (
            ("tuned AdamW", "0.001", ADAMW.source),
            ("tuned Lion", "0.0001", LION.source),
        ):
            grid = [_at(source, old, r if name == "tuned AdamW" else r / 5) for r in RATES]
            found[name] = min(grid, key=lambda text: task.metrics(text)["loss"])
        for k, (name, method) in enumerate(methods.items()):
            tell((seed + k / len(methods)) / size.seeds, f"search, {name}, seed {seed}")
            stop = Stop(calls=size.evaluations, steps=20 * size.evaluations)
            result = solve(task, method, stop=stop, seed=seed, progress=False)
            found[name] = result.x
            shares[name].append(result.history.metrics[-1])
            curves[name].append(_by_evaluation(result.history["evaluated"], result.history["loss"], size))
            if name == EVOLUTION:
                late.append(_late_hits(result.history["generated"], result.history["hits"]))
        for name, source in found.items():
            losses.setdefault(name, []).append(task.metrics(source)["loss"])
            held.setdefault(name, []).append(other.metrics(source)["loss"])
    table: Table = [
        {
            "task": f"program search, {size.evaluations} evaluations",
            "optimizer": name,
            "proxy loss": round(median(losses[name]), 4),
            "held-out loss": round(median(held[name]), 4),
            **(_told(shares[name]) if name in shares else {}),
        }
        for name in losses
    ]
    return _verdicts(losses, held, shares, late, scale), table, [_figure(curves, losses, size)], _note(size)


def _told(rows: list[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(median([row[name] for row in rows]), 3) for name in ("generated", "rejected", "hits")}


def _late_hits(generated: NDArray[np.float64], hits: NDArray[np.float64]) -> float:
    """Share of cache hits in the last quarter of the steps."""
    at = 3 * len(hits) // 4
    count = hits * generated
    return float((count[-1] - count[at]) / max(generated[-1] - generated[at], 1.0))


def _by_evaluation(
    evaluated: NDArray[np.float64], loss: NDArray[np.float64], size: Size
) -> NDArray[np.float64]:
    """The best loss after each of 20 numbers of evaluations."""
    marks = np.linspace(1, size.evaluations, 20)
    return np.array([loss[min(int(np.searchsorted(evaluated, m)), len(loss) - 1)] for m in marks])


def _verdicts(
    losses: Mapping[str, list[float]],
    held: Mapping[str, list[float]],
    shares: Mapping[str, list[Mapping[str, float]]],
    late: list[float],
    scale: Scale,
) -> list[Verdict]:
    ours, drift = losses[EVOLUTION], losses[DRIFT]
    saved = [row["saved"] for row in shares[EVOLUTION]]
    verdicts = [
        _won(
            "the best program's proxy loss is at most that of AdamW tuned over 7 rates",
            ours,
            losses["tuned AdamW"],
        ),
        _ratio(
            "the best program's proxy loss over that of the same search without selection", ours, drift, 0.95
        ),
        Verdict(
            "share of children that types and caches save", median(saved), 0.35, ">=", median_interval(saved)
        ),
    ]
    if scale == "full":
        verdicts += [
            _ratio(
                "the best program's proxy loss over that of the best random program",
                ours,
                losses[RANDOM],
                0.95,
            ),
            _won(
                "on the held-out task its loss is at most the tuned AdamW's",
                held[EVOLUTION],
                held["tuned AdamW"],
            ),
            Verdict(
                "share of cache hits in the last quarter of the search",
                median(late),
                0.6,
                ">=",
                median_interval(late),
            ),
        ]
    return verdicts


def _won(claim: str, ours: list[float], rival: list[float]) -> Verdict:
    """Of all the seeds that the claim is about, in how many it holds: 4 of 5."""
    share = float(np.mean(np.array(ours) <= np.array(rival)))
    return Verdict(f"Share of {len(ours)} seeds in which {claim}", share, 0.8, ">=")


def _ratio(claim: str, ours: list[float], rival: list[float], most: float) -> Verdict:
    ratios = paired_ratio(ours, rival)
    return Verdict(f"{claim}, median of seeds", median(ratios), most, "<=", median_interval(ratios))


def _figure(
    curves: Mapping[str, list[NDArray[np.float64]]], losses: Mapping[str, list[float]], size: Size
) -> Figure:
    marks = np.linspace(1, size.evaluations, 20)
    series = [Series.of(name, marks, np.array(rows)) for name, rows in curves.items()]
    level = median(losses["tuned AdamW"])
    series.append(Series("tuned AdamW", [1.0, float(size.evaluations)], [level, level]))
    return Figure(
        "Search of programs", "Best proxy loss; band: range over seeds.", "evaluations", "loss", series
    )


def _note(size: Size) -> str:
    return (
        f"The search: {size.seeds} seeds, each with a proxy of its own ({size.networks} networks 64-32-10 on digits, "
        f"{size.steps} steps of 64), {size.evaluations} evaluations, population {size.population}, tournament "
        f"{TOURNAMENT}; the paper's runs have 20 000 evaluations, a population of 1 000 and proxies of "
        "minutes. "
    )
