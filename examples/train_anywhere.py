"""One network, one script: trained in virtual time, in processes of Ray, or on Flower.

python examples/train_anywhere.py                     # clients in virtual time, FedFix
python examples/train_anywhere.py federated flower    # the same clients in Flower's simulation
python examples/train_anywhere.py coded               # workers in virtual time, gradient coding
python examples/train_anywhere.py coded ray           # the same workers as Ray actors
"""

import sys

import torch
from torch import nn
from torch.nn.utils import vector_to_parameters

from thalweg import Stop, solve
from thalweg.datasets import load
from thalweg.distributed.coding import (
    CodedTraining,
    DataParallel,
    DelayProfile,
    GradientCoding,
    RayCluster,
    VirtualCluster,
)
from thalweg.distributed.federated import ClientTimes, Federated, Federation, FedFix, dirichlet

CLIENTS, WORKERS = 10, 8


class Network(nn.Module):
    """64 pixels to ten digits."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, X):
        """Scores of the digits."""
        return self.outer(torch.tanh(self.inner(X)))


def digits():
    """Images, scaled, and labels."""
    data = load("digits")
    return torch.tensor(data.X / 16.0, dtype=torch.float32), torch.tensor(data.y, dtype=torch.int64)


def federated(engine, aggregations):
    """Ten clients, some four times as fast as others; the server aggregates at fixed times."""
    X, y = digits()
    parts = [torch.from_numpy(rows) for rows in dirichlet(y.numpy(), CLIENTS, 0.3)]
    problem = Federated.from_module(
        Network, nn.functional.cross_entropy, [(X[rows], y[rows]) for rows in parts]
    )
    times = ClientTimes.heterogeneous(CLIENTS, 0.75)
    method = Federation(FedFix(0.5), times, lr=0.3, local_steps=10, batch=32)
    if engine == "virtual":
        x = solve(problem, method, stop=Stop(steps=aggregations)).x
    else:
        from thalweg.distributed.federated.flower import simulate

        x = simulate(problem, method, aggregations, pause=times).x
    return x


def coded(engine, steps):
    """Workers, some of which are slow; gradients are exact whoever is late."""
    X, y = digits()
    problem = DataParallel(Network, lambda out, y: nn.functional.cross_entropy(out, y, reduction="sum"), X, y)
    delays = DelayProfile.generated(steps, WORKERS, slope=1.0)
    cluster = VirtualCluster(delays) if engine == "virtual" else RayCluster()
    return solve(
        problem, CodedTraining(GradientCoding(WORKERS, 1), cluster, lr=1.0), stop=Stop(steps=steps)
    ).x


def main(task="federated", engine="virtual", steps=60):
    """The share of digits that the network gets right."""
    network = Network()
    vector_to_parameters((federated if task == "federated" else coded)(engine, steps), network.parameters())
    X, y = digits()
    share = float((network(X).argmax(1) == y).float().mean())
    print(f"{task}, {engine}: {share:.1%} of the digits right after {steps} steps of the server.")
    return share


if __name__ == "__main__":
    main(*sys.argv[1:3])
