"""The worst scenario against the plans so far: a linear program that each plan adds a row to."""

from __future__ import annotations

import importlib
import importlib.util
import math
from typing import Any

import numpy as np

from thalweg.core import InvalidProblem
from thalweg.robust.milp import Array, Model, power_unit, quiet_highs
from thalweg.robust.uncertainty import UncertaintySet


class WorstOfPlans:
    """``max z`` over scenarios with ``z <= a + g'xi`` for each plan added.

    With highspy the program is kept, and solved from where it stood: a row more costs a few pivots, where a new program
    costs its building, too. Scenarios are measured in the widths of their set, costs in the size of the first plan.

    >>> from thalweg.robust import box_set
    >>> worst = WorstOfPlans(box_set([0.0], [1.0]))
    >>> worst.add(1.0, np.array([2.0]))
    >>> worst.add(2.0, np.array([-1.0]))
    >>> value, xi = worst.solve()
    >>> round(value, 6), xi.round(6)
    (1.666667, array([0.333333]))
    """

    def __init__(self, scenarios: UncertaintySet) -> None:
        low, high = scenarios.ends
        self._set, self._widths = scenarios, 1.0 / power_unit(np.maximum(np.abs(low), np.abs(high)))
        self._unit = 0.0
        self._plans: list[tuple[float, Array]] = []
        self._highs: Any = None
        if importlib.util.find_spec("highspy") is not None:
            self._begin(importlib.import_module("highspy"))

    def _begin(self, highspy: Any) -> None:  # noqa: ANN401 -- a module without types
        (low, high), (A, b) = self._set.ends, self._set.system
        self._highs = quiet_highs(highspy)
        for first, last in zip(low / self._widths, high / self._widths, strict=True):
            self._highs.addVar(float(first), float(last))
        self._highs.addVar(-highspy.kHighsInf, highspy.kHighsInf)
        self._highs.changeColCost(len(low), -1.0)
        rows = A * self._widths
        sizes = power_unit(np.abs(rows).max(1, initial=0.0))
        for row, end in zip(rows * sizes[:, None], b * sizes, strict=True):
            self._add_row(row, 0.0, float(end))

    def _add_row(self, row: Array, z: float, end: float) -> None:
        at = np.flatnonzero(row)
        index = np.r_[at, len(row)][: len(at) + (z != 0)].astype(np.int32)
        self._highs.addRow(-math.inf, end, len(index), index, np.r_[row[at], z][: len(index)])

    def add(self, a: float, g: Array) -> None:
        """A plan's cost ``a + g'xi``."""
        slopes = g * self._widths
        if not self._unit:
            self._unit = float(power_unit(np.array([max(abs(a), float(np.abs(slopes).max(initial=0.0)))]))[0])
        self._plans.append((a, g))
        if self._highs is not None:
            self._add_row(-slopes * self._unit, 1.0, a * self._unit)

    def solve(self) -> tuple[float, Array]:
        """The largest z, and its scenario.

        Raises:
            InvalidProblem: the solver failed.
        """
        if self._highs is None:
            return self._anew()
        self._highs.run()
        status = self._highs.modelStatusToString(self._highs.getModelStatus())
        if status != "Optimal":
            raise InvalidProblem(f"The worst scenario was not found: HiGHS says {status}.")
        found = np.array(self._highs.getSolution().col_value)
        return float(found[-1]) / self._unit, found[:-1] * self._widths

    def _anew(self) -> tuple[float, Array]:
        model = Model()
        xi = self._set.add_to(model)
        z = model.columns(1, -math.inf, math.inf, cost=-1.0)
        for a, g in self._plans:
            model.rows([(z, [[1.0]]), (xi, -g)], upper=a)
        found = model.minimize()
        if found.x is None:
            raise InvalidProblem(f"The worst scenario was not found: the program is {found.status}.")
        return -found.value, found.x[xi]
