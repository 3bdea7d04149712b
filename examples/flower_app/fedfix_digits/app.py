"""FedFix on digits for two clients or more: what to copy for an app of your own."""

from pathlib import Path

import torch
from torch import nn

from thalweg.datasets import load
from thalweg.distributed.federated import ClientTimes, Federated, Federation, FedFix
from thalweg.distributed.federated.flower import FlowerServer, client_app

CLIENTS = 2
SCORE = nn.functional.cross_entropy


def network():
    """The model."""
    return nn.Linear(64, 10)


def own_data(number):
    """What client ``number`` has: here every other digit; at home, a file of its own."""
    data = load("digits")
    X, y = torch.tensor(data.X / 16.0, dtype=torch.float32), torch.tensor(data.y, dtype=torch.int64)
    return Federated.from_module(network, SCORE, [(X[number::CLIENTS], y[number::CLIENTS])])


def tell(number, x, counted):
    """After each aggregation."""
    print(f"aggregation {number}: {counted}", flush=True)


client = client_app(own_data)
method = Federation(FedFix(10.0), ClientTimes([1.0] * CLIENTS), lr=0.3, local_steps=20, batch=32)
server = FlowerServer(
    own_data(0).x0,
    method,
    aggregations=5,
    clients=CLIENTS,
    checkpoint=Path.home() / ".fedfix-digits",
    look=tell,
).app()
