"""15 Matrix completion: approximate half-steps against exact ones, in path, cost, error, success and conditioning.

Gu, Song, Yin and Zhang (2024) prove that alternating minimisation bears approximate half-steps; they ran nothing. The
settings here are ours.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import solve_triangular

from thalweg.core import Method, Run, Stop, solve
from thalweg.matrix import AltMin, CGAltMin, Completion, ExactAltMin, Underdetermined
from thalweg.matrix.half_steps import ConjugateGradients, Exact, HalfStep, Work, rows_of
from thalweg.matrix.observations import Reals
from thalweg.numerics import sketched_factor, sketched_lstsq
from thalweg.studies.evidence import Evidence, Figure, Row, Scale, Series, Table, Tell
from thalweg.studies.intervals import log_slope, median, median_interval
from thalweg.studies.verdict import Verdict

#: Seconds are among the claims: it runs alone.
timed = True
SEEDS = (0, 1, 2, 3, 4)
OVERSAMPLING = (1.5, 2.0, 2.5, 4.0)
RANKS = (32, 64, 128)
EXACT, CG = "exact", "CG(3)"
METHODS: dict[str, AltMin] = {EXACT: ExactAltMin(), CG: CGAltMin()}


@dataclass(frozen=True)
class Size:
    """Side and drawn entries of A, shape and drawn entries of B and its rounds, seeds and sweeps of D.

    Rows are as long at quick scale as at full scale, and there are fewer of them.
    """

    side: int
    drawn: int
    timed: tuple[int, int, int]
    rounds: int
    trials: int
    sweeps: int


SIZES = {
    "smoke": Size(300, 40_000, (300, 200, 30_000), 5, 2, 30),
    "quick": Size(600, 100_000, (3000, 400, 300_000), 5, 6, 60),
    "full": Size(2000, 400_000, (3000, 2000, 1_500_000), 11, 40, 100),
}


@dataclass(frozen=True)
class Hidden:
    """A matrix ``U V'`` of rank k, and the places where it is seen."""

    U: Reals
    V: Reals
    problem: Completion

    @classmethod
    def of(cls, m: int, n: int, rank: int, drawn: int, seed: int, distinct: bool = False) -> Hidden:
        """Normal factors; ``drawn`` places with repetition, of which each counts once, or so many distinct ones."""
        rng = np.random.default_rng([0x15, seed])
        U, V = rng.standard_normal((m, rank)), rng.standard_normal((n, rank))
        if distinct:
            places = rng.choice(m * n, drawn, replace=False)
        else:
            places = np.unique(rng.integers(m * n, size=drawn))
        rows, columns = places // n, places % n
        values = np.einsum("ek,ek->e", U[rows], V[columns])
        return cls(U, V, Completion((rows, columns, values), rank, shape=(m, n), held_out=0.0))

    def error(self, x: Reals) -> float:
        """``|X - M| / |M|`` in Frobenius' norm, by triangular factors: 1e-15 is seen."""
        A, B = self.problem.pair(x)
        P, Q = np.hstack([A, -self.U]), np.hstack([B, self.V])
        return _size_of_product(P, Q) / self.size

    @cached_property
    def size(self) -> float:
        """``|M|``."""
        return _size_of_product(self.U, self.V)


def _size_of_product(U: Reals, V: Reals) -> float:
    """``|U V'|``, by triangular factors."""
    (_, R), (_, S) = np.linalg.qr(U), np.linalg.qr(V)
    return float(np.linalg.norm(R @ S.T))


def errors(hidden: Hidden, method: Method, sweeps: int, below: float = 0.0) -> list[float]:
    """The error after each sweep, until one is below."""
    found: list[float] = []

    def record(run: Run) -> bool:
        found.append(hidden.error(run.state.x))
        return found[-1] < below

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Underdetermined)
        solve(hidden.problem, method, stop=Stop(steps=sweeps), callbacks=[record], progress=False)
    return found


