"""04 Sketched SQP: test problems, logistic regression and optimal control against Krylov and direct Newton steps.

Hong, Na, Mahoney and Kolar (2023), section 5, with the problems of `thalweg.constrained`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np
import scipy.sparse.linalg

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
from thalweg.studies.contest import contest
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Surface, Table, Tell
from thalweg.studies.intervals import log_slope, median, median_interval
from thalweg.studies.standings import Standings
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
LOGISTIC, STEPS = "logistic regression", 300
FALLING, MINRES = "theta falls", "MINRES-SQP"


@dataclass(frozen=True)
class Size:
    """Every how-many-th problem of the collection, sides of the controlled square, and judging seeds."""

    every: int
    sides: tuple[int, ...]
    seeds: int


SIZES = {
    "smoke": Size(27, (8, 16), 1),
    "quick": Size(7, (32, 42, 52), 5),
    "full": Size(1, (36, 72, 144), 5),
}


@dataclass(frozen=True, eq=False)
class Runs:
    """A problem and the runs made on it, kept so that several counts are of the same runs; only sketches are random."""

    problem: EqualityConstrained
    below: float
    steps: int = STEPS
    made: dict[tuple[str, int], Result] = field(default_factory=dict)

    def run(self, method: Method, seed: int) -> Result:
        key = method.name, seed if isinstance(method, SketchedNewton) else 0
        if key not in self.made:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RankDeficient)
                stop = Stop(below={"kkt": self.below}, steps=self.steps)
                self.made[key] = solve(self.problem, method, stop=stop, seed=seed, progress=False)
        return self.made[key]


def flops(result: Result) -> float:
    """Of the linear systems, as the method counts them."""
    return result.history.metrics[-1].get("flops", np.nan) if len(result.history) else 0.0


def target(side: int) -> np.ndarray:
    """A raised square and, in one corner of it, a hole."""
    g = np.arange(1, side + 1) / (side + 1)
    raised = (np.abs(g[:, None] - 0.5) < 0.25) & (np.abs(g - 0.5) < 0.25)
    hole = (np.abs(g[:, None] - 0.62) < 0.08) & (np.abs(g - 0.62) < 0.08)
    return (raised & ~hole).astype(float)


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    seeds = tuple(range(1, size.seeds + 1))
    names = list(COLLECTION)[:: size.every]
    tell(0.0, f"{len(names)} test problems")
    small = _race({name: cache(partial(_runs, name)) for name in names}, METHODS, ROWS, seeds)
    tell(0.4, "test problems to 1e-8")
    accurate = _accurate(names, seeds)
    tell(0.6, LOGISTIC)
    entered = [name for name in METHODS if name not in (ROWS, VECTORS)]
    logistic = _race({LOGISTIC: lambda seed: Runs(_logistic(seed), 1e-4)}, entered, BLOCKS, seeds)
    tell(0.7, "control")
    large = {side: Control(side) for side in size.sides}
    work = contest(
        {c.name: partial(_same, c) for c in large.values()},
        {name: {name: partial(_flops_of, name)} for name in (BLOCKS, GMRES, MINRES, DIRECT)},
        ours=BLOCKS,
        what="flops",
        judging_seeds=seeds,
    )
    ranks = small.ranks(name="test problems")
    return Evidence(
        verdicts=[
            *_solved(small),
            *ranks.compared(ROWS, GMRES, 0.0, by="difference"),
            *ranks.compared(ROWS, ADAPTIVE, 0.0, by="difference"),
            *accurate,
            *logistic.beats(1.0),
            *_large_verdicts(list(large.values()), work, seeds),
        ],
        table=[*_small_table(small, ranks), *logistic.table(), *work.table(), *_memory_table(large)],
        figures=[
            _curves(large[size.sides[-1]], seeds[0]),
            work.curves({c.name: c.unknowns for c in large.values()}, "Optimal control: work", "unknowns"),
            *_fields(large[size.sides[-1]], seeds[0]),
        ],
        costs=small.costs(),
        notes=" ".join(
            (
                "Evaluations are points at which f, c and their derivatives are asked for. Flops count the linear "
                "systems, with their factors, and nothing else. On the small problems a sketch takes ten to a hundred "
                "times the flops of a direct solve; no claim is made there.",
                *(told for race in (small, logistic, work) if (told := race.notes())),
            )
        ),
    )


def _race(
    problems: Mapping[str, Callable[[int], Runs]], names: Iterable[str], ours: str, seeds: tuple[int, ...]
) -> Standings:
    entries = {name: {name: partial(_evaluations, METHODS[name])} for name in names}
    return contest(problems, entries, ours=ours, what="evaluations", judging_seeds=seeds)


def _runs(name: str, seed: int) -> Runs:
    return Runs(named_problem(name), 1e-4)


def _same(control: Control, seed: int) -> Control:
    return control


def _evaluations(method: Method, runs: Runs, seed: int) -> float:
    found = runs.run(method, seed)
    return float(found.calls) if found.status is Status.CONVERGED else np.inf


def _flops_of(name: str, control: Control, seed: int) -> float:
    found = control.run(name, seed)
    return flops(found) if found.status is Status.CONVERGED else np.inf


def _accurate(names: list[str], seeds: tuple[int, ...]) -> list[Verdict]:
    """Shares solved to 1e-8, and whole steps at the end."""
    shares: dict[str, list[float]] = {BLOCKS: [], ROWS: []}
    whole: list[float] = []
    for seed in seeds:
        for method, share in shares.items():
            found = [Runs(named_problem(name), 1e-8).run(METHODS[method], seed) for name in names]
            done = [r for r in found if r.status is Status.CONVERGED]
            share.append(len(done) / len(found))
            if method == BLOCKS:
                ends = [r.history["length"][-2:] for r in done if len(r.history) >= 2]
                whole.append(float(np.mean(np.concatenate(ends) == 1.0)))
    return [
        *(_least(f"Test problems solved to 1e-8, {m}: share", share, 1.0) for m, share in shares.items()),
        _least("Whole steps among the last two, blocks: share", whole, 0.95),
    ]


def _least(claim: str, values: list[float], required: float) -> Verdict:
    return Verdict(claim, median(values), required, ">=", median_interval(values))


def _logistic(seed: int) -> EqualityConstrained:
    data = load("breast_cancer")
    assert data.y is not None
    X = (data.X - data.X.mean(0)) / data.X.std(0)
    rng = generator(seed, 0x04)
    A, w = rng.standard_normal((5, X.shape[1])), rng.standard_normal(X.shape[1])
    return constrained_logistic(X, 2.0 * data.y - 1.0, A, A @ (w / np.linalg.norm(w)))


@dataclass(frozen=True, eq=False)
class Control:
    """The controlled square of a side, its methods and runs."""

    side: int
    control: PoissonControl = field(init=False)
    runs: Runs = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "control", PoissonControl(target(self.side)))
        object.__setattr__(self, "runs", Runs(self.control.problem, 1e-8, 30))

    @property
    def name(self) -> str:
        return f"control, {self.unknowns} unknowns"

    @property
    def unknowns(self) -> int:
        return self.control.problem.n

    @property
    def blocks(self) -> BlockKaczmarz:
        return BlockKaczmarz(blocks=self.control.problem.blocks)

    @property
    def methods(self) -> dict[str, Method]:
        """By their names in the race; the patches are those of this side."""
        return {
            BLOCKS: SketchedNewton(self.blocks, conditioning=1.0),
            FALLING: SketchedNewton(self.blocks, conditioning=1.0, theta=lambda k: 0.1**k),
            GMRES: InexactSQP(adaptive=False),
            MINRES: InexactSQP("minres", adaptive=False),
            DIRECT: NewtonSQP(),
        }

    def run(self, name: str, seed: int) -> Result:
        return self.runs.run(self.methods[name], seed)

    def kept(self) -> tuple[float, float]:
        """Numbers kept by the blocks, and by the factors of a direct solve, for each nonzero of the system."""
        A = as_csr(_system(self.control.problem, self.control.problem.x0))
        factors = scipy.sparse.linalg.splu(A.tocsc())
        stored = self.blocks.prepare(A).stored  # type: ignore[attr-defined]
        return stored / A.nnz, (factors.L.nnz + factors.U.nnz) / A.nnz


def _system(problem: EqualityConstrained, x: Any) -> Any:
    import scipy.sparse as sp

    H, G = problem.hessian(x, np.zeros(problem.m)), problem.jacobian(x)
    blocks: Any = [[H, G.T], [G, None]]
    return sp.block_array(blocks)


def _solved(small: Standings) -> list[Verdict]:
    """Shares solved, of each seed, and those of single rows against the best of all others."""
    left = {m: np.mean([np.isinf(s[m]) for s in small.scores.values()], axis=0) for m in small.contestants}
    shares = [
        _least(f"Test problems solved to 1e-4, {m}: share", [*(1.0 - left[m])], 1.0) for m in (ROWS, VECTORS)
    ]
    return [
        *shares,
        *Standings("share not solved", ROWS, {"test problems": left}).beats(0.0, by="difference"),
    ]


def _large_verdicts(large: list[Control], work: Standings, seeds: tuple[int, ...]) -> list[Verdict]:
    unknowns = [float(c.unknowns) for c in large]
    spent = {m: np.array([work.scores[c.name][m] for c in large]) for m in (BLOCKS, DIRECT)}
    powers = {m: [log_slope(unknowns, spent[m][:, k]) for k in range(len(seeds))] for m in spent}
    gain = np.subtract(powers[BLOCKS], powers[DIRECT])
    contraction = []
    for seed in seeds:
        kkt = large[-1].run(FALLING, seed).history["kkt"]
        contraction.append(float(kkt[-1] / kkt[-2] / (kkt[1] / kkt[0])))
    (least, _), (most, factors) = large[0].kept(), large[-1].kept()
    return [
        work.beats(1.0)[-1],
        Verdict(
            "Control: power of the unknowns in the flops, blocks - direct",
            median(gain),
            0.0,
            "<=",
            median_interval(gain),
        ),
        Verdict("Control: numbers kept per nonzero, largest over smallest grid", most / least, 1.5),
        Verdict("Control: numbers kept, blocks over the factors of a direct solve", most / factors, 1.0),
        Verdict(
            "Control: last contraction over the first, theta falling (superlinear)",
            median(contraction),
            0.2,
            "<=",
            median_interval(contraction),
        ),
    ]


def _small_table(small: Standings, ranks: Standings) -> Table:
    rows: Table = []
    for method in small.contestants:
        failed = [name for name, found in small.scores.items() if np.isinf(found[method]).any()]
        rows.append(
            {
                "problem": f"{len(small.scores)} test problems to 1e-4",
                "contestant": method,
                "solved with every seed": len(small.scores) - len(failed),
                "mean rank by evaluations": median(ranks.scores["test problems"][method]),
                "not solved": ", ".join(failed[:6]) + (", ..." if len(failed) > 6 else ""),
            }
        )
    return rows


def _memory_table(large: dict[int, Control]) -> Table:
    kept = {c.name: c.kept() for c in large.values()}
    return [
        {"problem": name, "contestant": who, "numbers kept per nonzero": float(f"{number:.3g}")}
        for name, numbers in kept.items()
        for who, number in zip((BLOCKS, DIRECT), numbers, strict=True)
    ]


def _curves(largest: Control, seed: int) -> Figure:
    runs = {name: largest.run(name, seed) for name in largest.methods}
    series = [
        Series.of(name, np.arange(1, len(r.history) + 1), r.history["kkt"])
        for name, r in runs.items()
        if len(r.history)
    ]
    caption = f"The largest grid, {largest.side} x {largest.side}."
    return Figure(
        "Optimal control: linear and superlinear steps", caption, "step", "|KKT|", series, log_y=True
    )


def _fields(largest: Control, seed: int) -> list[Figure]:
    control, x = largest.control, largest.run(BLOCKS, seed).x
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
