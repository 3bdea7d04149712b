"""Low-discrepancy points, for integrals that are reused with the same points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_DIMENSIONS = torch.quasirandom.SobolEngine.MAXDIM


def sobol(count: int, dimension: int, seed: int) -> Tensor:
    """Scrambled Sobol points in the unit cube, shape (count, dimension), float64.

    >>> sobol(4, 2, seed=0).shape
    torch.Size([4, 2])
    """
    engine = torch.quasirandom.SobolEngine(min(dimension, MOST_DIMENSIONS), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    points = engine.draw(count, dtype=torch.float64)
    if dimension > MOST_DIMENSIONS:
        more = torch.rand(count, dimension - MOST_DIMENSIONS, generator=torch.Generator().manual_seed(seed))
        points = torch.cat([points, more.to(points)], 1)
    return points


def sobol_normal(count: int, dimension: int, seed: int) -> Tensor:
    """Standard normal points made of Sobol points, shape (count, dimension).

    >>> bool(sobol_normal(256, 3, seed=0).mean(0).abs().max() < 0.02)
    True
    """
    uniform = sobol(count, dimension, seed).clamp(1e-10, 1 - 1e-10)
    return math.sqrt(2.0) * torch.erfinv(2.0 * uniform - 1.0)
