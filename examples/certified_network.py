"""A network that you trained, made better, and how far it is from the best: polish, and a certificate.

Run it: ``python examples/certified_network.py table.csv target-column``; without arguments it takes the diabetes data.
"""

import sys

import numpy as np
import torch
from torch import nn

from thalweg.convex import polish
from thalweg.datasets import load


def main(table: str = "diabetes", target: str | None = None, steps: int = 2000) -> tuple[float, float, float]:
    """Objectives before and after, and the certified lower bound."""
    data = load(table, target=target)
    X, y = np.asarray(data.X, dtype=float), np.asarray(data.y, dtype=float)
    X, y = (X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std()
    decay = 10.0 / len(y)  # beside the mean of the halved squares

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(X.shape[1], 30), nn.ReLU(), nn.Linear(30, 1)).double()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    inputs, wanted = torch.tensor(X), torch.tensor(y)
    for _ in range(steps):
        optimizer.zero_grad()
        weights = [p for name, p in net.named_parameters() if name != "2.bias"]
        loss = 0.5 * (net(inputs)[:, 0] - wanted).square().mean()
        (loss + 0.5 * decay * sum(w.square().sum() for w in weights)).backward()
        optimizer.step()

    found = polish(net, X, y, beta=10.0, rounds=2)
    with torch.no_grad():
        error = float((found.to_module()(inputs)[:, 0] - wanted).square().mean())
    print(
        f"trained by Adam {found.before:.3f}, polished {found.after:.3f}, {found.network.width} of 30 neurons"
    )
    print(f"no network whose neurons have these patterns goes below {found.certificate.lower:.3f}")
    print(f"R2 {1 - error:.3f}")
    return found.before, found.after, found.certificate.lower


if __name__ == "__main__":
    main(*sys.argv[1:3])
