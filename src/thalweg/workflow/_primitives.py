"""The operators that a trace is made of: plain functions of plain values."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator

#: The derivative by each argument, given the arguments and the value.
Partials = Callable[..., tuple[float, ...]]


class Operator:
    """A function of plain values, its name and its description; shared by all nodes that it makes."""

    __slots__ = ("description", "function", "name", "numbers", "partials", "source")

    def __init__(
        self,
        name: str,
        function: Callable[..., object],
        description: str = "",
        partials: Partials | None = None,
        source: str = "",
    ) -> None:
        self.name, self.function, self.description = name, function, description
        self.partials, self.source = partials, source
        self.numbers: Iterator[int] = itertools.count()

    def __repr__(self) -> str:
        return f"Operator({self.name!r})"

    def __reduce__(self) -> tuple[type[Operator], tuple[object, ...]]:
        return Operator, (self.name, self.function, self.description, self.partials, self.source)


def _item(container: object, key: object) -> object:
    return operator.getitem(container, key)  # type: ignore[call-overload]


def _by_power(x: float, y: float, z: float) -> tuple[float, float]:
    return (y * x ** (y - 1) if y else 0.0), (z * math.log(x) if x > 0 else math.nan)


def _length(value: object) -> int:
    return len(value)  # type: ignore[arg-type]


def _called(function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


def _member(element: object, container: object) -> bool:
    return operator.contains(container, element)  # type: ignore[arg-type]


def _rows(*values: object) -> dict[object, object]:
    return dict(zip(values[::2], values[1::2], strict=True))


ADD = Operator("add", operator.add, "x + y", lambda x, y, z: (1.0, 1.0))
SUBTRACT = Operator("subtract", operator.sub, "x - y", lambda x, y, z: (1.0, -1.0))
MULTIPLY = Operator("multiply", operator.mul, "x * y", lambda x, y, z: (y, x))
DIVIDE = Operator("divide", operator.truediv, "x / y", lambda x, y, z: (1 / y, -x / (y * y)))
FLOOR_DIVIDE = Operator("floor_divide", operator.floordiv, "x // y")
MODULO = Operator("modulo", operator.mod, "x % y")
POWER = Operator("power", operator.pow, "x ** y", _by_power)
MATMUL = Operator("matmul", operator.matmul, "x @ y")
DIVMOD = Operator("divmod", divmod, "divmod(x, y)")
SHIFT_LEFT = Operator("shift_left", operator.lshift, "x << y")
SHIFT_RIGHT = Operator("shift_right", operator.rshift, "x >> y")
AND = Operator("and", operator.and_, "x & y")
OR = Operator("or", operator.or_, "x | y")
XOR = Operator("xor", operator.xor, "x ^ y")
NEGATE = Operator("negate", operator.neg, "-x", lambda x, z: (-1.0,))
POSITIVE = Operator("positive", operator.pos, "+x", lambda x, z: (1.0,))
INVERT = Operator("invert", operator.invert, "~x")
ABSOLUTE = Operator("absolute", abs, "abs(x)", lambda x, z: (math.copysign(1.0, x) if x else 0.0,))
ROUND = Operator("round", round, "round(x)")
EQUAL = Operator("equal", operator.eq, "x == y")
NOT_EQUAL = Operator("not_equal", operator.ne, "x != y")
LESS = Operator("less", operator.lt, "x < y")
LESS_EQUAL = Operator("less_equal", operator.le, "x <= y")
GREATER = Operator("greater", operator.gt, "x > y")
GREATER_EQUAL = Operator("greater_equal", operator.ge, "x >= y")
GET_ITEM = Operator("get_item", _item, "x[y]")
GET_ATTRIBUTE = Operator("get_attribute", getattr, "x.y")
CALL = Operator("call", _called, "x(...)")
LENGTH = Operator("length", _length, "len(x)")
MEMBER = Operator("member", _member, "x in y")
NOT = Operator("not", operator.not_, "not x")
LIST = Operator("list", lambda *values: list(values), "[...]")
TUPLE = Operator("tuple", lambda *values: values, "(...)")
SET = Operator("set", lambda *values: set(values), "{...}")
DICT = Operator("dict", _rows, "{key: value, ...}")
AS_LIST = Operator("as_list", list, "list(x)")
