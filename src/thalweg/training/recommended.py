"""The methods for training tasks by name, and which of them suits a task."""

from __future__ import annotations

from typing import Any

import torch

from thalweg.core import Method, recommended
from thalweg.training.flow import LionKFlow
from thalweg.training.imitation import Imitate, ImitationTask
from thalweg.training.schedules import REX
from thalweg.training.surrogate import TargetSurrogate
from thalweg.training.task import Train, TrainingTask

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method[Any, Any]]] = {
    "imitate": Imitate,
    "lion-k-flow": LionKFlow,
    "train": Train,
}


@recommended.register
def for_training(problem: TrainingTask) -> Train:
    """AdamW at 1e-3 under the REX schedule."""
    return Train(torch.optim.AdamW, {"lr": 1e-3}, REX)


@recommended.register
def for_imitation(problem: ImitationTask) -> Imitate:
    """Ten updates an answer by a target surrogate."""
    return Imitate(lambda params: TargetSurrogate(params, eta=1.0, inner_steps=10, linesearch=True))
