"""Run programs on NumPy arrays or torch tensors, one by one or many of one skeleton at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from thalweg.core import InvalidProblem, ThalwegError
from thalweg.core.validation import require
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
        return self.traced(given, [torch.tensor(c, **kind) for c in self.constants])

    def traced(self, inputs: Sequence[Value], constants: Sequence[Value]) -> tuple[Value, ...]:
        """The program on tensors of torch, with other numbers for its constants."""
        code = [(_operation(name, "torch"), places, to) for name, places, to in self._code]
        return self._run(code, [*inputs, *constants])

    def _run(
        self, code: Sequence[tuple[Operation, tuple[int, ...], int]], held: list[Value]
    ) -> tuple[Value, ...]:
        values: list[Value] = held + [0.0] * (self._length - len(held))
        for operation, places, to in code:
            values[to] = operation(*[values[k] for k in places])
        return tuple([values[k] for k in self._outputs])


def skeleton(program: Program) -> str:
    """The program's text without its constants: programs alike in it differ in constants alone."""
    words = [
        f"{s.target}={s.function}({','.join('#' if isinstance(a, float) else a for a in s.arguments)})"
        for s in program.statements
    ]
    return ";".join([program.signature.name, *words])


def run_batch(programs: Sequence[Program], *inputs: Value) -> tuple[Tensor, ...]:
    """Outputs of programs that differ in constants alone, stacked along a new first axis, by one `torch.func.vmap`.

    Args:
        programs: at least one, of one `skeleton`.
        inputs: as a `Rule` takes them, the same for all programs; tensors of torch.

    Raises:
        InvalidProblem: programs of different skeletons.

    Cost: as many calls of torch as one program has functions.

    >>> import torch
    >>> from thalweg.discovery import LION
    >>> ones = torch.ones(3)
    >>> [tuple(part.shape) for part in run_batch([LION, LION], ones, ones, ones, ones, 1.0)]
    [(2, 3), (2, 3), (2, 3)]
    """
    import torch

    require(len(programs) > 0, "run_batch needs at least one program")
    forms = {skeleton(program) for program in programs}
    if len(forms) > 1:
        raise InvalidProblem(f"run_batch takes programs of one skeleton; got {len(forms)} different ones.")
    rules = [Rule(program) for program in programs]
    first = next(x for x in inputs if isinstance(x, torch.Tensor))
    like = torch.empty(0, dtype=first.dtype, device=first.device)
    given = [x if isinstance(x, torch.Tensor) else like.new_tensor(x) for x in inputs]
    constants = like.new_tensor([rule.constants for rule in rules])

    def one(numbers: Tensor) -> tuple[Tensor, ...]:
        # An output that no constant enters would otherwise come back without the new axis.
        return tuple(torch.as_tensor(x).clone() for x in rules[0].traced(given, list(numbers)))

    if not rules[0].constants:
        alone = one(constants[0])
        return tuple(torch.stack([x] * len(rules)) for x in alone)
    found: tuple[Tensor, ...] = torch.func.vmap(one)(constants)
    return found
