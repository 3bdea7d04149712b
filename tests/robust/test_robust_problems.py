"""Two-stage problems: recourse and worst cases against brute force, HiGHS, bounds, and what has to hold."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg import solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.robust import (
    CapitalBudgeting,
    ColumnConstraint,
    FacilityLocation,
    FirstStage,
    Recourse,
    RelaxedRecourse,
    RobustKnapsack,
    TwoStageRobust,
    UncertaintySet,
    _cuts,
    budget_set,
)
from thalweg.robust._kernels import branch_and_bound, relaxed_values

KINDS = ("UN", "WC", "ASC", "SC")


def knapsack(n, seed, **options):
    return RobustKnapsack.random(n, seed, KINDS[seed % 4], **options)


def made(name, seed):
    if name == "knapsack":
        return knapsack(8, seed, spread=1.0, budget=0.3)
    if name == "facility":
        return FacilityLocation.random(3, 5, seed, gamma=1.5)
    return CapitalBudgeting.random(7, seed, factors=2, loans=name == "loans")


NAMES = ("knapsack", "budgeting", "loans", "facility")


class OneDecision(TwoStageRobust):
    """One yes or no under one uncertain number; second stages are the tests' own."""

    @property
    def uncertainty(self):
        return UncertaintySet([0.0], [1.0])

    @property
    def first_stage(self):
        return FirstStage.binary(1)


class TestKnapsackKernels:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 10_000), st.integers(1, 7), st.booleans())
    def test_the_search_finds_what_enumeration_finds(self, seed, n, loans):
        rng = np.random.default_rng(seed)
        w1, v1 = rng.uniform(0, 10, n), rng.uniform(-2, 10, n)
        w2, v2 = w1 + rng.uniform(0, 10, n), v1 + rng.uniform(-2, 8, n)
        capacity = rng.uniform(-3, 25) if loans else rng.uniform(0, 25)
        extra, price = (5.0, rng.uniform(0, 2)) if loans else (0.0, math.inf)
        best = -math.inf
        for ways in itertools.product(range(3), repeat=n):
            k = np.array(ways)
            used = float(np.where(k == 1, w1, np.where(k == 2, w2, 0.0)).sum())
            value = float(np.where(k == 1, v1, np.where(k == 2, v2, 0.0)).sum())
            if used <= capacity + extra:
                over = max(0.0, used - capacity)
                best = max(best, value - (price * over if over else 0.0))
        _, value, ceiling = branch_and_bound(w1, v1, w2, v2, capacity, extra, price, 1e-9, 10**6)
        if best == -math.inf:
            assert value == -math.inf
            return
        assert value == pytest.approx(best, abs=1e-8)
        assert value <= ceiling <= value + 1e-6
        relaxed = relaxed_values(
            *(t[None] for t in (w1, v1, w2, v2)), np.array([capacity]), np.array([extra]), price
        )
        assert relaxed[0] >= best - 1e-8

    @settings(max_examples=25, deadline=None)
    @given(st.integers(0, 10_000))
    def test_greedy_labels_are_below_the_best_plan_by_at_most_one_profit(self, seed):
        problem = knapsack(12, seed, spread=1.0)
        rng = np.random.default_rng(seed)
        X, XI = problem.sample_decisions(2, rng), problem.uncertainty.sample(3, rng)
        first = problem.affine.at_zero.c
        for x, labels in zip(X, problem.labels(X, XI)):
            for xi, label in zip(XI, labels):
                exact = problem.recourse(x, xi)[0] - float(first @ x)
                assert label <= exact + 1e-6
                assert exact <= label + float(np.max(problem.penalty)) + 1e-6


class TestRecourse:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("seed", range(4))
    def test_it_is_what_highs_finds(self, name, seed):
        problem, rng = made(name, seed), np.random.default_rng(seed)
        for x, xi in zip(problem.sample_decisions(3, rng), problem.uncertainty.sample(3, rng)):
            fast, bound, plan = problem.recourse(x, xi)
            plain, *_ = TwoStageRobust.recourse(problem, x, xi)
            assert fast == pytest.approx(plain, rel=2e-5, abs=1e-5)
            assert bound <= fast + 1e-9
            at = problem.second_stage(xi)
            assert (at.W @ plan + at.T @ x <= at.h + 2 * problem.room).all()
            assert at.c @ x + at.d @ plan == pytest.approx(fast, rel=1e-9, abs=1e-9)


