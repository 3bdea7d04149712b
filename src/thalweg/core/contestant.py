"""Who takes part in a comparison: a method, or what the problem's field uses in its place."""

from __future__ import annotations

import functools

from thalweg.core.errors import InvalidParameter
from thalweg.core.method import Method
from thalweg.core.problem import Problem
from thalweg.core.recommended import loaded_area


@functools.singledispatch
def contestant(problem: Problem, entrant: object) -> Method:
    """The method that stands for ``entrant`` on ``problem``.

    A `Method` stands for itself. Areas whose field has another convention register more: an optimizer's class on a
    training task, a scikit-learn estimator on a data set, an Optuna sampler on a black box, a policy on a table of
    losses.

    Raises:
        InvalidParameter: nothing of this kind can be run on such a problem.
    """
    if isinstance(entrant, Method):
        return entrant
    if loaded_area(problem):
        return contestant(problem, entrant)
    raise InvalidParameter(
        f"A {type(problem).__name__} is compared by methods; got {entrant!r}. `thalweg list` shows the methods."
    )
