"""Comparisons and performance profiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.dummy import DummyRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from torch import nn

from thalweg.blackbox import BayesianOptimization, BlackBox, Real, SpaceFilling
from thalweg.core import InvalidParameter, InvalidProblem, Method, NotFinite, Problem, State, Stop
from thalweg.datasets import FittingTask
from thalweg.linear import GMRES, SOR, SSORCG, ConjugateGradient, LinearSystem
from thalweg.numerics import FivePointStencil
from thalweg.online import ChebCB, LossTable, Policy, TsallisINF
from thalweg.training import REX, Lion, TrainingTask
from thalweg.workbench import compare, performance_profile

STOP = Stop(below={"residual": 1e-8}, steps=300)


@pytest.fixture
def problems():
    rng = np.random.default_rng(0)
    return {
        f"grid {n}": LinearSystem(FivePointStencil(n, n).to_csr(), rng.standard_normal(n * n))
        for n in (5, 10, 15)
    }


class TestCompare:
    def test_there_is_a_row_for_every_problem_method_and_seed(self, problems):
        found = compare(problems, [SOR(omega=1.5), SSORCG()], stop=STOP, seeds=(0, 1))
        assert len(found.rows) == 3 * 2 * 2
        assert set(found.to_frame()["method"]) == {"SOR()", "SSORCG()"}
        assert len(found.summary()) == 6

    def test_every_answer_is_judged_by_the_problem(self, problems):
        found = compare(problems, {"sor": SOR(omega=1.7)}, stop=STOP)
        for row, result in zip(found.rows, found.results, strict=True):
            assert row["residual"] == problems[row["problem"]].metrics(result.x)["residual"]

    def test_a_method_that_refuses_is_a_row_that_says_why(self):
        found = compare(
            LinearSystem(np.array([[2.0, 1.0], [0.0, 2.0]]), np.ones(2)),
            {"cg": ConjugateGradient(), "sor": SOR()},
            stop=STOP,
        )
        assert found.rows[0]["status"].startswith("refused: A is not symmetric")
        assert found.rows[1]["status"] == "converged"
        assert found.costs()["methods"]["cg"] == [np.inf]

    def test_the_page_has_table_curves_and_profile(self, problems, tmp_path):
        page = (
            compare(problems, [SOR(omega=1.5), SSORCG()], stop=STOP).report(tmp_path / "c.html").read_text()
        )
        for words in (
            "grid 10: residual over steps",
            "grid 10: residual over time",
            "Performance profile",
            "SSORCG()",
            "Plotly.react",
        ):
            assert words in page

    def test_curves_over_seconds_have_the_times_of_the_history(self, problems):
        found = compare(problems["grid 5"], {"sor": SOR()}, stop=STOP)
        (figure,) = found.curves(by="seconds")
        assert figure.series[0].x[-1] == found.results[0].history.seconds[-1]

    @pytest.mark.parametrize(
        ("methods", "seeds", "message"),
        [
            ([SOR(), SOR()], (0,), "same name"),
            ([], (0,), "at least one problem and one contestant"),
            ([SOR()], (), "at least one seed"),
        ],
    )
    def test_bad_input_is_refused(self, problems, methods, seeds, message):
        with pytest.raises(InvalidParameter, match=message):
            compare(problems, methods, seeds=seeds)


@dataclass(frozen=True)
class Descending(Problem):
    """Any number, the smaller the better."""

    objective: ClassVar[str | None] = "loss"

    def metrics(self, x):
        return {"loss": float(x)}


@dataclass(frozen=True)
class Breaking(Method[Descending, State]):
    error: type[Exception] | None = None
    at: int = 3

    def init(self, problem, seed):
        if self.at == 0:
            raise self.error("at once")
        return State(x=1.0, metrics={"loss": 1.0})

    def step(self, problem, state):
        x = state.x / 2
        if self.error is not None and x < 2.0 ** -(self.at - 1):
            raise self.error("on the way")
        return State(x=x, metrics={"loss": x})


class TestTrouble:
    @pytest.mark.parametrize("error", [ValueError, KeyError, ZeroDivisionError, RuntimeError, InvalidProblem])
    def test_one_that_raises_is_a_row_with_the_best_answer_and_the_others_go_on(self, error):
        found = compare(Descending(), {"a": Breaking(error), "b": Breaking()}, stop=Stop(steps=10))
        broken, whole = found.rows
        assert broken["status"].startswith("failed: ")
        assert "on the way" in broken["status"]
        assert (broken["steps"], broken["loss"]) == (2, 0.25)
        assert (whole["status"], whole["loss"]) == ("exhausted", 2.0**-10)

    def test_nan_on_the_way_is_divergence_with_steps_and_answer(self):
        (row,) = compare(Descending(), {"a": Breaking(NotFinite)}, stop=Stop(steps=10)).rows
        assert (row["status"], row["steps"], row["loss"]) == ("diverged", 2, 0.25)

    @pytest.mark.parametrize("error", [ValueError, InvalidProblem])
    def test_one_that_raises_before_any_step_is_refused(self, error):
        (row,) = compare(Descending(), {"a": Breaking(error, at=0)}).rows
        assert row["status"].startswith("refused: ")
        assert np.isnan(row["steps"])

    def test_calls_are_not_a_number_for_methods_that_count_none(self):
        system = LinearSystem(np.array([[4.0, 1.0], [1.0, 3.0]]), np.ones(2))
        sor, cg, gmres = compare(system, [SOR(), ConjugateGradient(), GMRES()]).rows
        assert np.isnan(sor["calls"])
        assert cg["calls"] == 2
        assert 2 <= gmres["calls"] <= 4


class TestConventions:
    """Each field's own contestants, in one table."""

    def test_optimizers_on_a_training_task(self):
        data = torch.randn(64, 5), torch.randint(0, 3, (64,))
        task = TrainingTask(lambda: nn.Linear(5, 3), data, data, steps=12)
        entrants = [torch.optim.SGD, (torch.optim.AdamW, {"lr": 0.01}), (Lion, {"lr": 1e-3}, REX)]
        found = compare(task, entrants, seeds=(0, 1))
        assert {row["steps"] for row in found.rows} == {12}
        assert [row["method"] for row in found.rows][::2] == [
            "SGD()",
            "AdamW(lr=0.01)",
            "Lion(lr=0.001) + REX",
        ]
        assert all(np.isfinite(row["test_loss"]) for row in found.rows)

    def test_estimators_on_a_data_set(self, tmp_path):
        X, y = load_diabetes(return_X_y=True)
        task = FittingTask(X, y, scores={"error": lambda e, X, y: float(np.abs(e.predict(X) - y).mean())})
        entrants = {
            "ridge": Ridge(1e-3),
            "mean": DummyRegressor(),
            "broken": Ridge(-1.0),
            "forest": RandomForestRegressor(10),
        }
        found = compare(task, entrants, seeds=(0, 1))
        rows = {(row["method"], row["seed"]): row for row in found.rows}
        fit, judge = task.rows()
        mine = Ridge(1e-3).fit(X[fit], y[fit])
        assert rows["ridge", 0]["score"] == pytest.approx(mine.score(X[judge], y[judge]), rel=1e-12)
        assert rows["ridge", 0]["error"] == pytest.approx(np.abs(mine.predict(X[judge]) - y[judge]).mean())
        assert rows["mean", 0]["score"] <= 0.0
        assert "alpha" in rows["broken", 0]["status"]
        assert rows["forest", 0]["score"] != rows["forest", 1]["score"]
        assert set(fit) | set(judge) == set(range(len(y)))
        assert "ridge" in found.report(tmp_path / "p.html").read_text(encoding="utf-8")

    def test_the_estimator_itself_is_left_as_it_was(self):
        ridge = Ridge()
        compare(FittingTask(np.eye(8), np.arange(8.0)), [ridge])
        assert not hasattr(ridge, "coef_")

    def test_samplers_on_a_black_box_by_regret(self):
        optuna = pytest.importorskip("optuna")
        box = BlackBox(lambda p: (p["x"] - 0.3) ** 2, {"x": Real(0.0, 1.0)}, optimum=0.0)
        entrants = {
            "bo": BayesianOptimization(noise="none"),
            "sobol": SpaceFilling(),
            "lhs": SpaceFilling("lhs"),
            "tpe": optuna.samplers.TPESampler,
        }
        found = compare(box, entrants, stop=Stop(calls=12))
        for row, result in zip(found.rows, found.results, strict=True):
            regret = result.history["regret"]
            assert (row["calls"], len(regret)) == (12, 12)
            assert (np.diff(regret) <= 0).all()
            assert row["value"] == pytest.approx(regret[-1], abs=1e-12 if row["method"] != "bo" else 1.0)
        assert found.results[0].history["regret"][-1] < 1e-4

    def test_policies_on_decisions_by_regret(self):
        rng = np.random.default_rng(0)
        table = LossTable(rng.random((400, 3)) + np.array([0.0, 0.4, 0.4]))
        found = compare(table, {"learns": TsallisINF(3), "third": OnlyArm(3, 2)}, seeds=(0, 1))
        rows = {(row["method"], row["seed"]): row for row in found.rows}
        for seed in (0, 1):
            assert rows["third", seed]["regret"] == pytest.approx(
                float((table.losses[:, 2] - table.losses[:, 0]).sum())
            )
            assert rows["learns", seed]["regret"] < 0.5 * rows["third", seed]["regret"]
        for row, result in zip(found.rows, found.results, strict=True):
            assert result.history["regret"][-1] == pytest.approx(row["regret"])

    @pytest.mark.parametrize(
        ("problem", "entrant", "message"),
        [
            (LinearSystem(np.eye(2), np.ones(2)), Ridge(), "LinearSystem is compared by methods"),
            (FittingTask(np.eye(8), np.arange(8.0)), SOR(), None),
            (FittingTask(np.eye(8), np.arange(8.0)), Ridge, "compared by estimators"),
            (LossTable([[1.0, 0.0]]), Ridge(), "compared by policies"),
            (BlackBox(lambda p: 0.0, {"x": Real(0.0, 1.0)}), Ridge(), "compared by methods and by classes"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, problem, entrant, message):
        if message is None:
            assert compare(problem, [entrant]).rows[0]["status"].startswith("refused")
        else:
            with pytest.raises(InvalidParameter, match=message):
                compare(problem, [entrant])

    @pytest.mark.parametrize(
        ("losses", "error", "message"),
        [
            ([[0.1, -0.2]], InvalidProblem, "arm 1 in round 0 is -0.2, below zero"),
            ([[0.1, np.nan]], NotFinite, "losses holds 1 NaN"),
            ([], InvalidProblem, r"expected \(rounds, arms\)"),
        ],
    )
    def test_losses_that_are_none_are_refused(self, losses, error, message):
        with pytest.raises(error, match=message):
            LossTable(losses)

    def test_a_policy_for_another_number_of_arms_or_without_its_context_is_refused(self):
        rows = compare(LossTable([[1.0, 0.0]]), {"a": TsallisINF(3), "b": ChebCB(2, 0.0, 1.0)}).rows
        assert "has 3 arms; the table has 2" in rows[0]["status"]
        assert "needs a context" in rows[1]["status"]

    @pytest.mark.parametrize(
        ("X", "y", "share", "message"),
        [
            (np.eye(3), np.ones(2), 0.25, "X has 3 rows and y 2 values"),
            (np.eye(3), np.ones(3), 1.0, "test_share in"),
            (np.eye(1), np.ones(1), 0.25, "too few to split"),
        ],
    )
    def test_data_that_cannot_be_split_are_refused(self, X, y, share, message):
        with pytest.raises(
            InvalidProblem if "test_share" not in message else InvalidParameter, match=message
        ):
            FittingTask(X, y, test_share=share)


class OnlyArm(Policy):
    """Plays one arm whatever happens."""

    def __init__(self, arms, arm):
        super().__init__(arms)
        self.arm = arm

    def _distribution(self, context):
        return np.eye(self.arms)[self.arm]

    def _update(self, arm, loss):
        pass


class TestWinners:
    def test_only_who_converged_on_every_seed_can_win(self, problems):
        found = compare(
            problems,
            {"few": SOR(omega=0.3), "cg": ConjugateGradient()},
            stop=Stop(below={"residual": 1e-8}, steps=100),
        )
        assert {row["first"] for row in found.winners()} == {"cg"}
        nobody = compare(
            problems["grid 5"], {"few": SOR(omega=0.3)}, stop=Stop(below={"residual": 1e-8}, steps=4)
        )
        assert nobody.winners()[0]["first"] == "nobody converged on every seed"
        assert "steps=4" in nobody.rule()

    def test_a_profile_is_drawn_of_several_problems_only(self, problems):
        one = compare(problems["grid 5"], [SOR()], stop=STOP)
        assert all("profile" not in figure.title for figure in one.figures())
        assert any("profile" in figure.title for figure in compare(problems, [SOR()], stop=STOP).figures())


class TestPerformanceProfile:
    def test_it_is_dolan_and_mores_by_hand(self):
        # Ratios to the best: a 1, 2, 1; b 2, 1, inf.
        a, b = performance_profile({"a": [1.0, 4.0, 3.0], "b": [2.0, 2.0, np.inf]})
        assert a.x == [1.0, 2.0]
        np.testing.assert_allclose(a.y, [2 / 3, 1.0])
        np.testing.assert_allclose(b.y, [1 / 3, 2 / 3])

    def test_a_problem_that_nobody_solved_counts_for_nobody(self):
        (a,) = performance_profile({"a": [1.0, np.inf]})
        assert a.y == [0.5]

    def test_costs_that_are_none_are_refused(self):
        with pytest.raises(InvalidProblem, match="positive costs"):
            performance_profile({"a": [0.0]})
        with pytest.raises(InvalidProblem, match="positive costs"):
            performance_profile({})
