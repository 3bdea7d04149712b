"""A layer whose output is a fixed point: as deep as it takes, and trained without keeping its iterations.

Bai, Kolter and Koltun (2019), "Deep equilibrium models". Run it: python examples/deep_equilibrium.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thalweg.bilevel import custom_fixed_point
from thalweg.datasets import load
from thalweg.numerics.torch_krylov import LinearSolver


class Equilibrium(nn.Module):
    """``z = tanh(z W' + x U' + b)``, with |W| < 1 so that there is one such z."""

    def __init__(self, inputs: int, width: int, iterations: int = 60) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(width, width) / width**0.5)
        self.feed = nn.Linear(inputs, width)
        self.width = width

        def move(z: Tensor, mix: Tensor, fed: Tensor) -> Tensor:
            return torch.tanh(z @ (0.9 * mix / torch.linalg.matrix_norm(mix)).T + fed)

        @custom_fixed_point(move, solve=LinearSolver("gmres", tol=1e-6))
        def settle(z: Tensor, mix: Tensor, fed: Tensor) -> Tensor:
            for _ in range(iterations):
                z = move(z, mix, fed)
            return z

        self.settle = settle

    def forward(self, x: Tensor) -> Tensor:
        return self.settle(x.new_zeros(len(x), self.width), self.mix, self.feed(x))


def main(steps: int = 150) -> tuple[float, int]:
    torch.manual_seed(0)
    data = load("digits")
    X, y = torch.tensor(data.X, dtype=torch.float32) / 16.0, torch.tensor(data.y, dtype=torch.int64)
    model = nn.Sequential(Equilibrium(64, 32), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    model(X[:64])  # once, a layer's first call looks at what it depends on, and keeps nothing of that
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        model(X[:64])
    for _ in range(steps):
        rows = torch.randint(1300, (64,))
        loss = nn.functional.cross_entropy(model(X[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = float((model(X[1300:]).argmax(1) == y[1300:]).double().mean())
    print(f"accuracy {accuracy:.3f}; {sum(kept)} numbers kept for the backward pass, however many iterations")
    return accuracy, sum(kept)


if __name__ == "__main__":
    main()
