"""A program as a graph of values, on which algebra is done, and the way back to statements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from thalweg.discovery.program import Argument, Program, Signature, Statement

#: A function and the numbers of its arguments; ``("input", name)`` and ``("constant", value)`` have none.
Node: TypeAlias = tuple[str, tuple[int, ...] | str | float]


@dataclass
class Graph:
    """Values that a program computes, each once.

    Args:
        signature: of the program.
        nodes: arguments before what uses them.
        outputs: numbers of the nodes that are returned.
    """

    signature: Signature
    nodes: list[Node] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    _at: dict[Node, int] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program) -> Graph:
        """The graph of a valid program."""
        graph = cls(program.signature)
        held = {name: graph.add(("input", name)) for name, _ in program.signature.inputs}
        for statement in program.statements:
            places = tuple(
                held[a] if isinstance(a, str) else graph.add(("constant", a)) for a in statement.arguments
            )
            held[statement.target] = graph.add((statement.function, places))
        graph.outputs = [held[name] for name, _ in program.signature.outputs]
        return graph

    def add(self, node: Node) -> int:
        """The number of a node, new or there already."""
        if node not in self._at:
            self._at[node] = len(self.nodes)
            self.nodes.append(node)
        return self._at[node]

    def arguments(self, k: int) -> tuple[int, ...]:
        """Numbers of the nodes that node k is made of."""
        name, parts = self.nodes[k]
        return parts if isinstance(parts, tuple) and name not in ("input", "constant") else ()

    def constant(self, k: int) -> float | None:
        """The value of node k where it is a constant."""
        name, value = self.nodes[k]
        return value if name == "constant" and isinstance(value, float) else None

    def text(self, k: int) -> str:
        """Node k as an expression, cut after some letters."""
        name, value = self.nodes[k]
        if name in ("input", "constant"):
            return str(value) if isinstance(value, str) else repr(value)
        shown = f"{name}({', '.join(self._short(a, 3) for a in self.arguments(k))})"
        return shown if len(shown) <= 100 else shown[:97] + "..."

    def _short(self, k: int, depth: int) -> str:
        name, value = self.nodes[k]
        if name in ("input", "constant"):
            return str(value) if isinstance(value, str) else repr(value)
        inner = ", ".join(self._short(a, depth - 1) for a in self.arguments(k)) if depth else "..."
        return f"{name}({inner})"

    def forget(self) -> None:
        """Give memory that the first output never needs back as it came."""
        names = [name for name, _ in self.signature.outputs]
        wanted = {names[0]}
        while True:
            roots = [k for name, k in zip(names, self.outputs, strict=True) if name in wanted]
            read = {
                str(self.nodes[k][1]) for k in self._order(roots, inputs=True) if self.nodes[k][0] == "input"
            }
            more = wanted | {name for name in self.signature.memory if name in read}
            if more == wanted:
                break
            wanted = more
        self.outputs = [
            k if name in wanted or name not in self.signature.memory else self._at["input", name]
            for name, k in zip(names, self.outputs, strict=True)
        ]

    def program(self) -> Program:
        """The graph as statements: each value once, under a name that can be read."""
        order = list(self._order(self.outputs))
        names, statements = self._first_names(), []
        targets: dict[int, str] = {}
        for (name, _), k in zip(self.signature.outputs, self.outputs, strict=True):
            targets.setdefault(k, name)
        later: list[Statement] = []
        taken = {name for name, _ in (*self.signature.inputs, *self.signature.outputs)}
        fresh = (f"x{i}" for i in range(len(order) + 1) if f"x{i}" not in taken)
        for place, k in enumerate(order):
            name = targets.get(k, "")
            if not name or self._is_read(name, order[place + 1 :]) or self._is_output(name):
                name = next(fresh)
            names[k] = name
            arguments = tuple(self._argument(a, names) for a in self.arguments(k))
            statements.append(Statement(name, self.nodes[k][0], arguments))
        for (name, _), k in zip(self.signature.outputs, self.outputs, strict=True):
            held = self._argument(k, names)
            if held != name:  # the language has no plain copy
                later.append(Statement(name, "maximum", (held, held)))
        return Program(self.signature, (*statements, *later))

    def _first_names(self) -> dict[int, Argument]:
        return {k: str(node[1]) for k, node in enumerate(self.nodes) if node[0] == "input"}

    def _argument(self, k: int, names: dict[int, Argument]) -> Argument:
        value = self.constant(k)
        return names[k] if value is None else value

    def _is_read(self, name: str, rest: list[int]) -> bool:
        """Whether the input ``name`` is an argument of a node in ``rest``."""
        given = self._at.get(("input", name))
        return given is not None and any(given in self.arguments(k) for k in rest)

    def _is_output(self, name: str) -> bool:
        """Whether another output is the input ``name`` as it came."""
        given = self._at.get(("input", name))
        own = [output for output, _ in self.signature.outputs].index(name)
        return any(k == given for j, k in enumerate(self.outputs) if j != own)

    def _order(self, roots: list[int], inputs: bool = False) -> Iterator[int]:
        """Functions that some nodes need, arguments first; with the inputs among them where wanted."""
        seen: set[int] = set()
        for output in roots:
            stack = [(output, False)]
            while stack:
                k, ready = stack.pop()
                if ready:
                    yield k
                elif k not in seen:
                    seen.add(k)
                    if self.nodes[k][0] in ("input", "constant"):
                        if inputs:
                            yield k
                    else:
                        stack.append((k, True))
                        stack.extend((a, False) for a in reversed(self.arguments(k)))
