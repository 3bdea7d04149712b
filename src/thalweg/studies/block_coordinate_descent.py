"""10 Block coordinate descent: rules, blocks and updates compared by iterations, on the paper's five kinds of problems.

Nutini, Laradji and Schmidt (2022), figures 4 to 13, at laptop scale. A sparse least squares, B logistic, C multi-class,
D label propagation on two moons, E a lattice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.datasets import make_moons
from sklearn.neighbors import kneighbors_graph

from thalweg.convex import (
    GS,
    GSD,
    GSDHB,
    GSL,
    GSQ,
    AcceleratedProximalGradient,
    BlockCoordinateDescent,
    BoundStep,
    Cyclic,
    FixedBlocks,
    ForestBlocks,
    GradientStep,
    GSProgress,
    LeastSquares,
    LipschitzSampling,
    Logistic,
    MessagePassing,
    Multinomial,
    NewtonStep,
    Penalized,
    Quadratic,
    Random,
    TwoMetric,
    VariableBlocks,
    label_propagation,
    lattice,
    random_forest,
    red_black,
    solve_forest,
    tree_partition,
)
from thalweg.convex.coordinate.selection import Greedy
from thalweg.core import Method, Run, Stop, solve
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Table, Tell
from thalweg.studies.verdict import Verdict

#: Seconds are among the claims: it runs alone.
timed = True
BLOCK = 5
ACCELERATED = "accelerated proximal gradient"


@dataclass(frozen=True)
class Size:
    """Coordinates of the dense problems, side of the graphs, steps, and the largest forest timed."""

    features: int
    samples: int
    side: int
    steps: int
    forest: int


SIZES = {
    "smoke": Size(30, 60, 8, 60, 20_000),
    "quick": Size(200, 400, 40, 500, 400_000),
    "full": Size(1000, 1000, 100, 2000, 1_600_000),
}


def dense_problems(size: Size, seed: int) -> dict[str, Penalized]:
    """A, B and C: least squares, logistic and multi-class, with columns of very different scales."""
    rng = np.random.default_rng(seed)
    m, n = size.samples, size.features
    scales = np.exp(rng.standard_normal(n))
    A = np.where(rng.random((m, n)) < 0.2, rng.standard_normal((m, n)) + 1.0, 0.0) * scales
    A[0] += 1e-3  # no zero columns
    x = rng.standard_normal(n) * (rng.random(n) < 0.1)
    few = min(50, n)
    z = A[:, :few] @ rng.standard_normal((few, 5))
    return {
        "A least squares": Penalized(LeastSquares(A, A @ x + rng.standard_normal(m), 0.1)),
        "B logistic": Penalized(Logistic(A, np.where(A @ x + rng.standard_normal(m) > 0, 1.0, -1.0), 1.0)),
        "C multi-class": Penalized(Multinomial(A[:, :few], (z + rng.gumbel(size=z.shape)).argmax(1), 5, 1.0)),
    }


def graph_problems(size: Size, seed: int) -> dict[str, Penalized]:
    """D and E: labels on two moons, and a lattice with a weak diagonal."""
    X, y = make_moons(size.side**2, noise=0.1, random_state=seed)
    graph = kneighbors_graph(X, 5, mode="connectivity")
    known = np.random.default_rng(seed).random(len(X)) < 0.02
    known[[int(np.flatnonzero(y == k)[0]) for k in (0, 1)]] = True
    joined = sp.csr_array(graph.maximum(graph.T))
    part = sp.csgraph.connected_components(joined)[1]
    known[[int(np.flatnonzero(part == p)[0]) for p in np.unique(part)]] = True
    b = np.random.default_rng(seed).standard_normal(size.side**2)
    return {
        "D label propagation": Penalized(label_propagation(joined, 2.0 * y - 1.0, known)),
        "E lattice": Penalized(Quadratic(lattice(size.side, size.side, 1e-3), b)),
    }


@dataclass(frozen=True)
class Curve:
    """Objective less its minimum, after each step recorded."""

    steps: list[int]
    gaps: list[float]

    @property
    def last(self) -> float:
        """log10 of the gap at the end, no lower than rounding."""
        return float(np.log10(max(self.gaps[-1], 1e-12)))


def descend(problem: Penalized, method: Method, blocks: int, best: float, seed: int) -> Curve:
    """Run a method and record the gap relative to the start; a step over all coordinates counts all their blocks."""
    each = _blocks_of_a_step(problem, method)
    steps = max(blocks // each, 1)
    x = problem.start()
    first = problem.metrics(x)["objective"] - best
    at, gaps = [0], [1.0]
    every = max(1, steps // 50)

    def record(run: Run) -> None:
        if run.steps % every == 0:
            state = run.state
            value = problem.loss.value(state.x, state.z) + problem.penalty(state.x)
            at.append(run.steps * each)
            gaps.append(max(value - best, 0.0) / first)

    solve(problem, method, stop=Stop(steps=steps), seed=seed, callbacks=[record], progress=False)
    return Curve(at, gaps)


def _blocks_of_a_step(problem: Penalized, method: Method) -> int:
    on_graph = isinstance(problem.loss, Quadratic)
    return 1 if on_graph or isinstance(method, BlockCoordinateDescent) else max(problem.loss.n // BLOCK, 1)


def minimum(problem: Penalized) -> float:
    """The objective's minimum, to rounding."""
    if isinstance(problem.loss, Quadratic):
        x = sp.linalg.spsolve(sp.csc_array(problem.loss.H), problem.loss.c)
        return problem.metrics(x)["objective"]
    method = BlockCoordinateDescent(VariableBlocks(problem.loss.n), GS(), NewtonStep())
    stop = Stop(below={"violation": 1e-10}, steps=200)
    return solve(problem, method, stop=stop, progress=False).metrics["objective"]


