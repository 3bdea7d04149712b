"""Derivatives through a trace of numbers, and torch's optimizers on top of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import ClassVar, cast

import torch

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real
from thalweg.workflow.nodes import Node
from thalweg.workflow.optimizers.optimizer import Proposal, WorkflowOptimizer
from thalweg.workflow.parameters import ParameterNode
from thalweg.workflow.propagate import backward, subgraph


def trace_gradient(output: Node) -> dict[ParameterNode, float]:
    """The derivative of a number by each parameter that it came from.

    Arithmetic has its rules; any other operator, such as a bundle, is differentiated by central differences, which is
    good to about eight digits and takes two more calls an argument.

    Raises:
        InvalidProblem: a node between a parameter and the output holds no number, or has no derivative there.

    Cost: linear in the trace.

    >>> from thalweg.workflow import node
    >>> x = node(3.0, trainable=True)
    >>> list(trace_gradient(x * x + x).values())
    [7.0]
    """
    between = subgraph(output)
    for n in between:
        if not is_real(n._data):
            raise InvalidProblem(f"trace_gradient: {n.name} holds {type(n._data).__name__}, not a number.")
    inside, held, found = set(between), {output: 1.0}, dict[ParameterNode, float]()
    for n in reversed(between):
        mine = held.pop(n, 0.0)
        if isinstance(n, ParameterNode):
            found[n] = mine
            continue
        for parent, partial in zip(n.parents, _partials(n, inside), strict=True):
            if parent in inside:
                if not math.isfinite(partial):
                    raise InvalidProblem(
                        f"trace_gradient: {n.name} has no finite derivative by {parent.name}."
                    )
                held[parent] = held.get(parent, 0.0) + mine * partial
    return found


class TraceDescent(WorkflowOptimizer):
    """Any of torch's optimizers on parameters that are numbers, with the derivatives of `trace_gradient`.

    The output itself is minimised; what is said to `backward` beside it does not count.

    Args:
        parameters: numbers.
        make: makes the optimizer of a list of tensors; Adam with a rate of 0.1 by default.

    Cost per step: linear in the trace.

    >>> from thalweg.workflow import node
    >>> x = node(3.0, trainable=True)
    >>> descent = TraceDescent([x], lambda tensors: torch.optim.SGD(tensors, lr=0.25))
    >>> for _ in range(40):
    ...     descent.zero_feedback(); descent.backward((x - 1) ** 2); _ = descent.step()
    >>> round(x.data, 6)
    1.0
    """

    def __init__(
        self,
        parameters: Iterable[ParameterNode],
        make: Callable[[list[torch.Tensor]], torch.optim.Optimizer] | None = None,
    ) -> None:
        super().__init__(parameters)
        for p in self.parameters:
            if not is_real(p.data):
                raise InvalidProblem(f"TraceDescent: {p.name} holds {type(p.data).__name__}, not a number.")
        self._tensors = [
            torch.tensor(float(cast(float, p.data)), dtype=torch.float64) for p in self.parameters
        ]
        self._optimizer = make(self._tensors) if make else torch.optim.Adam(self._tensors, lr=0.1)

    direction: ClassVar[str] = "minimize"

    def backward(self, output: Node, feedback: object = "smaller is better") -> None:
        """Note the output whose derivatives the next step uses; of several, their sum is minimised."""
        backward(output, feedback)

    def propose(self) -> Proposal:
        """The values after a step of torch's optimizer; parameters that were not executed have no derivative."""
        slopes: dict[ParameterNode, float] = {}
        for output in self.heard().feedback:
            for p, slope in trace_gradient(output).items():
                slopes[p] = slopes.get(p, 0.0) + slope
        for p, tensor in zip(self.parameters, self._tensors, strict=True):
            with torch.no_grad():
                tensor.fill_(float(cast(float, p.data)))
            tensor.grad = torch.tensor(slopes[p], dtype=torch.float64) if p in slopes else None
        self._optimizer.step()
        moved = zip(self.parameters, self._tensors, strict=True)
        return {p: float(tensor) for p, tensor in moved if p in slopes}


def _partials(n: Node, inside: set[Node]) -> list[float]:
    operator = n.operator
    assert operator is not None  # noqa: S101
    values = [p._data for p in n.parents]
    if operator.partials is not None and all(is_real(v) for v in values):
        return list(operator.partials(*values, n._data))
    return [_difference(n, i) if p in inside else 0.0 for i, p in enumerate(n.parents)]


def _difference(n: Node, i: int) -> float:
    operator, names = n.operator, n.argument_names
    values = [p._data for p in n.parents]
    at = float(cast(float, values[i]))
    width = 6e-6 * max(1.0, abs(at))
    ends = []
    for shifted in (at + width, at - width):
        arguments = [shifted if j == i else v for j, v in enumerate(values)]
        pairs = [(name, v) for name, v in zip(names, arguments, strict=True) if name != "code"]
        assert operator is not None  # noqa: S101
        value = operator.function(
            *[v for name, v in pairs if not name], **{name: v for name, v in pairs if name}
        )
        ends.append(float(cast(float, value)))
    return (ends[0] - ends[1]) / (2 * width)
