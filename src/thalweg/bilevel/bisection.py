"""Roots of increasing or decreasing functions of one number, many at once."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from thalweg.bilevel._trees import Tree
from thalweg.bilevel.implicit import custom_root
from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, is_whole, require


def bisection(
    F: Callable[..., Tensor], low: float, high: float, *, halvings: int = 60
) -> Callable[..., Tensor]:
    """``root(x0, *theta)``: where ``F(x, *theta) = 0`` between low and high, entry by entry, differentiable in theta.

    Args:
        F: acts on each entry of x by itself, and changes its sign between low and high in each.
        low, high: the interval.
        halvings: of it; 60 reach the last digit of float64.

    ``x0`` gives shape, dtype and device.

    Raises:
        InvalidProblem: F has the same sign at both ends of some entry.

    >>> log = bisection(lambda x, a: x.exp() - a, -10.0, 10.0)
    >>> a = torch.tensor([1.0, 4.0], dtype=torch.float64)
    >>> torch.func.jacrev(log, argnums=1)(torch.zeros(2, dtype=torch.float64), a).diagonal()  # 1/a
    tensor([1.0000, 0.2500], dtype=torch.float64)
    """
    real = is_real(low) and is_real(high) and low < high
    require(real and math.isfinite(high - low), "bisection needs numbers low < high", got=(low, high))
    require(is_whole(halvings) and halvings >= 1, "bisection needs halvings >= 1", got=halvings)

    def root(x0: Tensor, *theta: Tree) -> Tensor:
        below, above = torch.full_like(x0, low), torch.full_like(x0, high)
        at_low, at_high = F(below, *theta), F(above, *theta)
        if not bool((at_low * at_high <= 0).all()):
            raise InvalidProblem(
                f"bisection: F has the same sign at {low} and {high} in {int((at_low * at_high > 0).sum())} of "
                f"{x0.numel()} entries. Widen the interval."
            )
        rising = at_high >= at_low
        for _ in range(halvings):
            middle = 0.5 * (below + above)
            left = (F(middle, *theta) < 0) == rising  # the root lies above
            below, above = torch.where(left, middle, below), torch.where(left, above, middle)
        return 0.5 * (below + above)

    return custom_root(F)(root)
