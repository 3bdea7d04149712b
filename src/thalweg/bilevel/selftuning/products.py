"""Matrix products by oneDNN, as torch's own LSTM has them.

Other products of torch's are MKL's on most processors, which leaves half of what AMD's can do unused.
"""

from __future__ import annotations

import torch
from torch import Tensor


def has_onednn(x: Tensor) -> bool:
    """Whether products of x can be oneDNN's."""
    fit = x.dtype == torch.float32 and x.device.type == "cpu" and x.numel() > 0
    return bool(fit and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)


class Factor:
    """``x W'`` for many x, shape (rows, inputs), one after another, without a graph; W is laid out once.

    Args:
        weight: W, shape (outputs, inputs).
        like: an x.
    """

    def __init__(self, weight: Tensor, like: Tensor) -> None:
        self.by_onednn = has_onednn(like)
        self.weight = weight if self.by_onednn else weight.T
        if self.by_onednn and weight.is_contiguous():  # a transposed one is well laid out as it is
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, len(like))

    def __call__(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """``x W'``, and ``plus``, (rows, outputs), on top of it."""
        if not self.by_onednn:
            return x @ self.weight if plus is None else torch.addmm(plus, x, self.weight)
        product: Tensor
        if plus is None:
            product = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        else:
            product = torch.ops.mkldnn._linear_pointwise.binary(x, plus, self.weight, None, "add")
        return product


def by_weight(by_out: Tensor, x: Tensor) -> Tensor:
    """The derivative in a weight, ``by_out' x``, of matrices whose rows lie side by side, without a graph."""
    if not has_onednn(x):
        return by_out.T @ x
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x.T, by_out.T, None, "none", [], "")
    return product.T
