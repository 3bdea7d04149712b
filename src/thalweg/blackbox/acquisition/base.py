"""What an acquisition is: the worth of evaluating a set of points next.

All are for maximisation of standardised values in the unit cube; `Study` sees to signs and scales.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

#: What stands for nothing to gain where a logarithm is taken.
TINY = 1e-300


class Acquisition(ABC):
    """Base of acquisitions: call one with ``b x q x d`` points to get ``b`` numbers, differentiable in the points."""

    @abstractmethod
    def __call__(self, X: Tensor) -> Tensor:
        """The worth of each of the b sets of q points."""


def averaged(values: Tensor, batch: int, log: bool = False) -> Tensor:
    """Mean over the models in front of the last axis, shape (..., batch) to (batch,); of logarithms with ``log``."""
    flat = values.reshape(-1, batch)
    if len(flat) == 1:
        return flat[0]
    return torch.logsumexp(flat, 0) - math.log(len(flat)) if log else flat.mean(0)
