"""What the area's methods share: a state that holds a study, and one evaluation of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TypeVar

from thalweg.blackbox.evaluation import settle
from thalweg.blackbox.parameters import Point
from thalweg.blackbox.problem import BlackBox
from thalweg.blackbox.study import Study
from thalweg.core import State


@dataclass(kw_only=True)
class StudyState(State):
    """``x`` is the best point so far, as the method sees it, and None before the first evaluation that succeeds."""

    x: Point | None = None
    study: Study = field(repr=False)  # all that is known


S = TypeVar("S", bound=StudyState)


def evaluated(problem: BlackBox, state: S, point: Point) -> S:
    """The state after ``point`` has been evaluated: the best point told is the answer."""
    study = state.study
    told, why = settle(study, study.expect(point), functools.partial(problem.function, point))
    best = study.best
    return replace(
        state,
        x=None if best is None else best.point,
        calls=state.calls + 1,
        metrics=problem.progress(told.value, None if best is None else best.value),
        message=f"Trial {told.number} failed: {why}" if why else state.message,
    )
