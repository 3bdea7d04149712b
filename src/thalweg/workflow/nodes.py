"""Values that remember where they came from.

Cheng, Nie and Swaminathan (2024), "Trace is the next AutoDiff" (arXiv 2406.16218), section 3: parameters, messages and
operators form a graph that is new in each run.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import cast

from thalweg.core import InvalidProblem
from thalweg.workflow import _primitives as ops
from thalweg.workflow._guarded import copied, marks, too_deep
from thalweg.workflow._plain_views import PlainViews
from thalweg.workflow._primitives import Operator
from thalweg.workflow.errors import ExecutionError

#: The nodes read so far by the bundled function that runs, where one runs.
READ: ContextVar[Reading | None] = ContextVar("READ", default=None)
#: What `Node.backward` does: `thalweg.workflow.propagate` puts it here.
WAY_BACK: list[Callable[[Node, object, bool], None]] = []
_NUMBERS: dict[str, Iterator[int]] = {}


class Reading:
    """The nodes that a bundled function reads, and those that it makes, while it runs."""

    def __init__(self) -> None:
        self.read: list[Node] = []
        self.made: set[Node] = set()


def _unary(operator: Operator) -> Callable[[Node], Node]:
    return lambda self: apply(operator, self)


def _binary(operator: Operator) -> tuple[Callable[[Node, object], Node], Callable[[Node, object], Node]]:
    return lambda self, other: apply(operator, self, other), lambda self, other: apply(operator, other, self)


class Node(PlainViews):
    """A value of a run, at the root of the trace where it has no ``parents``; made by `thalweg.workflow.node`.

    Arithmetic, comparison, indexing, attributes and calls of a node give nodes whose parents are their arguments.
    ``bool``, ``in``, ``len``, ``float`` and text formatting give plain values, which end the trace; ``x.length()``,
    ``x.member(y)`` and ``x.negated()`` are their traced forms. Two nodes are one only if they are the same object.

    Nothing else holds a node: when the last reference to a run goes, its memory goes. Cost: about 300 bytes a node.
    """

    __slots__ = ("__weakref__", "_children", "_data", "_form", "_label", "_level", "_number", "_parents")
    __array_ufunc__ = None  # so that NumPy's arrays leave array + node to the node

    def __init__(self, data: object, name: str = "node") -> None:
        self._data = data
        self._parents: tuple[Node, ...] = ()
        self._level = 0
        self._label: Operator | str = name
        self._number = next(_NUMBERS.setdefault(name, itertools.count()))
        self._children: weakref.ref[Node] | list[weakref.ref[Node]] | None = None
        self._form: Form | None = None
        if (reading := READ.get()) is not None:
            reading.made.add(self)

    @property
    def data(self) -> object:
        """The plain value."""
        if (read := READ.get()) is not None:
            read.read.append(self)
        return self._data

    @property
    def name(self) -> str:
        """Its operator or given name, and a number that makes it one: ``add:3``."""
        label = self._label
        return f"{label if isinstance(label, str) else label.name}:{self._number}"

    @property
    def operator(self) -> Operator | None:
        """What made it, None at a root."""
        return None if isinstance(self._label, str) else self._label

    @property
    def parents(self) -> tuple[Node, ...]:
        """The nodes it was made from."""
        return self._parents

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes made from it that are still in use."""
        held = self._children
        found = held if isinstance(held, list) else [held] if held is not None else []
        return tuple(child for ref in found if (child := ref()) is not None)

    @property
    def level(self) -> int:
        """One more than the highest of its parents; 0 at a root."""
        return self._level

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The name of each parent as an argument; empty texts where they have none."""
        return self._form.names if self._form is not None else ("",) * len(self._parents)

    def clone(self) -> Node:
        """A copy of the value, whose parent is this node."""
        return apply(CLONE, self)

    def detach(self) -> Node:
        """A copy of the value without the trace."""
        return Node(copied(self._data), "detached")

    def backward(self, feedback: object, retain_graph: bool = False) -> None:
        """Send feedback to the parameters that this node came from: see `thalweg.workflow.backward`."""
        WAY_BACK[0](self, feedback, retain_graph)

    def __reduce__(self) -> tuple[object, ...]:
        if self._parents:
            raise InvalidProblem(
                f"{self.name} was computed, and its trace does not go to other processes. Compute it in the program."
            )
        return Node, (self._data, self.name.rpartition(":")[0])

    def _adopt(self, child: Node) -> None:
        held = self._children
        ref = weakref.ref(child)
        if held is None:
            self._children = ref
        elif isinstance(held, list):
            if len(held) >= 8 and not len(held) & (
                len(held) - 1
            ):  # dead ones go each time that the list doubles
                held[:] = [r for r in held if r() is not None]
            held.append(ref)
        else:
            self._children = ref if held() is None else [held, ref]

    # Plain values: here the trace ends.

    def __repr__(self) -> str:
        text = repr(self._data)
        return f"<{type(self).__name__} {self.name} = {text if len(text) <= 60 else text[:57] + '...'}>"

    def __contains__(self, value: object) -> bool:
        return plain(value) in cast(Sequence[object], self.data)

    __hash__ = object.__hash__  # by identity, as ``==`` is traced

    def __iter__(self) -> Iterator[Node]:
        if isinstance(self._data, Mapping | set | frozenset) or not hasattr(self._data, "__getitem__"):
            return iter(apply(ops.AS_LIST, self))
        return (apply(ops.GET_ITEM, self, i) for i in range(len(self)))

    # Traced values

    def length(self) -> Node:
        """``len(x)``, on the tape."""
        return apply(ops.LENGTH, self)

    def member(self, container: object) -> Node:
        """``x in container``, on the tape."""
        return apply(ops.MEMBER, self, container)

    def negated(self) -> Node:
        """``not x``, on the tape."""
        return apply(ops.NOT, self)

    def attribute(self, name: str) -> Node:
        """``x.name`` of the value, also where the node has that name itself."""
        return apply(ops.GET_ATTRIBUTE, self, name)

    def __getattr__(self, name: str) -> Node:
        if name.startswith("_"):
            raise AttributeError(f"{type(self._data).__name__} in {self.name} has no attribute {name!r}")
        try:  # a property is worked out once; what it raises is a node
            return apply(ops.GET_ATTRIBUTE, self, name)
        except ExecutionError as error:
            if not isinstance(error.__cause__, AttributeError):
                raise
            raise AttributeError(
                f"{type(self._data).__name__} in {self.name} has no attribute {name!r}"
            ) from None

    def __getitem__(self, key: object) -> Node:
        if isinstance(key, slice):
            parts = (key.start, key.stop, key.step)
            if any(isinstance(part, Node) for part in parts):
                key = apply(_SLICE, *parts)
        elif isinstance(key, tuple):
            key = wrapped(key)
        return apply(ops.GET_ITEM, self, key)

    def __setitem__(self, key: object, value: object) -> None:
        raise InvalidProblem(
            f"{self.name} is a recorded value and stays as it is. Make a new one: x = node([*x, value]), or a bundle "
            "that returns the changed copy."
        )

    def __call__(self, *arguments: object, **named: object) -> Node:
        form = Form(("function", *("" for _ in arguments), *named))
        return apply(ops.CALL, self, *arguments, *named.values(), form=form)

    def __eq__(self, other: object) -> Node:  # type: ignore[override]
        return apply(ops.EQUAL, self, other)

    def __ne__(self, other: object) -> Node:  # type: ignore[override]
        return apply(ops.NOT_EQUAL, self, other)

    __add__, __radd__ = _binary(ops.ADD)
    __sub__, __rsub__ = _binary(ops.SUBTRACT)
    __mul__, __rmul__ = _binary(ops.MULTIPLY)
    __truediv__, __rtruediv__ = _binary(ops.DIVIDE)
    __floordiv__, __rfloordiv__ = _binary(ops.FLOOR_DIVIDE)
    __mod__, __rmod__ = _binary(ops.MODULO)
    __divmod__, __rdivmod__ = _binary(ops.DIVMOD)
    __pow__, __rpow__ = _binary(ops.POWER)
    __matmul__, __rmatmul__ = _binary(ops.MATMUL)
    __lshift__, __rlshift__ = _binary(ops.SHIFT_LEFT)
    __rshift__, __rrshift__ = _binary(ops.SHIFT_RIGHT)
    __and__, __rand__ = _binary(ops.AND)
    __or__, __ror__ = _binary(ops.OR)
    __xor__, __rxor__ = _binary(ops.XOR)
    __lt__, __gt__ = _binary(ops.LESS)[0], _binary(ops.GREATER)[0]
    __le__, __ge__ = _binary(ops.LESS_EQUAL)[0], _binary(ops.GREATER_EQUAL)[0]
    __neg__ = _unary(ops.NEGATE)
    __pos__ = _unary(ops.POSITIVE)
    __invert__ = _unary(ops.INVERT)
    __abs__ = _unary(ops.ABSOLUTE)

    def __round__(self, digits: int | None = None) -> Node:
        return apply(ops.ROUND, self) if digits is None else apply(ops.ROUND, self, digits)


class Form:
    """How a call's parents were its arguments: a name for each that was given by name."""

    __slots__ = ("entries", "inner", "names")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.inner: Node | None = None  # the output of the traced run inside
        self.entries: tuple[Node, ...] = ()  # the roots in it that stand for the parents


