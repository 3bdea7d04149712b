"""The test functions against a multi-start local search."""

import numpy as np
import pytest
from scipy.optimize import minimize

from thalweg.blackbox import functions

EASY = (
    functions.BRANIN,
    functions.HARTMANN6,
    functions.ROSENBROCK4,
    functions.CAMEL,
    functions.HARTMANN3,
    functions.MICHALEWICZ5,
    functions.STYBLINSKI_TANG6,
)


@pytest.mark.parametrize("function", EASY, ids=lambda f: f.name)
def test_local_search_reaches_the_stated_minimum_and_nothing_below(function) -> None:
    generator, box = np.random.default_rng(0), [(0.0, 1.0)] * function.dimension
    found = [
        minimize(function, generator.random(function.dimension), bounds=box, tol=1e-14) for _ in range(100)
    ]
    assert min(m.fun for m in found) == pytest.approx(function.minimum, abs=1e-8)


@pytest.mark.parametrize(
    ("function", "at"), [(functions.ACKLEY6, 0.5), (functions.LEVY6, 0.55)], ids=["Ackley-6", "Levy-6"]
)
def test_rippled_functions_are_least_where_they_say(function, at: float) -> None:
    best = np.full(function.dimension, at)
    assert function(best) == pytest.approx(function.minimum, abs=1e-12)
    assert all(function(u) > function.minimum for u in np.random.default_rng(0).random((500, len(best))))
