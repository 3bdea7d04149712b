"""Two networks trained from different seeds, averaged: as they are, and with their hidden units in the same places.

Run it: ``python examples/two_networks_one_basin.py``. It prints the accuracy of both means.
"""

import numpy as np
import torch
from torch import nn

from thalweg.datasets import load
from thalweg.landscape.permutation import match, mixed


def trained(seed: int, X: torch.Tensor, y: torch.Tensor, steps: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=3e-4)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randint(len(X), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
        optimizer.step()
        rate.step()
    return net


def main(steps: int = 800) -> tuple[float, float]:
    """Accuracy on digits that were not trained on, of the mean and of the mean after matching."""
    data = load("digits")
    X = torch.tensor(np.asarray(data.X) / 16.0, dtype=torch.float32)
    y = torch.tensor(np.asarray(data.y)).long()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(y)))
    train, test = order[:1300], order[1300:]
    one, two = (trained(seed, X[train], y[train], steps) for seed in (0, 1))
    found = match(one, two)
    print(found.spec)

    def accuracy(state: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            scores = torch.func.functional_call(one, state, (X[test],))
        return float((scores.argmax(1) == y[test]).float().mean())

    plain = accuracy(mixed([one.state_dict(), two.state_dict()], [0.5, 0.5]))
    matched = accuracy(mixed([one.state_dict(), found.weights], [0.5, 0.5]))
    print(f"mean of two networks: {plain:.3f} as they are, {matched:.3f} matched")
    return plain, matched


if __name__ == "__main__":
    main()
