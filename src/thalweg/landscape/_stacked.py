"""Optimizers of several networks in one stack."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from thalweg.core import InvalidParameter

#: Called with the parameters.
MakeOptimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]


def made(name: str, make: MakeOptimizer, parameters: list[Tensor]) -> torch.optim.Optimizer:
    """The optimizer of a stack; one that has to look at all parameters together is refused."""
    optimizer = make(parameters)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidParameter(
            f"{name}: optimizer is a function of the parameters, such as lambda p: torch.optim.Adam(p, lr=1e-2); it "
            f"returned a {type(optimizer).__name__}."
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InvalidParameter(
            f"{name}: L-BFGS looks at all parameters together, and would mix networks in one stack."
        )
    return optimizer
