"""Weights by name: read from files as they are asked for, made a tensor at a time, written as they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor, nn

from thalweg.core import InvalidParameter, InvalidProblem, UnreadableFile
from thalweg.core.files import atomic_write, check_target

#: Weights by name.
StateDict = Mapping[str, Tensor]
#: A network: itself, its weights, or a file of them.
Network = nn.Module | StateDict | str | Path

#: Names of types in a safetensors header.
KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class LazyState(Mapping[str, Tensor]):
    """Weights that are made each time they are asked for, so that one tensor is in memory at a time.

    Args:
        like: weights of the same names, shapes and types.
        make: the tensor of a name.
    """

    def __init__(self, like: StateDict, make: Callable[[str], Tensor]) -> None:
        self.like, self.make = like, make

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.like:
            raise KeyError(name)
        return self.make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.like)

    def __len__(self) -> int:
        return len(self.like)


def weights_of(given: Network, module: nn.Module | None = None) -> dict[str, Tensor]:
    """A network's tensors by name, detached; those that a file leaves out, since they are tied in the module, too."""
    if isinstance(given, str | Path):
        given = load_weights(given)
    if not isinstance(given, nn.Module | Mapping):
        raise InvalidProblem(
            f"A network is a module, a state dict or a file of weights; got a value of type {type(given).__name__}."
        )
    state = given.state_dict() if isinstance(given, nn.Module) else given
    found = {name: value.detach() for name, value in state.items()}
    places: dict[tuple[int, torch.Size], str] = {}
    own = {} if module is None else module.state_dict()
    for name, value in own.items():
        if name in found and value.numel():
            places.setdefault((value.data_ptr(), value.shape), name)
    for name, value in own.items():
        twin = places.get((value.data_ptr(), value.shape))
        if name not in found and twin is not None:
            found[name] = found[twin]
    return found


def mixed(states: Sequence[StateDict], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of weights; whole numbers, such as counters, are the first's."""
    return dict(mixed_lazily(states, weights))


def mixed_lazily(states: Sequence[StateDict], weights: Sequence[float]) -> LazyState:
    """`mixed`, each tensor when it is asked for."""

    def make(name: str) -> Tensor:
        value = states[0][name]
        if not value.is_floating_point():
            return value.clone()
        total = value.to(torch.float64, copy=True).mul_(weights[0])
        for state, share in zip(states[1:], weights[1:], strict=True):
            total.add_(state[name].to(value.device, torch.float64), alpha=share)
        return total.to(value.dtype)

    first = states[0]
    return LazyState(first.like if isinstance(first, LazyState) else first, make)


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict from ``.safetensors``, or from ``.pt`` or ``.pth`` as data alone.

    The file is mapped into memory: its pages are read when a tensor is used, and can be given back.

    Raises:
        UnreadableFile: no such file, or none of these.
    """
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise UnreadableFile(f"No file {path}.")
    if not path.stat().st_size:
        raise UnreadableFile(f"{path} is empty; expected weights, .safetensors, .pt or .pth.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnreadableFile(f"{path} holds no weights: {why}") from error
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UnreadableFile(f"{path} holds no state dict, tensors by name.")
    return dict(found)


def _is_zip(path: Path) -> bool:
    """Whether a file of torch can be mapped: those before torch 1.6 cannot."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def save_weights(path: str | Path, state: StateDict) -> None:
    """Write a state dict: ``.safetensors`` or ``.pt``, at once or not at all.

    A `LazyState` goes into ``.safetensors`` a tensor at a time; ``.pt`` holds all in memory first.

    Raises:
        InvalidParameter: another ending; a type that safetensors does not have, such as complex.
    """
    path = check_target(path, (".safetensors", ".pt", ".pth"))
    with atomic_write(path) as file:
        if path.suffix == ".safetensors":
            _write(file, state)
        else:
            torch.save({n: v.detach().cpu().contiguous().clone() for n, v in state.items()}, file)


def _write(file: BinaryIO, state: StateDict) -> None:
    """A safetensors file: the header's length in 8 bytes, the header as JSON, and the tensors end to end."""
    like = state.like if isinstance(state, LazyState) else state
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    order = sorted(like, key=lambda n: (-like[n].element_size(), n))  # each begins at a multiple of its size
    for name in order:
        value = like[name]
        if value.dtype not in KINDS:
            raise InvalidParameter(
                f"'{name}' is {value.dtype}, which safetensors does not hold; write a .pt file."
            )
        size = value.numel() * value.element_size()
        header[name] = {
            "dtype": KINDS[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        value = state[name].detach().cpu().contiguous().reshape(-1)
        file.write(value.view(torch.uint8).numpy().data)