class TestWorstCase:
    @pytest.mark.parametrize("name", NAMES)
    def test_no_scenario_is_worse_and_the_one_named_is_as_bad(self, name):
        for seed in range(3):
            problem, rng = made(name, seed), np.random.default_rng(seed)
            x = problem.sample_decisions(1, rng)[0]
            worst = problem.worst_case(x)
            assert worst.lower <= worst.value <= worst.lower + 1.1e-3 * abs(worst.lower) + 1e-3
            assert problem.recourse(x, worst.xi)[0] >= worst.lower - 1e-5 * abs(worst.lower)
            assert problem.uncertainty.contains(worst.xi).all()
            seen = max(problem.recourse(x, xi)[0] for xi in problem.uncertainty.sample(400, rng))
            assert seen <= worst.value + 1e-5 * abs(worst.value)

    def test_a_knapsack_without_losses_is_nominal_and_with_all_of_them_is_at_one(self):
        problem = knapsack(8, 1)
        x = np.array([1.0, 1, 0, 1, 1, 0, 1, 1])
        none, every = (replace(problem, gamma=g) for g in (0, 8))
        assert none.worst_case(x).value == pytest.approx(none.recourse(x, np.zeros(8))[0], rel=1e-4)
        assert every.worst_case(x).value == pytest.approx(every.recourse(x, np.ones(8))[0], rel=1e-4)

    def test_facilities_agree_with_all_vertices(self):
        from thalweg.robust.evaluation import by_vertices

        for gamma in (1, 2.5):
            problem = FacilityLocation.random(3, 5, seed=3, gamma=gamma)
            for x in np.array([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]]):
                every = by_vertices(problem.uncertainty, x, problem.recourse, "all").value
                assert problem.worst_case(x).value == pytest.approx(every, rel=1e-4)

    def test_permuting_items_changes_nothing(self):
        problem, order = knapsack(8, 2, spread=1.0), np.random.default_rng(0).permutation(8)
        names = ("weight", "profit", "loss", "penalty", "repair")
        moved = replace(problem, **{n: np.asarray(getattr(problem, n))[order] for n in names})
        x = np.array([1.0, 0, 1, 1, 0, 1, 1, 1])
        assert moved.worst_case(x[order]).value == pytest.approx(problem.worst_case(x).value, rel=1e-4)
        assert moved.bound == pytest.approx(problem.bound, rel=1e-4)

    @pytest.mark.parametrize("scale", [1e-6, 1e6])
    def test_another_unit_of_money_scales_the_answer(self, scale):
        problem, x = knapsack(8, 3, spread=1.0), np.ones(8)
        money = {n: scale * np.asarray(getattr(problem, n)) for n in ("profit", "loss", "penalty")}
        other = replace(problem, **money).worst_case(x).value
        assert other == pytest.approx(scale * problem.worst_case(x).value, rel=1e-3)

    def test_plans_are_added_to_a_kept_program_as_to_a_new_one(self, monkeypatch):
        problem = knapsack(8, 3, spread=1.0)
        kept = problem.worst_case(np.ones(8)).value
        monkeypatch.setattr(_cuts.importlib.util, "find_spec", lambda name: None)
        assert problem.worst_case(np.ones(8)).value == pytest.approx(kept, rel=1e-4)

    def test_a_scenario_without_a_plan_is_named(self):
        @dataclass(frozen=True)
        class Short(TwoStageRobust):
            @property
            def uncertainty(self):
                return UncertaintySet([0.0], [2.0])

            @property
            def first_stage(self):
                return FirstStage.binary(1)

            def second_stage(self, xi):  # y + x >= xi, y <= 1
                one = np.ones((1, 1))
                return Recourse(np.ones(1), np.ones(1), -one, -one, -xi, np.ones(1), np.array([True]))

        worst = Short().worst_case([0.0])
        assert worst.value == math.inf
        assert worst.xi[0] > 1.0
        assert Short().worst_case([1.0]).value == pytest.approx(2.0)


