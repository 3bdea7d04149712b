"""One step of one algorithm, as the paper writes it; loops, clocks and files live in `solve`."""

from __future__ import annotations

import dataclasses
import types
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Generic, Self

from typing_extensions import TypeVar

from thalweg.core.fingerprint import fingerprint
from thalweg.core.problem import Problem
from thalweg.core.stop import Status
from thalweg.core.tree import require_alike

# Without parameters, `Method` is one for any problem, with any state.
P = TypeVar("P", bound=Problem, default=Any)
S = TypeVar("S", bound="State", default=Any)


@dataclass(kw_only=True)
class State:
    """Everything needed to go on: arrays, tensors, numbers, generators, or objects with a ``state_dict``.

    Args:
        x: the current answer.
        metrics: the method's own cheap numbers after this step; `Stop` and `History` read them.
        calls: evaluations of the problem so far, where the method counts them.
        status: set by a method that knows it has finished.
        message: one line for the user beside ``status``; without one, beside what ends the run unconverged.
    """

    x: Any
    metrics: dict[str, float] = field(default_factory=dict)
    calls: int = 0
    status: Status | None = None
    message: str = ""

    def tree(self) -> dict[str, Any]:
        """The state as plain data, for a checkpoint."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "status"}
        return {name: v.state_dict() if hasattr(v, "state_dict") else v for name, v in values.items()}

    def restored(self, tree: dict[str, Any]) -> Self:
        """This freshly initialised state with the values of ``tree`` put in."""
        values = {}
        for name, value in tree.items():
            held = getattr(self, name)
            if hasattr(held, "load_state_dict"):
                held.load_state_dict(value)
                value = held
            else:
                require_alike(f"state's {name}", held, value)
            values[name] = value
        return dataclasses.replace(self, **values)


class Method(ABC, Generic[P, S]):
    """Base of all methods: a frozen dataclass of hyper-parameters with `init` and `step`.

    ``in_place`` says that `step` overwrites arrays of the state it is given (large vectors are not copied
    in the loop); `solve` then copies the answers it wants to keep.
    """

    in_place: ClassVar[bool] = False

    @abstractmethod
    def init(self, problem: P, seed: int) -> S:
        """Check that the method fits ``problem`` and return the state before the first step."""

    @abstractmethod
    def step(self, problem: P, state: S) -> S:
        """One iteration, as the paper counts it."""

    @classmethod
    def solves(cls) -> tuple[type[Problem], ...]:
        """The kinds of problem that the method is written for, by the ``Method[...]`` it is a subclass of."""
        return _solved(cls)

    @property
    def name(self) -> str:
        """Short label with the hyper-parameters that differ from their defaults, for tables and legends."""
        return _labelled(self)


@cache
def _solved(method: type[Method]) -> tuple[type[Problem], ...]:
    for kind in method.__mro__:
        for base in kind.__dict__.get("__orig_bases__", ()):
            found = _problems(typing.get_args(base)[0]) if typing.get_args(base) else ()
            if found:
                return found
    return (Problem,)


def _problems(said: object) -> tuple[type[Problem], ...]:
    """The classes of problems in an annotation."""
    if isinstance(said, TypeVar):
        return _problems(said.__bound__)
    if typing.get_origin(said) in (typing.Union, types.UnionType):
        return tuple(kind for part in typing.get_args(said) for kind in _problems(part))
    said = typing.get_origin(said) or said
    return (said,) if isinstance(said, type) and issubclass(said, Problem) else ()


def _labelled(value: Any) -> str:  # noqa: ANN401 -- a dataclass of any kind
    """``Name(option=value, ...)`` with what differs from the defaults."""
    shown = [
        f"{f.name}={_text(getattr(value, f.name))}"
        for f in dataclasses.fields(value)
        if f.repr and f.init and not _is_default(f, getattr(value, f.name))
    ]
    return f"{type(value).__name__}({', '.join(shown)})"


def _is_default(field: dataclasses.Field[Any], value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        return False
    if value is default:
        return True
    if isinstance(value, int | float) and isinstance(default, int | float):
        return value == default
    return type(value) is type(default) and fingerprint(value) == fingerprint(default)


def _text(value: object) -> str:
    """A value in a few characters."""
    if isinstance(value, bool | int | str) or value is None:
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__}{tuple(value.shape)}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _labelled(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(_text(v) for v in value[:3]) + (", ..." if len(value) > 3 else "")
        return f"[{inner}]"
    return str(getattr(value, "__name__", None) or type(value).__name__)
