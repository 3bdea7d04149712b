"""A decision before the uncertainty and one after: what is given, and what a first decision costs in the worst case."""

from __future__ import annotations

import math
from abc import abstractmethod
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, Problem
from thalweg.core.validation import check_vector
from thalweg.robust.evaluation import GAP, evaluated
from thalweg.robust.milp import Array, Columns, Model
from thalweg.robust.programs import scenario_program, static_program
from thalweg.robust.stages import TOLERANCE, Affine, FirstStage, Pieces, Recourse, WorstCase
from thalweg.robust.uncertainty import UncertaintySet

#: Differences of costs below this, in units of the largest price, are rounding.
ROUNDING = 1e-12
#: Scenarios, beside the centre, from which a bound begins where rows are uncertain, and rounds that add to them.
FIRST_SCENARIOS, BOUND_ROUNDS = 4, 8
#: Most seconds of a program for the bound.
BOUND_SECONDS = 20.0


class TwoStageRobust(Problem):
    """``min over x in X of max over xi in Xi of min over y of c(xi)'x + d(xi)'y``, ``W(xi) y + T(xi) x <= h(xi)``.

    A problem of your own is one subclass, a frozen dataclass, with three properties or functions:

    - `uncertainty`: the set of scenarios;
    - `first_stage`: X;
    - `second_stage`: the second stage at a scenario, affine in the scenario (it is asked outside the set, too).

    The rest has defaults that hold for any problem: `recourse` and `worst_case` (exact), `labels`, `sample_decisions`,
    and what a network sees, `item_features`, `scenario_features`. Override those that your problem has a faster or
    better way for; `RobustKnapsack` does so for `recourse` and `labels`.

    An answer is a vector x, shape (n,). Metrics: ``cost``, proved to be at least the worst case's; ``bound``, which
    no decision's worst case is below; ``gap``, ``(cost - bound) / |cost|``.

    >>> import numpy as np
    >>> from thalweg.robust import FirstStage, Recourse, TwoStageRobust, UncertaintySet
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Umbrella(TwoStageRobust):  # take one (2), or buy one if it rains (5)
    ...     @property
    ...     def uncertainty(self): return UncertaintySet([0.0], [1.0])
    ...     @property
    ...     def first_stage(self): return FirstStage.binary(1)
    ...     def second_stage(self, xi):  # y + x >= xi
    ...         one = np.ones((1, 1))
    ...         return Recourse(np.array([2.0]), np.array([5.0]), -one, -one, -xi, np.ones(1), np.array([False]))
    >>> [Umbrella().worst_case(np.array([x])).value for x in (0.0, 1.0)]
    [5.0, 2.0]
    """

    @property
    @abstractmethod
    def uncertainty(self) -> UncertaintySet:
        """The scenarios that may come."""

    @property
    @abstractmethod
    def first_stage(self) -> FirstStage:
        """X."""

    @abstractmethod
    def second_stage(self, xi: Array) -> Recourse:
        """The second stage at ``xi``, shape (d,): each part affine in xi, bounds and whole columns the same."""

    @cached_property
    def affine(self) -> Affine:
        """`second_stage` as value and slopes.

        Raises:
            InvalidProblem: it is not affine in the scenario, a part has the wrong shape or is not finite.
        """
        if not isinstance(self.uncertainty, UncertaintySet):
            raise InvalidProblem(
                f"{type(self).__name__}.uncertainty is a {type(self.uncertainty).__name__}; expected an UncertaintySet."
            )
        d = self.uncertainty.dimension
        zero, units = self._checked(np.zeros(d)), [self._checked(row) for row in np.eye(d)]
        parts = {
            name: np.stack([getattr(u, name) - getattr(zero, name) for u in units], axis=-1)
            for name in ("c", "d", "W", "T", "h")
        }
        found = Affine(zero, **parts)
        probe = np.linspace(0.3, 0.7, d)
        seen, said = self._checked(probe), found.at(probe)
        for name in parts:
            a, b = getattr(seen, name), getattr(said, name)
            sizes = (np.abs(part).max(initial=0.0) for part in (a, getattr(zero, name), parts[name]))
            if not np.allclose(a, b, rtol=1e-9, atol=1e-9 * max(sizes)):
                raise InvalidProblem(
                    f"{type(self).__name__}.second_stage: {name} is not affine in xi; expected "
                    f"{name}(xi) = {name}(0) + slopes times xi. Add coordinates to xi for its other terms."
                )
        return found

    def _checked(self, xi: Array) -> Recourse:
        n, name = len(self.first_stage.lower), type(self).__name__
        given = Recourse.of(f"{name}.second_stage", self.second_stage(xi))
        m, rows = given.d.size, given.h.size
        shapes = {"c": (n,), "d": (m,), "W": (rows, m), "T": (rows, n), "h": (rows,), "upper": (m,)}
        for part, shape in {**shapes, "integer": (m,)}.items():
            values = np.asarray(getattr(given, part))
            if values.shape != shape:
                raise InvalidProblem(
                    f"{name}.second_stage: {part} has shape {values.shape}; expected {shape}, for n = {n} first and "
                    f"m = {m} second decisions and {rows} rows."
                )
            if not np.isfinite(values).all():
                raise InvalidProblem(
                    f"{name}.second_stage: {part} holds NaN or infinity; expected finite numbers."
                )
        if (given.upper < 0).any():
            raise InvalidProblem(
                f"{name}.second_stage: upper holds {given.upper.min():g}; expected >= 0, as plans are."
            )
        return given

    @property
    def n(self) -> int:
        """Length of x."""
        return len(self.first_stage.lower)

    @cached_property
    def items(self) -> NDArray[np.intp]:
        """The yes-or-no entries of x, which a network sees as a set."""
        first = self.first_stage
        return np.flatnonzero(first.integer & (first.lower == 0) & (first.upper == 1))

    @cached_property
    def others(self) -> NDArray[np.intp]:
        """The entries of x that are no items."""
        return np.setdiff1d(np.arange(self.n), self.items)

    def add_plan(
        self, model: Model, x: Columns, xi: Array, relaxed: bool = False
    ) -> tuple[Columns, Recourse]:
        """Columns of a plan y that is feasible at ``xi``, in ``model``."""
        at = self.affine.at(xi)
        y = model.columns(len(at.d), 0.0, at.upper, integer=at.integer & (not relaxed))
        if len(at.h):
            model.rows([(y, at.W), (x, at.T)], upper=at.h)
        return y, at

    def recourse(self, x: Array, xi: Array) -> tuple[float, float, Array]:
        """The best plan at a scenario: its cost with the first stage's, a bound below it, and y.

        Cost infinite and y empty where no plan is feasible. By default one program, solved by HiGHS.
        """
        at, model = self.affine.at(xi), Model()
        y = model.columns(len(at.d), 0.0, at.upper, integer=at.integer, cost=at.d)
        if len(at.h):
            # plans that just break a row count as feasible where whole plans are told apart by that
            slack = 0.5 * self.room * (bool(at.integer.any()) and not self.affine.has_certain_rows)
            model.rows([(y, at.W)], upper=at.h - at.T @ x + slack)
        found = model.minimize(gap=GAP / 10)
        if found.x is None:
            return math.inf, math.inf, np.zeros(0)
        plan = np.where(at.integer, np.round(found.x), found.x)
        first = float(at.c @ x)
        return first + float(at.d @ plan), first + found.bound, plan

    @cached_property
    def room(self) -> Array:
        """What a plan may break each row by, shape (rows,): a share of its limit and of what whole numbers add to it.

        What has a unit of its own, a loan say, is counted only in rows of nothing else, at its largest.
        """
        base, affine = self.affine.at_zero, self.affine
        size = np.abs(base.h) + np.abs(affine.h).sum(-1)
        size += np.abs(base.W).max(1, initial=0.0, where=base.integer)
        size = np.where(size > 0, size, (np.abs(base.W) * base.upper).max(1, initial=0.0))
        return np.asarray(TOLERANCE * np.maximum(size, 1e-30))

    @property
    def nominal(self) -> Array:
        """The scenario that is planned for where nobody thinks of the worst. Default: the set's centre."""
        return self.uncertainty.centre

    @property
    def has_exact_plans(self) -> bool:
        """Whether `pieces` say what a plan costs with its continuous part at its best: true where there is none."""
        return bool(self.affine.at_zero.integer.all())

    def pieces(self, x: Array, y: Array) -> Pieces:
        """What keeping plan y costs, and where it cannot be kept."""
        (a, g), (over, slopes) = self.affine.cost(x, y), self.affine.excess(x, y)
        return Pieces(np.array([a]), g[None], over, slopes, self.room)

    def worst_case(self, x: ArrayLike) -> WorstCase:
        """What x costs in the worst case, to a relative gap of 1e-4; `thalweg.robust.evaluation` says how.

        Raises:
            InvalidProblem: x is no decision; or the recourse is of a kind that has no exact way here (continuous plans
                with uncertain costs *and* rows): override `worst_case` then.
        """
        return evaluated(
            self.affine,
            self.uncertainty,
            self.answer(x),
            self.recourse,
            self.pieces if self.has_exact_plans else None,
            type(self).__name__,
        )

    def start(self) -> Array:
        """Some decision of X, found by a program.

        Raises:
            InvalidProblem: X is empty.
        """
        model = Model()
        columns = self.first_stage.add_to(model)
        found = model.minimize()
        if found.x is None:
            raise InvalidProblem(f"{type(self).__name__}: X is empty; no x meets its rows and bounds.")
        return self.first_stage.rounded(found.x[columns])

    def labels(self, X: Array, XI: Array) -> Array:
        """What a network learns, shape (a, b): the best plan's cost for each x of (a, n) and xi of (b, d).

        First-stage costs that are certain are left out. Infinite where no plan is feasible.
        """
        certain = self.affine.at_zero.c * (not self.affine.c.any())
        return np.array([[self.recourse(x, xi)[0] - float(certain @ x) for xi in XI] for x in X])

    def item_features(self) -> Array:
        """What a network knows of each item, shape (items, k). By default its cost at the set's centre and its rows."""
        at = self.affine.at(self.uncertainty.centre)
        return np.stack([at.c[self.items], np.abs(at.T[:, self.items]).sum(0)], axis=1)

    def scenario_features(self) -> tuple[Array, Array]:
        """Rows ``maps @ xi`` and fixed columns, shapes (rows, q, d) and (rows, k), of a scenario as a set.

        By default a row for each coordinate, with its ends.
        """
        low, high = self.uncertainty.ends
        return np.eye(len(low))[:, None, :], np.stack([low, high], axis=1)

    def sample_decisions(self, count: int, rng: np.random.Generator) -> Array:
        """Random x of X, shape (count, n): each bit 0 with one random probability, and moved into X."""
        first = self.first_stage
        found = first.lower + rng.random((count, self.n)) * (first.upper - first.lower)
        bits = (rng.random((count, self.n)) >= rng.random((count, 1))).astype(np.float64)
        found[:, self.items] = bits[:, self.items]
        whole = np.setdiff1d(np.flatnonzero(first.integer), self.items)
        found[:, whole] = np.round(found[:, whole])
        for k in np.flatnonzero(first.is_over(found, np.abs(found)).any(1)):
            model = Model()
            x = first.add_to(model, np.where(found[k] > 0.5, -1.0, 1.0) * rng.random(self.n))
            nearest = model.minimize(gap=0.1)
            if nearest.x is None:
                raise InvalidProblem(f"{type(self).__name__}: X is empty; no x meets its rows and bounds.")
            found[k] = first.rounded(nearest.x[x])
        return found

    def answer(self, x: ArrayLike) -> Array:
        """``x`` as a vector of X, whole entries rounded, or `InvalidProblem`."""
        given, first = check_vector("x", x, self.n), self.first_stage
        found = np.where(first.integer, np.round(given), given)
        edge = TOLERANCE * np.maximum(first.sizes(given), np.abs(given))
        for wrong, why in (
            (np.abs(found - given) > 1e-5, "is no whole number"),
            ((found < first.lower - edge) | (found > first.upper + edge), "is out of its bounds"),
        ):
            if wrong.any():
                i = int(np.argmax(wrong))
                raise InvalidProblem(f"x is not a first decision: x[{i}] = {given[i]:g} {why}.")
        over = first.is_over(found, np.maximum(first.sizes(given), np.abs(found)))
        if over.any():
            raise InvalidProblem(
                f"x is not a first decision: it breaks row {int(np.argmax(over))} of A x <= b."
            )
        return np.asarray(found.clip(first.lower, first.upper) + 0.0)

    @cached_property
    def bound(self) -> float:
        """A value that no decision's worst case is below, proved.

        Where only costs are uncertain: the relaxed recourse, plans that need not be whole, for which the order of
        minimum and maximum does not matter. Otherwise the best decision against a few scenarios, worst ones of
        decisions found on the way. Cost: one program, or up to nine.
        """
        first, affine, xi_set = self.first_stage, self.affine, self.uncertainty
        if affine.has_certain_rows:
            return static_program(first, affine, xi_set, relaxed=True, seconds=BOUND_SECONDS).bound
        corners = xi_set.vertices(FIRST_SCENARIOS, np.random.default_rng(0))
        scenarios, best = np.vstack([xi_set.centre, corners]), -math.inf
        for _ in range(BOUND_ROUNDS):
            found = scenario_program(first, affine, scenarios, seconds=BOUND_SECONDS)
            best = max(best, found.bound)
            if found.x is None:
                break
            worst = self.worst_case(found.x)
            if self.gap(worst.value, best) <= GAP or found.is_cut_short:
                break
            scenarios = np.vstack([scenarios, worst.xi])
        return best

    def metrics(self, x: ArrayLike) -> dict[str, float]:
        cost = self.worst_case(x).value
        return {"cost": cost, "bound": self.bound, "gap": self.gap(cost, self.bound)}

    @cached_property
    def cost_unit(self) -> float:
        """The largest price of a unit of x or y: the size that costs are measured by where they are near zero."""
        affine = self.affine
        ends = np.maximum(*map(np.abs, self.uncertainty.ends))
        prices = (
            np.abs(affine.at_zero.c) + np.abs(affine.c) @ ends,
            np.abs(affine.at_zero.d) + np.abs(affine.d) @ ends,
        )
        return float(np.concatenate(prices).max(initial=0.0))

    def gap(self, cost: float, bound: float) -> float:
        """``cost - bound`` over the larger of both by size, in [0, 2]; infinite where one of them is."""
        if not (math.isfinite(cost) and math.isfinite(bound)):
            return math.inf
        size = max(abs(cost), abs(bound), ROUNDING * self.cost_unit)
        return (cost - bound) / size if cost > bound else 0.0