@dataclass(frozen=True)
class Disturbed(ExactAltMin):
    """Exact half-steps, each with a random error of ``share`` of its size."""

    share: float = 0.0

    def updated(
        self, problem: Completion, at: int, other: Reals, own: Reals, half: int, seed: int
    ) -> tuple[Reals, float]:
        X, slope = super().updated(problem, at, other, own, half, seed)
        noise = np.random.default_rng([seed, half, 0x15]).standard_normal(X.shape)
        return X + noise * (self.share * np.linalg.norm(X) / np.linalg.norm(noise)), slope


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    size = SIZES[scale]
    parts = []
    for share, what, part in (
        (0.0, "A paths", lambda: _paths(size)),
        (0.25, "B cost", lambda: _costs(size)),
        (0.6, "C injected errors", _injected),
        (0.65, "D success", lambda: _transition(size, tell)),
        (0.97, "E preconditioner", _preconditioner),
    ):
        tell(share, what)
        parts.append(part())
    return Evidence(
        verdicts=[verdict for verdicts, _, _ in parts for verdict in verdicts],
        table=[row for _, rows, _ in parts for row in rows],
        figures=[figure for _, _, figures in parts for figure in figures],
        notes="Matrices are products of normal factors, without noise; errors are relative, in Frobenius' norm, over "
        "the whole matrix. A half-step is V anew from U, in one thread, from the same start. D counts a run as a "
        "success whose error falls below 1e-4.",
    )


Part = tuple[list[Verdict], Table, list[Figure]]


def _paths(size: Size) -> Part:
    gaps, sweeps = [], []
    curves: dict[str, list[list[float]]] = {}
    for seed in SEEDS:
        hidden = Hidden.of(size.side, size.side, 5, size.drawn, seed)
        found = {name: errors(hidden, method, 15) for name, method in METHODS.items()}
        exact, ours = np.array(found[EXACT]), np.array(found[CG])
        gaps.append(float(np.max(np.abs(ours / exact - 1.0)[:10])))
        sweeps.append(_first_below(found[CG], 1e-9))
        for name, path in found.items():
            curves.setdefault(name, []).append(path)
    hidden = Hidden.of(size.side, size.side, 5, size.drawn, 0)
    few = {f"CG({steps})": errors(hidden, CGAltMin(cg_steps=steps), 15) for steps in (1, 2)}
    verdicts = [
        Verdict(
            "A: the error of CG(3) after each of the first ten sweeps is that of exact ones (largest relative gap)",
            median(gaps),
            0.05,
            interval=median_interval(gaps),
        ),
        Verdict(
            "A: sweeps of CG(3) to a relative error of 1e-9",
            median(sweeps),
            12.0,
            interval=median_interval(sweeps),
        ),
    ]
    table: Table = [
        {"claim": "A", "method": name, "sweep": k, "error": float(np.median([p[k - 1] for p in paths]))}
        for name, paths in {**curves, **{n: [p] for n, p in few.items()}}.items()
        for k in (1, 2, 3, 5, 10, 15)
    ]
    x = list(range(1, 16))
    series = [Series.of(name, x, np.array(paths)) for name, paths in curves.items()]
    series += [Series.of(name, x, path) for name, path in few.items()]
    caption = f"{size.side} x {size.side}, rank 5, {size.drawn} places drawn; mean and range of five seeds."
    figure = Figure("A: the same path", caption, "sweep", "relative error", series, log_y=True)
    return verdicts, table, [figure]


def _first_below(path: list[float], bound: float) -> float:
    return next((k + 1.0 for k, error in enumerate(path) if error <= bound), np.inf)


