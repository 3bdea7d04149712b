"""A function that is expensive to evaluate, as a problem; and Bayesian optimisation as a method for it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from thalweg.blackbox.evaluation import settle
from thalweg.blackbox.space import Point, Space
from thalweg.blackbox.study import Study
from thalweg.core import Method, Problem, State, Stop
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

    The metric is ``value``, the function at the answer: judging costs one evaluation.

    >>> from thalweg import Stop, solve
    >>> from thalweg.blackbox import Real
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
        space: Space | Mapping[str, Any],
        direction: Literal["minimize", "maximize"] = "minimize",
        optimum: float | None = None,
    ) -> None:
        require(direction in ("minimize", "maximize"), "BlackBox: direction is 'minimize' or 'maximize'")
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "space", space if isinstance(space, Space) else Space(space))
        object.__setattr__(self, "direction", direction)
        object.__setattr__(self, "optimum", optimum)

    def progress(self, value: float | None, best: float | None) -> dict[str, float]:
        """What a step reports: the last ``value`` unless it failed, the ``best`` so far, and its ``regret``."""
        told = {"value": value, "best": best}
        if self.optimum is not None and best is not None:
            told["regret"] = abs(best - self.optimum)
        return {name: number for name, number in told.items() if number is not None}

    def recommended_stop(self) -> Stop:
        """Fifty evaluations."""
        return Stop(steps=50)

    def metrics(self, x: Point) -> dict[str, float]:
        """``{"value": function(x)}``."""
        return {"value": float(self.function(x))}


@dataclass(kw_only=True)
class StudyState(State):
    """``x`` is the recommended point so far, and ``study`` all that is known."""

    study: Study = field(repr=False)


@dataclass(frozen=True)
class BayesianOptimization(Method[BlackBox, StudyState]):
    """A `Study` run to the end; one step asks for ``q`` points, evaluates them and tells.

    Args:
        acquisition, noise, initial, trust_region, bayesian, batch: as for `Study`.
        q: points a step.

    Metrics of a step: ``value``, the last one unless it failed, ``best``, the best so far, and ``regret`` where the
    problem knows its optimum.
    """

    in_place = True

    acquisition: str = "auto"
    noise: str = "learn"
    q: int = 1
    initial: int | None = None
    trust_region: bool = False
    bayesian: bool = False
    batch: str = "joint"

    def init(self, problem: BlackBox, seed: int) -> StudyState:
        require(self.q >= 1, "BayesianOptimization needs q >= 1", got=self.q)
        study = Study(
            problem.space,
            problem.direction,
            acquisition=self.acquisition,
            noise=self.noise,
            initial=self.initial,
            trust_region=self.trust_region,
            bayesian=self.bayesian,
            batch=self.batch,
            seed=seed,
        )
        return StudyState(x=None, study=study)

    def step(self, problem: BlackBox, state: StudyState) -> StudyState:
        study, message = state.study, state.message
        for trial in study.ask(self.q):
            told, why = settle(study, trial, functools.partial(problem.function, trial.point))
            message = f"Trial {told.number} failed: {why}" if why else message
        best = study.best
        found = study.recommend() if study.done else None
        metrics = problem.progress(told.value, None if best is None else best.value)
        return StudyState(
            x=found.point if found else None,
            study=study,
            calls=state.calls + self.q,
            metrics=metrics,
            message=message,
        )
