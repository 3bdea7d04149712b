"""Ask, tell, recommend."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from thalweg import Stop, solve
from thalweg.blackbox import (
    ACQUISITIONS,
    BayesianOptimization,
    BlackBox,
    Categorical,
    Environment,
    EvaluationFailed,
    Fidelity,
    Integer,
    Real,
    Space,
    Study,
    models,
)
from thalweg.blackbox.trust_region import TrustRegion
from thalweg.core import (
    Checkpoint,
    CheckpointMismatch,
    InvalidParameter,
    InvalidProblem,
    NotFinite,
    UnknownName,
    UnreadableFile,
)
from thalweg.numerics.gaussian_process import RBF, SparsePosterior, surrogate

LINE = {"x": Real(-2.0, 2.0)}
SQUARE = {"x": Real(-5.0, 10.0), "y": Real(0.0, 15.0)}


def parabola(p):
    return (p["x"] - 0.7) ** 2


def branin(p):
    x, y = p["x"], p["y"]
    bowl = (y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6) ** 2
    return bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10


def run(study, function, trials):
    for _ in range(trials):
        trial = study.ask()
        study.tell(trial, function(trial.point))
    return study


class TestOptimising:
    def test_branin_in_thirty_evaluations(self):
        regrets = [
            run(Study(SQUARE, noise="none", seed=s), branin, 30).best.value - 0.397887 for s in range(3)
        ]
        # thirty random points are left with a median regret of about 2
        assert np.median(regrets) < 0.05

    def test_maximising_is_minimising_the_negative(self):
        low = run(Study(SQUARE, seed=1), branin, 12)
        high = run(Study(SQUARE, "maximize", seed=1), lambda p: -branin(p), 12)
        assert [t.point for t in low.trials] == [t.point for t in high.trials]
        assert high.best.value == -low.best.value

    @pytest.mark.parametrize("acquisition", sorted(ACQUISITIONS))
    def test_every_acquisition_finds_the_bottom_of_a_bowl(self, acquisition):
        study = run(Study(LINE, acquisition=acquisition, kernel=None, noise="none"), parabola, 10)
        assert abs(study.recommend().point["x"] - 0.7) < 0.15

    def test_a_mixed_space_with_conditions(self):
        space = {
            "kind": Categorical(["a", "b", "c"]),
            "n": Integer(0, 10),
            "x": Real(0.0, 1.0, when={"kind": "b"}),
        }

        def f(p):
            return (
                {"a": 3.0, "b": 0.0, "c": 2.0}[p["kind"]]
                + 0.1 * (p["n"] - 7) ** 2
                + (p.get("x", 0.5) - 0.3) ** 2
            )

        best = run(Study(space, noise="none"), f, 40).best
        assert best.point["kind"] == "b"
        assert best.point["n"] in (6, 7, 8)
        assert best.value < 0.15

    def test_known_constraints_are_never_broken(self):
        space = Space(SQUARE, allowed=lambda p: p["x"] + p["y"] <= 10)
        study = run(Study(space, noise="none"), branin, 20)
        assert all(t["x"] + t["y"] <= 10 for t in study.trials)
        assert study.best.value < 3

    def test_expensive_constraints_are_learned(self):
        study = Study(SQUARE, constraints=1, noise="none")
        for _ in range(30):
            trial = study.ask()
            study.tell(
                trial, branin(trial.point), constraints=[trial["x"] - 5.0]
            )  # two of three minima are left
        assert study.best.value < 1.0
        assert study.recommend().point["x"] <= 5.0
        assert sum(t.feasible for t in study.trials[6:]) > 16

    def test_when_nothing_is_feasible_it_looks_for_what_is(self):
        study = Study(SQUARE, constraints=1, noise="none", initial=4)
        for _ in range(20):
            trial = study.ask()
            far = (trial["x"] - 8) ** 2 + (trial["y"] - 13) ** 2
            study.tell(trial, branin(trial.point), constraints=[far - 2.0])
        assert any(t.feasible for t in study.trials)

    def test_places_that_crash_are_avoided(self):
        """A third of the square fails: of the last ten trials hardly any goes there, in most studies."""
        late = []
        for seed in range(5):
            study = Study(SQUARE, noise="none", seed=seed)
            for _ in range(25):
                trial = study.ask()
                if trial["x"] > 5:
                    study.tell(trial, failed=True)
                else:
                    study.tell(trial, branin(trial.point))
            late.append(sum(t.status == "failed" for t in study.trials[-10:]))
            assert study.best.value < 1.5
        assert np.median(late) <= 2

    def test_gradients_save_evaluations(self):
        def f(p):
            return sum((v - 0.3) ** 2 * (1 + i) for i, v in enumerate(p.values())) + math.sin(3 * p["a"])

        space = {n: Real(-1.0, 2.0) for n in "abcd"}
        values = {}
        for told in (False, True):
            study = Study(space, noise="none", kernel=RBF(), initial=3)
            for _ in range(9):
                trial = study.ask()
                slope = {n: 2 * (1 + i) * (v - 0.3) for i, (n, v) in enumerate(trial.point.items())}
                slope["a"] += 3 * math.cos(3 * trial["a"])
                study.tell(trial, f(trial.point), gradient=slope if told else None)
            values[told] = study.best.value
        assert values[True] < values[False]

    def test_noise_does_not_flatter_the_recommendation(self):
        rng = np.random.default_rng(0)
        study = run(Study(LINE, seed=2), lambda p: parabola(p) + 0.3 * rng.standard_normal(), 30)
        assert abs(study.recommend().point["x"] - 0.7) < 0.45
        assert study.recommend().std < 0.3

    def test_known_noise_is_counted_with(self):
        study = Study(LINE, noise="none")
        for x, y, std in [(-1.0, 5.0, 0.01), (0.0, 1.0, 0.01), (1.0, -9.0, 50.0), (1.9, 1.0, 0.01)]:
            study.tell({"x": x}, y, noise=std)
        mean, std = study.predict([{"x": 0.0}, {"x": 1.0}])
        assert mean[0] == pytest.approx(1.0, abs=0.1)
        assert mean[1] > -5
        assert std[1] > 10 * std[0]

    def test_averaging_over_parameters_works(self):
        study = run(Study(LINE, bayesian=True, noise="none", initial=3), parabola, 8)
        assert abs(study.best.point["x"] - 0.7) < 0.1

    def test_the_expected_gain_falls_to_nothing(self):
        study = run(Study(LINE, noise="none"), parabola, 5)
        before = study.expected_gain()
        run(study, parabola, 8)
        assert 0 <= study.expected_gain() < 0.2 * before

    def test_past_a_few_thousand_data_the_model_is_sparse(self, monkeypatch):
        monkeypatch.setattr(models, "MOST", 10)
        monkeypatch.setattr(surrogate, "EXACT", 20)
        study = Study(SQUARE)
        rng = np.random.default_rng(0)
        for _ in range(40):
            point = {"x": rng.uniform(-5, 10), "y": rng.uniform(0, 15)}
            study.tell(point, branin(point))
        run(study, branin, 6)
        assert isinstance(study._models.held["objective"].posterior, SparsePosterior)
        study.ask(2)
        assert study.best.value < 1.0

    def test_hundreds_of_evaluations_in_twenty_dimensions_with_a_trust_region(self):
        space = {f"x{i}": Real(-5.0, 5.0) for i in range(20)}

        def sphere(p):
            return sum((v - 1) ** 2 for v in p.values())

        near = run(Study(space, trust_region=True, noise="none", initial=20), sphere, 70).best.value
        rng = np.random.default_rng(0)
        random = min(((rng.uniform(-5, 5, 20) - 1) ** 2).sum() for _ in range(1000))
        assert near < 0.5 * random


class TestSeveralAtOnce:
    def test_points_of_a_batch_differ(self):
        study = run(Study(SQUARE, noise="none"), branin, 8)
        points = np.array([list(t.point.values()) for t in study.ask(4)])
        gaps = np.abs(points[:, None] - points[None]).max(-1) + 100 * np.eye(4)
        assert gaps.min() > 0.05

    @pytest.mark.parametrize("batch", ["joint", "believer", "liar", "penalisation"])
    def test_every_way_of_choosing_a_batch_optimises(self, batch):
        study = Study(SQUARE, noise="none", batch=batch, seed=3)
        for _ in range(8):
            for trial in study.ask(4):
                study.tell(trial, branin(trial.point))
        assert study.best.value < 1.0

    def test_answers_may_come_in_any_order(self):
        study = Study(LINE, noise="none")
        waiting = [study.ask() for _ in range(4)]
        for _ in range(10):
            trial = waiting.pop(len(waiting) // 2)
            study.tell(trial, parabola(trial.point))
            waiting.append(study.ask())
        assert len({t["x"] for t in study.trials}) == len(study.trials)
        assert abs(study.best["x"] - 0.7) < 0.05


class TestExtensions:
    @staticmethod
    def cheap(p):
        return parabola(p) + 0.5 * (1 - p["s"]) * math.cos(4 * p["x"])

    def test_a_fidelity_reaches_the_target_at_a_fraction_of_the_cost(self):
        cost = lambda p: 0.05 + p["s"]  # noqa: E731
        study = Study({**LINE, "s": Real(0.0, 1.0)}, fidelity=Fidelity("s", cost), noise="none", initial=4)
        spent = 0.0
        for _ in range(14):
            trial = study.ask()
            study.tell(trial, self.cheap(trial.point))
            spent += cost(trial.point)
        found = study.recommend().point
        assert found["s"] == 1.0
        assert abs(found["x"] - 0.7) < 0.3
        assert spent < 0.7 * 14 * 1.05

    def test_a_trace_is_seen_on_the_way(self):
        study = Study(
            {**LINE, "s": Real(0.0, 1.0)},
            fidelity=Fidelity("s", lambda p: 1.0, trace=(0.5,)),
            noise="none",
            initial=4,
        )
        run(study, self.cheap, 6)
        known = study.knowledge()
        x = torch.rand(20, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        alone = Fidelity("s", lambda p: 1.0).acquisition(study.space, known)(x).exp()
        traced = study.fidelity.acquisition(study.space, known)(x).exp()
        assert bool((traced >= alone - 2e-3).all())  # an integral of 64 points
        assert float(traced.sum()) > float(alone.sum())

    def test_information_sources_are_told_apart(self):
        space = {**LINE, "source": Categorical(["cheap", "dear"])}
        cost = lambda p: 1.0 if p["source"] == "dear" else 0.1  # noqa: E731
        study = Study(space, fidelity=Fidelity("source", cost), noise="none", initial=6)
        run(study, lambda p: parabola(p) + (0.2 if p["source"] == "cheap" else 0.0), 16)
        assert study.recommend().point["source"] == "dear"
        assert abs(study.recommend().point["x"] - 0.7) < 0.25
        assert sum(t["source"] == "cheap" for t in study.trials[6:]) >= 5

    def test_a_mean_over_conditions_is_optimised(self):
        space = {"x": Real(-2.0, 2.0), "w": Real(0.0, 1.0)}
        conditions = [{"w": 0.0}, {"w": 0.5}, {"w": 1.0}]
        study = Study(space, environment=Environment(conditions, [1, 1, 2]), noise="none", initial=6)
        run(study, lambda p: (p["x"] - p["w"]) ** 2, 16)
        recommended = study.recommend().point
        assert set(recommended) == {"x"}
        assert abs(recommended["x"] - (0.5 + 2) / 4) < 0.25  # the weighted mean of w

    def test_extensions_of_another_space_are_refused(self):
        with pytest.raises(InvalidProblem, match="no Real or Categorical"):
            Study(LINE, fidelity=Fidelity("s", lambda p: 1.0))
        with pytest.raises(UnknownName, match="No parameter 'w'"):
            Study(LINE, environment=Environment([{"w": 1.0}]))
        with pytest.raises(InvalidParameter, match="cost must be positive"):
            Study(LINE, fidelity=Fidelity("x", lambda p: 0.0))


class TestKeeping:
    def test_a_saved_study_goes_on_with_the_same_suggestions(self, tmp_path, monkeypatch):
        monkeypatch.setattr(surrogate, "SETTLED", 9)  # so that the posterior grows by blocks
        whole = run(Study(SQUARE, seed=4), branin, 15)
        half = run(Study(SQUARE, seed=4), branin, 10)
        half.save(tmp_path / "study")
        again = Study(SQUARE, seed=4)
        again.load(tmp_path / "study")
        run(again, branin, 5)
        assert [t.point for t in again.trials] == [t.point for t in whole.trials]

    def test_pending_trials_are_pending_still(self, tmp_path):
        study = run(Study(LINE), parabola, 5)
        waiting = study.ask()
        study.save(tmp_path / "study")
        again = Study(LINE)
        again.load(tmp_path / "study")
        assert again.trials[waiting.number].status == "pending"
        again.tell(waiting, parabola(waiting.point))
        again.ask()
        assert again.forget_pending() == 1

    def test_a_study_of_another_space_is_refused(self, tmp_path):
        Study(LINE).save(tmp_path / "study")
        with pytest.raises(CheckpointMismatch, match="another space"):
            Study(SQUARE).load(tmp_path / "study")

    def test_a_command_is_words_and_may_be_missing(self):
        state = Study(LINE).state_dict()
        del state["command"]  # as an earlier version saved it
        Study(LINE).load_state_dict(state)
        with pytest.raises(UnreadableFile, match="saved command is 3"):
            Study(LINE).load_state_dict({**state, "command": 3})

    def test_as_a_method_it_resumes_with_the_same_bits(self, tmp_path):
        box, method = BlackBox(branin, SQUARE), BayesianOptimization(noise="none")
        whole = solve(box, method, stop=Stop(steps=14))
        solve(box, method, stop=Stop(steps=9), callbacks=[Checkpoint(tmp_path / "c", every=4)])
        resumed = solve(box, method, stop=Stop(steps=14), resume=tmp_path / "c")
        np.testing.assert_array_equal(resumed.history["value"], whole.history["value"])
        assert resumed.x == whole.x

    @pytest.mark.parametrize(
        "failure", [ZeroDivisionError, EvaluationFailed, None], ids=["error", "failed", "nan"]
    )
    def test_an_evaluation_that_fails_is_a_failed_trial_and_the_run_goes_on(self, failure):
        def f(p):
            if p["x"] >= 0:
                return parabola(p)
            if failure is None:
                return math.nan
            raise failure

        result = solve(BlackBox(f, LINE), BayesianOptimization(noise="none"), stop=Stop(steps=14))
        assert result.steps == 14
        assert result.metrics["value"] < 0.02

    def test_an_error_in_the_users_code_is_not_swallowed(self):
        with pytest.raises(KeyError):
            solve(BlackBox(lambda p: p["y"], LINE), BayesianOptimization(), stop=Stop(steps=2))


class TestBadInput:
    @pytest.mark.parametrize("value", [[1.0], np.ones(1), np.ones(2), "1.0", 1j, (1.0, 2.0), object()])
    def test_a_value_that_is_no_number_is_told_in_a_line(self, value):
        study = Study({"x": Real(0.0, 1.0)})
        with pytest.raises(InvalidParameter, match="Trial 0: its value is no number"):
            study.tell(study.ask(), value)
        assert study.trials[0].status == "pending"

    @pytest.mark.parametrize("value", [None, "1.0", [1.0]])
    def test_an_objective_that_returns_no_number_is_told_in_a_line(self, value):
        with pytest.raises(InvalidParameter, match="The objective's value is no number"):
            solve(BlackBox(lambda p: value, {"x": Real(0.0, 1.0)}), stop=Stop(steps=2))

    @pytest.mark.parametrize(
        "value", [np.float32(2.0), np.array(2.0), torch.tensor(2.0, requires_grad=True), np.int64(2)]
    )
    def test_what_is_kept_are_numbers_of_python(self, value):
        study = Study({"x": Real(0.0, 1.0)}, constraints=1)
        told = study.tell(study.ask(), value, noise=value, gradient={"x": value}, constraints=[value])
        kept = (told.value, told.noise, told.gradient["x"], told.constraints[0])
        assert kept == (2.0,) * 4
        assert all(type(number) is float for number in kept)

    @pytest.mark.parametrize("given", [[True], [np.True_], None, 1.0, "a", [None], [[1.0]]])
    def test_constraints_are_numbers_and_no_truth_values(self, given):
        # True would be 1, which is infeasible, whatever the user meant by it
        study = Study({"x": Real(0.0, 1.0)}, constraints=1)
        with pytest.raises(InvalidParameter, match="constraint"):
            study.tell(study.ask(), 1.0, constraints=given)

    @pytest.mark.parametrize(
        "options", [{"noise": "none"}, {"gradient": [1.0]}, {"gradient": {"x": None}}, {"failed": "no"}]
    )
    def test_other_parts_of_an_outcome_that_are_none_are_told(self, options):
        study = Study({"x": Real(0.0, 1.0)})
        with pytest.raises(InvalidParameter):
            study.tell(study.ask(), 1.0, **options)

    def test_arguments_in_another_order_and_counts_that_are_none_are_told(self):
        study = Study({"x": Real(0.0, 1.0)})
        with pytest.raises(InvalidParameter, match="a trial, or a point, first"):
            study.tell(1.0, study.ask())
        for q in (2.5, "x", True):
            with pytest.raises(InvalidParameter, match="q >= 1"):
                study.ask(q)
        with pytest.raises(InvalidProblem, match="parameters by name"):
            Study([Real(0.0, 1.0)])

    def test_values_that_are_no_numbers(self):
        study = Study(LINE)
        trial = study.ask()
        for value in (math.nan, math.inf, None):
            with pytest.raises(NotFinite, match="failed=True"):
                study.tell(trial, value)
        study.tell(trial, failed=True)
        with pytest.raises(InvalidParameter, match="told already"):
            study.tell(trial, 1.0)

    def test_points_out_of_the_space_leave_nothing_behind(self):
        study = Study(LINE)
        with pytest.raises(InvalidParameter, match="not in"):
            study.tell({"x": 5.0}, 1.0)
        with pytest.raises(NotFinite):
            study.tell({"x": 1.0}, math.nan)
        assert study.trials == []

    def test_a_trial_of_another_study(self):
        other = Study(LINE, seed=5)
        with pytest.raises(InvalidParameter, match="not of this study"):
            Study(LINE).tell(other.ask(), 1.0)

    def test_another_number_of_constraints(self):
        study = Study(LINE, constraints=2)
        with pytest.raises(InvalidParameter, match="2 constraints"):
            study.tell(study.ask(), 1.0, constraints=[0.0])

    def test_gradients_of_what_is_not_real(self):
        study = Study({"n": Integer(0, 5)})
        with pytest.raises(InvalidParameter, match="real parameters"):
            study.tell(study.ask(), 1.0, gradient={"n": 1.0})
        with pytest.raises(InvalidParameter, match="derivative by 'x' is nan"):
            Study(LINE).tell({"x": 0.0}, 1.0, gradient={"x": math.nan})

    def test_nothing_told_yet(self):
        with pytest.raises(InvalidParameter, match="Nothing to recommend"):
            Study(LINE).recommend()

    @pytest.mark.parametrize(
        "options",
        [
            {"direction": "down"},
            {"acquisition": "ie"},
            {"batch": "all"},
            {"noise": "some"},
            {"initial": 0},
            {"constraints": -1},
        ],
    )
    def test_options_outside_their_range(self, options):
        with pytest.raises((InvalidParameter, UnknownName)):
            Study(LINE, **options)

    def test_constant_observations_and_duplicates(self):
        study = run(Study(SQUARE), lambda p: 1.0, 10)
        for _ in range(3):
            study.tell({"x": 0.0, "y": 0.0}, 1.0)
        assert study.ask().status == "pending"

    def test_all_trials_failed(self):
        study = Study(LINE, initial=2)
        for _ in range(6):
            study.tell(study.ask(), failed=True)
        assert len({t["x"] for t in study.trials}) == 6

    def test_every_choice_evaluated_already(self):
        study = Study({"k": Categorical(["a", "b", "c"])}, noise="none", initial=2)
        run(study, lambda p: float(p["k"] == "a"), 6)
        assert {t["k"] for t in study.trials} == {"a", "b", "c"}


def test_a_trust_region_grows_with_success_and_shrinks_without():
    region = TrustRegion(4)
    for value in range(1, 4):
        region.see(float(value))
    assert region.side == 1.6
    for _ in range(4):
        region.see(0.0)
    assert region.side == 0.8
    low, high = region.box(torch.full((4,), 0.5), torch.tensor([0.1, 1.0, 1.0, 10.0]))
    assert bool((low >= 0).all() and (high <= 1).all())
    assert float(high[0] - low[0]) < float(high[1] - low[1])
