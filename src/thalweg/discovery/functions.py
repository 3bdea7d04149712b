"""The words of the language: forty-five functions of tensors and numbers, none of which can fail.

Chen, Liang, Huang et al. (2023), "Symbolic discovery of optimization algorithms", appendix I. Square roots and
logarithms are those of absolute values, divisors are moved off zero by 1e-12, and arcs are taken of clipped values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from thalweg.core import UnknownName

if TYPE_CHECKING:
    from torch import Tensor

#: What a variable holds while a program runs: an array, a tensor, or a number.
Value: TypeAlias = "NDArray[np.float64] | float | Tensor"
Operation: TypeAlias = Callable[..., Value]

TINY = 1e-12


@dataclass(frozen=True)
class Function:
    """A function of the language.

    Args:
        name: as programs write it.
        arity: number of arguments.
        form: how it is computed, made of a library: ``form(numpy)`` or ``form(torch)``.
        commutes: its two arguments may be swapped.
        reduces: it makes one number of tensors; a number for an argument is an error.
    """

    name: str
    arity: int
    form: Callable[[ModuleType], Operation]
    commutes: bool = False
    reduces: bool = False


def _tensors(*values: Value) -> None:
    if any(np.ndim(value) == 0 for value in values):
        raise ValueError("a reduction needs tensors; got a number")


def _norm(x: Value, lib: ModuleType) -> Value:
    return lib.sqrt((x * x).sum())  # type: ignore[union-attr]


def _reduction(form: Callable[..., Value]) -> Callable[[ModuleType], Operation]:
    def made(lib: ModuleType) -> Operation:
        def call(*values: Value) -> Value:
            _tensors(*values)
            return form(lib, *values)

        return call

    return made


def _clip(lib: ModuleType) -> Operation:
    return lambda x, a: lib.maximum(lib.minimum(x, abs(a)), -abs(a))


def _cosine(lib: ModuleType, x: Value, y: Value) -> Value:
    return (x * y).sum() / (_norm(x, lib) * _norm(y, lib) + TINY)  # type: ignore[union-attr]


def _cbrt(lib: ModuleType) -> Operation:
    return lambda x: lib.sign(x) * abs(x) ** (1.0 / 3.0)


def _unit(lib: ModuleType) -> Operation:
    """A value clipped to [-1, 1]."""
    return lambda x: lib.clip(x, -1.0, 1.0)


def _inside(lib: ModuleType) -> Operation:
    """A value clipped to just inside (-1, 1)."""
    return lambda x: lib.clip(x, -0.999999, 0.999999)


_UNARY: dict[str, Callable[[ModuleType], Operation]] = {
    "negative": lambda lib: lib.negative,
    "absolute": lambda lib: abs,
    "square": lambda lib: lib.square,
    "cube": lambda lib: lambda x: x * x * x,
    "sqrt": lambda lib: lambda x: lib.sqrt(abs(x)),
    "cbrt": _cbrt,
    "reciprocal": lambda lib: lambda x: 1.0 / (x + TINY),
    "exp": lambda lib: lib.exp,
    "expm1": lambda lib: lib.expm1,
    "log": lambda lib: lambda x: lib.log(abs(x) + TINY),
    "log1p": lambda lib: lambda x: lib.log1p(abs(x)),
    "sign": lambda lib: lib.sign,
    "sin": lambda lib: lib.sin,
    "cos": lambda lib: lib.cos,
    "tan": lambda lib: lib.tan,
    "arcsin": lambda lib: lambda x: lib.arcsin(_unit(lib)(x)),
    "arccos": lambda lib: lambda x: lib.arccos(_unit(lib)(x)),
    "arctan": lambda lib: lib.arctan,
    "sinh": lambda lib: lib.sinh,
    "cosh": lambda lib: lib.cosh,
    "tanh": lambda lib: lib.tanh,
    "arcsinh": lambda lib: lib.arcsinh,
    "arccosh": lambda lib: lambda x: lib.arccosh(1.0 + abs(x)),
    "arctanh": lambda lib: lambda x: lib.arctanh(_inside(lib)(x)),
    "sigmoid": lambda lib: lambda x: 0.5 * (1.0 + lib.tanh(0.5 * x)),
    "relu": lambda lib: lambda x: 0.5 * (x + abs(x)),
}
_BINARY: dict[str, Callable[[ModuleType], Operation]] = {
    "add": lambda lib: lambda x, y: x + y,
    "sub": lambda lib: lambda x, y: x - y,
    "mul": lambda lib: lambda x, y: x * y,
    "div": lambda lib: lambda x, y: x / (y + TINY),
    "maximum": lambda lib: lib.maximum,
    "minimum": lambda lib: lib.minimum,
    "hypot": lambda lib: lib.hypot,
    "arctan2": lambda lib: lib.arctan2,
    "copysign": lambda lib: lib.copysign,
    "power": lambda lib: lambda x, y: (abs(x) + TINY) ** y,
    "clip": _clip,
}
_REDUCTIONS: dict[str, tuple[int, Callable[..., Value]]] = {
    "norm": (1, lambda lib, x: _norm(x, lib)),
    "mean": (1, lambda lib, x: x.mean()),
    "std": (1, lambda lib, x: lib.sqrt(((x - x.mean()) ** 2).mean())),
    "largest": (1, lambda lib, x: x.max()),
    "smallest": (1, lambda lib, x: x.min()),
    "dot": (2, lambda lib, x, y: (x * y).sum()),
    "cosine": (2, _cosine),
}
_COMMUTE = {"add", "mul", "maximum", "minimum", "hypot", "dot", "cosine"}

#: The functions by name. ``interp(x, y, a)`` is ``(1 - a) x + a y``; ``clip(x, a)`` clips to [-|a|, |a|].
FUNCTIONS: dict[str, Function] = {
    **{name: Function(name, 1, form) for name, form in _UNARY.items()},
    **{name: Function(name, 2, form, name in _COMMUTE) for name, form in _BINARY.items()},
    "interp": Function("interp", 3, lambda lib: lambda x, y, a: (1.0 - a) * x + a * y),
    **{
        name: Function(name, arity, _reduction(form), name in _COMMUTE, reduces=True)
        for name, (arity, form) in _REDUCTIONS.items()
    },
}


def function(name: str) -> Function:
    """The function of this name.

    Raises:
        UnknownName: there is none.
    """
    if name not in FUNCTIONS:
        raise UnknownName("function", name, FUNCTIONS)
    return FUNCTIONS[name]
