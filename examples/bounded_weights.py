"""Train a digits classifier whose weights all lie in [-0.25, 0.25], ready for fixed-point arithmetic.

Run it: python examples/bounded_weights.py
"""

from __future__ import annotations

import torch
from torch import nn

from thalweg.datasets import load
from thalweg.training import REX, Lion


def main(steps: int = 1500, bound: float = 0.25) -> tuple[float, float]:
    data = load("digits")
    X, y = torch.tensor(data.X / 16, dtype=torch.float32), torch.tensor(data.y)
    torch.manual_seed(0)
    order = torch.randperm(len(y))
    train, test = order[:1300], order[1300:]
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = Lion(model.parameters(), lr=3e-3, max_norm=bound)  # in place of AdamW(..., lr=1e-2)
    schedule = REX(optimizer, total_steps=steps)
    for _ in range(steps):
        batch = train[torch.randint(len(train), (64,))]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[batch]), y[batch]).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        accuracy = float((model(X[test]).argmax(1) == y[test]).double().mean())
        largest = max(float(p.abs().max()) for p in model.parameters())
    print(f"accuracy {accuracy:.3f}, largest weight {largest:.4f}")
    return accuracy, largest


if __name__ == "__main__":
    main()
