"""04 Sketched SQP: test problems, logistic regression and optimal control against Krylov and direct Newton steps.

Hong, Na, Mahoney and Kolar (2023), section 5, with the problems of `thalweg.constrained`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from thalweg.constrained import (
    COLLECTION,
    AugmentedLagrangian,
    EqualityConstrained,
    InexactSQP,
    NewtonSQP,
    PoissonControl,
    RankDeficient,
    SketchedNewton,
    constrained_logistic,
    named_problem,
)
from thalweg.core import Method, Result, Status, Stop, solve
from thalweg.core.seeding import generator
from thalweg.datasets import load
from thalweg.numerics.operators import as_csr
from thalweg.numerics.sketch import BlockKaczmarz, Gaussian, Kaczmarz
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Surface, Table, Tell
from thalweg.studies.verdict import Verdict

ROWS, VECTORS, BLOCKS = "sketched, single rows", "sketched, Gaussian vectors", "sketched, blocks"
GMRES, ADAPTIVE, DIRECT = "GMRES-SQP", "GMRES-SQP, adaptive", "Newton, direct"
METHODS: dict[str, Method] = {
    ROWS: SketchedNewton(Kaczmarz()),
    VECTORS: SketchedNewton(Gaussian()),
    BLOCKS: SketchedNewton(BlockKaczmarz()),
    GMRES: InexactSQP(adaptive=False),
    ADAPTIVE: InexactSQP(),
    "augmented Lagrangian": AugmentedLagrangian(),
    DIRECT: NewtonSQP(),
}
#: Seconds are among the claims: it runs alone.
timed = True
#: The paper's, and a tighter one for the methods the claims are about.
TOLERANCES = {m: (1e-4, 1e-8) if m in (ROWS, BLOCKS, DIRECT) else (1e-4,) for m in METHODS}


@dataclass(frozen=True)
class Size:
    """Problems of the collection (all where 0), sides of the controlled square, seeds of the logistic constraints,
    and the seconds that a run may take.
    """

    problems: int
    sides: tuple[int, ...]
    seeds: int
    seconds: float


SIZES = {
    "smoke": Size(3, (12, 24), 1, 1.0),
    "quick": Size(0, (36, 72, 108), 3, 1.0),
    "full": Size(0, (36, 72, 144, 288), 10, 60.0),
}


def target(side: int) -> np.ndarray:
    """A raised square and, in one corner of it, a hole."""
    g = np.arange(1, side + 1) / (side + 1)
    raised = (np.abs(g[:, None] - 0.5) < 0.25) & (np.abs(g - 0.5) < 0.25)
    hole = (np.abs(g[:, None] - 0.62) < 0.08) & (np.abs(g - 0.62) < 0.08)
    return (raised & ~hole).astype(float)


def attempt(problem: EqualityConstrained, method: Method, below: float, seconds: float) -> Result:
    """A run to the tolerance, dependent constraints untold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RankDeficient)
        stop = Stop(below={"kkt": below}, steps=300, seconds=seconds)
        return solve(problem, method, stop=stop, progress=False)


