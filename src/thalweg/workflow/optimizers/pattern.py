"""Search along directions that turn with the progress made.

Rosenbrock (1960), "An automatic method for finding the greatest or least value of a function", The Computer Journal 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter
from thalweg.core.validation import is_real, is_whole, require
from thalweg.workflow.constraints import Bounds
from thalweg.workflow.optimizers.optimizer import Proposal, WorkflowSearch
from thalweg.workflow.parameters import ParameterNode

Array = NDArray[np.float64]


class PatternSearch(WorkflowSearch):
    """Numbers without derivatives: a step in each direction in turn, longer after success, back and shorter after
    failure; then the directions turn to where the progress was.

    Use it for some numbers and some hundred runs. Where a run is dear use `BayesSearch`; where the program is
    arithmetic, `TraceDescent`. Only parameters that were executed in the best run are moved.

    Args:
        parameters: numbers. With `Bounds` the range is the unit; without, the larger of 1 and the first value is.
        direction: ``"minimize"`` or ``"maximize"``.
        step_size: the first step, in those units.
        tol: the search is ``done`` when all steps are shorter.

    Raises:
        InvalidParameter: a parameter that holds no number.

    Cost per step: one run of the program.

    >>> from thalweg.workflow.optimizers import PatternSearch
    >>> from thalweg.workflow import node
    >>> x = node(4.0, trainable=True)
    >>> search = PatternSearch([x])
    >>> for _ in range(60):
    ...     y = (x - 1) ** 2
    ...     search.zero_feedback(); search.backward(y, y.data); _ = search.step()
    >>> search.best_score < 1e-6
    True
    """

    def __init__(
        self,
        parameters: Iterable[ParameterNode],
        direction: str = "minimize",
        step_size: float = 0.1,
        tol: float = 1e-9,
    ) -> None:
        super().__init__(parameters, direction)
        require(
            0 < tol < step_size < math.inf, "PatternSearch needs 0 < tol < step_size", got=(tol, step_size)
        )
        self.step_size, self.tol, self.done = step_size, tol, False
        for p in self.parameters:
            if not is_real(p.data):
                raise InvalidParameter(
                    f"PatternSearch moves numbers; {p.name} holds {type(p.data).__name__}."
                )
        self._scale = {p: max(1.0, abs(cast(float, p.data))) for p in self.parameters}
        self._moved: list[ParameterNode] = []  # those of the directions, which are rows
        self._directions: Array = np.zeros((0, 0))
        self._moves = self._steps = np.zeros(0)
        self._at = 0
        self._flags: list[tuple[bool, bool]] = []
        self._base: dict[ParameterNode, float] = {}
        self._trial: dict[ParameterNode, float] = {}

    def propose(self) -> Proposal:
        """The next trial; the best values once the search is done."""
        _, executed, better = self.loss()
        if self._trial:
            self._learn(better)
        elif better:
            self._base = {p: self._encoded(p, p.data) for p in self.parameters}
        if better and executed != self._moved:
            self._start(executed)
        for _ in range(200 * max(1, len(self._moved))):
            if not self._moved or np.abs(self._steps).max() < self.tol:
                break
            if self._turn_needed():
                self._turn()
            i = self._at
            move = self._steps[i] * self._directions[i]
            moved = {p: self._base[p] + float(m) for p, m in zip(self._moved, move, strict=True)}
            trial = {p: self._decoded(p, u) for p, u in moved.items()}
            if any(trial[p] != self.best[p] for p in trial):
                self._trial = {p: self._encoded(p, v) for p, v in trial.items()}
                return {**self.best, **trial}
            self._learn(False)  # rounding or a bound leaves nothing to try there
        self.done, self._trial = True, {}
        return dict(self.best)

    def _start(self, executed: list[ParameterNode]) -> None:
        k = len(executed)
        self._moved, self._directions, self._at = executed, np.eye(k), 0
        self._steps, self._moves = np.full(k, self.step_size), np.zeros(k)
        self._flags = [(False, False)] * k

    def _learn(self, better: bool) -> None:
        i = self._at
        won, lost = self._flags[i]
        if better:
            self._base.update(self._trial)
            self._moves[i] += self._steps[i]
            self._steps[i] *= 3.0
            self._flags[i] = True, lost
        else:
            self._steps[i] *= -0.5
            self._flags[i] = won, True
        self._trial, self._at = {}, (i + 1) % len(self._moved)

    def _turn_needed(self) -> bool:
        return all(won and lost for won, lost in self._flags)

    def _turn(self) -> None:
        """The first direction becomes that of the whole progress, the others stand at right angles."""
        steps = self._moves[:, None] * self._directions
        q, r = np.linalg.qr(np.cumsum(steps[::-1], axis=0)[::-1].T)
        if np.abs(np.diag(r)).min() > 1e-12 * np.abs(r).max():
            self._directions = (q * np.sign(np.diag(r))).T
        self._moves = np.zeros(len(self._moved))
        self._flags = [(False, False)] * len(self._moved)

    def _encoded(self, p: ParameterNode, value: object) -> float:
        number, bounds = cast(float, value), p.constraint
        if not isinstance(bounds, Bounds):
            return number / self._scale[p]
        if bounds.log:
            return math.log(number / bounds.low) / math.log(bounds.high / bounds.low)
        return (number - bounds.low) / (bounds.high - bounds.low)

    def _decoded(self, p: ParameterNode, u: float) -> float | int:
        bounds, value = p.constraint, u * self._scale[p]
        if isinstance(bounds, Bounds):
            u = min(max(u, 0.0), 1.0)
            value = bounds.low + u * (bounds.high - bounds.low)
            if bounds.log:
                value = bounds.low * (bounds.high / bounds.low) ** u
            value = min(max(value, bounds.low), bounds.high)
        return round(value) if is_whole(p.data) else value
