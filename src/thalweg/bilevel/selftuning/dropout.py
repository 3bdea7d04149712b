"""Dropout whose rate is a hyper-parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thalweg.bilevel.selftuning.layers import Context


class HyperDropout(nn.Module):
    """Dropout with a rate for each example, a hyper-parameter; nothing in evaluation mode.

    Args:
        name: of the hyper-parameter.
        whole: drop whole feature maps, as `torch.nn.Dropout2d` does.
    """

    def __init__(self, name: str, context: Context, whole: bool = False) -> None:
        super().__init__()
        self.name, self.context, self.whole = name, context, whole

    def forward(self, x: Tensor) -> Tensor:
        values = self.context.values
        if not self.training or values is None:
            return x
        rate = self.context.rows(values[self.name].detach(), len(x))
        rate = rate.reshape(-1, *[1] * (x.ndim - 1))
        shape = (*x.shape[:2], *[1] * (x.ndim - 2)) if self.whole else x.shape
        kept = torch.rand(shape, dtype=x.dtype, device=x.device) >= rate
        return x * (kept / (1.0 - rate))

    def extra_repr(self) -> str:
        return self.name
