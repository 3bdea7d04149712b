"""Bayesian optimisation as a method: a study run to the end."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar

from thalweg.blackbox.evaluation import settle
from thalweg.blackbox.method import StudyState, word
from thalweg.blackbox.problem import BlackBox
from thalweg.blackbox.space import Space
from thalweg.blackbox.study import Study
from thalweg.core import Method
from thalweg.core.validation import require, require_counts


@dataclass(frozen=True)
class BayesianOptimization(Method[BlackBox, StudyState]):
    """A `Study` run to the end; one step asks for ``q`` points, evaluates them and tells.

    Args:
        acquisition, noise, initial, trust_region, bayesian, batch: as for `Study`.
        q: points a step.

    Metrics of a step: ``value``, the last one unless it failed, ``best``, the best so far, and ``regret`` where the
    problem knows its optimum.
    """

    in_place: ClassVar[bool] = True

    acquisition: str = "auto"
    noise: str = "learn"
    q: int = 1
    initial: int | None = None
    trust_region: bool = False
    bayesian: bool = False
    batch: str = "joint"

    def __post_init__(self) -> None:
        require_counts(self, "q")

    def study(self, space: Space, direction: str, seed: int) -> Study:
        """The study that it runs, to be asked and told by oneself."""
        return Study(
            space,
            direction,
            acquisition=self.acquisition,
            noise=self.noise,
            initial=self.initial,
            trust_region=self.trust_region,
            bayesian=self.bayesian,
            batch=self.batch,
            seed=seed,
        )

    def init(self, problem: BlackBox, seed: int) -> StudyState:
        require(self.q >= 1, "BayesianOptimization needs q >= 1", got=self.q)
        return StudyState(study=self.study(problem.space, problem.direction, seed))

    def step(self, problem: BlackBox, state: StudyState) -> StudyState:
        study, message = state.study, state.message
        for trial in study.ask(self.q):
            told, why = settle(study, trial, functools.partial(problem.function, trial.point))
            message = word(study, told, why, message)
        best = study.best
        found = study.recommend() if study.done else None
        metrics = problem.progress(told.value, None if best is None else best.value)
        return replace(
            state,
            x=found.point if found else None,
            calls=state.calls + self.q,
            metrics=metrics,
            message=message,
        )
