"""Methods for two-stage problems against enumeration and each other, their bounds, resumes and refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from thalweg import Checkpoint, Status, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, MissingExtra, NotFinite, UnknownName, recommended
from thalweg.robust import (
    CapitalBudgeting,
    Certified,
    ColumnConstraint,
    FacilityLocation,
    KAdaptable,
    NeuralCCG,
    Nominal,
    RelaxedRecourse,
    RobustKnapsack,
    StaticRobust,
)
from thalweg.robust.baselines import _decided
from thalweg.robust.milp import Model
from thalweg.robust.programs import Decision


def knapsack(n=6, seed=1):
    return RobustKnapsack.random(n, seed, spread=1.0, budget=0.3)


def run(problem, method, **options):
    return solve(problem, method, progress=False, **options)


def best_by_enumeration(problem):
    corners = itertools.product((0.0, 1.0), repeat=problem.n)
    return min(problem.worst_case(np.array(x)).value for x in corners)


class TestAgainstEnumeration:
    def test_the_exact_loop_finds_the_best_facilities(self):
        problem = FacilityLocation.random(4, 6, seed=2)
        result = run(problem, ColumnConstraint())
        assert result.converged
        assert result.metrics["cost"] == pytest.approx(best_by_enumeration(problem), rel=2e-4)
        assert result.metrics["gap"] <= 2e-4

    @pytest.mark.parametrize("seed", [1, 2])
    def test_bound_certified_and_static_stand_in_their_order_around_the_best_knapsack(self, seed):
        problem = knapsack(6, seed)
        best = best_by_enumeration(problem)
        relaxed, static = run(problem, RelaxedRecourse()), run(problem, StaticRobust())
        certified = run(problem, Certified())
        edge = 2e-4 * abs(best)
        assert relaxed.history["program_bound"][-1] <= best + edge
        assert best - edge <= certified.metrics["cost"]
        assert certified.metrics["cost"] <= min(r.metrics["cost"] for r in (relaxed, static)) + edge
        assert static.metrics["cost"] <= static.history["value"][-1] + edge

    def test_more_plans_are_no_worse_and_one_is_the_static_one(self):
        problem = knapsack(5, 3)
        best = best_by_enumeration(problem)
        values = [run(problem, KAdaptable(K), stop=Stop(steps=60)).history["value"][-1] for K in (1, 2, 3)]
        static = run(problem, StaticRobust()).history["value"][-1]
        edge = 2e-3 * abs(best)
        assert values[0] == pytest.approx(static, abs=edge)
        assert values[1] <= values[0] + edge
        assert values[2] <= values[1] + edge
        assert best <= values[2] + edge

    def test_two_plans_for_uncertain_rows_are_no_better_than_all(self):
        problem = CapitalBudgeting.random(4, 0, factors=2)
        result = run(problem, KAdaptable(2), stop=Stop(steps=40))
        cost = problem.worst_case(result.x).value
        assert problem.bound - 2e-3 <= cost <= result.history["value"][-1] + 2e-3 * abs(cost)


class TestEnds:
    def test_without_losses_all_find_the_nominal_value(self):
        problem = replace(knapsack(), gamma=0)
        costs = [run(problem, m).metrics["cost"] for m in (Nominal(), StaticRobust(), RelaxedRecourse())]
        assert costs[0] == pytest.approx(costs[1], rel=2e-4)
        assert costs[0] <= costs[2] + 1e-6
        assert costs[0] == pytest.approx(best_by_enumeration(problem), rel=2e-4)

    def test_with_all_losses_static_is_exact(self):
        problem = replace(knapsack(), gamma=6)
        cost = run(problem, StaticRobust()).metrics["cost"]
        assert cost == pytest.approx(best_by_enumeration(problem), rel=2e-4)

    def test_a_scenario_that_comes_again_ends_the_loop(self):
        result = run(RobustKnapsack.random(20, 9), NeuralCCG(seconds=20))
        assert result.status in (Status.CONVERGED, Status.EXHAUSTED)
        assert "agree" in result.message or "come again" in result.message or "scenarios" in result.message
        assert (np.diff(result.history["scenarios"]) >= 0).all()

    def test_capital_budgeting_is_decided_within_its_budget(self):
        problem = CapitalBudgeting.random(10, 3)
        method = NeuralCCG()
        state = method.step(problem, method.init(problem, 0))
        dearest_cost = float((1.5 * np.asarray(problem.cost)) @ state.x)  # rows of phi sum to one
        assert dearest_cost <= problem.budget * (1 + 1e-6)
        assert state.x.sum() >= 1

    def test_a_loop_that_is_taken_up_again_goes_the_same_way(self, tmp_path):
        problem, method = FacilityLocation.random(5, 6, seed=4), ColumnConstraint()
        whole = run(problem, method)
        run(problem, method, stop=Stop(steps=1), callbacks=[Checkpoint(tmp_path / "run", every=1)])
        again = run(problem, method, resume=tmp_path / "run")
        assert again.steps == whole.steps
        np.testing.assert_array_equal(again.x, whole.x)

    def test_certified_goes_on_from_a_file(self, tmp_path):
        problem = knapsack(6)
        whole = run(problem, Certified())
        run(problem, Certified(), stop=Stop(steps=1), callbacks=[Checkpoint(tmp_path / "run", every=1)])
        again = run(problem, Certified(), resume=tmp_path / "run")
        np.testing.assert_array_equal(again.x, whole.x)
        assert again.message == whole.message

    def test_what_is_recommended_fits_the_recourse(self):
        assert isinstance(recommended(knapsack()), Certified)
        assert isinstance(recommended(FacilityLocation.random(2, 2, seed=0)), ColumnConstraint)


class TestRefusals:
    def test_relaxed_recourse_under_uncertain_rows(self):
        with pytest.raises(
            InvalidProblem, match="RelaxedRecourse needs uncertain costs only; CapitalBudgeting has"
        ):
            run(CapitalBudgeting.random(3, 0), RelaxedRecourse())

    def test_few_plans_of_a_continuous_recourse(self):
        with pytest.raises(InvalidProblem, match="KAdaptable needs whole plans; those of FacilityLocation"):
            run(FacilityLocation.random(2, 2, seed=0), KAdaptable())

    def test_a_network_that_is_a_name(self):
        with pytest.raises(InvalidProblem, match="network is a str; expected a ValueNetwork"):
            solve(RobustKnapsack.random(5, 0), NeuralCCG("knapsack"))

    def test_no_network_for_a_class(self):
        class Sites(FacilityLocation):
            """A class of one's own."""

        with pytest.raises(InvalidProblem, match=r"No network is shipped for Sites\. Train one"):
            run(Sites.random(2, 2, seed=0), NeuralCCG())

    @pytest.mark.parametrize(
        "make",
        [
            lambda: NeuralCCG(form="min"),
            lambda: NeuralCCG(seconds=0),
            lambda: KAdaptable(0),
            lambda: ColumnConstraint(tol=-1),
            lambda: Certified(most_scenarios=0),
        ],
    )
    def test_options_out_of_range(self, make):
        with pytest.raises(InvalidParameter):
            make()

    def test_an_empty_first_stage(self):
        problem = replace(CapitalBudgeting.random(3, 0), budget=0.0)
        assert run(problem, Nominal()).x.sum() == 0

    def test_a_time_limit_is_told_with_the_bound(self):
        found = Decision(np.ones(6), np.zeros((1, 12)), -2.0, -3.0, True)
        state = _decided(knapsack(), found, "the static problem")
        assert state.status is Status.EXHAUSTED
        assert state.message == "Time limit; the static problem is between -3 and -2."

    def test_no_time_for_a_first_decision(self):
        with pytest.raises(
            InvalidProblem, match="the static problem ran out of time before its first decision"
        ):
            _decided(
                knapsack(), Decision(None, np.zeros((0, 0)), np.inf, -np.inf, True), "the static problem"
            )


