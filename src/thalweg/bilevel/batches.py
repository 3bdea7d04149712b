"""What stochastic gradients are taken on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from thalweg.bilevel._trees import Tree
from thalweg.core import InvalidProblem
from thalweg.core.validation import is_whole, require


class Sampler(Protocol):
    """Draws what one stochastic gradient is taken on; ``whole`` is what exact values are taken on."""

    def __call__(self, generator: torch.Generator) -> Tree:
        """One batch."""

    @property
    def whole(self) -> Tree:
        """All the data."""


@dataclass(frozen=True, eq=False)
class Minibatches:
    """Examples drawn independently, with replacement.

    Args:
        tensors: with the examples along the first axis.
        size: examples a batch.

    >>> batches = Minibatches((torch.arange(10),), 4)
    >>> batches(torch.Generator().manual_seed(0))[0].shape
    torch.Size([4])
    """

    tensors: tuple[Tensor, ...]
    size: int

    def __post_init__(self) -> None:
        lengths = {len(t) for t in self.tensors}
        if len(lengths) != 1 or 0 in lengths:
            raise InvalidProblem(
                f"Minibatches needs tensors of one length > 0; got lengths {sorted(lengths)}."
            )
        whole = is_whole(self.size) and self.size >= 1
        require(whole, "Minibatches needs size >= 1, a whole number", got=self.size, error=InvalidProblem)

    def __call__(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """A batch."""
        rows = torch.randint(len(self.tensors[0]), (self.size,), generator=generator)
        return tuple(t[rows.to(t.device)] for t in self.tensors)

    @property
    def whole(self) -> tuple[Tensor, ...]:
        """All examples."""
        return self.tensors

    @property
    def blocks(self) -> int:
        """Into how many fixed batches the examples fall."""
        return -(-len(self.tensors[0]) // self.size)

    def block(self, i: int) -> tuple[Tensor, ...]:
        """The i-th fixed batch; the last one may be smaller."""
        return tuple(t[i * self.size : (i + 1) * self.size] for t in self.tensors)
