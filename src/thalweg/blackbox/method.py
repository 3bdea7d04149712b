"""What the area's methods share: a state that holds a study, and one evaluation of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import TypeVar

from thalweg.blackbox.evaluation import settle
from thalweg.blackbox.parameters import Point
from thalweg.blackbox.problem import BlackBox
from thalweg.blackbox.study import Study
from thalweg.blackbox.trial import Trial
from thalweg.core import State


@dataclass(kw_only=True)
class StudyState(State):
    """``x`` is the best point so far, as the method sees it, and None before the first evaluation that succeeds."""

    x: Point | None = None
    study: Study = field(repr=False)  # all that is known


S = TypeVar("S", bound=StudyState)


def word(study: Study, told: Trial, why: str, before: str) -> str:
    """The state's message after one more trial: the last failure, and whether any trial has succeeded at all."""
    if not why:
        return "" if len(study.done) == 1 else before
    none = "" if study.done else "No trial has succeeded. "
    return f"{none}Trial {told.number} failed: {why}."


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
        message=word(study, told, why, state.message),
    )
