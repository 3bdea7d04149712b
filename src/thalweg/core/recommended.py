"""Which method `solve` uses when none is given: each area registers its own."""

from __future__ import annotations

import functools

from thalweg.core.errors import InvalidProblem
from thalweg.core.method import Method
from thalweg.core.problem import Problem


@functools.singledispatch
def recommended(problem: Problem) -> Method:
    """The method that suits ``problem`` when nothing else is known about it.

    An area registers the methods of its problems in its ``recommended.py``, so that no problem knows a method.

    Raises:
        InvalidProblem: nobody has registered a method for this kind of problem.

    >>> import numpy as np
    >>> from thalweg.linear import LinearSystem
    >>> recommended(LinearSystem(2.0 * np.eye(2), np.ones(2)))
    SSORCG(omega=1.2)
    """
    raise InvalidProblem(f"{type(problem).__name__} recommends no method of its own. Pass one to solve().")
