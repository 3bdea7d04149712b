"""Digits of which half carry wrong labels: a weight for each, learned from a few clean ones, with gradients only.

Run it: python examples/data_hypercleaning.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from thalweg import Stop, solve
from thalweg.bilevel import Bilevel, Penalty
from thalweg.datasets import load


def main(steps: int = 150) -> tuple[float, float, float]:
    data = load("digits")
    X = torch.tensor(data.X / 16.0, dtype=torch.float32)
    y = torch.tensor(data.y, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(X), generator=generator)
    X, y = X[order], y[order]
    wrong = torch.rand(600, generator=generator) < 0.5
    labels = torch.where(wrong, (y[:600] + torch.randint(1, 10, (600,), generator=generator)) % 10, y[:600])

    def lower(x: Tensor, W: Tensor) -> Tensor:
        losses = functional.cross_entropy(X[:600] @ W, labels, reduction="none")
        return (torch.sigmoid(x) * losses).mean() + 1e-3 * W.square().sum()

    def upper(x: Tensor, W: Tensor) -> Tensor:
        return functional.cross_entropy(X[600:800] @ W, y[600:800])

    def judge(x: Tensor, W: Tensor) -> dict[str, float]:
        return {"accuracy": float(((X[800:] @ W).argmax(1) == y[800:]).double().mean())}

    problem = Bilevel(upper, lower, torch.zeros(600), torch.zeros(64, 10), judge=judge)
    found = solve(problem, Penalty(1000.0, 1.0, penalty=0.1, inner_steps=5), stop=Stop(steps=steps))
    plain = torch.zeros(64, 10, requires_grad=True)
    for _ in range(500):
        (slope,) = torch.autograd.grad(lower(torch.zeros(600), plain), plain)
        plain = (plain - slope).detach().requires_grad_()
    weights = torch.sigmoid(found.x.x)
    right, bad = float(weights[~wrong].mean()), float(weights[wrong].mean())
    before, after = judge(None, plain.detach())["accuracy"], found.metrics["accuracy"]
    print(f"mean weight of right labels {right:.2f}, of wrong ones {bad:.2f}")
    print(f"test accuracy {before:.3f} with all weights alike, {after:.3f} cleaned")
    return before, after, right - bad


if __name__ == "__main__":
    main()
