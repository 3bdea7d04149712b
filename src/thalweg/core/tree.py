"""Nested containers of numbers, arrays, tensors and generators in one file: data, never code."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.core.errors import InvalidProblem, ThalwegError, UnreadableFile
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

    The file is a zip of ``.npy`` members and one JSON text, sealed by a digest; `load_tree` gives the same bits back.
    """
    arrays: list[np.ndarray] = []
    text = json.dumps(_encode(tree, arrays))
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("tree.json", text)
        for i, array in enumerate(arrays):
            with archive.open(f"{i}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
        archive.comment = _seal(archive)


def load_tree(path: str | Path) -> Any:  # noqa: ANN401 -- plain data of any shape
    """Load what `save_tree` wrote; a file that is absent or damaged raises `UnreadableFile`.

    What the tree does not name is not read, and nothing that unpacks to more than the file holds.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type]
            if packed:
                raise UnreadableFile(
                    f"{path} is not a file saved by thalweg: its {packed[0]} is compressed, which ours are not."
                )
            if archive.comment != _seal(archive):
                raise UnreadableFile(
                    f"{path} is not as thalweg saved it: it is damaged, changed by hand, or of an earlier version."
                )
            return _decode(json.loads(archive.read("tree.json")), _Members(archive))
    except UnreadableFile:
        raise
    except FileNotFoundError:
        raise UnreadableFile(f"No file {path}.") from None
    except _DAMAGE as error:
        raise UnreadableFile(f"{path} is not a file saved by thalweg, or is damaged: {error}.") from error


def _seal(archive: zipfile.ZipFile) -> bytes:
    """A digest of the members' names, sizes and check sums, by which the whole content is known."""
    parts = sorted((m.filename, m.file_size, m.CRC) for m in archive.infolist())
    return b"thalweg " + hashlib.sha256(repr(parts).encode()).hexdigest().encode()


@contextmanager
def restoring(path: str | Path, what: str) -> Iterator[None]:
    """Put what was loaded from ``path`` into its place: what does not fit there is no ``what`` of this version."""
    try:
        yield
    except ThalwegError:
        raise
    except _DAMAGE as error:
        raise UnreadableFile(f"{path} is not {what} of this version, or is damaged: {error!r}.") from error


def require_alike(name: str, held: object, value: object, *, optional: bool = True) -> None:
    """Refuse a saved ``value`` of another kind than the one ``held`` before; None fits all where it is ``optional``.

    >>> require_alike("rate", 0.5, 1)
    >>> require_alike("rate", 0.5, "fast")
    Traceback (most recent call last):
    ...
    thalweg.core.errors.UnreadableFile: The saved rate is 'fast'; expected a value of type float.
    """
    numbers = isinstance(held, int | float) and isinstance(value, int | float)
    absent = optional and (held is None or value is None)
    if not (absent or numbers or type(held) is type(value)):
        raise UnreadableFile(
            f"The saved {name} is {value!r}; expected a value of type {type(held).__name__}."
        )
    if isinstance(held, np.ndarray) and isinstance(value, np.ndarray):
        mine, saved = (held.ndim, held.dtype), (value.ndim, value.dtype)
        if mine != saved:
            raise UnreadableFile(
                f"The saved {name} has {saved[0]} dimensions of {saved[1]}; expected {mine[0]} of {mine[1]}."
            )


class _Members:
    """The arrays of an archive, each read when it is asked for."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def __getitem__(self, index: int) -> np.ndarray:
        content = self._archive.read(f"{index}.npy")
        stream = io.BytesIO(content)
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(stream)
        if math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
            raise UnreadableFile(f"{index}.npy is damaged: its size is not that of its shape, {shape}.")
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


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


def _decode(value: Any, arrays: _Members) -> Any:  # noqa: ANN401 -- plain data of any shape
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
        return arrays[content][()]
    if kind == "array":
        return arrays[content]
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


def _decode_torch(kind: str, content: list[Any], arrays: _Members) -> Any:  # noqa: ANN401 -- plain data of any shape
    import torch

    if kind == "torch_generator":
        generator = torch.Generator(device=content[0])
        generator.set_state(torch.from_numpy(arrays[content[1]]))
        return generator
    if kind != "tensor":
        raise UnreadableFile(f"A saved file holds an unknown kind of value, {kind!r}.")
    name, shape, device, index = content
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise UnreadableFile(f"A saved file holds a tensor of unknown type {name!r}.")
    if 0 in shape:
        return torch.empty(shape, dtype=dtype, device=device)
    return torch.from_numpy(arrays[index]).view(dtype).reshape(shape).to(device)
