"""A function that is expensive to evaluate, as a problem."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from thalweg.blackbox.evaluation import outcome_of
from thalweg.blackbox.parameters import Parameter, Point
from thalweg.blackbox.space import Space
from thalweg.core import Problem, Stop
from thalweg.core.validation import require


@dataclass(frozen=True, eq=False)
class BlackBox(Problem):
    """Optimise ``function``, which takes a point (a dictionary) and returns a number.

    Args:
        function: the objective. One that raises `EvaluationFailed` or an arithmetic error, or returns NaN or infinity,
            has failed at that point; any other error ends the run.
        space: a `Space`, or a dictionary of parameters.
        direction: ``"minimize"`` or ``"maximize"``.
        optimum: the best value there is, where it is known (a test function): methods then report their ``regret``.

    The metrics are ``value``, the function at the answer, and its ``regret`` where the optimum is known: judging costs
    one evaluation. There are none where no evaluation has succeeded, or that one fails.

    >>> from thalweg import Stop, solve
    >>> from thalweg.blackbox import BayesianOptimization, Real
    >>> box = BlackBox(lambda p: (p["x"] - 1.0) ** 2, {"x": Real(-3.0, 3.0)})
    >>> solve(box, BayesianOptimization(noise="none"), stop=Stop(calls=15)).metrics["value"] < 1e-3
    True
    """

    function: Callable[[Point], float]
    space: Space
    direction: Literal["minimize", "maximize"] = "minimize"
    optimum: float | None = None

    def __init__(
        self,
        function: Callable[[Point], float],
        space: Space | Mapping[str, Parameter],
        direction: Literal["minimize", "maximize"] = "minimize",
        optimum: float | None = None,
    ) -> None:
        require(
            direction in ("minimize", "maximize"),
            "BlackBox: direction is 'minimize' or 'maximize'",
            got=direction,
        )
        require(optimum is None or math.isfinite(optimum), "BlackBox needs a finite optimum", got=optimum)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "space", space if isinstance(space, Space) else Space(space))
        object.__setattr__(self, "direction", direction)
        object.__setattr__(self, "optimum", optimum)

    def progress(self, value: float | None, best: float | None) -> dict[str, float]:
        """What a step reports: the last ``value`` unless it failed, the ``best`` so far, and its ``regret``."""
        told = {"value": value, "best": best, "regret": self.regret(best)}
        return {name: number for name, number in told.items() if number is not None}

    def regret(self, value: float | None) -> float | None:
        """How far from the optimum a value is; None where either is unknown."""
        return None if value is None or self.optimum is None else abs(value - self.optimum)

    def recommended_stop(self) -> Stop:
        """Fifty evaluations."""
        return Stop(steps=50)

    def metrics(self, x: Point | None) -> dict[str, float]:
        value = None if x is None else outcome_of(lambda: self.function(x))[0]
        told = {"value": value, "regret": self.regret(value)}
        return {name: number for name, number in told.items() if number is not None}
