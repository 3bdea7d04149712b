"""Content hashes of problems and methods, so that a checkpoint is not resumed on another problem."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
from collections.abc import Mapping
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, cast

import numpy as np


def fingerprint(value: object) -> str:
    """SHA-256, in hex, of the content of ``value``: equal content gives equal hashes in any process.

    Arrays, sparse matrices, tensors, modules, numbers, strings, containers and objects count by content; functions by
    their code, constants, defaults, what they have closed over, and the numbers, arrays and functions of their module
    that they use; classes by name.

    >>> fingerprint([1, 2.0]) == fingerprint([1, 2.0]) != fingerprint([1, 2])
    True
    >>> fingerprint(lambda x: x + 1) == fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)
    True
    """
    feed = _Feed()
    feed.value(value)
    return feed.digest.hexdigest()


class _Feed:
    """A digest, and the objects on the way to the value now fed, so that circles end."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._open: list[int] = []

    def text(self, text: str) -> None:
        self.digest.update(f"{len(text)}:{text}".encode())

    def value(self, value: object) -> None:
        if id(value) in self._open:
            self.text(f"circle {len(self._open) - self._open.index(id(value))}")
            return
        self._open.append(id(value))
        self.text(type(value).__qualname__)
        self._content(value)
        self._open.pop()

    def _content(self, value: object) -> None:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | range | slice):
            self.text(repr(value))
        elif isinstance(value, type | ModuleType | BuiltinFunctionType | np.ufunc):
            self._name(value)
        elif isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, np.generic):
            self.text(str(value.dtype))
            self.digest.update(value.tobytes())
        elif isinstance(value, Mapping):
            self._pairs(value)
        elif isinstance(value, list | tuple):
            self._items(value)
        elif isinstance(value, set | frozenset):
            self._items(sorted(fingerprint(item) for item in value))
        elif isinstance(value, FunctionType):
            self._function(value)
        elif isinstance(value, MethodType):
            self._items((value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self._items((value.func, value.args, value.keywords))
        elif isinstance(value, np.random.Generator):
            self._pairs(value.bit_generator.state)
        elif not self._torch(value):
            self._object(value)

    def _name(self, value: object) -> None:
        self.text(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', None) or repr(value)}")

    def _items(self, items: list[Any] | tuple[Any, ...]) -> None:
        self.text(str(len(items)))
        for item in items:
            self.value(item)

    def _pairs(self, pairs: Mapping[Any, Any]) -> None:
        self.text(str(len(pairs)))
        for key in sorted(pairs, key=repr):
            self.value(key)
            self.value(pairs[key])

    def _array(self, array: np.ndarray) -> None:
        self.text(f"{array.dtype}{array.shape}")
        if array.dtype.hasobject:
            self._items(array.ravel().tolist())
        else:
            self.digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _function(self, function: FunctionType) -> None:
        cells = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        self._code(function.__code__)
        self._items((function.__defaults__, function.__kwdefaults__, cells))
        used = {name: function.__globals__.get(name) for name in _names(function.__code__)}
        self._pairs({name: v for name, v in used.items() if _is_data(v) or _is_beside(v, function)})

    def _code(self, code: CodeType) -> None:
        self.digest.update(code.co_code)
        self._items((code.co_names, code.co_varnames, code.co_freevars))
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._code(constant)
            else:
                self.value(constant)

    def _torch(self, value: object) -> bool:
        """Tensors and modules; whether ``value`` was one."""
        torch = sys.modules.get("torch")
        if torch is None:
            return False
        if isinstance(value, torch.Tensor):
            self.text(f"{value.dtype}{tuple(value.shape)}")
            self._array(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
            return True
        if isinstance(value, torch.nn.Module):
            self._pairs(value.state_dict())
            self.text(repr(value))
            self._items([type(module).forward for module in value.modules()])
            return True
        if isinstance(value, torch.Generator):
            self._array(value.get_state().numpy())
            return True
        return False

    def _object(self, value: object) -> None:
        self._name(type(value))
        if dataclasses.is_dataclass(value):
            self._pairs({f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.compare})
        elif hasattr(value, "indptr") and hasattr(value, "indices"):
            sparse = cast(Any, value)
            self._items((sparse.shape, sparse.data, sparse.indices, sparse.indptr))
        elif callable(getattr(value, "tree", None)):
            self.value(cast(Any, value).tree())
        elif callable(getattr(value, "state_dict", None)):
            self._pairs(dict(cast(Any, value).state_dict()))
        elif hasattr(value, "py_func"):  # a function that Numba compiles
            self.value(value.py_func)
        elif hasattr(value, "free_symbols"):  # a formula of SymPy's
            self.text(str(value))
        elif hasattr(value, "__dict__"):
            cached = {
                n for n in vars(value) if isinstance(getattr(type(value), n, None), functools.cached_property)
            }
            self._pairs({name: v for name, v in vars(value).items() if name not in cached})
            self._calls(value)

    def _calls(self, value: object) -> None:
        call = next(
            (vars(kind)["__call__"] for kind in type(value).__mro__ if "__call__" in vars(kind)), None
        )
        if isinstance(call, FunctionType):
            self._function(call)


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 -- raises where nothing is in it yet
    except ValueError:
        return False
    return True


def _names(code: CodeType) -> set[str]:
    """Global names that ``code`` uses, in the functions inside it too."""
    inner = [_names(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)


def _is_data(value: object) -> bool:
    torch = sys.modules.get("torch")
    tensor = torch is not None and isinstance(value, torch.Tensor)
    return tensor or isinstance(value, bool | int | float | complex | str | bytes | np.ndarray | np.generic)


def _is_beside(value: object, function: FunctionType) -> bool:
    """Whether ``value`` is a function of the same file as ``function``: a change of it changes what is computed."""
    return isinstance(value, FunctionType) and value.__module__ == function.__module__