def contestants(problem: Penalized) -> Iterator[tuple[str, Method]]:
    """What the claims compare on a dense problem, by name."""
    lipschitz, n = problem.loss.lipschitz, problem.loss.n
    fixed, variable = FixedBlocks.sorted_by_lipschitz(lipschitz, BLOCK), VariableBlocks(BLOCK)
    for rule in (Cyclic(), Random(), LipschitzSampling(), GS(), GSL(), GSD(), GSQ()):
        yield f"fixed, {type(rule).__name__}, gradient", BlockCoordinateDescent(fixed, rule, GradientStep())
    for name, blocks in (
        ("in order", FixedBlocks.in_order(n, BLOCK)),
        ("averaged", FixedBlocks.averaged(lipschitz, BLOCK)),
    ):
        yield f"{name}, GSL, gradient", BlockCoordinateDescent(blocks, GSL(), GradientStep())
    best: tuple[Greedy, ...] = (GS(), GSL(), GSDHB(), GSQ())
    for greedy in best:
        for label, update in (("gradient", GradientStep()), ("matrix", BoundStep())):
            name = f"variable, {type(greedy).__name__}, {label}"
            yield name, BlockCoordinateDescent(variable, greedy, update)
    yield "fixed, GSL, matrix", BlockCoordinateDescent(fixed, GSL(), BoundStep())
    yield "fixed, GSQ, matrix", BlockCoordinateDescent(fixed, GSQ(), BoundStep())
    thresholded = BlockCoordinateDescent(variable, GSQ("iht"), BoundStep())
    yield "variable, GSQ by thresholding, matrix", thresholded
    yield ACCELERATED, AcceleratedProximalGradient()
    yield "variable, GSL, Newton", BlockCoordinateDescent(variable, GSL(), NewtonStep())


