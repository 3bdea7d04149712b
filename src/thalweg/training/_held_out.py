"""A held-out loss that the user's function gives, without a trace on the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real
from thalweg.training import _group
from thalweg.training.snapshot import random_states, set_random_states


def held_out_loss(model: nn.Module, validate: Callable[[], object]) -> float:
    """The mean of every worker's ``validate()``, in evaluation mode and without gradients.

    Modes and random states are as before, also where ``validate`` raises.

    Raises:
        InvalidProblem: it gave no number.
    """
    states, modes = random_states(), {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            told = validate()
    finally:
        for module, mode in modes.items():
            module.training = mode
        set_random_states(states)
    is_number = is_real(told) or (isinstance(told, Tensor) and told.numel() == 1 and not told.is_complex())
    if not is_number:
        raise InvalidProblem(f"validate() has to return a loss, one number; got a {type(told).__name__}.")
    return float(_group.mean(torch.tensor(float(told), dtype=torch.float64)))  # type: ignore[arg-type]
