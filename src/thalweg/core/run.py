"""A run in progress, and the best answer it has met."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any, Generic

from thalweg.core.method import Method, P, S
from thalweg.core.result import History, Result
from thalweg.core.stop import Status, Stop


@dataclass
class Best:
    """The answer with the smallest objective so far.

    Answers that the method overwrites are copied only when the objective has halved since the last copy,
    so that keeping them costs a handful of copies a run.
    """

    value: float = math.inf
    step: int = 0
    x: Any = None
    saved: float = math.inf

    def see(self, value: float, step: int, x: object, in_place: bool) -> None:
        """Take note of the answer ``x`` if its objective ``value`` is the smallest so far."""
        if value < self.value:
            self.value, self.step = value, step
            if not in_place:
                self.x, self.saved = x, value
            elif value < 0.5 * self.saved:
                self.x, self.saved = copy.deepcopy(x), value


@dataclass
class Run(Generic[P, S]):
    """A run in progress, as callbacks see it.

    Args:
        problem, method, stop, seed: what `solve` was given; ``stop.steps`` is a number or None.
        state: after the last step.
        steps, seconds: done and used, earlier parts of a resumed run included.
        history: the metrics of every step.
        best: the answer with the smallest objective so far.
        first: the objective at the start, by which divergence is told; None while unknown.
        torn: a step that overwrites its state broke off, so that only the best answer is whole.
    """

    problem: P
    method: Method[P, S]
    stop: Stop
    seed: int
    state: S
    steps: int = 0
    seconds: float = 0.0
    history: History = field(default_factory=History)
    best: Best = field(default_factory=Best)
    first: float | None = None
    torn: bool = False
    _judged: tuple[int, dict[str, float]] | None = field(default=None, init=False, repr=False)

    def judged(self) -> dict[str, float]:
        """The problem's metrics of the state's answer, worked out once a step."""
        if self._judged is None or self._judged[0] != self.steps:
            self._judged = self.steps, self.problem.metrics(self.state.x)
        return self._judged[1]

    def result(self, status: Status, message: str) -> Result:
        """The answer, judged by the problem: the best one seen where the run did not converge."""
        x = self.answer(status)
        return self._told(x, status, message, self.judged() if x is self.state.x else self.problem.metrics(x))

    def salvaged(self, status: Status, message: str) -> Result:
        """As `result`, for a run that broke: where the judge fails too, the method's own numbers stand in."""
        x = self.answer(status)
        try:
            metrics = self.problem.metrics(x)
        except Exception:  # noqa: BLE001 -- the user's own function may be what failed
            metrics = dict(self.state.metrics)
        return self._told(x, status, message, metrics)

    def answer(self, status: Status) -> Any:  # noqa: ANN401 -- any problem's answer
        """The state's answer, or the best one where the run did not converge and that one is better."""
        now, best = self.state.metrics.get(self.problem.objective or "", None), self.best
        if self.torn and best.saved < math.inf:
            return best.x
        if (
            status is not Status.CONVERGED
            and now is not None
            and best.saved < math.inf
            and not now <= best.saved
        ):
            return best.x
        return self.state.x

    def _told(
        self,
        x: object,
        status: Status,
        message: str,
        metrics: dict[str, float],
    ) -> Result:
        note = self.state.message  # of a method that has something to say and goes on
        if note and self.state.status is None and status is not Status.CONVERGED:
            message = f"{message} {note}"
        return Result(x, status, metrics, self.steps, self.seconds, self.state.calls, self.history, message)