def _costs(size: Size) -> Part:
    m, n, drawn = size.timed
    four = ConjugateGradients(4)
    times: dict[tuple[str, int], list[float]] = {}
    fits: dict[str, HalfStep] = {"exact": Exact(), "CG(4)": four, "CG(3)": ConjugateGradients(3)}
    pattern = Hidden.of(m, n, 1, drawn, 0).problem
    for rank in (8, *RANKS):
        work = _HalfStep(pattern, rank)
        for fit in fits.values() if rank == 8 else ():
            work(fit)  # compiled
        for _ in range(size.rounds):
            for name, fit in fits.items():
                times.setdefault((name, rank), []).append(work(fit))

    def ratio(over: str, under: str, rank: int) -> np.ndarray:
        return np.array(times[over, rank]) / np.array(times[under, rank])

    def power(name: str) -> np.ndarray:
        return np.array([log_slope(RANKS, [times[name, k][r] for k in RANKS]) for r in range(size.rounds)])

    claims: list[tuple[str, np.ndarray, float, str]] = [
        (
            "B: processor seconds of an exact half-step over those of CG(4), rank 64",
            ratio("exact", "CG(4)", 64),
            2.5,
            ">=",
        ),
        (
            "B: processor seconds of an exact half-step over those of CG(4), rank 128",
            ratio("exact", "CG(4)", 128),
            3.0,
            ">=",
        ),
        (
            "B: power of the rank in the processor seconds of CG(3), ranks 32 to 128",
            power("CG(3)"),
            1.1,
            "<=",
        ),
        (
            "B: power of the rank in the processor seconds of exact half-steps, ranks 32 to 128",
            power("exact"),
            1.3,
            ">=",
        ),
        (
            "B: processor seconds of an exact half-step over those of CG(3), rank 8",
            ratio("exact", "CG(3)", 8),
            1.0,
            "<=",
        ),
    ]
    verdicts = [
        Verdict(claim, median(values), bound, relation, interval=median_interval(values))  # type: ignore[arg-type]
        for claim, values, bound, relation in claims
    ]
    table: Table = [
        {"claim": "B", "method": name, "rank": rank, "seconds": min(values)}
        for (name, rank), values in times.items()
    ]
    ranks = [8, *RANKS]
    series = [Series.of(name, ranks, [min(times[name, k]) for k in ranks]) for name in fits]
    caption = f"Half-step on {m} x {n}, {drawn} places drawn, float64, one thread; best of {size.rounds}."
    figure = Figure("B: cost of a half-step", caption, "rank", "seconds", series, log_x=True, log_y=True)
    return verdicts, table, [figure]


class _HalfStep:
    """V anew from a random U, in seconds of the processor: a busy machine does not count."""

    def __init__(self, pattern: Completion, rank: int) -> None:
        D = np.random.default_rng([0x15, rank]).standard_normal((pattern.m, rank))
        rows = rows_of(pattern, pattern.train, 1)
        self.work = Work(rows, D, pattern.gram(D), rows.targets(np.empty(0)))
        self.shape = (pattern.n, rank)

    def __call__(self, fit: HalfStep) -> float:
        X, spare, more = np.zeros(self.shape), np.zeros(self.shape[0]), np.zeros(self.shape[0])
        start = time.process_time()
        fit(self.work, 0, len(X), X, spare, more)
        return time.process_time() - start


def _injected() -> Part:
    shares = (1e-6, 1e-4, 1e-2)
    contraction, plateau = [], {share: [] for share in shares}  # type: ignore[var-annotated]
    series, table = [], []
    for seed in SEEDS:
        hidden = Hidden.of(600, 600, 4, 80_000, seed)
        for share in (0.0, *shares):
            path = errors(hidden, Disturbed(share=share), 25)
            if share:
                plateau[share].append(float(np.median(path[15:])) / share)
            if share in (1e-6, 1e-4):
                contraction.append(min(path[k] / path[k + 1] for k in range(2)))
            if seed == 0:
                series.append(Series.of(f"eps0 = {share:g}", range(1, 26), path))
                table.append({"claim": "C", "eps0": share, "error after 25 sweeps": path[-1]})
    worst = np.array(contraction).reshape(len(SEEDS), 2).min(1)
    claim = "C: with errors of 1e-6 and 1e-4 in each half-step the first three sweeps contract (least factor a sweep)"
    verdicts = [Verdict(claim, median(worst), 2.0, ">=", interval=median_interval(worst))]
    for share in shares:
        claim = f"C: the floor of the error over that of a half-step, {share:g}"
        found = plateau[share]
        verdicts.append(Verdict(claim, median(found), (0.5, 5.0), "within", interval=median_interval(found)))
    caption = "600 x 600, rank 4; every half-step is followed by a random error of eps0 of its size."
    figure = Figure("C: robustness", caption, "sweep", "relative error", series, log_y=True)
    return verdicts, table, [figure]


