"""13 Implicit differentiation: its error beside the solver's, and hyper-gradients of a support vector machine.

Blondel et al. (2022), figure 3 (ridge regression) and section 4.1 (multi-class support vector machines).
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.bilevel import ProximalGradient, differentiable, root_jvp
from thalweg.core import Stop
from thalweg.core.figure import Figure, Series
from thalweg.datasets import load
from thalweg.numerics.projections import simplex
from thalweg.numerics.torch_krylov import LinearSolver
from thalweg.studies.evidence import Evidence, Scale, Table, Tell
from thalweg.studies.verdict import Verdict

Vector = NDArray[np.float64]


#: Seconds are among the claims: it runs alone.
timed = True


def run(scale: Scale = "quick", tell: Tell = lambda share, what: None) -> Evidence:
    """Rerun the claims at a scale."""
    tell(0.0, "ridge regression")
    ridge = _ridge({"smoke": 30, "quick": 300, "full": 2000}[scale])
    sizes = {"smoke": (20,), "quick": (50, 100, 200), "full": (100, 200, 400, 800)}[scale]
    machines = []
    for i, m in enumerate(sizes):
        tell(0.1 + 0.9 * i / len(sizes), f"support vector machine, {m} examples")
        machines.append(_machine(m, {"smoke": 200, "quick": 1000, "full": 2500}[scale]))
    return Evidence(
        verdicts=_verdicts(ridge, machines),
        table=_table(ridge, machines),
        figures=_figures(ridge, machines),
        notes=(
            "Ridge: the derivative of the coefficients in the strength, on diabetes, at the iterates of gradient "
            "descent; errors are distances to the closed forms. Support vector machine: the dual of Crammer and "
            "Singer on digits, a row of the simplex for each example, solved by accelerated projected gradient steps; "
            "the hyper-gradient is that of the squared error on held-out digits in the logarithm of the strength. "
            "Unrolled derivatives go through as many steps as the implicit method's solver made; true ones are central "
            "differences."
        ),
    )


def _ridge(steps: int) -> dict[str, Vector]:
    """Errors of the iterates, and of implicit and unrolled derivatives there, each shape (steps,)."""
    data = load("diabetes")
    assert data.y is not None
    X = torch.tensor((data.X - data.X.mean(0)) / data.X.std(0)) / np.sqrt(len(data.X))
    y = torch.tensor((data.y - data.y.mean()) / data.y.std()) / np.sqrt(len(data.X))
    strength = torch.tensor(0.01, dtype=torch.float64)
    d = X.shape[1]

    def gradient(w: Tensor, strength: Tensor) -> Tensor:
        return X.T @ (X @ w - y) + strength * w

    def exact(strength: Tensor) -> Tensor:
        return torch.linalg.solve(X.T @ X + strength * torch.eye(d, dtype=X.dtype), X.T @ y)

    solution, slope = exact(strength), torch.func.jacfwd(exact)(strength)
    size = 1.0 / float(torch.linalg.eigvalsh(X.T @ X)[-1] + strength)
    w, unrolled = torch.zeros(d, dtype=X.dtype), torch.zeros(d, dtype=X.dtype)
    found: dict[str, list[float]] = {"iterate": [], "implicit": [], "unrolled": []}
    for _ in range(steps):
        # forward mode through the step: what unrolling gives
        moved: Any = torch.func.jvp(
            lambda w, s: w - size * gradient(w, s), (w, strength), (unrolled, torch.ones_like(strength))
        )
        w, unrolled = moved
        implicit = root_jvp(gradient, w, (strength,), (torch.ones_like(strength),))
        found["iterate"].append(float(torch.linalg.vector_norm(w - solution)))
        found["implicit"].append(float(torch.linalg.vector_norm(implicit - slope)))
        found["unrolled"].append(float(torch.linalg.vector_norm(unrolled - slope)))
    A = X.T @ X + strength * torch.eye(d, dtype=X.dtype)
    bound = float(torch.linalg.matrix_norm(torch.linalg.inv(A), 2))
    return {name: np.array(values) for name, values in found.items()} | {"bound": np.array([bound])}


def _machine(m: int, most: int) -> dict[str, float]:
    """Seconds and hyper-gradients of implicit and unrolled differentiation on m examples of ten classes."""
    data = load("digits")
    assert data.y is not None
    X = torch.tensor(data.X[: m + 200] / 16.0)
    onehot = torch.nn.functional.one_hot(torch.tensor(data.y[: m + 200], dtype=torch.int64), 10).double()
    X_train, Y_train, X_held, Y_held = X[:m], onehot[:m], X[m:], onehot[m:]

    def weights(x: Tensor, log_strength: Tensor) -> Tensor:
        return X_train.T @ (Y_train - x) / log_strength.exp()

    def dual(x: Tensor, log_strength: Tensor) -> Tensor:
        return 0.5 * log_strength.exp() * weights(x, log_strength).square().sum() + (x * Y_train).sum()

    def rows(y: Tensor, _: Any, scale: float) -> Tensor:
        return simplex(y)

    log_strength = torch.tensor(3.0, dtype=torch.float64)  # below, fewer examples are parted without slack
    curvature = float(torch.linalg.matrix_norm(X_train, 2)) ** 2
    method = ProximalGradient(float(log_strength.exp()) / curvature)
    init = torch.full((m, 10), 0.1, dtype=torch.float64)
    stop = Stop(below={"residual": 1e-7}, steps=most)
    linear = LinearSolver("gmres", tol=1e-8, restart=60)

    def held_out(solver: Any, log_strength: Tensor) -> Tensor:
        W = weights(solver(init, log_strength), log_strength)
        return 0.5 * (X_held @ W - Y_held).square().sum()

    def timed(**how: Any) -> tuple[float, float]:
        solver = differentiable(method, dual, rows, stop=stop, linear=linear, **how)
        at = log_strength.clone().requires_grad_()
        start = time.perf_counter()
        (slope,) = torch.autograd.grad(held_out(solver, at), at)
        return float(slope), time.perf_counter() - start

    implicit, seconds = timed()
    unrolled, unrolled_seconds = timed(unroll=True)
    h = 1e-4
    accurate = differentiable(method, dual, rows, stop=Stop(below={"residual": 1e-10}, steps=20 * most))
    values = [float(held_out(accurate, log_strength + sign * h)) for sign in (1, -1)]
    true = (values[0] - values[1]) / (2 * h)
    return {
        "examples": float(m),
        "implicit": implicit,
        "unrolled": unrolled,
        "true": true,
        "implicit seconds": seconds,
        "unrolled seconds": unrolled_seconds,
    }


def _verdicts(ridge: dict[str, Vector], machines: list[dict[str, float]]) -> list[Verdict]:
    some = ridge["iterate"] > 1e-9
    gap = np.log(ridge["implicit"][some] / np.maximum(ridge["unrolled"][some], 1e-300)).mean()
    slope = np.polyfit(np.log(ridge["iterate"][some]), np.log(ridge["implicit"][some]), 1)[0]
    excess = (ridge["implicit"][some] / (ridge["bound"][0] * ridge["iterate"][some])).max()
    errors = [abs(m["implicit"] / m["true"] - 1.0) for m in machines]
    ratios = [m["implicit seconds"] / m["unrolled seconds"] for m in machines]
    return [
        Verdict(
            "Ridge: the derivative's error over theorem 1's bound, largest over iterates",
            float(excess),
            1.0 + 1e-6,
        ),
        Verdict("Ridge: it falls as the iterate's does, log-log slope off one", abs(float(slope) - 1.0), 0.1),
        Verdict(
            "Ridge: implicit over unrolled error at the same iterate, geometric mean", float(np.exp(gap)), 1.0
        ),
        Verdict("SVM: implicit hyper-gradient's relative error, largest over sizes", max(errors), 0.01),
        Verdict("SVM: implicit over unrolled seconds, largest size", ratios[-1], 1.0),
    ]


def _table(ridge: dict[str, Vector], machines: list[dict[str, float]]) -> Table:
    rows: Table = [
        {
            "task": f"SVM, {m['examples']:.0f} examples",
            "method": name,
            "hyper-gradient": float(f"{m[name]:.6g}"),
            "relative error": float(f"{abs(m[name] / m['true'] - 1.0):.2g}"),
            "seconds": float(f"{m[f'{name} seconds']:.3g}"),
        }
        for m in machines
        for name in ("implicit", "unrolled")
    ]
    for step in np.unique(np.geomspace(1, len(ridge["iterate"]), 6).astype(int)):
        for name in ("implicit", "unrolled"):
            error = float(f"{ridge[name][step - 1]:.3g}")
            rows.append({"task": f"ridge, step {step}", "method": name, "distance to the true one": error})
    return rows


def _figures(ridge: dict[str, Vector], machines: list[dict[str, float]]) -> list[Figure]:
    order = np.argsort(ridge["iterate"])
    x = np.maximum(ridge["iterate"][order], 1e-16)
    errors = [Series.of(name, x, np.maximum(ridge[name][order], 1e-16)) for name in ("implicit", "unrolled")]
    errors.append(Series.of("theorem 1", x, ridge["bound"][0] * x))
    sizes = [m["examples"] for m in machines]
    seconds = [
        Series(name, sizes, [m[f"{name} seconds"] for m in machines]) for name in ("implicit", "unrolled")
    ]
    return [
        Figure(
            "Ridge regression",
            "Error of the derivative over that of the iterate it is taken at.",
            "error of the iterate",
            "error of the derivative",
            errors,
            log_x=True,
            log_y=True,
        ),
        Figure(
            "Support vector machine",
            "A hyper-gradient, the solver included.",
            "examples",
            "seconds",
            seconds,
            log_y=True,
        ),
    ]
