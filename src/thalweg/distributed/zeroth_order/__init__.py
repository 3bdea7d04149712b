"""Clients with black boxes of their own, and one x for all: few queries, few and small messages."""

from thalweg.distributed.zeroth_order.baselines import FedProxZO, FedZO, ScaffoldZO
from thalweg.distributed.zeroth_order.fzoos import FZooS
from thalweg.distributed.zeroth_order.problem import FederatedBlackBox
from thalweg.distributed.zeroth_order.rounds import (
    Ask,
    Client,
    Message,
    RoundState,
    ZerothOrder,
    row,
    stacked,
)
from thalweg.distributed.zeroth_order.surrogate import Features, Surrogates
from thalweg.distributed.zeroth_order.tasks import (
    ackley,
    digits_attack,
    metric_of_network,
    quadratic,
    rosenbrock,
)

__all__ = [
    "Ask",
    "Client",
    "FZooS",
    "Features",
    "FedProxZO",
    "FedZO",
    "FederatedBlackBox",
    "Message",
    "RoundState",
    "ScaffoldZO",
    "Surrogates",
    "ZerothOrder",
    "ackley",
    "digits_attack",
    "metric_of_network",
    "quadratic",
    "rosenbrock",
    "row",
    "stacked",
]