def flops(result: Result) -> float:
    """Of the linear systems, as the method counts them."""
    return result.history.metrics[-1].get("flops", np.nan) if len(result.history) else 0.0


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    names = (
        list(COLLECTION)[:: max(len(COLLECTION) // size.problems, 1)] if size.problems else list(COLLECTION)
    )
    found = {}
    for k, name in enumerate(names):
        tell(0.6 * k / len(names), name)
        for method in METHODS:
            for below in TOLERANCES[method]:
                found[name, method, below] = attempt(
                    named_problem(name), METHODS[method], below, size.seconds
                )
    tell(0.6, "constrained logistic regression")
    logistic = {
        (seed, method): attempt(_logistic(seed), METHODS[method], 1e-4, 2.0 * size.seconds)
        for seed in range(size.seeds)
        for method in METHODS
    }
    large = {}
    for k, side in enumerate(size.sides):
        tell(0.7 + 0.3 * k / len(size.sides), f"control on {side} x {side}")
        large[side] = _control(side, size.seconds)
    last = large[size.sides[-1]]
    return Evidence(
        verdicts=[*_small_verdicts(names, found), _logistic_verdict(logistic), *_large_verdicts(large)],
        table=[*_small_table(names, found), *_logistic_table(logistic), *_large_table(large)],
        figures=[_curves(large), _work(large), *_fields(last)],
        costs={
            "problems": names,
            "methods": {
                method: [
                    float(r.calls) if (r := found[name, method, 1e-4]).status is Status.CONVERGED else np.inf
                    for name in names
                ]
                for method in METHODS
            },
        },
        notes="Evaluations are points at which f, c and their derivatives are asked for. "
        "Flops count the linear systems, with their factors, and nothing else.",
    )


def _logistic(seed: int) -> EqualityConstrained:
    data = load("breast_cancer")
    assert data.y is not None
    X = (data.X - data.X.mean(0)) / data.X.std(0)
    rng = generator(seed, 0x04)
    A, w = rng.standard_normal((5, X.shape[1])), rng.standard_normal(X.shape[1])
    return constrained_logistic(X, 2.0 * data.y - 1.0, A, A @ (w / np.linalg.norm(w)))


def _control(side: int, seconds: float) -> Row:
    control = PoissonControl(target(side))
    problem = control.problem
    blocks = BlockKaczmarz(blocks=problem.blocks)
    methods: dict[str, Method] = {
        "theta = 1": SketchedNewton(blocks, conditioning=1.0),
        "theta falls": SketchedNewton(blocks, conditioning=1.0, theta=lambda k: 0.1**k),
        "single rows": SketchedNewton(Kaczmarz(), conditioning=1.0),
        GMRES: InexactSQP(adaptive=False),
        "MINRES-SQP": InexactSQP("minres", adaptive=False),
        DIRECT: NewtonSQP(),
    }
    runs = {name: attempt(problem, method, 1e-8, 10.0 * seconds) for name, method in methods.items()}
    x = problem.x0
    A: Any = as_csr(_system(problem, x))
    kept = blocks.prepare(A).stored / A.nnz  # type: ignore[attr-defined]
    return {"control": control, "runs": runs, "kept": kept}


def _system(problem: EqualityConstrained, x: Any) -> Any:
    import scipy.sparse as sp

    H, G = problem.hessian(x, np.zeros(problem.m)), problem.jacobian(x)
    blocks: Any = [[H, G.T], [G, None]]
    return sp.block_array(blocks)


def _share(names: list[str], found: dict[Any, Result], method: str, below: float) -> float:
    return float(np.mean([found[name, method, below].status is Status.CONVERGED for name in names]))


def _small_verdicts(names: list[str], found: dict[Any, Result]) -> list[Verdict]:
    ours = _share(names, found, ROWS, 1e-4)
    theirs = max(_share(names, found, m, 1e-4) for m in (GMRES, ADAPTIVE, "augmented Lagrangian"))
    whole = []
    for name in names:
        result = found[name, BLOCKS, 1e-8]
        if result.status is Status.CONVERGED and len(result.history) >= 2:
            whole += list(result.history["length"][-2:] == 1.0)
    both = [
        flops(found[name, ROWS, 1e-4]) / flops(found[name, ADAPTIVE, 1e-4])
        for name in names
        if all(found[name, m, 1e-4].status is Status.CONVERGED for m in (ROWS, ADAPTIVE))
    ]
    return [
        Verdict("Test problems with |KKT| <= 1e-4, single rows", ours, 1.0, ">="),
        Verdict(
            "Test problems with |KKT| <= 1e-4, Gaussian vectors",
            _share(names, found, VECTORS, 1e-4),
            1.0,
            ">=",
        ),
        Verdict("Test problems with |KKT| <= 1e-8, blocks", _share(names, found, BLOCKS, 1e-8), 1.0, ">="),
        Verdict("Test problems with |KKT| <= 1e-8, single rows", _share(names, found, ROWS, 1e-8), 1.0, ">="),
        Verdict(
            "Share solved beyond the best of GMRES-SQP and the method of multipliers",
            ours - theirs,
            0.0,
            ">=",
        ),
        Verdict("Whole steps among the last two, blocks", float(np.mean(whole)), 0.95, ">="),
        Verdict(
            "Test problems: flops of single rows over adaptive GMRES-SQP's, median",
            float(np.median(both)),
            1.0,
        ),
    ]


def _logistic_verdict(logistic: dict[Any, Result]) -> Verdict:
    ratios = [flops(r) / flops(logistic[seed, ADAPTIVE]) for (seed, m), r in logistic.items() if m == BLOCKS]
    return Verdict(
        "Logistic regression: flops of blocks over adaptive GMRES-SQP's", float(np.median(ratios)), 1.0
    )


def _large_verdicts(large: dict[int, Row]) -> list[Verdict]:
    sides = list(large)
    big = next((s for s in sides if 2 * s * s >= 10_000), sides[-1])
    runs = large[big]["runs"]
    kkt = runs["theta falls"].history["kkt"]
    rates = kkt[1:] / kkt[:-1]
    solved = all(large[s]["runs"]["theta = 1"].status is Status.CONVERGED for s in sides)
    unknowns = f"{2 * big * big:,} unknowns".replace(",", " ")
    return [
        Verdict(
            f"Control, {unknowns}: seconds to 1e-8", runs["theta = 1"].seconds if solved else np.inf, 60.0
        ),
        Verdict(
            "Control: numbers kept per nonzero, largest over smallest grid",
            large[sides[-1]]["kept"] / large[sides[0]]["kept"],
            1.5,
        ),
        Verdict(
            f"Control, {unknowns}: flops over GMRES-SQP's", flops(runs["theta = 1"]) / flops(runs[GMRES]), 1.0
        ),
        Verdict(
            f"Control, {unknowns}: seconds over GMRES-SQP's",
            runs["theta = 1"].seconds / runs[GMRES].seconds,
            1.0,
        ),
        Verdict(
            "Control: last contraction over the first, theta falling (superlinear)",
            float(rates[-1] / rates[0]),
            0.2,
        ),
    ]


def _small_table(names: list[str], found: dict[Any, Result]) -> Table:
    rows = []
    for method in METHODS:
        for below in TOLERANCES[method]:
            results = [found[name, method, below] for name in names]
            done = [r for r in results if r.status is Status.CONVERGED]
            failed = [n for n, r in zip(names, results, strict=True) if r.status is not Status.CONVERGED]
            rows.append(
                {
                    "task": f"{len(names)} test problems to {below:g}",
                    "method": method,
                    "solved": len(done),
                    "evaluations, median": float(np.median([r.calls for r in done])) if done else np.nan,
                    "seconds, sum": round(sum(r.seconds for r in results), 2),
                    "not solved": ", ".join(failed[:6]) + (", ..." if len(failed) > 6 else ""),
                }
            )
    return rows


def _logistic_table(logistic: dict[Any, Result]) -> Table:
    rows = []
    for method in METHODS:
        results = [r for (_, m), r in logistic.items() if m == method]
        rows.append(
            {
                "task": "logistic regression to 1e-4",
                "method": method,
                "solved": sum(r.status is Status.CONVERGED for r in results),
                "evaluations, median": float(np.median([r.calls for r in results])),
                "flops": float(f"{np.median([flops(r) for r in results]):.3g}"),
                "seconds, sum": round(sum(r.seconds for r in results), 2),
            }
        )
    return rows


def _large_table(large: dict[int, Row]) -> Table:
    return [
        {
            "task": f"control, {2 * side * side} unknowns, to 1e-8",
            "method": name,
            "solved": int(r.status is Status.CONVERGED),
            "steps": r.steps,
            "flops": float(f"{flops(r):.3g}"),
            "seconds, sum": round(r.seconds, 2),
        }
        for side, found in large.items()
        for name, r in found["runs"].items()
    ]


def _curves(large: dict[int, Row]) -> Figure:
    runs = large[max(large)]["runs"]
    series = [
        Series.of(name, np.arange(1, len(r.history) + 1), r.history["kkt"])
        for name, r in runs.items()
        if len(r.history)
    ]
    return Figure(
        "Optimal control: linear and superlinear steps",
        f"The largest grid, {max(large)} x {max(large)}.",
        "step",
        "|KKT|",
        series,
        log_y=True,
    )


def _work(large: dict[int, Row]) -> Figure:
    names = next(iter(large.values()))["runs"]
    series = [
        Series(
            name,
            [2.0 * s * s for s in large if large[s]["runs"][name].status is Status.CONVERGED],
            [
                flops(large[s]["runs"][name])
                for s in large
                if large[s]["runs"][name].status is Status.CONVERGED
            ],
        )
        for name in names
    ]
    return Figure(
        "Optimal control: work",
        "Runs that reached 1e-8.",
        "unknowns",
        "flops",
        series,
        log_x=True,
        log_y=True,
    )


def _fields(found: Row) -> list[Figure]:
    control, x = found["control"], found["runs"]["theta = 1"].x
    every = max(control.side // 36, 1)
    g = (np.arange(1, control.side + 1) / (control.side + 1))[::every].tolist()
    fields = {"state": control.state(x), "control": control.control(x), "target": np.asarray(control.target)}
    return [
        Figure(
            f"Optimal control: {name}",
            "Found by sketched Newton.",
            "x",
            "y",
            [],
            surface=Surface(g, g, values[::every, ::every].tolist()),
        )
        for name, values in fields.items()
    ]
