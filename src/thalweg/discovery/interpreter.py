"""Run programs on NumPy arrays or torch tensors."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from thalweg.core import InvalidProblem, ThalwegError
from thalweg.discovery.functions import FUNCTIONS, Operation, Value
from thalweg.discovery.program import Program

if TYPE_CHECKING:
    from torch import Tensor


class TooSlow(ThalwegError):
    """A candidate has used up its time."""


@cache
def _operation(name: str, library: str) -> Operation:
    return FUNCTIONS[name].form(sys.modules[library])


class Rule:
    """A program that can be called: ``rule(w, g, m, v, lr)`` gives ``update, m, v``.

    Arrays of NumPy are worked on by NumPy, tensors of torch by torch, in their dtype and on their device. Nothing is
    changed in place.

    Args:
        program: one that `check` finds no fault with.
        seconds: from now; a call after them raises `TooSlow`. Default: none.

    Raises:
        InvalidProblem: a name that is not defined where it is used.

    Cost per call: the functions', and 0.3 microseconds a statement.

    >>> from thalweg.discovery import LION
    >>> one = np.ones(2)
    >>> [float(v[0]) for v in Rule(LION)(one, one, 0 * one, 0 * one, 1.0)]
    [0.00011000000000000002, 0.010000000000000009, 0.0]
    """

    def __init__(self, program: Program, seconds: float | None = None) -> None:
        self.program = program
        self._until = None if seconds is None else time.perf_counter() + seconds
        slots = {name: k for k, (name, _) in enumerate(program.signature.inputs)}
        self._given = len(slots)
        self.constants: list[float] = []
        self._code: list[tuple[str, tuple[int, ...], int]] = []
        names = dict(slots)
        n_constants = sum(isinstance(a, float) for s in program.statements for a in s.arguments)
        free = self._given + n_constants
        for statement in program.statements:
            places = []
            for argument in statement.arguments:
                if isinstance(argument, float):
                    places.append(self._given + len(self.constants))
                    self.constants.append(argument)
                elif argument in names:
                    places.append(names[argument])
                else:
                    raise InvalidProblem(f"'{argument}' is not defined in: {statement}.")
            if statement.target not in names or names[statement.target] < self._given:
                names[statement.target], free = free, free + 1
            self._code.append((statement.function, tuple(places), names[statement.target]))
        for name, _ in program.signature.outputs:
            if name not in names:
                raise InvalidProblem(f"The output '{name}' is not defined.")
        self._outputs = tuple(names[name] for name, _ in program.signature.outputs)
        self._length = free
        self._ready: list[tuple[Operation, tuple[int, ...], int]] = []
        self._numbers = [np.float64(c) for c in self.constants]

    @property
    def is_elementwise(self) -> bool:
        """Whether no statement reduces tensors to numbers: tensors may then be joined to one, with the same result."""
        return not any(FUNCTIONS[name].reduces for name, _, _ in self._code)

    def __call__(self, *inputs: Value) -> tuple[Value, ...]:
        if self._until is not None and time.perf_counter() > self._until:
            raise TooSlow("The candidate has used up its time.")
        torch = sys.modules.get("torch")
        first = next((x for x in inputs if torch is not None and isinstance(x, torch.Tensor)), None)
        if torch is not None and first is not None:
            return self._torch(torch, first, inputs)
        if not self._ready:
            self._ready = [(_operation(name, "numpy"), places, to) for name, places, to in self._code]
        given = [x if isinstance(x, np.ndarray) and x.ndim else np.float64(x) for x in inputs]
        with np.errstate(all="ignore"):
            return self._run(self._ready, [*given, *self._numbers])

    def _torch(self, torch: ModuleType, first: Tensor, inputs: Sequence[Value]) -> tuple[Value, ...]:
        kind = {"dtype": first.dtype, "device": first.device}
        given = [x if isinstance(x, torch.Tensor) else torch.tensor(x, **kind) for x in inputs]
        constants = [torch.tensor(c, **kind) for c in self.constants]
        code = [(_operation(name, "torch"), places, to) for name, places, to in self._code]
        return self._run(code, [*given, *constants])

    def _run(
        self, code: Sequence[tuple[Operation, tuple[int, ...], int]], held: list[Value]
    ) -> tuple[Value, ...]:
        values: list[Value] = held + [0.0] * (self._length - len(held))
        for operation, places, to in code:
            values[to] = operation(*[values[k] for k in places])
        return tuple([values[k] for k in self._outputs])
