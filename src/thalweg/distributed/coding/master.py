"""The master's part, whatever carries the messages: who does what, when a round may end, which gradients are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic

from thalweg.core import InvalidProblem
from thalweg.distributed.coding.schemes import G, Ledger, Scheme, WorkItem


class Master(Generic[G]):
    """Books of one run of a scheme, round by round.

    >>> from thalweg.distributed.coding import GradientCoding
    >>> master = Master(GradientCoding(3, 1))
    >>> work = master.assignments()
    >>> parts = [1.0, 2.0, 3.0]
    >>> results = {w: [sum(c * parts[p] for p, c in zip(t.parts, t.coefficients)) for t in work[w]] for w in (0, 2)}
    >>> [(job, round(total, 6)) for job, total in master.close(results)]
    [(0, 6.0)]
    """

    def __init__(self, scheme: Scheme) -> None:
        self.scheme, self.round = scheme, 0
        self.ledger: Ledger[G] = Ledger()
        self._tasks: dict[int, list[WorkItem]] | None = None

    def assignments(self) -> dict[int, list[WorkItem]]:
        """What each worker does in this round."""
        if self._tasks is None:
            self._tasks = self.scheme.tasks(self.round, self.ledger)
        return self._tasks

    def may_end(self, arrived: Sequence[int] | set[int]) -> bool:
        """Whether the round may end with the results of these workers alone."""
        late = frozenset(range(self.scheme.n)).difference(arrived)
        return self.scheme.tolerates(late, self.round, self.ledger)

    def close(self, results: Mapping[int, Sequence[G]]) -> list[tuple[int, G]]:
        """End the round with the results that are here, one for each task of their workers; the jobs now done, in
        order.

        Raises:
            InvalidProblem: a job would miss its deadline; `may_end` has not been obeyed.
        """
        ledger = self.ledger
        for worker, values in results.items():
            for task, value in zip(self.assignments()[worker], values, strict=True):
                ledger.results.setdefault(task.job, {})[task.label] = value
        ledger.late.append(frozenset(range(self.scheme.n)).difference(results))
        finished = []
        while ledger.done <= self.round:
            gradient = self.scheme.decode(ledger.done, ledger.results.get(ledger.done, {}))
            if gradient is None:
                break
            finished.append((ledger.done, gradient))
            ledger.results.pop(ledger.done, None)
            ledger.done += 1
        if ledger.done <= self.round - self.scheme.delay:
            raise InvalidProblem(
                f"Job {ledger.done} is not decodable by its deadline, round {self.round}: the stragglers "
                f"{sorted(ledger.late[-1])} are more than {type(self.scheme).__name__} tolerates. Wait for more."
            )
        self.round += 1
        self._tasks = None
        return finished


def waited(seconds: Sequence[float], master: Master[G], mu: float) -> tuple[float, list[int]]:
    """How long a round takes and who is in time: ``1 + mu`` times the fastest, then one worker more until it may end.

    Where all are in time, the slowest ends it.
    """
    order = sorted(range(len(seconds)), key=lambda w: seconds[w])
    end = (1.0 + mu) * seconds[order[0]]
    arrived = [w for w in order if seconds[w] <= end]
    while not master.may_end(arrived):
        worker = order[len(arrived)]
        arrived.append(worker)
        end = seconds[worker]
    return (end if len(arrived) < len(order) else seconds[order[-1]]), arrived
