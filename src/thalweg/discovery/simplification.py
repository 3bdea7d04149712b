"""From a program that a search found to one that can be read, with a log of why each change is allowed.

Chen et al. (2023), section 3.3 and appendix J.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from thalweg.core.validation import is_real, require
from thalweg.discovery.abstract import check, live, without_dead
from thalweg.discovery.functions import FUNCTIONS
from thalweg.discovery.graph import Graph
from thalweg.discovery.program import Program, Statement

Reason = Literal["dead", "algebra", "does not hurt"]


@dataclass(frozen=True)
class Change:
    """One change of the log.

    Args:
        reason: ``dead``: it cannot reach the update; ``algebra``: the two sides are equal for real numbers, apart from
            the 1e-12 that moves divisors off zero; ``does not hurt``: nothing but that the loss is no larger.
        words: what was changed to what.
    """

    reason: Reason
    words: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.words}"


@dataclass(frozen=True)
class Simplified:
    """The shorter program, and the changes that lead to it, in order."""

    program: Program
    log: tuple[Change, ...]

    @property
    def is_exact(self) -> bool:
        """Whether no change rests on the loss alone."""
        return all(change.reason != "does not hurt" for change in self.log)


def simplified(
    program: Program, loss: Callable[[Program], float] | None = None, tolerance: float = 0.0
) -> Simplified:
    """Shorten a program: dead statements, statements whose absence does not hurt, then algebra.

    Args:
        program: a valid one.
        loss: judges a program, such as ``lambda p: task.losses(p)[-1]``. Without it nothing is dropped for not hurting.
        tolerance: by which share a loss may grow in each such change. Default 0.

    Memory that nothing reads is dropped; where one memory is left, it is ``m``.

    Cost: without a loss, milliseconds; with one, as many evaluations as a few times the statements.

    >>> from thalweg.discovery import PUBLISHED_RAW
    >>> found = simplified(PUBLISHED_RAW)
    >>> [str(s) for s in found.program.statements if s.function == "interp"]
    ['x2 = interp(x1, m, 0.899)', 'm = interp(x1, m, 0.996991)']
    """
    fits = is_real(tolerance) and 0 <= tolerance < math.inf
    require(fits, "simplified needs a finite tolerance >= 0", got=tolerance)
    log: list[Change] = []
    program = _alive(program, log)
    if loss is not None:
        program = _pruned(program, loss, tolerance, log)
    while True:
        graph = _rewritten(program, log)
        shorter = _alive(graph.program(), log)
        if shorter == program:
            break
        program = shorter
    return Simplified(_one_memory(program), tuple(log))


def _alive(program: Program, log: list[Change]) -> Program:
    alive = live(program)
    log += [
        Change("dead", str(s))
        for s, kept in zip(program.statements, alive, strict=True)
        if not kept and s.function != "maximum"
    ]
    return without_dead(program)


def _pruned(
    program: Program, loss: Callable[[Program], float], tolerance: float, log: list[Change]
) -> Program:
    """Statements dropped, or passed by, one after another while the loss allows it."""
    now = loss(program)
    k = 0
    while k < len(program):
        for shorter, words in _without(program, k):
            if check(shorter) is None:
                value = loss(shorter)
                if value <= now + tolerance * abs(now):
                    log.append(Change("does not hurt", f"{words}; loss {now:.4g} -> {value:.4g}"))
                    program, now, k = without_dead(shorter), value, -1
                    break
        k += 1
    return program


def _without(program: Program, k: int) -> list[tuple[Program, str]]:
    """The program without statement k, and with one of its arguments in place of its value."""
    statement = program.statements[k]
    found = [
        (
            Program(program.signature, (*program.statements[:k], *program.statements[k + 1 :])),
            f"without {statement}",
        )
    ]
    for argument in dict.fromkeys(a for a in statement.arguments if isinstance(a, str)):
        if argument != statement.target:
            graph = Statement(statement.target, "maximum", (argument, argument))
            body = (*program.statements[:k], graph, *program.statements[k + 1 :])
            if statement.function != "maximum":
                found.append(
                    (
                        Graph.of(Program(program.signature, body)).program(),
                        f"{argument} in place of {statement}",
                    )
                )
    return [(p, words) for p, words in found if check(p) is None]


def _rewritten(program: Program, log: list[Change]) -> Graph:
    """The program's graph, built anew with every node as its rules give it."""
    old = Graph.of(program)
    new = Graph(program.signature)
    for name, _ in program.signature.inputs:
        new.add(("input", name))
    place: dict[int, int] = {}
    for k, (name, value) in enumerate(old.nodes):
        if name in ("input", "constant"):
            place[k] = new.add((name, value))
            continue
        at = new.add((name, tuple(place[a] for a in old.arguments(k))))
        while True:
            better = _better(new, at)
            if better is None or better == at:
                break
            before, after = new.text(at), new.text(better)
            if before != after and new.nodes[at][0] != "maximum":
                log.append(Change("algebra", f"{before} = {after}"))
            at = better
        place[k] = at
    new.outputs = [place[k] for k in old.outputs]
    new.forget()
    return new


