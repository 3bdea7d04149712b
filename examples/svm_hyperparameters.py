"""The strength of a multi-class support vector machine, by gradient descent on held-out digits.

The machine's dual is solved three ways: projected gradients, mirror descent, block coordinate descent. The
hyper-gradient is the same. Blondel et al. (2022), section 4.1. Run it: python examples/svm_hyperparameters.py
"""

from __future__ import annotations

import torch
from torch import Tensor

from thalweg import Stop
from thalweg.bilevel import BlockDescent, MirrorDescent, ProximalGradient, differentiable
from thalweg.datasets import load
from thalweg.numerics.projections import simplex
from thalweg.numerics.torch_krylov import LinearSolver


def main(examples: int = 100, steps: int = 15) -> tuple[float, float, float]:
    data = load("digits")
    X = torch.tensor(data.X / 16.0)
    Y = torch.nn.functional.one_hot(torch.tensor(data.y, dtype=torch.int64), 10).double()
    X_train, Y_train, X_held, Y_held = X[:examples], Y[:examples], X[800:1000], Y[800:1000]

    def weights(x: Tensor, log: Tensor) -> Tensor:
        return X_train.T @ (Y_train - x) / log.exp()

    def dual(x: Tensor, log: Tensor) -> Tensor:
        return 0.5 * log.exp() * weights(x, log).square().sum() + (x * Y_train).sum()

    def rows_on_simplex(y: Tensor, _: None, scale: float) -> Tensor:
        return simplex(y)

    start = torch.full((examples, 10), 0.1, dtype=torch.float64)
    options = {
        "stop": Stop(below={"residual": 1e-6}, steps=2000),
        "linear": LinearSolver("gmres", tol=1e-8, restart=60),
    }
    solvers = {
        "projected gradients": differentiable(ProximalGradient(), dual, rows_on_simplex, **options),
        "mirror descent": differentiable(MirrorDescent(), dual, rows_on_simplex, **options),
        "block coordinate descent": differentiable(BlockDescent(), dual, rows_on_simplex, **options),
    }

    def held_out(name: str, log: Tensor) -> Tensor:
        return 0.5 * (X_held @ weights(solvers[name](start, log), log) - Y_held).square().sum() / len(X_held)

    log = torch.tensor(4.0, dtype=torch.float64)
    slopes = [float(torch.func.grad(lambda at, name=name: held_out(name, at))(log)) for name in solvers]
    for name, slope in zip(solvers, slopes, strict=True):
        print(f"{name:25s} hyper-gradient at log strength 4: {slope:.6f}")
    first = float(held_out("projected gradients", log))
    for _ in range(steps):
        log = log - 5.0 * torch.func.grad(lambda at: held_out("projected gradients", at))(log)
    last = float(held_out("projected gradients", log))
    print(f"log strength {float(log):.2f}: held-out loss {first:.4f} -> {last:.4f}")
    return first, last, max(slopes) - min(slopes)


if __name__ == "__main__":
    main()
