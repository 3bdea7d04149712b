"""A program that gives its own score, improved in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import is_whole, require
from thalweg.workflow.errors import ExecutionError
from thalweg.workflow.nodes import Node
from thalweg.workflow.optimizers.optimizer import Proposal, WorkflowOptimizer
from thalweg.workflow.parameters import ParameterNode
from thalweg.workflow.propagate import Feedback, as_feedback, backward, traced

#: Says how good an output's value is.
Guide = Callable[[object], "Feedback | float"]


@dataclass(frozen=True)
class Improved:
    """What a program was improved to.

    Args:
        best: the values of the best run, which the parameters have now.
        score: of the best run. first: of the first one.
        course: a row a run: its ``score``, the ``best`` so far, ``failed`` with words where it raised, and the values.
        output: what the best run gave; its trace is the program as it ran.
        complete: False where Ctrl-C ended it before the last run.
    """

    best: Proposal
    score: float
    first: float
    course: list[dict[str, object]]
    output: Node
    complete: bool


def improve(
    program: Callable[[], Node],
    optimizer: WorkflowOptimizer,
    runs: int,
    guide: Guide | None = None,
    maximize: bool = False,
    watch: Callable[[Mapping[str, object]], None] | None = None,
) -> Improved:
    """Run a program again and again, say its score, and let an optimizer change what took part.

    Use it where the program's value is its score. Over many examples use `workflow.trainer.WorkflowTrainer`; from
    several starts, `workflow.optimizers.restarted`. Ctrl-C ends with the best values so far.

    Args:
        program: from nothing to a node.
        optimizer: any of `workflow.optimizers`, of the program's parameters, in the same direction.
        runs: of the program.
        guide: from the node's value to a score, or a `Feedback` with one; by default the value is the score.
        maximize: whether larger scores are better.
        watch: is told each row of the course as it comes.

    A bundle that raises, or a score that is not finite, counts as the worst so far, and models are told the error. What
    else raises, as ``watch`` or ``guide``, ends it with the best values set.

    Raises:
        ExecutionError: the first run raised. InvalidProblem: the program gives no node, or the first run no score.

    Cost: ``runs`` runs, and the optimizer's own.

    >>> from thalweg.workflow import node
    >>> from thalweg.workflow.optimizers import PatternSearch
    >>> x = node(4.0, trainable=True)
    >>> improve(lambda: (x - 1) ** 2, PatternSearch([x]), runs=60).score < 1e-6
    True
    """
    require(is_whole(runs) and runs >= 1, "improve needs runs >= 1", got=runs)
    direction = getattr(optimizer, "direction", None)
    if direction is not None and maximize != (direction == "maximize"):
        raise InvalidParameter(
            f"improve: the optimizer's direction is {direction!r}, and maximize={maximize}."
        )
    named = _named(optimizer.parameters)
    sign, scores = (-1.0 if maximize else 1.0), list[float]()
    course: list[dict[str, object]] = []
    kept: tuple[Proposal, Node, Feedback] | None = None
    complete = True
    try:
        for run in range(runs):
            output, said, failed = _judged(program, guide, max(scores, key=lambda s: sign * s, default=None))
            score = cast(float, said.score)
            if not scores or sign * score < min(sign * s for s in scores):
                kept = {p: p.data for p in optimizer.parameters}, output, said
            scores.append(score)
            best = min(scores, key=lambda s: sign * s)
            values = {name: p.data for name, p in named.items()}
            course.append({"run": run + 1, "score": score, "best": best, "failed": failed, **values})
            if watch is not None:
                watch(course[-1])
            if run + 1 < runs:
                optimizer.zero_feedback()
                backward(output, said, retain_graph=True)
                optimizer.step()
    except KeyboardInterrupt:
        if kept is None:
            raise
        complete = False
    finally:
        if kept is not None:
            optimizer.update(kept[0])
    assert kept is not None  # noqa: S101
    return _ended(optimizer, kept, scores, sign, course, complete)


def _named(parameters: Sequence[ParameterNode]) -> dict[str, ParameterNode]:
    """Parameters by their names, with their numbers where these are what keeps two apart."""
    labels = [p.name.rpartition(":")[0] for p in parameters]
    return {
        label if labels.count(label) == 1 else p.name: p for label, p in zip(labels, parameters, strict=True)
    }


def _ended(
    optimizer: WorkflowOptimizer,
    kept: tuple[Proposal, Node, Feedback],
    scores: list[float],
    sign: float,
    course: list[dict[str, object]],
    complete: bool,
) -> Improved:
    """The parameters hold what was said of the best run."""
    values, output, said = kept
    optimizer.zero_feedback()
    backward(output, said, retain_graph=True)
    return Improved(values, min(scores, key=lambda s: sign * s), scores[0], course, output, complete)


def _judged(
    program: Callable[[], Node], guide: Guide | None, worst: float | None
) -> tuple[Node, Feedback, str]:
    """The output of a run, what is said of it, and words where it failed."""
    try:
        output = traced(program())
    except ExecutionError as error:
        if worst is None or error.node is None:
            raise
        words = str(error)
        return cast(Node, error.node), Feedback(worst, words), words
    try:
        said = as_feedback(output.data if guide is None else guide(output.data))
    except InvalidParameter as error:
        if worst is None:
            raise InvalidProblem(f"improve: the first run has no score. {error}") from error
        return output, Feedback(worst, str(error)), str(error)
    if said.score is None:
        raise InvalidProblem(
            f"improve: {'the guide' if guide else 'the program'} says words alone, {said.text[:40]!r}; expected a "
            "score: Feedback(score, words)."
        )
    return output, said, ""