def _transition(size: Size, tell: Tell) -> Part:
    m, rank = 200, 3
    wins = {name: dict.fromkeys(OVERSAMPLING, 0) for name in METHODS}
    for t, factor in enumerate(OVERSAMPLING):
        tell(0.65 + 0.08 * t, f"D {factor:g} times the degrees of freedom")
        for seed in range(size.trials):
            hidden = Hidden.of(m, m, rank, round(factor * rank * (2 * m - rank)), seed, distinct=True)
            for name, method in METHODS.items():
                wins[name][factor] += errors(hidden, method, size.sweeps, 1e-4)[-1] < 1e-4
    apart = max(abs(wins[EXACT][f] - wins[CG][f]) / size.trials for f in OVERSAMPLING)
    enough = min(wins[name][2.5] / size.trials for name in METHODS)
    verdicts = [
        Verdict("D: largest difference between exact and CG(3) in the share of successes", apart, 0.2),
        Verdict(
            "D: successes with 1.5 times the degrees of freedom, exact and CG(3) together",
            float(wins[EXACT][1.5] + wins[CG][1.5]),
            0.0,
        ),
        Verdict(
            "D: share of successes with 2.5 times, the smaller of exact and CG(3)",
            enough,
            0.7,
            ">=",
        ),
    ]
    table: Table = [
        {"claim": "D", "method": name, "oversampling": factor, "successes": count, "trials": size.trials}
        for name, counts in wins.items()
        for factor, count in counts.items()
    ]
    series = [
        Series.of(name, OVERSAMPLING, [c / size.trials for c in counts.values()])
        for name, counts in wins.items()
    ]
    caption = f"200 x 200, rank 3, {size.trials} seeds, {size.sweeps} sweeps."
    figure = Figure(
        "D: how many entries", caption, "entries over degrees of freedom", "share of successes", series
    )
    return verdicts, table, [figure]


def _preconditioner() -> Part:
    conditions, ours, more = [], [], []
    table: list[Row] = []
    for seed in SEEDS:
        rng = np.random.default_rng([0x15, 5, seed])
        A = rng.standard_normal((2000, 32)) * np.geomspace(1.0, 1e-4, 32)
        b = A @ (rng.standard_normal(32) / np.geomspace(1.0, 1e-4, 32)) + 0.1 * rng.standard_normal(2000)
        R = sketched_factor(A, seed=seed)
        conditions.append(float(np.linalg.cond(solve_triangular(R, A.T, trans="T").T)))
        exact = np.linalg.lstsq(A, b)[0]
        ours.append(_steps(A, b, R, exact))
        plain = _steps(A, b, np.eye(32), exact)
        more.append(plain / ours[-1])
        table.append(
            {"claim": "E", "seed": seed, "condition": conditions[-1], "steps": ours[-1], "plain steps": plain}
        )
    verdicts = [
        Verdict("E: condition number of A R^-1, sketches of 4 k rows", median(conditions), 5.0,
                interval=median_interval(conditions)),
        Verdict("E: preconditioned steps to 1e-10 of the solution", median(ours), 40.0, interval=median_interval(ours)),
        Verdict("E: plain steps over preconditioned ones (plain stop at 2000)", median(more), 4.0, ">=",
                interval=median_interval(more)),
    ]  # fmt: skip
    series = [Series("steps over plain steps", [float(s) for s in SEEDS], [1.0 / r for r in more], dots=True)]
    figure = Figure("E: preconditioner", "Columns scaled 1 to 1e-4.", "seed", "share of plain steps", series)
    return verdicts, table, [figure]


def _steps(A: np.ndarray, b: np.ndarray, R: np.ndarray, exact: np.ndarray) -> float:
    """Steps of conjugate gradients until ``|A (x - exact)|`` is 1e-10 of what it is at zero."""
    goal = 1e-10 * float(np.linalg.norm(A @ exact))

    def is_near(steps: int) -> bool:
        return (
            float(np.linalg.norm(A @ (sketched_lstsq(A, b, R=R, tol=1e-16, max_steps=steps).x - exact)))
            <= goal
        )

    low, high = 0, 1
    while not is_near(high):
        if high >= 2000:
            return 2000.0
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_near(middle) else (middle, high)
    return float(high)
