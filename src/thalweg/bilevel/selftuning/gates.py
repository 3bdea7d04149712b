"""How one tensor of a layer responds to hyper-parameters, and how layers that share a tensor share its response."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from thalweg.core import InvalidProblem


class Gate(nn.Module):
    """``V u`` for one tensor, V of shape (rows, hyper-parameters), and the tensor W_1 whose rows it scales."""

    def __init__(self, like: Tensor, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(like.new_zeros(self.scaled(like), size))
        spread = float(like.detach().std()) if like.numel() > 1 else 0.0
        self.response = nn.Parameter(torch.randn_like(like) * (spread or 0.1))

    @staticmethod
    def scaled(like: Tensor) -> int:
        """How many numbers scale a tensor."""
        return len(like)

    def forward(self, shift: Tensor) -> Tensor:
        """Shape (batch, rows)."""
        return shift @ self.scale.T

    def squared_norm(self, weight: Tensor, shift: Tensor) -> Tensor:
        """``|W_0 + (V u) (*)_row W_1|^2`` for each example, shape (batch,), without making the weights."""
        first, second = self._rows(weight), self._rows(self.response)
        g: Tensor = self(shift)
        return first.square().sum() + 2.0 * g @ (first * second).sum(1) + g.square() @ second.square().sum(1)

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(len(tensor), -1)

    @torch.no_grad()
    def at(self, weight: Tensor, shift: Tensor) -> Tensor:
        """The tensor at one u, shape that of W_0."""
        g = self(shift[None])[0]
        return weight + g.reshape(-1, *[1] * (weight.ndim - 1)) * self.response


class ColumnGate(Gate):
    """As `Gate`, for the columns of a matrix: the entries of an embedding's vectors."""

    @staticmethod
    def scaled(like: Tensor) -> int:
        return like.shape[1]

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.T

    @torch.no_grad()
    def at(self, weight: Tensor, shift: Tensor) -> Tensor:
        return weight + self(shift[None])[0] * self.response


def require_whole_tensors(module: nn.Module) -> None:
    """Refuse parameters that are parts or views of one another: a response of the one would move the other."""
    spans = []
    for name, p in module.named_parameters():
        if p.numel() and not p.is_meta:
            first = p.storage_offset() * p.element_size()
            last = (
                first
                + (sum((n - 1) * s for n, s in zip(p.shape, p.stride(), strict=True))) * p.element_size()
            )
            spans.append((p.untyped_storage().data_ptr(), first, last, name))
    spans.sort()
    for (storage, _, last, name), (other, first, _, after) in pairwise(spans):
        if storage == other and first <= last:
            raise InvalidProblem(
                f"The parameters '{name}' and '{after}' lie in the same memory. Make them one parameter, used twice, "
                "or copies."
            )
