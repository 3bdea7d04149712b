"""Training on data that stay with clients of very different speed."""

from thalweg.distributed.federated.bound import ErrorBound, error_bound
from thalweg.distributed.federated.design import Design, design
from thalweg.distributed.federated.problem import Federated, by_class, dirichlet
from thalweg.distributed.federated.schemes import (
    Aggregation,
    AsyncFedAvg,
    FedAvg,
    FedBuff,
    FedFix,
    Sampled,
    arrival_shares,
)
from thalweg.distributed.federated.simulation import Faults, Federation
from thalweg.distributed.federated.times import ClientTimes

__all__ = [
    "Aggregation",
    "AsyncFedAvg",
    "ClientTimes",
    "Design",
    "ErrorBound",
    "Faults",
    "FedAvg",
    "FedBuff",
    "FedFix",
    "Federated",
    "Federation",
    "Sampled",
    "arrival_shares",
    "by_class",
    "design",
    "dirichlet",
    "error_bound",
]
