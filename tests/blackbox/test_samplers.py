"""Samplers as methods: their points, their seeds, what fails; and the regret of a function whose optimum is known."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg import Stop, solve
from thalweg.blackbox import (
    BayesianOptimization,
    BlackBox,
    Categorical,
    EvaluationFailed,
    Integer,
    OptunaSampling,
    Real,
    Space,
    SpaceFilling,
)
from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, Status, contestant

MIXED = {
    "rate": Real(1e-4, 1.0, log=True),
    "kind": Categorical(["a", "b", "c"]),
    "size": Integer(1, 64, log=True),
    "depth": Integer(2, 5, when={"kind": ("b", "c")}),
    "shift": Real(-3.0, -1.0, when={"kind": "c"}),
}
LINE = {"x": Real(-2.0, 2.0)}


def every_sampler():
    samplers = optuna.samplers
    theirs = [samplers.RandomSampler, samplers.TPESampler, samplers.QMCSampler]
    return [
        SpaceFilling(),
        SpaceFilling("lhs"),
        BayesianOptimization(initial=4),
        *map(OptunaSampling, theirs),
    ]


def visited(method, space=MIXED, steps=25, seed=0, function=None):
    """All points that a method evaluates, and the run."""
    seen = []

    def f(point):
        seen.append(dict(point))
        return function(point) if function else math.log10(point["rate"]) ** 2 + point["size"] / 64

    result = solve(BlackBox(f, space), method, stop=Stop(steps=steps), seed=seed)
    return seen[:steps], result  # the last evaluation is the judge's


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Optuna warns that some of its samplers are experimental, or fall back to random for categories."""


@pytest.mark.parametrize("method", every_sampler(), ids=lambda m: m.name)
class TestEverySampler:
    def test_its_points_lie_in_the_space_and_have_just_the_parameters_that_matter(self, method):
        points, result = visited(method)
        assert len(points) == result.calls == 25
        for p in points:
            assert 1e-4 <= p["rate"] <= 1.0
            assert p["kind"] in ("a", "b", "c")
            assert isinstance(p["size"], int)
            assert 1 <= p["size"] <= 64
            expected = {"rate", "kind", "size"} | {"a": set(), "b": {"depth"}, "c": {"depth", "shift"}}[
                p["kind"]
            ]
            assert set(p) == expected
            assert p.get("depth", 2) in (2, 3, 4, 5)
            assert -3.0 <= p.get("shift", -2.0) <= -1.0
        assert {p["kind"] for p in points} == {"a", "b", "c"}

    def test_a_seed_makes_it_repeatable_and_another_differs(self, method):
        points, _ = visited(method, steps=12)
        assert visited(method, steps=12)[0] == points
        assert visited(method, steps=12, seed=1)[0] != points

    def test_failures_are_passed_over_and_told(self, method):
        def f(point):
            if point["x"] < 0:
                raise EvaluationFailed("negative")
            return math.nan if point["x"] > 1.5 else point["x"]

        points, result = visited(method, LINE, 20, function=f)
        good = [p["x"] for p in points if 0 <= p["x"] <= 1.5]
        assert 0 < len(good) < 20
        assert result.status is Status.EXHAUSTED
        assert 0 <= result.x["x"] <= 1.5
        assert result.history["best"][-1] == min(good)
        told = result.history["value"]
        assert np.isnan(told).sum() == 20 - len(good)  # a failed evaluation reports no value

    def test_where_all_fail_there_is_no_answer_and_the_last_reason(self, method):
        problem = BlackBox(lambda p: 1.0 / 0.0, LINE)
        states = []
        result = solve(problem, method, stop=Stop(steps=7), callbacks=[lambda run: states.append(run.state)])
        assert result.x is None
        assert result.metrics == {}
        assert states[-1].message == "No trial has succeeded. Trial 6 failed: float division by zero."
        assert result.message == f"7 steps done. {states[-1].message}"

    def test_a_failing_last_look_keeps_the_best_of_the_trials(self, method):
        calls = []

        def licensed(point):
            calls.append(point["x"])
            if len(calls) > 6:
                raise EvaluationFailed("licence expired")
            return point["x"] ** 2

        result = solve(BlackBox(licensed, LINE), method, stop=Stop(calls=6))
        assert len(calls) == 7  # the judge's own look is one more
        assert abs(result.x["x"]) == min(map(abs, calls[:6]))
        assert result.metrics == {}
        assert result.history["best"][-1] == result.x["x"] ** 2

    def test_a_first_success_takes_the_word_of_failure_back(self, method):
        calls = []

        def late(point):
            calls.append(point)
            return 1.0 / max(len(calls) - 3, 0)

        result = solve(BlackBox(late, LINE), method, stop=Stop(steps=7))
        assert result.message == "7 steps done."

    def test_an_error_of_the_users_code_leaves_with_the_best_answer(self, method):
        def f(point, calls=[0]):  # noqa: B006 -- counts
            calls[0] += 1
            if calls[0] == 6:
                raise KeyError("y")
            return point["x"] ** 2

        with pytest.raises(KeyError) as caught:
            solve(BlackBox(f, LINE), method, stop=Stop(steps=9))
        assert caught.value.result.x is not None
        assert caught.value.result.calls == 5

    def test_maximising_takes_the_largest(self, method):
        result = solve(BlackBox(lambda p: p["x"], LINE, "maximize"), method, stop=Stop(steps=10))
        assert result.history["best"][-1] == max(result.history["value"])