def graph_contestants(problem: Penalized, seed: int) -> Iterator[tuple[str, Method]]:
    """Forests against blocks without structure, all with exact updates."""
    H = problem.loss.H  # type: ignore[attr-defined]
    trees = FixedBlocks(tree_partition(H, seed))
    colours = FixedBlocks(red_black(H))
    root = FixedBlocks.at_random(problem.loss.n, max(2, round(problem.loss.n ** (1 / 3))), seed)
    yield "greedy forests", BlockCoordinateDescent(ForestBlocks(), GSL(), MessagePassing())
    yield "random forests", BlockCoordinateDescent(ForestBlocks(), Random(), MessagePassing())
    yield "tree partition", BlockCoordinateDescent(trees, Cyclic(), MessagePassing())
    yield "red-black", BlockCoordinateDescent(colours, Cyclic(), MessagePassing())
    yield "random blocks of n^(1/3), greedy", BlockCoordinateDescent(root, GSQ(), BoundStep())
    yield ACCELERATED, AcceleratedProximalGradient()
    yield "single coordinates, greedy", BlockCoordinateDescent(VariableBlocks(1), GSL(), GradientStep())


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size, seeds = SIZES[scale], 3
    table: Table = []
    scores: dict[str, list[float]] = {}
    figures = []
    dense = [dense_problems(size, seed) for seed in range(seeds)]
    graphs = [graph_problems(size, seed) for seed in range(seeds)]
    names = [*dense[0], *graphs[0]]
    for k, name in enumerate(names):
        tell(0.75 * k / len(names), name)
        curves: dict[str, list[Curve]] = {}
        for seed in range(seeds):
            problem = {**dense[seed], **graphs[seed]}[name]
            best = minimum(problem)
            on_graph = isinstance(problem.loss, Quadratic)
            field = graph_contestants(problem, seed) if on_graph else contestants(problem)
            steps = max(30, size.steps // 5) if on_graph else size.steps
            for label, method in field:
                curves.setdefault(label, []).append(descend(problem, method, steps, best, seed))
        for label, found in curves.items():
            mean = float(np.mean([c.last for c in found]))
            scores.setdefault(label, []).append(mean)
            table.append({"problem": name, "method": label, "log10 of the gap": round(mean, 2)})
        shown = [
            Series.of(label, c[0].steps, np.maximum([f.gaps for f in c], 1e-14))
            for label, c in curves.items()
        ]
        figures.append(
            Figure(
                name,
                f"Objective less its minimum over that at the start; mean and range of {seeds} seeds.",
                "blocks updated",
                "gap",
                shown,
                log_y=True,
            )
        )
    tell(0.8, "active sets")
    ending, curve, row = _ending(size)
    table.append(row)
    tell(0.9, "forests")
    power, forests = _forest_times(size.forest)
    average = {label: float(np.mean(values)) for label, values in scores.items()}
    return Evidence(
        verdicts=_verdicts(average, scores, ending, power),
        table=table,
        figures=[*figures, curve, forests],
        notes=(
            f"Dense problems of {size.features} features (C: {min(50, size.features)} by 5 classes), blocks of "
            f"{BLOCK}, {size.steps} updates; graphs of {size.side**2} nodes, {max(30, size.steps // 5)} updates. "
            "Scores are means over seeds and problems of the log10 of the final gap. Iterations are compared, as in "
            "the paper; forests update a large part of all coordinates in one, at a cost linear in them, "
            "and accelerated proximal gradients all of them: on dense problems such a step counts as its blocks."
        ),
    )


def _verdicts(
    average: dict[str, float], scores: dict[str, list[float]], ending: Any, power: float
) -> list[Verdict]:
    def ahead(better: str, worse: str) -> float:
        return average[better] - average[worse]

    blind = min(average[f"fixed, {r}, gradient"] for r in ("Cyclic", "Random", "LipschitzSampling"))
    scaled = max(average[f"fixed, {r}, gradient"] for r in ("GSL", "GSD", "GSQ"))
    unstructured = ("red-black", "random blocks of n^(1/3), greedy", "single coordinates, greedy")
    forests = max(scores["greedy forests"][k] - min(scores[u][k] for u in unstructured) for k in range(2))
    steps, quadratic = ending
    differences = {
        "Fixed blocks: the worst scaled greedy rule is ahead of the best of cyclic, random and Lipschitz sampling "
        "(difference of log10 gaps below 0)": scaled - blind,
        "Fixed blocks: the worst of GSL, GSD, GSQ is ahead of GS": scaled - average["fixed, GS, gradient"],
        "Variable blocks are ahead of fixed ones: GSL, gradient updates": ahead(
            "variable, GSL, gradient", "fixed, GSL, gradient"
        ),
        "Variable blocks are ahead of fixed ones: GSL, matrix updates": ahead(
            "variable, GSL, matrix", "fixed, GSL, matrix"
        ),
        "Matrix updates are ahead of gradient updates: variable blocks, GSL": ahead(
            "variable, GSL, matrix", "variable, GSL, gradient"
        ),
        "Newton's updates are ahead of the bound's: variable blocks, GSL": ahead(
            "variable, GSL, Newton", "variable, GSL, matrix"
        ),
        "Blocks sorted by Lipschitz constants are ahead of blocks in order and averaged ones": max(
            ahead("fixed, GSL, gradient", f"{p}, GSL, gradient") for p in ("in order", "averaged")
        ),
        "Variable blocks, GSL, matrix updates are ahead of accelerated proximal gradients, coordinates moved being "
        "equal": average["variable, GSL, matrix"]
        - float(np.mean(scores[ACCELERATED][:3])),  # then the graphs
        "GSQ by pursuit and by thresholding choose as well as GSDHB, matrix updates": max(
            ahead(f"variable, {g}, matrix", "variable, GSDHB, matrix") for g in ("GSQ", "GSQ by thresholding")
        ),
        "Graphs: greedy forests are ahead of red-black, random and single blocks on both": forests,
        "Graphs: greedy forests are ahead of accelerated proximal gradients on both, step for step": max(
            scores["greedy forests"][k] - scores[ACCELERATED][k - 2] for k in range(2)
        ),
    }
    return [
        *(Verdict(claim, value, 0.0) for claim, value in differences.items()),
        Verdict(
            "Lasso: two-metric steps on greedy blocks that hold the support end finitely (updates to a violation "
            "of 1e-10, over the blocks of one pass)",
            steps,
            3.0,
        ),
        Verdict(
            "l1 logistic regression: the last steps are superlinear (last ratio of violations)",
            quadratic,
            0.1,
        ),
        Verdict("A forest's exact update is linear in its nodes: power of n in the time", power, 1.15),
    ]


def _ending(size: Size) -> tuple[tuple[float, float], Figure, Row]:
    """How greedy blocks that can hold the support end, on l1 problems."""
    rng = np.random.default_rng(0)
    n, m = size.features, size.samples
    A = rng.standard_normal((m, n))
    x = np.where(np.arange(n) < n // 20 + 2, 3.0, 0.0)
    b = A @ x + rng.standard_normal(m)
    block, series, found = min(n, 3 * (n // 20 + 2)), [], {}
    lasso = Penalized(LeastSquares(A, b), l1=0.1 * float(np.abs(A.T @ b).max()))
    y = np.where(A @ x + 3.0 * rng.standard_normal(m) > 0, 1.0, -1.0)
    logistic = Penalized(Logistic(A, y), l1=0.1 * float(np.abs(A.T @ y).max()))
    for name, problem, update in (
        ("Lasso, two-metric", lasso, TwoMetric()),
        ("Lasso, gradient", lasso, GradientStep()),
        ("l1 logistic, Newton", logistic, NewtonStep()),
        ("l1 logistic, gradient", logistic, GradientStep()),
    ):
        method = BlockCoordinateDescent(VariableBlocks(block), GSProgress(), update)
        stop = Stop(below={"violation": 1e-10}, steps=400)
        result = solve(problem, method, stop=stop, progress=False)
        violations = [m["violation"] for m in result.history.metrics]
        found[name] = violations, result.history.metrics[-1]["identified"], result.steps
        series.append(Series.of(name, np.arange(1, len(violations) + 1), np.maximum(violations, 1e-16)))
    last = found["l1 logistic, Newton"][0]
    ratio = last[-1] / last[-2]
    figure = Figure(
        "Ending after the support is found",
        f"Blocks of {block}, greedy by the model's decrease.",
        "blocks updated",
        "largest violation of optimality",
        series,
        log_y=True,
    )
    row = {"problem": "active sets"}
    row |= {name: f"support after {int(at)}, done after {steps}" for name, (_, at, steps) in found.items()}
    return (found["Lasso, two-metric"][2] / max(1.0, n / block), ratio), figure, row


def _forest_times(most: int) -> tuple[float, Figure]:
    """Seconds of an exact update of a random forest, best of five, over its nodes."""
    nodes, seconds = [], []
    for n in np.geomspace(most / 40, most, 5):
        side = int(np.sqrt(n))
        H = lattice(side, side, 0.01)
        forest = random_forest(H)
        g = np.ones(len(forest))
        times = []
        for _ in range(5):
            start = time.perf_counter()
            solve_forest(H, forest, g)
            times.append(time.perf_counter() - start)
        nodes.append(float(len(forest)))
        seconds.append(min(times[1:]))
    power, offset = np.polyfit(np.log(nodes), np.log(seconds), 1)
    fit = np.exp(offset) * np.array(nodes) ** power
    series = [Series("measured", nodes, seconds, dots=True), Series.of(f"n^{power:.2f}", nodes, fit)]
    caption = "Lattices; elimination order and solve. The fit is in logarithms."
    return float(power), Figure(
        "Exact updates of forests", caption, "nodes", "seconds", series, log_x=True, log_y=True
    )
