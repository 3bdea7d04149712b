"""One step of one algorithm, as the paper writes it; loops, clocks and files live in `solve`."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar

from thalweg.core.problem import Problem
from thalweg.core.stop import Status

P = TypeVar("P", bound=Problem)
S = TypeVar("S", bound="State")


@dataclass(kw_only=True)
class State:
    """Everything needed to go on: arrays, tensors, numbers, generators, or objects with a ``state_dict``.

    Args:
        x: the current answer.
        metrics: the method's own cheap numbers after this step; `Stop` and `History` read them.
        calls: evaluations of the problem so far, where the method counts them.
        status: set by a method that knows it has finished.
        message: one line for the user beside ``status``.
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

    @property
    def name(self) -> str:
        """Short label with the hyper-parameters that differ from their defaults, for tables and legends."""
        shown = []
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if f.repr and value != f.default:
                text = f"{value:.4g}" if isinstance(value, float) else getattr(value, "__name__", str(value))
                shown.append(f"{f.name}={text}")
        return f"{type(self).__name__}({', '.join(shown)})"
