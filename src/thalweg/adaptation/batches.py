"""Batches without end, from tensors or from a loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.training.task import Shuffle

Rows = tuple[Tensor, ...]
#: Tensors with the examples along the first axis, or a loader of batches of such.
Source = Sequence[Tensor] | Iterable[object]


class Draws(Protocol):
    """A place in endless data."""

    def draw(self) -> Rows:
        """The next batch."""

    def state_dict(self) -> dict[str, object]:
        """The place, as plain data."""

    def load_state_dict(self, state: dict[str, object], /) -> None:
        """Inverse of `state_dict`."""


class TensorDraws(Shuffle):
    """Batches of tensors, by reshuffling; resumable."""

    def __init__(self, tensors: Sequence[Tensor], batch_size: int, seed: int, device: str) -> None:
        super().__init__(len(tensors[0]), batch_size, seed)
        self._rows, self._device = tuple(tensors), device

    def draw(self) -> Rows:  # type: ignore[override]  # rows in the place of their indices
        """The next batch."""
        chosen = super().draw()
        return tuple(t[chosen].to(self._device) for t in self._rows)


class LoaderDraws:
    """Batches of a loader, begun again where it ends; its place is no part of a state."""

    def __init__(self, loader: Iterable[object], device: str, name: str) -> None:
        self._loader, self._device, self._name = loader, device, name
        self._batches: Iterator[object] = iter(())

    def draw(self) -> Rows:
        """The next batch."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches, None)
        if batch is None:
            raise InvalidProblem(f"The {self._name} loader has no batch.")
        return as_rows(batch, self._device)

    def state_dict(self) -> dict[str, object]:
        """Refused: nothing says where a loader is."""
        raise InvalidProblem(
            f"The {self._name} loader's place cannot be saved. Pass tensors for runs that are resumed."
        )

    def load_state_dict(self, state: dict[str, object], /) -> None:
        """Refused, too."""
        self.state_dict()


def as_rows(batch: object, device: str) -> Rows:
    """A loader's batch, a tensor or a tuple of them, on the device.

    >>> len(as_rows(torch.ones(2), "cpu"))
    1
    """
    parts = batch if isinstance(batch, list | tuple) else (batch,)
    return tuple(torch.as_tensor(part).to(device) for part in parts)


def is_tensors(data: object) -> bool:
    """Whether data are tensors at hand, and no loader.

    >>> is_tensors((torch.ones(2), torch.ones(2))), is_tensors(iter([]))
    (True, False)
    """
    return isinstance(data, tuple | list) and len(data) > 0 and all(isinstance(t, Tensor) for t in data)
