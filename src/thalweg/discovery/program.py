"""Programs as data: straight lines of assignments, printed as Python and read back."""

from __future__ import annotations

import ast
import functools
import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.discovery.functions import function

#: An argument: the name of a variable, or a constant.
Argument: TypeAlias = str | float
Kind: TypeAlias = Literal["tensor", "number"]

_OPERATORS: dict[str, str] = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_NODES: dict[type[ast.operator], str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}


@dataclass(frozen=True)
class Signature:
    """What a program is given and what it must return.

    Args:
        name: of the function, as it prints.
        inputs: name and kind of each.
        outputs: likewise; one that is an input, too, is memory: it comes back in the next step.
        needs: inputs on which the first output has to depend.

    >>> OPTIMIZER.memory
    ('m', 'v')
    """

    name: str
    inputs: tuple[tuple[str, Kind], ...]
    outputs: tuple[tuple[str, Kind], ...]
    needs: tuple[str, ...] = ()

    @property
    def memory(self) -> tuple[str, ...]:
        """Outputs that are inputs of the next step; they begin at zero."""
        given = dict(self.inputs)
        return tuple(name for name, _ in self.outputs if name in given)


#: An update rule: ``w = w - update`` is done by whoever calls it, for each tensor of weights by itself; ``lr`` is the
#: schedule's value, 1 at its height, and the base rate is a constant of the program.
OPTIMIZER = Signature(
    "train",
    (("w", "tensor"), ("g", "tensor"), ("m", "tensor"), ("v", "tensor"), ("lr", "number")),
    (("update", "tensor"), ("m", "tensor"), ("v", "tensor")),
    ("g",),
)
#: A learning-rate schedule: ``t`` in (0, 1] is the share of the steps done, ``factor`` multiplies the base rate.
SCHEDULE = Signature("schedule", (("t", "number"),), (("factor", "number"),), ("t",))


@dataclass(frozen=True)
class Statement:
    """``target = function(*arguments)``."""

    target: str
    function: str
    arguments: tuple[Argument, ...]

    def __str__(self) -> str:
        shown = [_shown(a) for a in self.arguments]
        if self.function in _OPERATORS and len(shown) == 2:
            return f"{self.target} = {shown[0]} {_OPERATORS[self.function]} {shown[1]}"
        return f"{self.target} = {self.function}({', '.join(shown)})"


@dataclass(frozen=True)
class Program:
    """A signature and its statements, in order.

    >>> print(parse("def train(w, g, m, v, lr):\\n    update = 0.1 * sign(g)\\n    return update, m, v"))
    def train(w, g, m, v, lr):
        t0 = sign(g)
        update = 0.1 * t0
        return update, m, v
    """

    signature: Signature
    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        given = ", ".join(name for name, _ in self.signature.inputs)
        body = [*map(str, self.statements), "return " + ", ".join(n for n, _ in self.signature.outputs)]
        return f"def {self.signature.name}({given}):\n" + "\n".join(f"    {line}" for line in body)

    def __len__(self) -> int:
        return len(self.statements)

    @functools.cached_property
    def source(self) -> str:
        """The program as text, worked out once."""
        return str(self)


def _shown(argument: Argument) -> str:
    if isinstance(argument, str):
        return argument
    return repr(argument) if math.isfinite(argument) else f"float('{argument}')"


@functools.lru_cache(maxsize=8192)
def parse(source: str, signature: Signature = OPTIMIZER) -> Program:
    """Read a program: what `str` of one gives, or the like written by hand.

    Nested calls, ``+=`` and the like and unary minus are taken, and become statements with one function each.

    Args:
        source: a Python function of the signature's name and arguments that only assigns, and returns the outputs.
        signature: of an optimizer by default; `SCHEDULE` for schedules.

    Raises:
        InvalidProblem: anything else is in it, with its line.
        UnknownName: a function that is not in the language.
    """
    if not isinstance(source, str):
        raise InvalidProblem(f"A program is read from a text; got {type(source).__name__}.")
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InvalidProblem(f"A program is a Python function; this is none: {error}.") from error
    definition = body[0] if len(body) == 1 else None
    if not isinstance(definition, ast.FunctionDef):
        raise InvalidProblem(f"A program is one function, def {signature.name}(...), and nothing else.")
    given = [argument.arg for argument in definition.args.args]
    expected = [name for name, _ in signature.inputs]
    if definition.name != signature.name or given != expected:
        raise InvalidProblem(
            f"The program is {definition.name}({', '.join(given)}); expected "
            f"{signature.name}({', '.join(expected)})."
        )
    if definition.decorator_list or definition.args.defaults:
        raise InvalidProblem(
            f"Line {definition.lineno}: a program has no decorators and no default values. Remove them."
        )
    reader = _Reader(source)
    *lines, last = definition.body
    if lines and isinstance(lines[0], ast.Expr) and isinstance(lines[0].value, ast.Constant):
        lines = lines[1:]  # its docstring
    for line in lines:
        reader.assignment(line)
    _check_return(last, signature)
    return Program(signature, tuple(reader.statements))


