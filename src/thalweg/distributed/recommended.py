"""The methods for many clients and workers by name, and which of them suits a problem."""

from __future__ import annotations

import numpy as np

from thalweg.core import Method, recommended
from thalweg.distributed.coding.schemes import Uncoded
from thalweg.distributed.coding.selection import SelectedCoding
from thalweg.distributed.coding.stragglers import DelayProfile
from thalweg.distributed.coding.training import CodedTraining, DataParallel, VirtualCluster
from thalweg.distributed.federated.problem import Federated
from thalweg.distributed.federated.schemes import FedAvg
from thalweg.distributed.federated.simulation import Federation
from thalweg.distributed.federated.times import ClientTimes
from thalweg.distributed.zeroth_order.baselines import FedProxZO, FedZO, ScaffoldZO
from thalweg.distributed.zeroth_order.fzoos import FZooS
from thalweg.distributed.zeroth_order.problem import FederatedBlackBox

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "coded-training": CodedTraining,
    "federation": Federation,
    "fedprox-zo": FedProxZO,
    "fedzo": FedZO,
    "fzoos": FZooS,
    "scaffold-zo": ScaffoldZO,
    "selected-coding": SelectedCoding,
}


@recommended.register
def for_federations(problem: Federated) -> Federation:
    """FedAvg, clients alike: nothing is known of their times."""
    return Federation(FedAvg(), ClientTimes(np.ones(len(problem.clients))))


@recommended.register
def for_black_boxes(problem: FederatedBlackBox) -> FZooS:
    """Surrogates, which ask least of the clients."""
    return FZooS()


@recommended.register
def for_data_parallel(problem: DataParallel) -> CodedTraining:
    """Gradient descent by one worker, in this process: nothing is known of others."""
    return CodedTraining(Uncoded(1), VirtualCluster(DelayProfile(np.ones((1, 1)))))
