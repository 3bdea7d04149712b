"""12 Lion-K: what the optimizers of the family converge to, and how.

Chen, Liu, Liang and Liu (2024): the two phases, the Lyapunov function, and the composite problem of each
function, on scikit-learn's diabetes data; the bound on a network's weights, on digits.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from thalweg.core import Result, Run, Stop, solve
from thalweg.datasets import load
from thalweg.studies import tasks
from thalweg.studies.evidence import Evidence, Figure, Scale, Series, Tell
from thalweg.studies.intervals import median, median_interval
from thalweg.studies.verdict import Verdict
from thalweg.training import (
    L1,
    REX,
    ConvexFunction,
    GroupL2,
    HalfSquare,
    Huber,
    Lion,
    LionK,
    LionKFlow,
    Lp,
    PseudoHuber,
    SmoothFunction,
    ThresholdedL1,
    TopK,
    Train,
    TrainingTask,
)

Vector = NDArray[np.float64]
FUNCTIONS: tuple[ConvexFunction, ...] = (
    L1(),
    Lp(2.0),
    Lp(3.0),
    GroupL2(),
    HalfSquare(),
    ThresholdedL1(0.1),
    TopK(3),
    Huber(0.5),
    PseudoHuber(0.5),
)
DECAY = 5.0  # the box |x|_inf <= 0.2 cuts off the largest of the least-squares coefficients
STEPS = {"smoke": 100, "quick": 1000, "full": 20_000}
#: Time of a step of the flows outside of the box; share of the whole time of a flow.
DT = 4e-3
SHARES = {"smoke": 0.05, "quick": 1.0, "full": 1.0}


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    A, b = _diabetes()
    rows, gaps, curves = [], [], []
    for i, function in enumerate(FUNCTIONS):
        tell(0.5 * i / len(FUNCTIONS), f"composite optimum, {function!r}")
        best = _independent(function, A, b, DECAY)
        objective, steps, history = _train(function, A, b, DECAY, STEPS[scale])
        gaps.append(abs(objective - best))
        rows.append(
            {
                "function": repr(function),
                "Lion-K": round(objective, 6),
                "SLSQP": round(best, 6),
                "gap": gaps[-1],
            }
        )
        curves.append(Series.of(repr(function), steps, np.maximum(np.abs(history - best), 1e-9)))
    tell(0.5, "box")
    inactive = _box_effect(A, b, STEPS[scale])
    tell(0.6, "phases and Lyapunov function")
    rate, kept, phase = _phases(SHARES[scale])
    rise, lyapunov = _lyapunov(A, b, round(3000 * SHARES[scale]))
    tell(0.8, "network")
    reach, histogram = _network(scale)
    verdicts = [
        Verdict(
            "Phase I: rate at which the distance to the box falls / lambda, the one of three furthest from 1",
            rate,
            (0.95, 1.05),
            "within",
        ),
        Verdict(
            "Phase II: once inside, |x|_inf <= 1/lambda is kept (largest excess over 1/lambda)", kept, 1e-6
        ),
        Verdict(
            "Each function reaches its composite optimum to 1e-3 (largest distance to SLSQP's value)",
            max(gaps),
            1e-3,
        ),
        Verdict("The Lyapunov function falls along the flow (largest rise over the whole fall)", rise, 1e-4),
        Verdict("A box that holds the unconstrained optimum leaves the loss unchanged", inactive[0], 1e-3),
        Verdict("A smaller box raises the loss", inactive[1], 1e-3, ">="),
        Verdict(
            "A digits network trained with Lion keeps |w|_inf <= 1/lambda (largest weight times lambda)",
            median(reach),
            1.01,
            interval=median_interval(reach),
        ),
    ]
    composite = Figure(
        "Distance to the composite optimum",
        "f(x) + K*(lambda x)/lambda above SLSQP's value, diabetes data, learning rate falling to zero.",
        "step",
        "objective gap",
        curves,
        log_x=True,
        log_y=True,
    )
    return Evidence(
        verdicts=verdicts,
        table=rows,
        figures=[composite, phase, lyapunov, histogram],
        notes=(
            "Least squares on the standardised diabetes data (10 features), lambda = 5. The independent solver is "
            "SciPy's SLSQP on the smooth constrained form of each composite problem. Only the network is random, "
            f"of {len(reach)} seeds: a rate of 8 over the number of steps, so that the start, up to four times "
            "outside of the box, is left behind at every scale."
        ),
    )


@functools.cache
def _diabetes() -> tuple[Vector, Vector]:
    data = load("diabetes")
    assert data.y is not None
    X = (data.X - data.X.mean(0)) / data.X.std(0)
    y = (data.y - data.y.mean()) / data.y.std()
    # A square factor with the same normal equations: 1/2 |A x - b|^2 = 1/(2 n) |X x - y|^2 + constant.
    A = np.linalg.cholesky(X.T @ X / len(y)).T
    return A, np.linalg.solve(A.T, X.T @ y / len(y))


class _Vector(nn.Module):
    """Ten unknowns, as pairs for the function that groups them."""

    def __init__(self, function: ConvexFunction) -> None:
        super().__init__()
        self.x = nn.Parameter(
            torch.zeros((5, 2) if isinstance(function, GroupL2) else 10, dtype=torch.float64)
        )


def _train(
    function: ConvexFunction, A: Vector, b: Vector, decay: float, steps: int
) -> tuple[float, Vector, Vector]:
    """The composite objective at the end, and along the way: at some steps, its values."""
    data = torch.tensor(A), torch.tensor(b)

    def loss(model: nn.Module, A: Tensor, b: Tensor) -> Tensor:
        x: Tensor = model.get_parameter("x")
        return 0.5 * (A @ x.flatten() - b).square().sum()

    def objective(model: nn.Module, A: Tensor, b: Tensor) -> Tensor:
        x = model.get_parameter("x").detach()
        return loss(model, A, b).detach() + function.finite_conjugate(decay * x) / decay

    def falling(optimizer: Optimizer, total: int) -> LambdaLR:
        return LambdaLR(optimizer, lambda t: (1.0 - t / total) ** 2 + 5e-7)

    seen: list[tuple[int, float]] = []

    def look(run: Run) -> None:
        if run.steps % max(steps // 100, 1) == 0:
            seen.append((run.steps, float(objective(run.state.x, *data))))

    task = TrainingTask(
        lambda: _Vector(function), data, data, steps, len(b), loss, scores={"objective": objective}
    )
    optimizer = Train(LionK, {"lr": 0.02, "weight_decay": decay, "K": function}, falling)
    result = solve(task, optimizer, callbacks=[look], progress=False)
    at, values = np.array(seen).T
    return result.metrics["objective"], at, values


def _independent(function: ConvexFunction, A: Vector, b: Vector, decay: float) -> float:
    """The composite optimum by SLSQP, x split into its positive and negative part."""
    n = len(b)

    def split(z: Vector) -> Vector:
        return np.asarray(z[:n] - z[n:])

    def objective(z: Vector) -> float:
        x = split(z)
        y = decay * x
        penalty = 0.0
        if isinstance(function, HalfSquare):
            penalty = 0.5 * float(y @ y)
        elif isinstance(function, ThresholdedL1):
            penalty = function.e * decay * float(z.sum())
        elif isinstance(function, Huber):
            penalty = 0.5 * function.e * float(y @ y)
        elif isinstance(function, PseudoHuber):
            penalty = -function.e * float(np.sqrt(np.maximum(1.0 - y**2, 1e-16)).sum())
        return 0.5 * float(np.sum((A @ x - b) ** 2)) + penalty / decay

    limits: Any = []
    if isinstance(function, Lp):
        q = function.p / (function.p - 1.0)
        limits = [{"type": "ineq", "fun": lambda z: 1.0 - np.sum((np.abs(decay * split(z)) + 1e-12) ** q)}]
    elif isinstance(function, GroupL2):
        limits = [
            {"type": "ineq", "fun": lambda z: 1.0 - np.sum((decay * split(z)).reshape(5, 2) ** 2, axis=1)}
        ]
    elif isinstance(function, TopK):
        limits = [{"type": "ineq", "fun": lambda z: function.k - decay * z.sum()}]
    bounded = not isinstance(function, HalfSquare | Lp | GroupL2)
    bounds = [(0.0, 1.0 / decay if bounded else None)] * (2 * n)
    options = {"maxiter": 300, "ftol": 1e-10}
    starts = [np.full(2 * n, 0.01 / decay), np.full(2 * n, 0.05 / decay)]
    solver: Any = optimize.minimize
    found = [
        solver(objective, z, method="SLSQP", bounds=bounds, constraints=limits, options=options)
        for z in starts
    ]
    return float(min(r.fun for r in found))


def _box_effect(A: Vector, b: Vector, steps: int) -> tuple[float, float]:
    """How far the loss of Lion is above the unconstrained optimum: in a large box, and in a small one."""
    x = np.linalg.solve(A, b)
    largest = float(np.abs(x).max())
    wide, *_ = _train(L1(), A, b, 0.5 / largest, steps)
    narrow, *_ = _train(L1(), A, b, 4.0 / largest, steps)
    return wide, narrow  # the unconstrained optimum of this form is zero


def _phases(share: float) -> tuple[float, float, Figure]:
    """Lion's flow from outside the box: the fitted rate over lambda, the later excess, and the curve.

    ``share`` of the whole time of the flow.
    """
    problem = SmoothFunction(lambda x: -x.sum(), torch.full((5,), 10.0, dtype=torch.float64))
    series, rates = [], []
    for decay in (0.5, 1.0, 2.0):
        flow = LionKFlow(L1(), weight_decay=decay, dt=DT)
        result = solve(problem, flow, stop=Stop(steps=int(share * 3.0 / (DT * decay))), progress=False)
        time = DT * np.arange(1, result.steps + 1)
        excess = result.history["excess"]
        rates.append(-np.polyfit(time, np.log(excess), 1)[0] / decay)
        series.append(Series.of(f"lambda = {decay}", time, excess))
    inward = SmoothFunction(lambda x: 0.5 * ((x - 3.0) ** 2).sum(), problem.x0)
    flow = LionKFlow(L1(), dt=DT)
    excess = solve(inward, flow, stop=Stop(steps=round(20.0 * share / DT)), progress=False).history["excess"]
    later = excess[np.flatnonzero(excess < 1e-7)[0] :] if (excess < 1e-7).any() else excess
    figure = Figure(
        "Phase I: outside the box",
        "|lambda x|_inf - 1 along the flow of a linear f that pulls outwards: a straight line is exp(-lambda t).",
        "time",
        "excess",
        series,
        log_y=True,
    )
    return max(rates, key=lambda r: abs(r - 1.0)), float(later.max()), figure


def _lyapunov(A: Vector, b: Vector, steps: int) -> tuple[float, Figure]:
    matrix, rhs = torch.tensor(A), torch.tensor(b)
    problem = SmoothFunction(
        lambda x: 0.5 * (matrix @ x - rhs).square().sum(), torch.zeros(10, dtype=torch.float64)
    )
    rises, series = [], []
    for function in (HalfSquare(), Huber(0.1), PseudoHuber(0.1)):
        flow = LionKFlow(function, weight_decay=DECAY, dt=0.001)
        result: Result = solve(problem, flow, stop=Stop(steps=steps), progress=False)
        H = result.history["lyapunov"]
        rises.append(np.maximum(np.diff(H), 0.0).max() / (H[0] - H[-1]))
        series.append(Series.of(repr(function), 0.001 * np.arange(1, len(H) + 1), H - H.min() + 1e-9))
    figure = Figure(
        "The Lyapunov function along the flow",
        "H above its last value, diabetes data.",
        "time",
        "H - min H",
        series,
        log_y=True,
    )
    return float(max(rises)), figure


def _network(scale: Scale) -> tuple[list[float], Figure]:
    """Largest weights times lambda, a seed each; the weights of the last."""
    decay, steps = 10.0, {"smoke": 100, "quick": 200, "full": 2000}[scale]
    task, rate = tasks.digits(steps, 64, network="mlp"), 8.0 / steps
    reach = []
    for seed in range(1, 3 if scale == "smoke" else 6):
        lion = solve(task, Train(Lion, {"lr": rate, "weight_decay": decay}, REX), seed=seed, progress=False)
        reach.append(decay * max(float(p.detach().abs().max()) for p in lion.x.parameters()))
    free = solve(task, Train(Lion, {"lr": rate}, REX), seed=seed, progress=False)
    edges = np.linspace(-0.4, 0.4, 65)
    series = []
    for name, result in (("lambda = 10", lion), ("no decay", free)):
        weights = torch.cat([p.detach().flatten() for p in result.x.parameters()]).numpy()
        counts, _ = np.histogram(np.clip(weights, -0.4, 0.4), bins=edges)
        centers = 0.5 * (edges[1:] + edges[:-1])
        series.append(
            Series(f"{name}, accuracy {result.metrics['accuracy']:.3f}", centers.tolist(), counts.tolist())
        )
    figure = Figure(
        "Weights of a digits network trained with Lion",
        "With lambda = 10 they are confined to [-0.1, 0.1]; without decay they are not (ends: all beyond).",
        "weight",
        "count",
        series,
        kind="steps",
    )
    return reach, figure
