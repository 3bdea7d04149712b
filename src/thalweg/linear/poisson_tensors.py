"""`PoissonGrid`'s product in torch."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbour_sum(x: Tensor, dimensions: int) -> Tensor:
    """Sum of the 2 ``dimensions`` neighbours along the last axes, zero outside; any batch axes, any device."""
    total = torch.zeros_like(x)
    for axis in range(-dimensions, 0):
        length = x.shape[axis] - 1
        total.narrow(axis, 0, length).add_(x.narrow(axis, 1, length))
        total.narrow(axis, 1, length).add_(x.narrow(axis, 0, length))
    return total


def poisson_product(x: Tensor, fluid: Tensor, counts: Tensor, dimensions: int) -> Tensor:
    """`PoissonGrid`'s product in torch, for batches and for CUDA: ``fluid`` (0 or 1) and ``counts`` as the grid has.

    >>> from thalweg.linear import PoissonGrid
    >>> grid = PoissonGrid([[0, 0, 0], [0, 0, 0], [0, 0, 0]])
    >>> ones = torch.ones(3, 3)
    >>> float(poisson_product(ones, torch.tensor(grid.fluid).float(), torch.tensor(grid.counts), 2).abs().max())
    0.0
    """
    return torch.where(fluid > 0, counts * x - neighbour_sum(x * fluid, dimensions), x)
