"""Pytrees of tensors, and the same as one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thalweg.core import InvalidProblem

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


class Called:
    """A module with other tensors in the places of its parameters and buffers; all else is the module's own."""

    def __init__(self, module: nn.Module, tensors: dict[str, Tensor]) -> None:
        self._module, self._tensors = module, tensors

    def __call__(self, *arguments: Tree, **options: Tree) -> Tree:
        return torch.func.functional_call(self._module, self._tensors, arguments, options)

    def __getattr__(self, name: str) -> Tree:
        if name in self._tensors:
            return self._tensors[name]
        found = getattr(self._module, name)
        if not isinstance(found, nn.Module):
            return found
        inner = {k[len(name) + 1 :]: t for k, t in self._tensors.items() if k.startswith(f"{name}.")}
        return Called(found, inner)

    def __getitem__(self, index: int) -> Tree:
        return getattr(self, str(range(len(self._module))[index]))  # type: ignore[arg-type]  # a Sequential

    def parameters(self) -> list[Tensor]:
        """The tensors in the places of the parameters."""
        return [self._tensors[name] for name, _ in self._module.named_parameters()]


def named_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters and buffers."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def tensors_of(leaves: Sequence[Tree]) -> list[Tensor]:
    """The tensors among the leaves, and those of modules among them."""
    found: list[Tensor] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif isinstance(leaf, nn.Module):
            found.extend(named_tensors(leaf).values())
    return found


def filled(leaves: Sequence[Tree], tensors: Sequence[Tensor]) -> list[Tree]:
    """The leaves with these tensors in the places of `tensors_of`."""
    rest = iter(tensors)
    found: list[Tree] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            found.append(next(rest))
        elif isinstance(leaf, nn.Module):
            found.append(Called(leaf, {name: next(rest) for name in named_tensors(leaf)}))
        else:
            found.append(leaf)
    return found


def given_tensor(value: object, what: str) -> Tensor:
    """A tensor as it is; numbers and arrays as tensors, which nothing is differentiated in.

    Raises:
        InvalidProblem: words, or anything else that is no array of numbers.
    """
    if isinstance(value, Tensor):
        return value
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError(f"its entries are of type {array.dtype}")
        return torch.as_tensor(array)
    except (TypeError, ValueError) as error:
        raise InvalidProblem(f"{what} is a tensor or an array of numbers: {error}.") from None
