"""A point at which the first-order conditions hold, and that is no minimum, is not called solved."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.constrained import METHODS, EqualityConstrained, NewtonSQP, named_problem
from thalweg.core import Status, Stop, solve

SADDLES = {
    "maximum on a circle": ("x1*x2", ["x1**2 + x2**2 - 2"], [1.0, 1.0], -2.0),
    "maximum along one axis": ("cos(x1) + x2**2", ["x2 - x3"], [0.0, 0.5, 0.5], -1.0),
    "between two wells": ("x1**4 - x1**2 + x2**2", ["x2"], [0.0, 1.0], -2.0),
    "nothing bends but one way": ("x1**2 - 3*x2**2", ["x1"], [0.0, 0.0], -6.0),
}


@pytest.mark.parametrize("name", SADDLES)
def test_a_saddle_is_told_with_its_curvature(name):
    formula, constraints, start, curvature = SADDLES[name]
    problem = EqualityConstrained.from_formulas(formula, constraints, start)
    found = solve(problem, NewtonSQP())
    assert found.status is Status.STALLED
    assert f"the curvature is {curvature:.3g} in some direction" in found.message
    assert "Start elsewhere" in found.message


def test_beside_it_the_minimum_is_found():
    formula, constraints, _, _ = SADDLES["maximum on a circle"]
    found = solve(EqualityConstrained.from_formulas(formula, constraints, [1.0, 0.8]))
    assert found.converged
    assert found.metrics["value"] == pytest.approx(-1.0)


@pytest.mark.parametrize("formula", ["x1**2 + 1e-9*x2**2", "x1**2", "1e-8*x1**2", "(x1 - 1)**4", "x1 + x2"])
def test_flat_directions_are_no_objection(formula):
    problem = EqualityConstrained.from_formulas(formula, ["x1 + x2 - 1"], [0.3, 0.4])
    assert problem.objection(solve(problem).x) == ""


def test_where_the_conditions_do_not_hold_curvature_says_nothing():
    problem = EqualityConstrained.from_formulas("x1*x2", ["x1**2 + x2**2 - 2"], [2.0, 3.0])
    assert problem.objection([2.0, 3.0]) == ""
    assert solve(problem, NewtonSQP(), stop=Stop(below={"feasibility": 10.0})).converged


@pytest.mark.parametrize("units", [1e-9, 1.0, 1e9])
def test_in_any_units(units):
    problem = EqualityConstrained.from_formulas(f"{units}*x1*x2", ["x1**2 + x2**2 - 2"], [1.0, 1.0])
    assert "no minimum" in problem.objection([1.0, 1.0])
    assert problem.objection(np.array([1.0, -1.0])) == ""


@pytest.mark.parametrize("name", ["BT1", "BT6", "BT9", "HS78", "HS7"])
def test_minima_of_the_collection_have_none(name):
    problem = named_problem(name)
    found = solve(problem)
    assert found.converged
    assert problem.objection(found.x) == ""


def test_all_methods_are_told():
    problem = EqualityConstrained.from_formulas("x1*x2", ["x1**2 + x2**2 - 2"], [1.0, 1.0])
    for method in METHODS.values():
        assert solve(problem, method()).status is Status.STALLED
