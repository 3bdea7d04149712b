"""Everything that a training step depends on, taken and put back to the bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Stateful(Protocol):
    """What a snapshot can take: a gradient scaler, a schedule, a module."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Inverse of `state_dict`."""


class Snapshot:
    """A copy of a network's, its optimizer's and others' states, and of all random generators.

    Args:
        model: parameters and buffers are copied.
        optimizer: its state and the options of its groups are copied.
        others: more objects with ``state_dict`` and ``load_state_dict``, by name: a gradient scaler, a schedule.

    Memory: that of the weights, buffers and the optimizer's state once more, on their devices.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.Adam(model.parameters())
    >>> snapshot, before = Snapshot(model, optimizer), model.weight.clone()
    >>> model(torch.ones(2)).sum().backward(); optimizer.step()
    >>> snapshot.restore(model, optimizer)
    >>> torch.equal(model.weight, before), len(optimizer.state)
    (True, 0)
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, others: Mapping[str, Stateful] | None = None
    ) -> None:
        self.model = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        self.optimizer = copy.deepcopy(optimizer.state_dict())
        self.others = {name: copy.deepcopy(other.state_dict()) for name, other in (others or {}).items()}
        self.random = random_states()

    def restore(
        self, model: nn.Module, optimizer: Optimizer, others: Mapping[str, Stateful] | None = None
    ) -> None:
        """Put everything back; gradients are cleared."""
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                tensor.copy_(self.model[name])
        _restore_optimizer(optimizer, self.optimizer)
        for name, other in (others or {}).items():
            other.load_state_dict(copy.deepcopy(self.others[name]))
        optimizer.zero_grad(set_to_none=True)
        set_random_states(self.random)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {
            "model": self.model,
            "optimizer": self.optimizer,
            "others": self.others,
            "random": self.random,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Snapshot:
        """Inverse of `state_dict`."""
        snapshot = cls.__new__(cls)
        snapshot.__dict__.update({name: state[name] for name in ("model", "optimizer", "others", "random")})
        return snapshot


def _restore_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """`load_state_dict` without its copies where every tensor has its place already."""
    now = optimizer.state_dict()
    targets: list[tuple[Tensor, Tensor]] = []
    if _pairs(now["state"], saved["state"], targets):
        with torch.no_grad():
            for target, source in targets:
                target.copy_(source)
        for group, values in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            group.update({k: copy.deepcopy(v) for k, v in values.items() if k != "params"})
    else:
        optimizer.load_state_dict(copy.deepcopy(saved))


def _pairs(now: object, saved: object, found: list[tuple[Tensor, Tensor]]) -> bool:
    """Collect the tensors at equal places of two states; False if anything else differs."""
    if isinstance(now, Tensor) and isinstance(saved, Tensor):
        found.append((now, saved))
        return now.shape == saved.shape and now.dtype == saved.dtype
    if isinstance(now, dict) and isinstance(saved, dict):
        return now.keys() == saved.keys() and all(_pairs(now[k], saved[k], found) for k in now)
    if isinstance(now, Tensor) or isinstance(saved, Tensor):
        return False
    return bool(now == saved)


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators, as plain data."""
    states: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = [state.cpu() for state in torch.cuda.get_rng_state_all()]
    return states


def set_random_states(states: dict[str, Any]) -> None:
    """Inverse of `random_states`."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