class MessageNode(Node):
    """A value that an operator made."""

    __slots__ = ("spent",)

    def __init__(
        self, data: object, parents: tuple[Node, ...], operator: Operator, form: Form | None = None
    ) -> None:
        self._data = data
        self._parents = parents
        level = -1
        for parent in parents:
            if parent._level > level:
                level = parent._level
            parent._adopt(self)
        self._level = level + 1
        self._label = operator
        self._number = next(operator.numbers)
        self._children = None
        self._form = form
        self.spent = False
        if (reading := READ.get()) is not None:
            reading.made.add(self)


class ExceptionNode(MessageNode):
    """An exception that an operator raised; its value is the text of the error."""

    __slots__ = ()


def wrapped(value: object) -> Node:
    """The node of a value: itself, one made of a container's nodes, or a root."""
    if isinstance(value, Node):
        return value
    found = container(value)
    return Node(value) if found is None else found


def apply(operator: Operator, *arguments: object, form: Form | None = None) -> MessageNode:
    """The node of an operator's value.

    Raises:
        ExecutionError: the operator raised.

    Cost: about a microsecond and the operator's own.
    """
    parents = tuple([a if isinstance(a, Node) else wrapped(a) for a in arguments])
    if (read := READ.get()) is not None:
        read.read.extend(parents)
    values = [p._data for p in parents]
    call = operator is ops.CALL
    before = marks([getattr(values[0], "__self__", None), *values[1:]]) if call else None
    try:
        data = _call(values, form) if call else operator.function(*values)
    except Exception as error:
        raise failure(operator, parents, error, form) from error
    if before is not None and marks([getattr(values[0], "__self__", None), *values[1:]]) != before:
        raise InvalidProblem(
            f"{parents[0].name} changed a recorded value in place. Use what makes a new one, such as x + [value]."
        )
    return MessageNode(data._data if isinstance(data, Node) else data, parents, operator, form)


