"""Programs run on kinds and hashes in place of numbers: what is wrong, what is alive, and which are alike.

Chen et al. (2023), section 3.2, "abstract execution".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from thalweg.discovery.functions import FUNCTIONS
from thalweg.discovery.program import Argument, Kind, Program, Signature

Cause = Literal["undefined", "kind", "useless"]


@dataclass(frozen=True)
class Rejection:
    """Why a program is not run.

    Args:
        cause: ``undefined``: a name has no value where it is used; ``kind``: a reduction of a number, or an output of
            the wrong kind; ``useless``: it would run, but its first output does not depend on what it should.
        statement: number of the statement, from 0; None for the outputs.
        words: in a line.
    """

    cause: Cause
    statement: int | None
    words: str


def check(program: Program) -> Rejection | None:
    """What is wrong with a program, None for one that is to be run.

    What this rejects as ``undefined`` or of the wrong ``kind`` cannot run, or does not return what it should; all else
    runs. It takes some 10 microseconds.

    >>> from thalweg.discovery import parse
    >>> bad = parse("def train(w, g, m, v, lr):\\n    update = x * g\\n    return update, m, v")
    >>> check(bad).words
    "'x' is not defined in: update = x * g"
    """
    kinds: dict[str, Kind] = dict(program.signature.inputs)
    used: dict[str, frozenset[str]] = {name: frozenset((name,)) for name in kinds}
    none: frozenset[str] = frozenset()
    for k, statement in enumerate(program.statements):
        known = FUNCTIONS[statement.function]
        tensor = False
        for argument in statement.arguments:
            if isinstance(argument, str):
                if argument not in kinds:
                    return Rejection("undefined", k, f"'{argument}' is not defined in: {statement}")
                is_tensor = kinds[argument] == "tensor"
            else:
                is_tensor = False
            tensor = tensor or is_tensor
            if known.reduces and not is_tensor:
                return Rejection("kind", k, f"{known.name} needs tensors in: {statement}")
        kinds[statement.target] = "tensor" if tensor and not known.reduces else "number"
        parts = [used[a] for a in statement.arguments if isinstance(a, str)]
        used[statement.target] = none.union(*parts)
    for name, kind in program.signature.outputs:
        if name not in kinds:
            return Rejection("undefined", None, f"the output '{name}' is not defined")
        if kinds[name] != kind:
            return Rejection("kind", None, f"the output '{name}' is a {kinds[name]}; expected a {kind}")
    return _useless(program.signature, used)


def _useless(signature: Signature, used: dict[str, frozenset[str]]) -> Rejection | None:
    """Inputs that do not reach the first output, by way of the memory neither."""
    first = signature.outputs[0][0]
    reached = used[first]
    while True:
        more = reached.union(*(used[name] for name in signature.memory if name in reached))
        if more == reached:
            break
        reached = more
    for name in signature.needs:
        if name not in reached:
            return Rejection("useless", None, f"the output '{first}' does not depend on '{name}'")
    return None


def live(program: Program) -> tuple[bool, ...]:
    """Of each statement, whether it can change the first output in this step or, by the memory, in a later one."""
    wanted = {program.signature.outputs[0][0]}
    while True:
        alive, needed = _backward(program, wanted)
        more = wanted | {name for name in program.signature.memory if name in needed}
        if more == wanted:
            return alive
        wanted = more


def _backward(program: Program, wanted: set[str]) -> tuple[tuple[bool, ...], set[str]]:
    needed, alive = set(wanted), [False] * len(program)
    for k in range(len(program) - 1, -1, -1):
        statement = program.statements[k]
        if statement.target in needed:
            alive[k] = True
            needed.discard(statement.target)
            needed.update(a for a in statement.arguments if isinstance(a, str))
    return tuple(alive), needed


def without_dead(program: Program) -> Program:
    """The live statements alone; memory that no live statement reads stays what it is."""
    kept = tuple(s for s, alive in zip(program.statements, live(program), strict=True) if alive)
    return Program(program.signature, kept)


def structural_hash(program: Program) -> str:
    """A name for how the first output is computed: equal for programs that do the same operations.

    Names, the order of independent statements, dead statements, the order of arguments that may be swapped, and which
    of two memories holds what do not matter.

    Cost: some 60 microseconds for a program of ten statements.
    """
    alive = live(program)
    memory = program.signature.memory
    orders = [memory] if len(memory) < 2 else [memory, memory[::-1]]
    return min(_hashed(program, alive, order) for order in orders)


def _hashed(program: Program, alive: tuple[bool, ...], order: tuple[str, ...]) -> str:
    place = {name: f"memory {k}" for k, name in enumerate(order)}
    held = {name: _digest(place.get(name, name)) for name, _ in program.signature.inputs}
    for statement, is_alive in zip(program.statements, alive, strict=True):
        if is_alive:
            parts = [_part(a, held) for a in statement.arguments]
            if FUNCTIONS[statement.function].commutes:
                parts.sort()
            held[statement.target] = _digest(statement.function, *parts)
    wanted = {program.signature.outputs[0][0]}
    while True:  # the memory that is read counts, and no other
        _, needed = _backward(program, wanted)
        more = wanted | {name for name in order if name in needed}
        if more == wanted:
            break
        wanted = more
    first = program.signature.outputs[0][0]
    return _digest(held[first], *(held[name] if name in wanted else "-" for name in order))


def _part(argument: Argument, held: dict[str, str]) -> str:
    return held[argument] if isinstance(argument, str) else repr(argument)


def _digest(*words: str) -> str:
    return hashlib.blake2b("|".join(words).encode(), digest_size=12).hexdigest()