class TestPrograms:
    def knapsack(self):
        model = Model()
        x = model.columns(6, 0.0, 1.0, integer=True, cost=[-5, -4, -3, -7, -6, -9.5])
        model.rows([(x, [[2, 3, 1, 5, 4, 7]])], upper=10)
        return model

    def test_both_ways_to_highs_agree(self):
        values = [self.knapsack().minimize(solver).value for solver in ("highs", "scipy", "auto")]
        assert values == pytest.approx([-18.0] * 3)  # 5 + 4 + 3 + 6, of weight 10

    def test_infeasible_and_unbounded_are_told(self):
        for solver in ("highs", "scipy"):
            model = Model()
            model.rows([(model.columns(1, 0.0, 1.0), [[1.0]])], lower=2.0)
            assert model.minimize(solver).status == "infeasible"
            free = Model()
            free.columns(1, cost=-1.0)
            assert free.minimize(solver).status == "unbounded"

    def test_scip_agrees_with_highs(self):
        pytest.importorskip("pyscipopt")
        assert self.knapsack().minimize("scip").value == pytest.approx(-18.0)
        model, free = Model(), Model()
        model.rows([(model.columns(1, 0.0, 1.0), [[1.0]])], lower=2.0)
        found = model.minimize("scip")
        assert found.status == "infeasible"
        assert found.x is None
        free.columns(1, lower=-np.inf, cost=-1.0)
        assert free.minimize("scip").status == "unbounded"
        problem = RobustKnapsack.random(8, seed=3)
        values = [solve(problem, RelaxedRecourse(solver=s)).metrics["cost"] for s in ("scip", "auto")]
        assert values[0] == pytest.approx(values[1], rel=1e-3)

    def test_scip_out_of_time_has_no_bound_that_is_a_number_of_its_own(self):
        pytest.importorskip("pyscipopt")
        found = self.knapsack().minimize("scip", seconds=0.0)
        assert found.bound <= -18.0
        assert not 1e19 < abs(found.bound) < np.inf

    @pytest.mark.parametrize("scale", [1e-14, 1e-9, 1e16, 1e25])
    def test_coefficients_and_costs_may_have_any_size(self, scale):
        for solver in ("highs", "scipy"):
            for in_row, in_cost in ((scale, 1.0), (1.0, scale)):
                model = Model()
                x = model.columns(2, 0.0, 10.0, integer=True, cost=-in_cost * np.ones(2))
                model.rows([(x, [[in_row, in_row]])], upper=4.5 * in_row)
                found = model.minimize(solver)
                assert found.value / in_cost == pytest.approx(-4.0)
                assert found.bound / in_cost == pytest.approx(-4.0, rel=1e-5)

    def test_a_program_with_nan_is_refused(self):
        for entry, cost in ((np.nan, 1.0), (1.0, np.nan), (np.inf, 1.0)):
            model = Model()
            model.rows([(model.columns(1, 0.0, 1.0, cost=cost), [[entry]])], upper=1.0)
            with pytest.raises(NotFinite, match="a coefficient that is NaN or infinite"):
                model.minimize()

    def test_an_unknown_solver_and_one_that_is_not_there_are_refused(self, monkeypatch):
        with pytest.raises(UnknownName, match=r"No solver 'high'. Did you mean 'highs'"):
            self.knapsack().minimize("high")
        monkeypatch.setitem(__import__("sys").modules, "highspy", None)
        with pytest.raises(MissingExtra, match=r'highspy is not installed. pip install "thalweg\[milp\]"'):
            self.knapsack().minimize("highs")
        monkeypatch.setitem(__import__("sys").modules, "pyscipopt", None)
        with pytest.raises(MissingExtra, match=r"thalweg\[scip\]"):
            self.knapsack().minimize("scip")
