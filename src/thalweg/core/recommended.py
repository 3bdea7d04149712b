"""Which method `solve` uses when none is given: each area registers its own."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys

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
    if loaded_area(problem):
        return recommended(problem)
    raise InvalidProblem(f"{type(problem).__name__} recommends no method of its own. Pass one to solve().")


def loaded_area(problem: Problem) -> bool:
    """Load the ``recommended.py`` of the areas that a problem's classes are from; whether one was not loaded before.

    An area whose names load on first use has not registered anything by then.
    """
    found = False
    for kind in type(problem).__mro__:
        package, area = [*kind.__module__.split("."), ""][:2]
        name = f"{package}.{area}.recommended"
        if package == "thalweg" and name not in sys.modules and importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
            found = True
    return found
