"""14: Trace: feedback goes back along the trace of a program, and what ran is improved, here without any model.

Cheng, Nie and Swaminathan (2024), "Trace is the next AutoDiff" (arXiv 2406.16218), sections 5.1, 5.2 and 5.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from thalweg.core.seeding import generator
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Table, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.verdict import Verdict
from thalweg.workflow import Bounds, Bundle, ExecutionError, Node, ParameterNode, TraceGraph, bundle, node
from thalweg.workflow.optimizers import (
    BayesSearch,
    CodeEdits,
    PatternSearch,
    TraceDescent,
    WorkflowSearch,
)
from thalweg.workflow.traffic import Crossing

Program = Callable[[], Node]
#: Seeds from here on are judged; bounds and lengths were chosen on seeds 0 to 3.
FIRST = 11


@dataclass(frozen=True)
class Size:
    """Seeds; seeds of the light, its evaluations, points of a grid's side; seeds of controllers, their runs."""

    seeds: int
    lights: int
    evaluations: int
    side: int
    controllers: int
    runs: int


SIZES: dict[Scale, Size] = {
    "smoke": Size(1, 1, 12, 4, 1, 40),
    "quick": Size(5, 1, 40, 9, 2, 300),
    "full": Size(15, 7, 40, 9, 7, 300),
}


def searched(search: WorkflowSearch, program: Program, runs: int, enough: float = -math.inf) -> list[float]:
    """The best score after each run; it stops where that is at most ``enough``."""
    found: list[float] = []
    while len(found) < runs and (not found or found[-1] > enough):
        output = program()
        search.zero_feedback()
        search.backward(output, output.data)
        search.step()
        found.append(search.best_score)
    return found


def numbers(*values: float, bounds: Bounds | None = None) -> list[ParameterNode]:
    """Trainable numbers."""
    made = [node(v, trainable=True, constraint=bounds) for v in values]
    return [p for p in made if isinstance(p, ParameterNode)]


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size, table = SIZES[scale], list[dict[str, object]]()
    seeds = range(FIRST, FIRST + size.seeds)
    verdicts = _valleys(seeds, table)
    tell(0.1, "credit through the trace")
    verdicts.append(_credit(range(FIRST, FIRST + 3 * size.seeds), table))  # its runs cost next to nothing
    tell(0.2, "traffic light")
    light, figure = _lights(size, table)
    tell(0.7, "controllers")
    verdicts += [*light, _controllers(seeds[: size.controllers], size.runs, table)]
    notes = (
        "No model takes part. The crossing is ours: two roads, an hour, the mean over two seeds of arrivals; Webster's "
        "formula knows the rates, the searches do not. Blind search is the same search, told that all parameters ran."
    )
    return Evidence(verdicts, table, [figure], notes=notes)


def _valleys(seeds: range, table: Table) -> list[Verdict]:
    """Numbers in programs of arithmetic: pattern search, and derivatives through the trace."""

    def rosenbrock(x: Node, y: Node) -> Node:
        return (1 - x) ** 2 + 100 * (y - x**2) ** 2

    def quadratic(x: Node, y: Node) -> Node:
        return (x - 1) ** 2 + 10 * (y + x) ** 2

    verdicts = []
    for name, f in (("quadratic", quadratic), ("Rosenbrock", rosenbrock)):
        least, apart = [], []
        for seed in seeds:
            start = (generator(seed, 14).random(2) * 4 - 2).tolist()
            x, y = numbers(*start)
            least.append(searched(PatternSearch([x, y]), lambda f=f, x=x, y=y: f(x, y), 200)[-1])  # type: ignore[misc]
            apart.append(_apart(f, start))
            table.append(
                {"program": name, "seed": seed, "pattern search, 200 runs": least[-1], "to torch": apart[-1]}
            )
        verdicts.append(_verdict(f"{name}: value after 200 runs of pattern search", least, 1e-2))
        verdicts.append(_verdict(f"{name}: distance to torch's own Adam after 100 steps", apart, 1e-6))
    return verdicts


def _apart(f: Callable[..., Node], start: list[float]) -> float:
    """How far descent through the trace ends from torch's autograd."""
    x, y = numbers(*start)
    ours = TraceDescent([x, y], lambda tensors: torch.optim.Adam(tensors, lr=0.05))
    tensors = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in start]
    theirs = torch.optim.Adam(tensors, lr=0.05)
    for _ in range(100):
        ours.zero_feedback()
        ours.backward(f(x, y))
        ours.step()
        theirs.zero_grad()
        loss = f(*tensors)
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        theirs.step()
    ends = [float(t.detach()) for t in tensors]
    return max(abs(float(p) - end) for p, end in zip((x, y), ends, strict=True))


class Blind(PatternSearch):
    """The same search, which takes all parameters to have run."""

    def executed(self, graph: TraceGraph) -> list[ParameterNode]:
        """All of them."""
        return self.parameters