class TestBound:
    @pytest.mark.parametrize("name", NAMES)
    def test_no_decision_is_below_it_by_enumeration(self, name):
        problem = made(name, 5) if name == "facility" else knapsack(5, 5, spread=1.0, budget=0.3)
        if name in ("budgeting", "loans"):
            problem = CapitalBudgeting.random(3, 5, factors=2, loans=name == "loans")
        first = problem.first_stage
        best = math.inf
        for bits in itertools.product((0.0, 1.0), repeat=len(problem.items)):
            x = np.zeros(problem.n)
            x[problem.items] = bits
            for loan in np.linspace(0, first.upper[-1], 4) if name == "loans" else (None,):
                if loan is not None:
                    x[-1] = loan
                if (first.A @ x <= first.b + 1e-9).all():
                    best = min(best, problem.worst_case(x).value)
        assert problem.bound <= best + 1.1e-3 * abs(best)
        assert problem.bound >= best - 0.2 * abs(best)


class TestUnits:
    @pytest.mark.parametrize(
        ("money", "weight"), [(1e-16, 1.0), (1e12, 1.0), (1.0, 1e-12), (1.0, 1e15), (1e9, 1e9)]
    )
    def test_decision_and_bound_of_a_knapsack_do_not_depend_on_them(self, money, weight):
        problem = knapsack(6, 0)
        units = {"weight": weight, "repair": weight, "capacity": weight}
        units |= dict.fromkeys(("profit", "loss", "penalty"), money)
        other = replace(
            problem,
            **{n: unit * np.asarray(getattr(problem, n)) for n, unit in units.items()}
            | {"capacity": weight * problem.capacity},
        )
        plain, found = (solve(p, RelaxedRecourse(), progress=False) for p in (problem, other))
        np.testing.assert_array_equal(found.x, plain.x)
        for name in ("cost", "bound"):
            assert found.metrics[name] == pytest.approx(money * plain.metrics[name], rel=1e-6)
        assert found.metrics["gap"] == pytest.approx(plain.metrics["gap"], abs=1e-6)

    @pytest.mark.parametrize("money", [1e-20, 1.0, 1e20])
    def test_gaps_are_shares_of_costs(self, money):
        problem = knapsack(6, 0)
        other = replace(
            problem, **{n: money * np.asarray(getattr(problem, n)) for n in ("profit", "loss", "penalty")}
        )
        gaps = [
            other.gap(money * cost, money * bound) for cost, bound in ((-4.0, -5.0), (0.0, -5.0), (5.0, 5.0))
        ]
        assert gaps == pytest.approx([0.2, 1.0, 0.0])
        assert other.gap(money * 1e-15, 0.0) < 0.01  # rounding
        assert other.gap(math.inf, 0.0) == math.inf

    @pytest.mark.parametrize("name", ["budgeting", "loans"])
    @pytest.mark.parametrize("money", [1e-10, 1e10])
    def test_nor_do_worst_cases_under_uncertain_rows(self, name, money):
        problem = made(name, 1)
        x = np.r_[1.0, 0, 0, 1.0, 0, 0, 0, np.zeros(int(problem.has_loans))]
        prices = {
            n: money * np.asarray(getattr(problem, n)) for n in ("cost", "revenue", "budget", "most_loan")
        }
        plain, found = (p.worst_case(x) for p in (problem, replace(problem, **prices)))
        assert found.value == pytest.approx(money * plain.value, rel=1e-3)
        assert found.rounds <= 2 * plain.rounds  # a tolerance of another unit branches on for ever

    @pytest.mark.parametrize(("goods", "money"), [(1e-9, 1.0), (1e9, 1.0), (1.0, 1e-9), (1.0, 1e9)])
    def test_nor_do_the_best_sites(self, goods, money):
        problem = FacilityLocation.random(3, 5, 0)
        units = dict.fromkeys(("capacity", "demand", "surge"), goods) | {"opening": goods * money}
        units |= dict.fromkeys(("shipping", "penalty"), money)
        other = replace(problem, **{n: unit * np.asarray(getattr(problem, n)) for n, unit in units.items()})
        plain, found = (solve(p, ColumnConstraint(), progress=False) for p in (problem, other))
        np.testing.assert_array_equal(found.x, plain.x)
        assert found.metrics["bound"] == pytest.approx(goods * money * plain.metrics["bound"], rel=1e-4)


