"""The methods for training tasks by name, and which of them suits a task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.optim import Optimizer

from thalweg.core import InvalidParameter, Method, recommended
from thalweg.core.contestant import contestant
from thalweg.training.flow import LionKFlow, SmoothFunction
from thalweg.training.imitation import Imitate, ImitationTask
from thalweg.training.schedules import REX
from thalweg.training.surrogate import TargetSurrogate
from thalweg.training.task import Train, TrainingTask

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
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


@recommended.register
def for_smooth_functions(problem: SmoothFunction) -> LionKFlow:
    """Lion's flow."""
    return LionKFlow()


@contestant.register
def of_training(problem: TrainingTask, entrant: object) -> Method[TrainingTask]:
    """An optimizer's class, alone or as ``(class, options)`` or ``(class, options, schedule)``."""
    if isinstance(entrant, Method):
        return entrant
    parts = entrant if isinstance(entrant, tuple) else (entrant,)
    optimizer, options, schedule = (*parts, None, None, None)[:3]
    fits = (
        isinstance(optimizer, type)
        and issubclass(optimizer, Optimizer)
        and isinstance(options, Mapping | None)
    )
    if len(parts) > 3 or not fits or not (schedule is None or callable(schedule)):
        raise InvalidParameter(
            "A TrainingTask is compared by optimizers: a class, (class, options) or (class, options, schedule); "
            f"got {entrant!r}."
        )
    return Train(optimizer, options or {}, schedule)