def _credit(seeds: range, table: Table) -> Verdict:
    """Twelve parameters, of which three run on the input at hand: runs needed for a value of 1e-3."""
    ratios = []
    for seed in seeds:
        counts = []
        for kind in (PatternSearch, Blind):
            rng = generator(seed, 15)
            parameters = numbers(*(rng.random(12) * 4 - 2).tolist())
            used = [parameters[i] for i in rng.permutation(12)[:3].tolist()]
            aims = rng.random(3).tolist()

            def program(used: list[ParameterNode] = used, aims: list[float] = aims) -> Node:
                terms = [(p - aim) ** 2 for p, aim in zip(used, aims, strict=True)]
                return terms[0] + 3 * terms[1] + 10 * terms[2]

            counts.append(len(searched(kind(parameters), program, 2000, 1e-3)))
        ratios.append(counts[0] / counts[1])
        table.append({"program": "3 of 12 run", "seed": seed, "subgraph": counts[0], "blind": counts[1]})
    return _verdict("3 of 12 parameters run: runs to 1e-3 over those of blind search", ratios, 0.5)


def _lights(size: Size, table: Table) -> tuple[list[Verdict], Figure]:
    """Seconds of green: searches of 40 evaluations against a grid, Webster's formula and random search."""
    crossing, bounds = Crossing(), Bounds(3.0, 60.0, log=True)
    found: dict[str, list[float]] = {"pattern": [], "BO": [], "grid": [], "Webster": [], "random": []}
    course: dict[str, list[float]] = {}
    for seed in range(FIRST, FIRST + size.lights):

        def mean(a: float, b: float, seed: int = seed) -> float:
            return (crossing.wait(a, b, 2 * seed) + crossing.wait(a, b, 2 * seed + 1)) / 2

        wait = bundle("mean wait in seconds")(mean)
        for name in ("pattern", "BO"):
            a, b = numbers(30.0, 30.0, bounds=bounds)
            light = [a, b]
            search = (
                PatternSearch(light) if name == "pattern" else BayesSearch(light, noise="none", seed=seed)
            )
            course[name] = searched(search, lambda w=wait, x=a, y=b: w(x, y), size.evaluations)  # type: ignore[misc]
            found[name].append(course[name][-1])
        greens = np.linspace(5.0, 45.0, size.side).tolist()
        found["grid"].append(min(mean(a, b) for a in greens for b in greens))
        found["Webster"].append(mean(*crossing.webster()))
        rng = generator(seed, 16)
        draws = [3.0 * 20.0 ** rng.random((size.evaluations, 2)) for _ in range(5)]
        found["random"].append(median([min(mean(float(a), float(b)) for a, b in d) for d in draws]))
        table.append(
            {"program": "light", "seed": seed, "fixed 30/30": mean(30.0, 30.0)}
            | {k: v[-1] for k, v in found.items()}
        )
    held = {name: np.array(values) for name, values in found.items()}
    verdicts = []
    for name in ("pattern", "BO"):
        for other, required in (("grid", 1.1), ("Webster", 1.0), ("random", 1.0)):
            words = {"grid": f"the best of a grid of {size.side**2}", "Webster": "Webster's formula"}
            claim = (
                f"light: {name}'s wait after {size.evaluations} runs over that of {words.get(other, other)}"
            )
            verdicts.append(_verdict(claim, (held[name] / held[other]).tolist(), required))
    runs = [float(i + 1) for i in range(size.evaluations)]
    curves = [Series(name, runs[: len(values)], values) for name, values in course.items()]
    return verdicts, Figure("A traffic light", "The last seed.", "runs", "mean wait, s", curves, log_y=True)


def controller() -> Bundle:
    """Trainable code that does nothing yet."""

    @bundle(trainable=True)
    def steer(position, speed):
        """The force on a mass that should come to rest at zero."""
        return 0.0 * position

    return steer


def driven(steer: Bundle) -> tuple[Node, float]:
    """A mass of one, 20 steps of 0.3 s, from rest at 1: the last force, and the cost."""
    position, speed, cost, force = 1.0, 0.0, 0.0, node(0.0)
    for _ in range(20):
        called = steer(position, speed)
        assert isinstance(called, Node)
        force = called
        push = force.data if isinstance(force.data, int | float) else math.nan
        speed += 0.3 * max(-9.0, min(9.0, push))
        position += 0.3 * speed
        cost += position**2 + 0.1 * speed**2
    return force, cost if cost < 1e6 else 1e6


def _controllers(seeds: range, runs: int, table: Table) -> Verdict:
    """Code improved by edits in the sandbox."""
    ratios = []
    for seed in seeds:
        steer = controller()
        assert steer.parameter is not None
        search = CodeEdits([steer.parameter], seed=seed)
        first = driven(steer)[1]
        for _ in range(runs):
            search.zero_feedback()
            try:
                output, cost = driven(steer)
            except ExecutionError as error:
                output, cost = cast(Node, error.node), 1e6
            search.backward(output, cost)
            search.step()
        ratios.append(search.best_score / first)
        table.append({"program": "controller", "seed": seed, "cost": search.best_score})
    return _verdict(f"controller: cost after {runs} runs in the sandbox over that at the start", ratios, 0.3)


def _verdict(claim: str, values: list[float], required: float) -> Verdict:
    interval = median_interval(values) if len(values) >= 5 else None
    return Verdict(claim, median(values), required, "<=", interval)
