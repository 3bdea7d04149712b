"""Nested containers of numbers, arrays, tensors and generators in one file: data, never code."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.errors import InvalidProblem, UnreadableFile
from thalweg.core.files import atomic_write

#: What reading a damaged file can raise, torch's words for a device that is not here included.
_DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    EOFError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")


def save_tree(path: str | Path, tree: Any) -> None:  # noqa: ANN401 -- plain data of any shape
    """Save nested containers of numbers, strings, arrays, tensors and generators to one file.

    The file is a zip of ``.npy`` members and one JSON text; `load_tree` gives the same bits back.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_encode(tree, arrays))
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("tree.json", text)
        for i, array in enumerate(arrays):
            with archive.open(f"{i}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def load_tree(path: str | Path) -> Any:  # noqa: ANN401 -- plain data of any shape
    """Load what `save_tree` wrote; a file that is absent or damaged raises `UnreadableFile`."""
    try:
        with zipfile.ZipFile(path) as archive:
            encoded = json.loads(archive.read("tree.json"))
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            arrays = {
                name: np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in names
            }
        return _decode(encoded, arrays)
    except UnreadableFile:
        raise
    except FileNotFoundError:
        raise UnreadableFile(f"No file {path}.") from None
    except _DAMAGE as error:
        raise UnreadableFile(f"{path} is not a file saved by thalweg, or is damaged: {error}.") from error


def _encode(value: Any, arrays: list[np.ndarray]) -> Any:  # noqa: ANN401 -- plain data of any shape
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_encode(item, arrays) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, arrays) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]}
    if isinstance(value, np.generic):
        return {"scalar": _store(np.asarray(value), arrays)}
    if isinstance(value, np.ndarray):
        return {"array": _store(value, arrays)}
    if isinstance(value, np.random.Generator):
        return {"generator": _encode(value.bit_generator.state, arrays)}
    if type(value).__module__.partition(".")[0] == "torch":
        return _encode_torch(value, arrays)
    raise InvalidProblem(
        f"A {type(value).__name__} cannot be saved. A state holds arrays, tensors, numbers and generators; "
        "give other objects a state_dict()."
    )


def _encode_torch(value: Any, arrays: list[np.ndarray]) -> Any:  # noqa: ANN401 -- plain data of any shape
    import torch

    if isinstance(value, torch.Generator):
        return {"torch_generator": [str(value.device), _store(value.get_state().numpy(), arrays)]}
    if not isinstance(value, torch.Tensor):
        raise InvalidProblem(f"A {type(value).__name__} cannot be saved.")
    flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    dtype = str(value.dtype).removeprefix("torch.")
    return {"tensor": [dtype, list(value.shape), str(value.device), _store(flat, arrays)]}


def _store(array: np.ndarray, arrays: list[np.ndarray]) -> int:
    if array.dtype.hasobject:
        raise InvalidProblem("An array of Python objects cannot be saved; use numbers or strings.")
    arrays.append(array)
    return len(arrays) - 1


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:  # noqa: ANN401 -- plain data of any shape
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tuple":
        return tuple(_decode(item, arrays) for item in content)
    if kind == "dict":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in content}
    if kind == "scalar":
        return arrays[f"{content}.npy"][()]
    if kind == "array":
        return arrays[f"{content}.npy"]
    if kind == "generator":
        return _decode_generator(_decode(content, arrays))
    return _decode_torch(kind, content, arrays)


def _decode_generator(state: dict[str, Any]) -> np.random.Generator:
    name = state["bit_generator"]
    if name not in _BIT_GENERATORS:
        raise UnreadableFile(f"Unknown bit generator {name!r} in a saved file.")
    bits = getattr(np.random, name)()
    bits.state = state
    return np.random.Generator(bits)


def _decode_torch(kind: str, content: list[Any], arrays: dict[str, np.ndarray]) -> Any:  # noqa: ANN401 -- plain data of any shape
    import torch

    if kind == "torch_generator":
        generator = torch.Generator(device=content[0])
        generator.set_state(torch.from_numpy(arrays[f"{content[1]}.npy"]))
        return generator
    if kind != "tensor":
        raise UnreadableFile(f"A saved file holds an unknown kind of value, {kind!r}.")
    name, shape, device, index = content
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UnreadableFile(f"A saved file holds a tensor of unknown type {name!r}.")
    if 0 in shape:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(arrays[f"{index}.npy"]).view(dtype).reshape(shape).to(device)