def _check_return(last: ast.stmt, signature: Signature) -> None:
    wanted = [name for name, _ in signature.outputs]
    value = last.value if isinstance(last, ast.Return) else None
    parts = value.elts if isinstance(value, ast.Tuple) else [value]
    if [part.id if isinstance(part, ast.Name) else None for part in parts] != wanted:
        raise InvalidProblem(f"Line {last.lineno}: a program ends with return {', '.join(wanted)}.")


class _Reader:
    """Statements from assignments."""

    def __init__(self, source: str) -> None:
        self.statements: list[Statement] = []
        self.taken = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}

    def assignment(self, line: ast.stmt) -> None:
        if isinstance(line, ast.AugAssign) and isinstance(line.target, ast.Name) and type(line.op) in _NODES:
            value = self.argument(line.value)
            name = line.target.id
            self.statements.append(Statement(name, _NODES[type(line.op)], (name, value)))
        elif (
            isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name)
        ):
            function_, arguments = self.call(line.value)
            self.statements.append(Statement(line.targets[0].id, function_, arguments))
        else:
            raise InvalidProblem(
                f"Line {line.lineno}: a program only assigns to a name, as in x = sqrt(y); got {ast.unparse(line)!r}."
            )

    def call(self, node: ast.expr) -> tuple[str, tuple[Argument, ...]]:
        if isinstance(node, ast.BinOp) and type(node.op) in _NODES:
            return _NODES[type(node.op)], (self.argument(node.left), self.argument(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return "negative", (self.argument(node.operand),)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            known = function(node.func.id)
            require(
                len(node.args) == known.arity,
                f"Line {node.lineno}: {known.name} takes {known.arity} arguments",
                got=len(node.args),
                error=InvalidProblem,
            )
            return known.name, tuple(self.argument(part) for part in node.args)
        plain = isinstance(node, ast.Name) or _number(node) is not None
        hint = f" For its value itself write 1.0 * {ast.unparse(node)}." if plain else ""
        raise InvalidProblem(
            f"Line {node.lineno}: {ast.unparse(node)!r} is no function of the language, nor +, -, * or /.{hint}"
        )

    def argument(self, node: ast.expr) -> Argument:
        if isinstance(node, ast.Name):
            return node.id
        number = _number(node)
        if number is not None:
            return number
        name = next(f"t{k}" for k in range(len(self.taken) + 1) if f"t{k}" not in self.taken)
        self.taken.add(name)
        function_, arguments = self.call(node)
        self.statements.append(Statement(name, function_, arguments))
        return name


def _number(node: ast.expr) -> float | None:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and not isinstance(node.value, bool)
    ):
        try:
            return float(node.value)
        except OverflowError:
            raise InvalidProblem(f"Line {node.lineno}: a number is beyond floating point.") from None
    words = ("float('inf')", "float('nan')")
    return float(ast.unparse(node)[7:10]) if ast.unparse(node) in words else None


ADAMW = parse(
    """def train(w, g, m, v, lr):
    g2 = square(g)
    m = interp(g, m, 0.9)
    v = interp(g2, v, 0.999)
    root = sqrt(v)
    update = m / root
    decay = 0.01 * w
    update = update + decay
    rate = 0.001 * lr
    update = update * rate
    return update, m, v"""
)
LION = parse(
    """def train(w, g, m, v, lr):
    mixed = interp(g, m, 0.9)
    update = sign(mixed)
    m = interp(g, m, 0.99)
    decay = 0.1 * w
    update = update + decay
    rate = 0.0001 * lr
    update = update * rate
    return update, m, v"""
)
#: What the search of the paper returned, before it was simplified (program 8).
PUBLISHED_RAW = parse(
    """def train(w, g, m, v, lr):
    g = clip(g, lr)
    g = arcsin(g)
    m = interp(g, v, 0.899)
    m2 = m * m
    v = interp(g, m, 1.109)
    root = sqrt(m2)
    update = m / root
    decay = w * 0.4602
    update = update + decay
    lr = lr * 0.0002
    m = cosh(update)
    update = update * lr
    return update, m, v"""
)
