"""One hyper-gradient several ways, beside the exact one: seconds, memory, error.

Run it: python -m benchmarks.bilevel.hypergradients

Logistic regression on digits, 640 weights, a penalty for each pixel; 20, 200 and 2000 steps of the inner solver.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from thalweg import Stop, solve
from thalweg.bilevel import (
    Bilevel,
    CGInverse,
    ProximalGradient,
    differentiable,
    explicit_hypergradient,
    hypergradient,
    penalty_value,
)
from thalweg.bilevel.penalty_value import inner_solution
from thalweg.bilevel.selftuning import HyperParameter, HyperSpace, SelfTuner, SelfTuningTask, weight_decay
from thalweg.datasets import load
from thalweg.numerics.torch_krylov import LinearSolver


def problem() -> tuple[Bilevel, Tensor]:
    """The problem in float64, and where it is differentiated."""
    data = load("digits")
    X = torch.tensor(data.X / 16.0)
    y = torch.tensor(data.y, dtype=torch.int64)
    X_train, y_train, X_held, y_held = X[:400], y[:400], X[400:800], y[400:800]

    def lower(x: Tensor, W: Tensor) -> Tensor:
        return functional.cross_entropy(X_train @ W, y_train) + 0.5 * (x.exp()[:, None] * W.square()).sum()

    def upper(x: Tensor, W: Tensor) -> Tensor:
        return functional.cross_entropy(X_held @ W, y_held)

    at = torch.full((64,), -5.0, dtype=torch.float64)
    return Bilevel(upper, lower, at, torch.zeros(64, 10, dtype=torch.float64)), at


def main() -> None:
    """Print the table."""
    given, at = problem()
    solution = inner_solution(
        given, at, 0.0, given.vector0("y"), Stop(below={"residual": 1e-12}, steps=50_000)
    )
    exact = explicit_hypergradient(given, at, solution)
    step = 0.5 / float(torch.linalg.matrix_norm(load_train(), 2) ** 2 / 400 * 0.5 + 0.01)
    table = Table("way", "inner steps", "seconds", "MB kept", "relative error")
    for steps in (20, 200, 2000):
        for name, way in ways(given, at, step, steps).items():
            start = time.perf_counter()
            found, kept = measured(way)
            seconds = time.perf_counter() - start
            error = float(torch.linalg.vector_norm(found - exact) / torch.linalg.vector_norm(exact))
            memory = "-" if kept is None else f"{kept / 2**20:.2f}"
            table.add_row(name, str(steps), f"{seconds:.3g}", memory, f"{error:.2g}")
    for steps in (200, 2000):
        start = time.perf_counter()
        error = response(given, steps)
        table.add_row(
            "response network", str(steps), f"{time.perf_counter() - start:.3g}", "-", f"{error:.2g}"
        )
    Console(width=100).print(table)


def load_train() -> Tensor:
    """The training images."""
    return torch.tensor(load("digits").X[:400] / 16.0)


def ways(given: Bilevel, at: Tensor, step: float, steps: int) -> dict[str, Callable[[], tuple[Tensor, Any]]]:
    """Each gives the hyper-gradient and the output whose graph is kept."""

    def inner(W: Tensor, x: Tensor) -> Tensor:
        return given.lower(x, W)

    def differentiated(unroll: bool) -> tuple[Tensor, Any]:
        solver = differentiable(
            ProximalGradient(step),
            inner,
            stop=Stop(steps=steps),
            unroll=unroll,
            linear=LinearSolver("cg", 1e-8, 500),
        )
        x = at.clone().requires_grad_()
        W = solver(given.y, x)
        loss = given.upper(x, W)
        return torch.autograd.grad(loss, x, retain_graph=True)[0], loss

    def iterate() -> Tensor:
        run = differentiable(ProximalGradient(step), inner, stop=Stop(steps=steps))
        with torch.no_grad():
            return run(given.y, at).reshape(-1)

    def conjugate() -> tuple[Tensor, Any]:
        return hypergradient(given, at, iterate(), CGInverse(10)).gradient, None

    def penalised() -> tuple[Tensor, Any]:
        return penalty_value(given, at, 0.01, stop=Stop(steps=steps)).gradient, None

    return {
        "unrolled": lambda: differentiated(True),
        "implicit": lambda: differentiated(False),
        "implicit, ten products": conjugate,
        "penalty, s = 0.01": penalised,
    }


def measured(way: Callable[[], tuple[Tensor, Any]]) -> tuple[Tensor, float | None]:
    """The hyper-gradient, and the bytes of tensors that the output's graph holds."""
    found, output = way()
    if output is None:
        return found.detach(), None
    held: dict[int, int] = {}
    seen, waiting = set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        saved = [getattr(node, a) for a in dir(node) if a.startswith("_saved_")]
        saved += list(getattr(node, "saved_tensors", ()))
        for value in saved:
            for t in value if isinstance(value, list | tuple) else (value,):
                if isinstance(t, Tensor):
                    held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        waiting += [n for n, _ in node.next_functions]
    return found.detach(), float(sum(held.values()))


def response(given: Bilevel, steps: int) -> float:
    """Error of a self-tuned network's response to one penalty shared by all pixels, after ``steps`` batches."""
    data = load("digits")
    X, y = torch.tensor(data.X / 16.0, dtype=torch.float32), torch.tensor(data.y, dtype=torch.int64)
    space = HyperSpace(HyperParameter("decay", 0.5 * float(torch.tensor(-5.0).exp()), scale="log"))
    task = SelfTuningTask(
        lambda: nn.Linear(64, 10, bias=False),
        space,
        (X[:400], y[:400]),
        (X[400:800], y[400:800]),
        (X[800:], y[800:]),
        penalties=[weight_decay("decay")],
        batch_size=100,
    )
    method = SelfTuner(options={"lr": 0.3, "momentum": 0.9}, warmup=steps + 1, learn_spread=False)
    network = solve(task, method, stop=Stop(steps=steps), progress=False).x.eval()
    u = network.current.clone().requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(network(X[400:800], at=u), y[400:800]), u)
    start = torch.full((64,), -5.0, dtype=torch.float64)
    solution = inner_solution(given, start, 0.0, given.vector0("y"))
    exact = float(explicit_hypergradient(given, start, solution).sum())
    return abs(float(slope) - exact) / abs(exact)


if __name__ == "__main__":
    main()