class TestSets:
    @pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
    def test_units_of_scenarios_change_nothing(self, unit):
        widths = unit * np.array([1.0, 4.0, 0.5])
        rows, room = np.ones((1, 3)) / widths, np.array([1.2])
        here = UncertaintySet(np.zeros(3), np.ones(3), np.ones((1, 3)), room)
        there = UncertaintySet(np.zeros(3), widths, rows, room)
        np.testing.assert_allclose(there.centre, widths * here.centre)
        points = np.random.default_rng(0).random((50, 3))
        np.testing.assert_array_equal(there.contains(points * widths), here.contains(points))
        assert not there.contains(1.01 * widths * np.eye(3)).any()
        assert there.apart(points * widths, widths * points[3])[3] == 0.0
        np.testing.assert_allclose(there.apart(points * widths, 0.0), points.max(1))

    @pytest.mark.parametrize(
        "scenarios", [budget_set(6, 2.5), UncertaintySet([-1.0, 0.0], [1.0, 2.0], [[1.0, 1.0]], [1.5])]
    )
    def test_samples_moves_and_projections_are_inside(self, scenarios):
        import torch

        rng = np.random.default_rng(0)
        points = scenarios.sample(101, rng)
        assert points.shape == (101, scenarios.dimension)
        assert scenarios.contains(points).all()
        assert scenarios.contains(scenarios.moves(points[0])).all()
        far = torch.from_numpy(points[:5] + rng.standard_normal((5, scenarios.dimension)))
        assert scenarios.contains(scenarios.project(far).numpy() - 0.0).all()

    def test_half_the_samples_of_a_budget_are_vertices(self):
        points = budget_set(6, 2.5).sample(40, np.random.default_rng(1))
        ones = (points == 1).sum(1)
        parts = ((points > 0) & (points < 1)).sum(1)
        assert ((ones == 2) & (parts == 1)).sum() >= 20

    def test_all_vertices_of_a_budget(self):
        found = budget_set(4, 1.5).all_vertices(100)
        assert len(found) == 1 + 4 + 4 * 3
        assert budget_set(30, 10).all_vertices(1000) is None

    def test_an_empty_set_is_refused(self):
        with pytest.raises(
            InvalidProblem, match="UncertaintySet is empty: lower is 1 and upper 0 at coordinate 1"
        ):
            UncertaintySet([0.0, 1.0], [1.0, 0.0])
        with pytest.raises(InvalidProblem, match="no scenario between lower and upper"):
            UncertaintySet([0.0], [1.0], [[1.0]], [-1.0])

    @pytest.mark.parametrize("gamma", [-0.1, 5.1, math.nan])
    def test_a_budget_out_of_range_is_refused(self, gamma):
        with pytest.raises(InvalidProblem, match="0 <= gamma <= n = 5"):
            budget_set(5, gamma)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"repair": [1.0, -2.0]}, r"repair\[1\] is -2; expected >= 0"),
            ({"weight": [0.0, 1.0]}, r"weight\[0\] is 0; expected > 0"),
            ({"profit": [1.0]}, r"profit has shape \(1,\); expected \(2,\)"),
            ({"gamma": 3}, "0 <= gamma <= n = 2"),
            ({"capacity": -1}, "capacity >= 0"),
            ({"loss": [1j, 1.0]}, "complex"),
        ],
    )
    def test_a_knapsack_says_what_is_wrong(self, change, message):
        fine = {"weight": [1, 1], "profit": [1, 1], "loss": [1, 1], "penalty": [1, 1], "repair": [1, 1]}
        with pytest.raises(InvalidProblem, match=message):
            RobustKnapsack(**{**fine, "capacity": 1, "gamma": 1, **change})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"spread": 1.5}, "0 <= spread <= 1; got 1.5"),
            ({"spread": math.nan}, "0 <= spread <= 1; got nan"),
            ({"h": 200}, "0 <= h <= 101"),
            ({"budget": -0.1}, "0 <= budget <= 1"),
        ],
    )
    def test_settings_that_the_generator_does_not_have(self, options, message):
        with pytest.raises(InvalidParameter, match=message):
            RobustKnapsack.random(5, 0, **options)

    def test_a_scenario_of_another_length_is_refused(self):
        with pytest.raises(InvalidProblem, match=r"xi has shape \(1, 2\); expected \(count, 3\)"):
            budget_set(3, 1).contains([[0.0, 0.0]])

    def test_penalties_of_another_number_of_customers_are_refused(self):
        with pytest.raises(InvalidProblem, match=r"penalty has shape \(3,\); expected one number, or \(1,\)"):
            FacilityLocation([1.0], [1.0], [[1.0]], [4.0], [1.0], [1.0, 2.0, 3.0], 1)

    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ((2, [[1, 1, 1]], [1]), InvalidProblem, r"A has shape \(1, 3\); expected \(1, 2\)"),
            ((2, [[1, 1]], None), InvalidProblem, r"A has shape \(1, 2\); expected \(0, 2\)"),
            ((2, [[1, 1]], [math.nan]), NotFinite, "b holds 1 NaN"),
            ((0,), InvalidProblem, "lower is empty"),
        ],
    )
    def test_a_first_stage_that_is_none_is_refused(self, given, error, message):
        with pytest.raises(error, match=message):
            FirstStage.binary(*given)

    def test_flags_that_are_neither_true_nor_false_are_refused(self):
        with pytest.raises(
            InvalidProblem, match="FirstStage: integer holds something else than true and false"
        ):
            FirstStage([0, 0], [1, 1], [0.5, 1], np.zeros((0, 2)), [])

    @pytest.mark.parametrize(
        ("told", "message"),
        [
            (None, "second_stage gave NoneType; expected a Recourse"),
            (([1], [1], [[-1]], [[-1]], [0], [-2], [True]), "upper holds -2; expected >= 0"),
            (([1], [1], [[-1]], [[-1]], [0], [2], [0.5]), "integer holds something else"),
        ],
    )
    def test_a_second_stage_that_is_none_is_refused(self, told, message):
        @dataclass(frozen=True)
        class Own(OneDecision):
            def second_stage(self, xi):
                return told and Recourse(*told)

        with pytest.raises(InvalidProblem, match=message):
            Own().worst_case([1.0])

    def test_nan_is_refused(self):
        with pytest.raises(NotFinite, match="profit holds 1 NaN"):
            RobustKnapsack([1.0], [math.nan], [1], [1], [1], 1, 1)

    def test_capital_budgeting_refuses_prices_that_could_turn_negative(self):
        with pytest.raises(InvalidProblem, match="phi needs entries >= 0 and rows that sum to at most 1"):
            CapitalBudgeting([1.0], [1.0], [[3.0]], [[0.5]], 1.0)

    def test_facilities_refuse_negative_demand(self):
        with pytest.raises(InvalidProblem, match="demand holds -4"):
            FacilityLocation([1.0], [1.0], [[1.0]], [-4.0], [1.0], 1.0, 1)

    @pytest.mark.parametrize("has_limits", [True, False])
    @pytest.mark.parametrize("unit", [1e-150, 1e-10, 1.0, 1e10])
    def test_what_breaks_a_row_or_a_limit_is_refused_in_any_unit(self, unit, has_limits):
        """``x_1 + x_2 <= 2``, and ``0 <= x``, ``x <= 1.5`` or none, all times the unit."""

        class Money(OneDecision):
            @property
            def first_stage(self):
                upper = np.full(2, 1.5 * unit if has_limits else np.inf)
                rows, limits = np.ones((1, 2)), np.array([2.0 * unit])
                return FirstStage(np.zeros(2), upper, np.zeros(2, bool), rows, limits)

            def second_stage(self, xi):
                raise AssertionError("a first decision is judged without it")

        problem = Money()
        for x in ([1.0, 1.0], [1.0 + 1e-9, 1.0], [0.0, 0.0], [0.5, 1.5]):
            np.testing.assert_allclose(
                problem.answer(unit * np.array(x)), unit * np.array(x), atol=1e-8 * unit
            )
        for x, message in (([1.4, 0.7], "breaks row 0"), ([-0.1, 0.5], "out of its bounds")):
            with pytest.raises(InvalidProblem, match=message):
                problem.answer(unit * np.array(x))

    @pytest.mark.parametrize(
        ("x", "message"),
        [([0.5, 1], "x\\[0\\] = 0.5 is no whole"), ([2, 1], "out of its bounds"), ([1], "shape")],
    )
    def test_an_answer_out_of_the_first_stage_is_refused(self, x, message):
        problem = RobustKnapsack([1, 1], [1, 1], [1, 1], [1, 1], [1, 1], 1, 1)
        with pytest.raises(InvalidProblem, match=message):
            problem.worst_case(x)

    def test_a_second_stage_that_is_not_affine_is_refused(self):
        @dataclass(frozen=True)
        class Bent(OneDecision):
            def second_stage(self, xi):
                one = np.ones((1, 1))
                return Recourse(np.ones(1), xi**2, -one, -one, np.zeros(1), np.ones(1), np.array([True]))

        with pytest.raises(InvalidProblem, match=r"Bent.second_stage: d is not affine in xi"):
            Bent().worst_case([1.0])
