"""The methods for many clients and workers by name."""

from __future__ import annotations

from typing import Any

from thalweg.core import Method
from thalweg.distributed.coding.selection import SelectedCoding
from thalweg.distributed.coding.training import CodedTraining
from thalweg.distributed.federated.simulation import Federation
from thalweg.distributed.zeroth_order.baselines import FedProxZO, FedZO, ScaffoldZO
from thalweg.distributed.zeroth_order.fzoos import FZooS

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method[Any, Any]]] = {
    "coded-training": CodedTraining,
    "federation": Federation,
    "fedprox-zo": FedProxZO,
    "fedzo": FedZO,
    "fzoos": FZooS,
    "scaffold-zo": ScaffoldZO,
    "selected-coding": SelectedCoding,
}