def failure(
    operator: Operator, parents: tuple[Node, ...], error: Exception, form: Form | None = None, words: str = ""
) -> ExecutionError:
    """The error that carries the `ExceptionNode` of an operator that raised."""
    text = words or f"{type(error).__name__}: {error}"
    found = ExceptionNode(text, parents, operator, form)
    return ExecutionError(f"{found.name} raised {text}", found)


def plain(value: object) -> object:
    """The value without nodes, inside of containers too."""
    if isinstance(value, Node):
        return value.data
    if type(value) in (list, tuple, set, frozenset):
        items = cast(Sequence[object], value)
        return type(items)([plain(v) for v in items])  # type: ignore[call-arg]
    if type(value) is dict:
        return {plain(k): plain(v) for k, v in cast("dict[object, object]", value).items()}
    return value


def _call(values: list[object], form: Form | None) -> object:
    names = form.names if form is not None else ("",) * len(values)
    function = cast("type[object]", values[0])
    positional = [v for v, n in zip(values[1:], names[1:], strict=True) if not n]
    named = {n: v for v, n in zip(values[1:], names[1:], strict=True) if n}
    return function(*positional, **named)


def container(value: object) -> Node | None:
    """The node of a container with nodes in it; None of anything else.

    Raises:
        InvalidProblem: a container that holds itself, or is nested too deeply.
    """
    if type(value) not in _CONTAINERS:
        return None
    try:
        return _container(value)
    except RecursionError:
        raise too_deep() from None


def _container(value: object) -> Node | None:
    kind = type(value)
    operator = _CONTAINERS.get(kind)
    if operator is None:
        return None
    if kind is dict:
        items = cast("dict[object, object]", value)
        parts: list[object] = [part for item in items.items() for part in item]
    else:
        parts = list(cast(Sequence[object], value))
    inner = [p if isinstance(p, Node) or (c := _container(p)) is None else c for p in parts]
    if not any(isinstance(p, Node) for p in inner):
        return None
    return apply(operator, *inner)


_CONTAINERS: dict[type, Operator] = {list: ops.LIST, tuple: ops.TUPLE, set: ops.SET, dict: ops.DICT}
CLONE = Operator("clone", copied, "a copy of x", lambda x, z: (1.0,))
_SLICE = Operator("slice", slice, "slice(start, stop, step)")
