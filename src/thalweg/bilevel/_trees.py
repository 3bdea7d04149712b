"""Pytrees of tensors, and the same as one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

#: Tensors in nested tuples, lists and dictionaries; what is not a tensor is handed through.
Tree: TypeAlias = Any
#: A function of pytrees that gives one.
TreeFunction: TypeAlias = Callable[..., Tree]


def ravel(leaves: Sequence[Tensor]) -> Tensor:
    """The tensors one after the other, a vector."""
    return torch.cat([leaf.reshape(-1) for leaf in leaves])


def unravel(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A vector as tensors of these shapes: the inverse of `ravel`."""
    parts = flat.split([leaf.numel() for leaf in like])
    return [part.reshape(leaf.shape) for part, leaf in zip(parts, like, strict=True)]


def vector(tree: Tree) -> Tensor:
    """A pytree as one vector."""
    return ravel(pytree.tree_leaves(tree))