class TestSpaceFilling:
    @given(st.integers(0, 1000), st.sampled_from(["sobol", "lhs"]))
    def test_a_block_is_spread_evenly(self, seed, kind):
        """Of 64 points of a Latin hypercube or a scrambled Sobol sequence, one lies in each 64th of an axis."""
        points, _ = visited(
            SpaceFilling(kind), {"x": Real(0, 1), "y": Real(0, 1)}, 64, seed, lambda p: p["x"]
        )
        for name in "xy":
            assert sorted(int(64 * p[name]) for p in points) == list(range(64))

    def test_blocks_differ(self):
        points, _ = visited(SpaceFilling(), LINE, 130, function=lambda p: p["x"])
        assert len({p["x"] for p in points}) == 130

    def test_what_came_out_changes_nothing(self):
        one, _ = visited(SpaceFilling(), LINE, 20, function=lambda p: p["x"])
        other, _ = visited(SpaceFilling(), LINE, 20, function=lambda p: -p["x"])
        assert one == other

    def test_known_constraints_are_kept(self):
        space = Space({"x": Real(0, 1), "y": Real(0, 1)}, allowed=lambda p: p["x"] + p["y"] <= 1)
        points, _ = visited(SpaceFilling(), space, 40, function=lambda p: p["x"])
        assert all(p["x"] + p["y"] <= 1 for p in points)

    def test_resuming_gives_the_same_points(self, tmp_path):
        problem = BlackBox(lambda p: (p["x"] - 0.7) ** 2, LINE)
        whole = solve(problem, SpaceFilling(), stop=Stop(steps=70))
        solve(problem, SpaceFilling(), stop=Stop(steps=30), callbacks=[Checkpoint(tmp_path / "c", every=1)])
        rest = solve(problem, SpaceFilling(), stop=Stop(steps=70), resume=tmp_path / "c")
        assert rest.x == whole.x
        assert rest.history["value"].tolist() == whole.history["value"].tolist()

    def test_other_kinds_are_refused(self):
        with pytest.raises(InvalidParameter, match="'sobol' or 'lhs'"):
            visited(SpaceFilling("grid"), LINE, 1)


class TestOptuna:
    def test_the_points_are_those_of_optuna_itself(self):
        points, _ = visited(
            OptunaSampling(optuna.samplers.TPESampler), LINE, 30, 5, lambda p: (p["x"] - 1) ** 2
        )
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=5))
        study.optimize(lambda t: (t.suggest_float("x", -2.0, 2.0) - 1) ** 2, n_trials=30)
        assert [p["x"] for p in points] == [t.params["x"] for t in study.trials]

    def test_tpe_learns_from_what_it_is_told(self):
        method = OptunaSampling(optuna.samplers.TPESampler)
        points, _ = visited(method, LINE, 60, function=lambda p: (p["x"] - 1) ** 2)
        late = np.mean([abs(p["x"] - 1) for p in points[40:]])
        assert late < 0.5 * 1.25  # the mean of |x - 1| for x uniform in [-2, 2]

    def test_known_constraints_are_refused(self):
        space = Space(LINE, allowed=lambda p: p["x"] > 0)
        with pytest.raises(InvalidProblem, match="no constraints on the space"):
            solve(BlackBox(lambda p: p["x"], space), OptunaSampling(optuna.samplers.RandomSampler))

    def test_a_samplers_class_stands_for_a_method_and_nothing_else_does(self):
        problem = BlackBox(lambda p: p["x"], LINE)
        method = contestant(problem, optuna.samplers.RandomSampler)
        assert isinstance(method, OptunaSampling)
        assert method.name == "RandomSampler"
        with pytest.raises(InvalidParameter, match="classes of Optuna's samplers; got 'tpe'"):
            contestant(problem, "tpe")


class TestRegret:
    @pytest.mark.parametrize(("direction", "sign"), [("minimize", 1.0), ("maximize", -1.0)])
    def test_it_is_how_far_the_best_is_from_the_optimum(self, direction, sign):
        problem = BlackBox(lambda p: sign * (3.0 + (p["x"] - 0.5) ** 2), LINE, direction, optimum=sign * 3.0)
        result = solve(problem, SpaceFilling(), stop=Stop(steps=30))
        told, best, regret = (result.history[name] for name in ("value", "best", "regret"))
        np.testing.assert_allclose(best, sign * np.minimum.accumulate(sign * told))
        np.testing.assert_allclose(regret, np.abs(best - sign * 3.0))
        assert (np.diff(regret) <= 0).all()
        assert result.metrics["regret"] == pytest.approx((result.x["x"] - 0.5) ** 2)

    def test_it_may_end_a_run(self):
        problem = BlackBox(lambda p: (p["x"] - 0.5) ** 2, LINE, optimum=0.0)
        result = solve(
            problem, BayesianOptimization(noise="none"), stop=Stop(below={"regret": 1e-3}, steps=40)
        )
        assert result.status is Status.CONVERGED
        assert result.metrics["regret"] <= 1e-3

    def test_without_an_optimum_none_is_told(self):
        result = solve(BlackBox(lambda p: p["x"], LINE), SpaceFilling(), stop=Stop(steps=3))
        assert "regret" not in result.metrics
        assert "regret" not in result.history.names

    def test_an_optimum_that_is_no_number_is_refused(self):
        with pytest.raises(InvalidParameter, match="finite optimum; got nan"):
            BlackBox(lambda p: p["x"], LINE, optimum=math.nan)
        with pytest.raises(InvalidParameter, match="'minimize' or 'maximize'; got 'up'"):
            BlackBox(lambda p: p["x"], LINE, "up")


def test_the_shortest_call_spends_fifty_evaluations():
    result = solve(BlackBox(lambda p: (p["x"] - 0.5) ** 2, LINE))
    assert result.status is Status.EXHAUSTED
    assert result.calls == 50
    assert result.metrics["value"] < 1e-4