def _better(graph: Graph, k: int) -> int | None:
    """A node equal to node k and simpler, None where no rule fits."""
    name, _ = graph.nodes[k]
    if name in ("input", "constant"):
        return None
    parts = graph.arguments(k)
    values = [graph.constant(a) for a in parts]
    if all(v is not None for v in values) and not FUNCTIONS[name].reduces:
        with np.errstate(all="ignore"):
            folded = float(FUNCTIONS[name].form(np)(*map(np.float64, values)))
        return graph.add(("constant", folded)) if math.isfinite(folded) else None
    rule = _RULES.get(name)
    return None if rule is None else rule(graph, parts, values)


Rewrite = Callable[[Graph, tuple[int, ...], "list[float | None]"], "int | None"]


def _interp(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
    x, y, _ = parts
    if x == y or values[2] == 0.0:
        return x
    if values[2] == 1.0:
        return y
    inner, b = graph.nodes[y], values[2]
    if inner[0] == "interp" and b is not None:  # (1 - b) x + b ((1 - a) x + a z) = (1 - ab) x + ab z
        first, last, rate = graph.arguments(y)
        a = graph.constant(rate)
        if first == x and a is not None:
            return graph.add(("interp", (x, last, graph.add(("constant", a * b)))))
    return None


def _div(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
    x, y = parts
    if graph.nodes[y][0] == "absolute" and graph.arguments(y) == (x,):
        return graph.add(("sign", (x,)))
    return x if values[1] == 1.0 else None


def _mul(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
    x, y = parts
    if x == y:
        return graph.add(("square", (x,)))
    if 1.0 in values:
        return parts[1 - values.index(1.0)]
    for own, other in ((0, 1), (1, 0)):  # a (b x) = (ab) x
        if values[own] is not None and graph.nodes[parts[other]][0] == "mul":
            for inner, rest in (graph.arguments(parts[other]), graph.arguments(parts[other])[::-1]):
                b = graph.constant(inner)
                if b is not None:
                    return graph.add(("mul", (rest, graph.add(("constant", float(values[own] or 0.0) * b)))))
    return None


def _add(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
    return parts[1 - values.index(0.0)] if 0.0 in values else None


def _sub(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
    return parts[0] if values[1] == 0.0 else None


def _sqrt(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
    inside, of = graph.nodes[parts[0]][0], graph.arguments(parts[0])
    if inside == "square":
        return graph.add(("absolute", of))
    return graph.add(("sqrt", of)) if inside == "absolute" else None


def _negative(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
    return graph.arguments(parts[0])[0] if graph.nodes[parts[0]][0] == "negative" else None


def _same_twice(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
    return parts[0] if parts[0] == parts[1] else None


def _blind_to_sign(name: str) -> Rewrite:
    """A function that is the same for x, -x and |x|."""

    def rule(graph: Graph, parts: tuple[int, ...], values: list[float | None]) -> int | None:
        inside = graph.nodes[parts[0]][0]
        return graph.add((name, graph.arguments(parts[0]))) if inside in ("absolute", "negative") else None

    return rule


def _once(name: str) -> Rewrite:
    """A function that changes nothing the second time."""
    return lambda graph, parts, values: parts[0] if graph.nodes[parts[0]][0] == name else None


_RULES: dict[str, Rewrite] = {
    "interp": _interp,
    "div": _div,
    "mul": _mul,
    "add": _add,
    "sub": _sub,
    "sqrt": _sqrt,
    "negative": _negative,
    "maximum": _same_twice,
    "minimum": _same_twice,
    "square": _blind_to_sign("square"),
    "absolute": _blind_to_sign("absolute"),
    "cosh": _blind_to_sign("cosh"),
    "cos": _blind_to_sign("cos"),
    "sign": _once("sign"),
    "relu": _once("relu"),
}


def _one_memory(program: Program) -> Program:
    """The same program with its only memory in the first place, where the second alone is used."""
    memory = program.signature.memory
    if len(memory) < 2:
        return program
    first, second = memory[:2]
    words = {a for s in program.statements for a in (*s.arguments, s.target)}
    if first in words or second not in words:
        return program
    renamed = tuple(
        Statement(
            first if s.target == second else s.target,
            s.function,
            tuple(first if a == second else a for a in s.arguments),
        )
        for s in program.statements
    )
    return Program(program.signature, renamed)
