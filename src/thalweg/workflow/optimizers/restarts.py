"""A search from several starts, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.workflow.constraints import drawn
from thalweg.workflow.errors import ExecutionError
from thalweg.workflow.nodes import Node
from thalweg.workflow.optimizers.optimizer import Proposal, WorkflowSearch
from thalweg.workflow.parallel import Runner, side_by_side
from thalweg.workflow.parameters import ParameterNode

Program = Callable[[], Node]
#: Makes a search of parameters and a seed: ``lambda parameters, seed: BayesSearch(parameters, seed=seed)``.
Make = Callable[[list[ParameterNode], int], WorkflowSearch]


@dataclass(frozen=True)
class Restarted:
    """What searches from several starts found: the best values, their score, and the best score of each start."""

    best: Proposal
    best_score: float
    scores: list[float]


def restarted(
    program: Program,
    parameters: Iterable[ParameterNode],
    make: Make,
    runs: int,
    starts: int = 4,
    failed: float | None = None,
    workers: int = 1,
    seed: int = 0,
) -> Restarted:
    """Search from several starts, and leave the program with the best values of all.

    Use it where a search ends in a valley that need not be the deepest, or to use several cores. The first start is
    the values as they are; the others are drawn by `Bounds`, `Choices`, or around a number. Texts and code without
    choices stay, and searches of code differ by their seeds alone.

    Args:
        program: from nothing to a node whose value is the score. It depends on the parameters alone.
        parameters: of the program.
        make: makes a search of the parameters and a seed; that of start k has ``seed + k``.
        runs: of the program for each start.
        starts: how many. Default 4.
        failed: the score of a run that raised, worse than all others; by default its error is raised.
        workers: processes. The answer does not hang on their number but for rounding: sums of matrix products and
            compiled loops may differ in the last bits between processes. Parameters that are made in an imported
            module are refused there, as each process would have its own.
        seed: of the starts and the searches.

    Raises:
        InvalidProblem: a program that cannot be sent to another process, a score that is no number, or none is better
            than ``failed``.
        ExecutionError: the program raised, and ``failed`` is not given.

    Cost: ``starts * runs`` runs, over ``workers``.

    >>> from thalweg.workflow import Bounds, node
    >>> from thalweg.workflow.optimizers import PatternSearch
    >>> x = node(3.0, trainable=True, constraint=Bounds(-4, 4))
    >>> make = lambda parameters, seed: PatternSearch(parameters)
    >>> found = restarted(lambda: x**4 - 8 * x**2 + x, [x], make, runs=40, starts=6)  # two valleys
    >>> round(found.best_score, 1), x.data < 0
    (-18.0, True)
    """
    for name, value in (("runs", runs), ("starts", starts), ("workers", workers)):
        require(is_whole(value) and value >= 1, f"restarted needs {name} >= 1", got=value)
    listed = list(dict.fromkeys(parameters))
    firsts = [p.data for p in listed]
    begins = [firsts]
    for k in range(1, starts):
        rng = generator(seed, k)
        begins.append([drawn(p.constraint, value, rng) for p, value in zip(listed, firsts, strict=True)])
    runner = _Search(program=program, parameters=listed, make=make, runs=runs, failed=failed)
    jobs = [(begin, seed + k) for k, begin in enumerate(begins)]
    try:
        found = side_by_side(runner, jobs, workers)
    finally:
        _set(listed, firsts)
        for p in listed:
            p.zero_feedback()
    losses, values = zip(*found, strict=True)
    first = min(range(starts), key=lambda k: losses[k])
    sign = 1.0 if make(listed, seed).direction == "minimize" else -1.0
    if failed is not None and losses[first] >= sign * failed:
        raise InvalidProblem(
            f"restarted: no run is better than failed={failed:g}, which those that raise get: either all raised, or "
            "failed is too good. Pass a worse one."
        )
    _set(listed, values[first])
    return Restarted(
        dict(zip(listed, values[first], strict=True)), sign * losses[first], [sign * v for v in losses]
    )


@dataclass(frozen=True, kw_only=True)
class _Search(Runner["tuple[list[object], int]", "tuple[float, list[object]]"]):
    program: Program
    parameters: list[ParameterNode]
    make: Make
    runs: int
    failed: float | None

    def run(self, job: tuple[list[object], int]) -> tuple[float, list[object]]:
        """The least loss from one start, and its values."""
        begin, seed = job
        _set(self.parameters, begin)
        search = self.make(self.parameters, seed)
        for _ in range(self.runs):
            search.zero_feedback()
            output, score = self._judged()
            search.backward(output, score)
            search.step()
        sign = 1.0 if search.direction == "minimize" else -1.0
        return sign * search.best_score, [search.best[p] for p in self.parameters]

    def _judged(self) -> tuple[Node, float]:
        try:
            output = self.checked(self.program())
        except ExecutionError as error:
            if self.failed is None:
                raise
            return cast(Node, error.node), self.failed
        score = output.data
        if not is_real(score):
            raise InvalidProblem(
                f"restarted: the program's value is its score, a number; got {type(score).__name__}."
            )
        return output, float(score)


def _set(parameters: list[ParameterNode], values: list[object]) -> None:
    for p, value in zip(parameters, values, strict=True):
        p.set(value)
