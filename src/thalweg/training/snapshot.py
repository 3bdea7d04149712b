"""Everything that a training step depends on, taken and put back to the bit."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.core import CheckpointMismatch


class Stateful(Protocol):
    """What a snapshot can take: a gradient scaler, a schedule, a module."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Inverse of `state_dict`."""


class Snapshot:
    """A copy of a network's, its optimizer's and others' states, and of all random generators.

    Args:
        model: parameters, buffers (those that no ``state_dict`` has, too) and extra states of modules are copied.
        optimizer: its state and the options of its groups are copied.
        others: more objects with ``state_dict`` and ``load_state_dict``, by name: a gradient scaler, a schedule.

    What modules keep in plain attributes is not copied: give it a ``get_extra_state`` and ``set_extra_state``.

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
        self.model = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
        self.extra = {name: copy.deepcopy(module.get_extra_state()) for name, module in _with_extra(model)}
        state = optimizer.state_dict()
        # Options of the live groups; None where the optimizer has to load its state in its own way.
        self._options = _live_options(optimizer, state)
        self.optimizer = copy.deepcopy(state)
        self.others = {name: copy.deepcopy(other.state_dict()) for name, other in (others or {}).items()}
        self.random = random_states()

    def restore(
        self, model: nn.Module, optimizer: Optimizer, others: Mapping[str, Stateful] | None = None
    ) -> None:
        """Put everything back; gradients are cleared.

        Raises:
            CheckpointMismatch: the model has other parameters; nothing is changed then.
        """
        places = [(name, tensor) for name, tensor in _tensors(model) if name in self.model]
        for name, p in model.named_parameters():
            there = tuple(self.model[name].shape) if name in self.model else None
            if there != tuple(p.shape):
                told = "is not there" if there is None else f"has shape {there}"
                raise CheckpointMismatch(
                    f"The snapshot is of another model: {name} {told}, the model's has {tuple(p.shape)}."
                )
        with torch.no_grad():
            for name, tensor in places:
                tensor.copy_(self.model[name])
        for name, module in _with_extra(model):
            module.set_extra_state(copy.deepcopy(self.extra[name]))
        self._restore_optimizer(optimizer)
        for name, other in (others or {}).items():
            other.load_state_dict(copy.deepcopy(self.others[name]))
        optimizer.zero_grad(set_to_none=True)
        set_random_states(self.random)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {name: getattr(self, name) for name in _KEPT}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Snapshot:
        """Inverse of `state_dict`."""
        snapshot = cls.__new__(cls)
        snapshot.__dict__.update({"extra": {}, "_options": None} | {k: state[k] for k in _KEPT if k in state})
        return snapshot

    def _restore_optimizer(self, optimizer: Optimizer) -> None:
        """`load_state_dict` without its copies where every tensor has its place already."""
        targets: list[tuple[Tensor, Tensor]] = []
        now = optimizer.state_dict()["state"]
        if self._options is None or not _pairs(now, self.optimizer["state"], targets):
            optimizer.load_state_dict(copy.deepcopy(self.optimizer))
            _lay_out_as_weights(optimizer)
        else:
            with torch.no_grad():
                for target, source in targets:
                    target.copy_(source)
        if self._options is not None:
            for group, options in zip(optimizer.param_groups, self._options, strict=True):
                _put_back(group, options)


_KEPT = ("model", "extra", "optimizer", "others", "random")


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _with_extra(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that have a state beside their tensors."""
    for name, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield name, module


def _live_options(optimizer: Optimizer, state: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The options of each group, where ``state`` holds the optimizer's own tensors and nothing else; or None."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    lived: list[object] = [optimizer.state[p] for p in params if p in optimizer.state]
    saved = list(state["state"].values())
    own = state.keys() == {"state", "param_groups"} and len(lived) == len(saved)
    if not own or not all(_same(a, b) for a, b in zip(lived, saved, strict=True)):
        return None
    return [
        copy.deepcopy({k: v for k, v in group.items() if k != "params"}) for group in optimizer.param_groups
    ]


def _put_back(group: dict[str, Any], options: dict[str, Any]) -> None:
    """Options into a live group; tensors, such as a rate that a CUDA graph reads, stay where they are."""
    for name, value in options.items():
        if isinstance(group.get(name), Tensor) and isinstance(value, Tensor):
            group[name].copy_(value)
        else:
            group[name] = copy.deepcopy(value)


def _same(a: object, b: object) -> bool:
    """Whether two entries of a state are one, tensor by tensor."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))


def _lay_out_as_weights(optimizer: Optimizer) -> None:
    """Give loaded tensors the layout that they had: files keep values only, and steps go by the layout."""
    for p, entry in optimizer.state.items():
        for name, value in entry.items():
            if isinstance(value, Tensor) and value.shape == p.shape and value.stride() != p.stride():
                entry[name] = torch.empty_like(p, dtype=value.dtype).copy_(value)


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
    return {"python": random.getstate(), "numpy": np.random.get_state(), **torch_random_states()}


def torch_random_states() -> dict[str, Any]:
    """Those of torch alone: on the CPU, and on GPUs that are in use."""
    states: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = [state.cpu() for state in torch.cuda.get_rng_state_all()]
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Inverse of `random_states`, and of `torch_random_states`; generators that ``states`` has not are left."""
    if "python" in states:
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        for device, state in zip(range(torch.cuda.device_count()), states["cuda"], strict=False):
            torch.cuda.set_rng_state(state, device)
