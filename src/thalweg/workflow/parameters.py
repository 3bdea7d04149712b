"""Trainable values, and how nodes are made."""

from __future__ import annotations

from thalweg.core import InvalidParameter
from thalweg.workflow.constraints import Bounds, Choices, refusal
from thalweg.workflow.nodes import Node, container


class ParameterNode(Node):
    """A trainable value: what optimizers change. It keeps its place in the program from run to run.

    ``feedback`` holds what came back to it since the last `zero_feedback`; ``travelled`` is True of a copy that was
    sent to another process.
    """

    __slots__ = ("constraint", "description", "feedback", "travelled")

    def __init__(self, data: object, name: str, description: str, constraint: object) -> None:
        super().__init__(data, name)
        self.description, self.constraint = description, constraint
        self.feedback: list[object] = []
        self.travelled = False

    def __reduce__(self) -> tuple[object, ...]:
        return _arrived, (self._data, self.name.rpartition(":")[0], self.description, self.constraint)

    def set(self, value: object) -> None:
        """Take a new value; runs from now on use it.

        Raises:
            InvalidParameter: another kind of value, or one that breaks the constraint.
        """
        reason = self.refusal(value)
        if reason is not None:
            raise InvalidParameter(f"{self.name} {reason}.")
        self._data = value

    def refusal(self, value: object) -> str | None:
        """Why a value is refused, or None."""
        if isinstance(value, Node):
            return "takes a plain value; pass node.data"
        return refusal(self.constraint, self._data, value)

    def zero_feedback(self) -> None:
        """Forget the feedback."""
        self.feedback = []


def _arrived(data: object, name: str, description: str, constraint: object) -> ParameterNode:
    found = ParameterNode(data, name, description, constraint)
    found.travelled = True
    return found


def node(
    value: object,
    name: str | None = None,
    trainable: bool = False,
    description: str = "",
    constraint: object = None,
) -> Node:
    """A node of a value: the start of a trace, or a parameter.

    Args:
        value: anything. A list, tuple, set or dictionary with nodes in it becomes a node whose parents they are. A node
            is given back as it is.
        name: what reports and prompts call it.
        trainable: whether optimizers may change it.
        description: what it is for, told to models.
        constraint: a `Bounds`, a `Choices`, words, or a function that says whether a new value is allowed.

    Raises:
        InvalidParameter: a constraint that the first value breaks, or one without ``trainable``.

    >>> x = node(3.0, trainable=True)
    >>> y = x * x + 1
    >>> y.data, [p.name.split(":")[0] for p in y.parents]
    (10.0, ['multiply', 'node'])
    """
    if not trainable:
        if constraint is not None:
            raise InvalidParameter("node: a constraint is for trainable nodes; pass trainable=True.")
        if isinstance(value, Node):
            return value
        found = container(value)
        return Node(value, name or "node") if found is None else found
    if isinstance(value, Node) or container(value) is not None:
        raise InvalidParameter("node: a trainable node holds a plain value; pass its data.")
    is_one = constraint is None or isinstance(constraint, Bounds | Choices | str) or callable(constraint)
    if not (is_one or callable(getattr(constraint, "reason", None))):
        raise InvalidParameter(
            f"node: a constraint is a Bounds, a Choices, words or a function; got {constraint!r}."
        )
    parameter = ParameterNode(value, name or "parameter", description, constraint)
    reason = parameter.refusal(value)
    if reason is not None:
        raise InvalidParameter(f"{parameter.name} {reason}; its first value is {value!r}.")
    return parameter
