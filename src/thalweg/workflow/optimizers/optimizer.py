"""What every optimizer of a workflow does: hear the feedback, propose new values, set them."""

from __future__ import annotations

import functools
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import require
from thalweg.workflow.nodes import Node
from thalweg.workflow.parameters import ParameterNode
from thalweg.workflow.propagate import TraceGraph, backward

Proposal = dict[ParameterNode, object]


class WorkflowOptimizer(ABC):
    """Base of optimizers: run the program, then `zero_feedback`, `backward`, `step`.

    Args:
        parameters: trainable nodes, each once.

    Raises:
        InvalidParameter: none, or one that is not trainable.
    """

    def __init__(self, parameters: Iterable[ParameterNode]) -> None:
        if isinstance(parameters, Node):
            raise InvalidParameter(f"{type(self).__name__} takes a list of nodes: [{parameters.name}].")
        self.parameters = list(dict.fromkeys(parameters))
        require(bool(self.parameters), f"{type(self).__name__} needs a trainable node")
        for parameter in self.parameters:
            if not isinstance(parameter, ParameterNode):
                raise InvalidParameter(f"{type(self).__name__}: {parameter!r} is not trainable.")

    def zero_feedback(self) -> None:
        """Forget what was said before."""
        for parameter in self.parameters:
            parameter.zero_feedback()

    def backward(self, output: Node, feedback: object) -> None:
        """Say something of an output of the program."""
        backward(output, feedback)

    def heard(self) -> TraceGraph:
        """All that was said since `zero_feedback`, and the part of the trace it is about."""
        parts = dict.fromkeys(f for p in self.parameters for f in p.feedback)
        graphs = [part for part in parts if isinstance(part, TraceGraph)]
        if not graphs:
            raise InvalidProblem(
                f"{type(self).__name__}: no feedback came to its parameters, so none of them was executed. Call "
                "backward(output, feedback) after each run."
            )
        return functools.reduce(operator.add, graphs)

    @abstractmethod
    def propose(self) -> Proposal:
        """New values for parameters that were executed; they are not set yet."""

    def update(self, proposal: Mapping[ParameterNode, object]) -> None:
        """Set values; all of them or, where one is refused, none."""
        for parameter, value in proposal.items():
            reason = parameter.refusal(value)
            if reason is not None:
                raise InvalidParameter(f"{parameter.name} {reason}.")
        for parameter, value in proposal.items():
            parameter.set(value)

    def step(self) -> Proposal:
        """Propose, and set."""
        proposal = self.propose()
        self.update(proposal)
        return proposal


class WorkflowSearch(WorkflowOptimizer):
    """Base of searches: each run of the program is one trial, its score the feedback.

    Where several outputs had feedback, as of a minibatch, the mean of their scores counts. ``best`` holds the best
    trial's values, ``best_score`` its score; `restore` sets them.
    """

    def __init__(self, parameters: Iterable[ParameterNode], direction: str = "minimize") -> None:
        super().__init__(parameters)
        require(
            direction in ("minimize", "maximize"),
            f"{type(self).__name__}: direction is 'minimize' or 'maximize'",
            got=direction,
        )
        self.direction = direction
        self._sign = 1.0 if direction == "minimize" else -1.0
        self._least = math.inf
        self.best: Proposal = {p: p.data for p in self.parameters}

    @property
    def best_score(self) -> float:
        """The score of the best trial so far."""
        return self._sign * self._least

    def restore(self) -> None:
        """Set the best values found."""
        self.update(self.best)

    def loss(self) -> tuple[float, list[ParameterNode], bool]:
        """This trial's loss, its executed parameters, and whether it is the best so far."""
        graph = self.heard()
        scores = [f.score for said in graph.feedback.values() for f in said]
        numbers = [s for s in scores if s is not None]
        if len(numbers) < len(scores):
            raise InvalidParameter(
                f"{type(self).__name__} needs a number as feedback: backward(output, score). Words are for models."
            )
        loss = self._sign * sum(numbers) / len(numbers)
        executed = [p for p in self.executed(graph) if p in self.best]
        better = loss < self._least
        if better:
            self._least, self.best = loss, {p: p.data for p in self.parameters}
        return loss, executed, better

    def executed(self, graph: TraceGraph) -> list[ParameterNode]:
        """The parameters that may be changed after this trial: those in the graph."""
        return [p for p in self.parameters if p in graph]
