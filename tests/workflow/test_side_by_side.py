"""Several processes give the answers of one; restarts find what one start does not."""

from __future__ import annotations

import math
import pickle
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.workflow import (
    Bounds,
    Choices,
    ExecutionError,
    Feedback,
    LanguageModel,
    Module,
    Sandbox,
    bundle,
    node,
)
from thalweg.workflow.constraints import drawn, refusal
from thalweg.workflow.optimizers import BayesSearch, CodeEdits, PatternSearch, WorkflowOptimizer, restarted
from thalweg.workflow.trainer import WorkflowTrainer

OF_THIS_MODULE = node(2.0, trainable=True, name="of_this_module", constraint=Bounds(-4, 4))


def by_a_module():
    return OF_THIS_MODULE * OF_THIS_MODULE


class Guessing(WorkflowOptimizer):
    """Proposes numbers from a stream."""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.rng = np.random.default_rng(0)

    def propose(self):
        (graph,) = [self.heard()]
        return {p: float(p.data + self.rng.standard_normal()) for p in graph.parameters}


class Line(Module):
    def __init__(self):
        self.slope = node(1.0, trainable=True, name="slope", constraint=Bounds(-99, 99))
        self.offset = node(0.5, trainable=True, name="offset")

    def __call__(self, x):
        return self.slope * x + self.offset


def valleys(x):
    """Two valleys; the deeper one is at -2.03, with -18.0 there."""
    return x**4 - 8 * x**2 + x


def trained(**options):
    line = Line()
    trainer = WorkflowTrainer(
        line,
        Guessing(line.parameters()),
        lambda x, y: Feedback(-abs(y - 3.0 * x + 1.0)),
        batch=2,
        **options,
    )
    found = trainer.fit([1.0, 2.0, 3.0, 4.0], [-1.0, 0.5, 5.0], rounds=12)
    return found, [p.data for p in line.parameters()], trainer


def searched(make, workers=1, **options):
    x = node(3.0, trainable=True, name="x", constraint=Bounds(-4, 4))
    found = restarted(lambda: valleys(x), [x], make, 30, workers=workers, **options)
    return found.scores, found.best_score, x.data


def pattern(parameters, seed):
    return PatternSearch(parameters)


class TestTrainer:
    def test_two_processes_find_what_one_finds(self):
        options = {"beam": 2, "candidates": 3, "explore": 0.5, "patience": 3, "restarts": 2}
        assert trained(**options)[:2] == trained(workers=2, **options)[:2]

    def test_several_candidates_a_round_do_no_worse_than_the_first_of_them(self):
        found, _, trainer = trained(candidates=4)
        assert found.scores == sorted(found.scores)
        assert trainer.score([-1.0, 0.5, 5.0]) == max(found.scores)

    def test_a_restart_begins_elsewhere_and_the_best_of_all_is_kept(self):
        found, values, trainer = trained(patience=2, restarts=3)
        assert len(trainer._begun) > 1
        begun = [found.scores[at] for at in trainer._begun]
        assert len(set(begun)) == len(begun)
        assert trainer.score([-1.0, 0.5, 5.0]) == max(found.scores)
        assert trainer._best.values == values

    def test_a_run_with_restarts_goes_on_from_its_checkpoint(self, tmp_path):
        def run(rounds, optimizer, line, path):
            guide = lambda x, y: -abs(y - 3.0 * x + 1.0)  # noqa: E731
            trainer = WorkflowTrainer(line, optimizer, guide, patience=2, restarts=3, checkpoint=path)
            return trainer.fit([1.0, 2.0, 3.0, 4.0], [-1.0, 0.5], rounds=rounds)

        line = Line()
        whole = run(12, Guessing(line.parameters()), line, tmp_path / "whole")
        values = [p.data for p in line.parameters()]
        first = Line()
        optimizer = Guessing(first.parameters())
        run(5, optimizer, first, tmp_path / "part")
        again = Line()
        resumed = Guessing(again.parameters())
        resumed.rng = optimizer.rng  # the optimizer's own memory is its own
        assert run(12, resumed, again, tmp_path / "part") == whole
        assert [p.data for p in again.parameters()] == values

    def test_numbers_out_of_range_are_refused(self):
        for name in ("candidates", "workers"):
            with pytest.raises(InvalidParameter, match=f"WorkflowTrainer needs {name} >= 1"):
                trained(**{name: 0})
        with pytest.raises(InvalidParameter, match="restarts >= 0"):
            trained(restarts=-1)


class TestRestarts:
    def test_two_processes_find_what_one_finds(self):
        assert searched(pattern, 2, starts=2) == searched(pattern, 1, starts=2)

    def test_a_search_that_multiplies_matrices_finds_it_to_rounding(self):
        def make(parameters, seed):
            return BayesSearch(parameters, noise="none", seed=seed)

        (scores, best, x), (alone, best_alone, x_alone) = (searched(make, n, starts=2) for n in (2, 1))
        assert scores == pytest.approx(alone, abs=1e-3)
        assert best == pytest.approx(best_alone, abs=1e-3)
        assert x == pytest.approx(x_alone, abs=0.05)

    def test_the_deeper_of_two_valleys_is_found(self):
        scores, best, x = searched(pattern, starts=6)
        assert scores[0] > -15  # from 3 the search falls into the nearer valley
        assert best == min(scores) == pytest.approx(-18.0, abs=0.1)
        assert x == pytest.approx(-2.03, abs=0.01)

    def test_maximising_is_minimising_the_negative(self):
        x = node(3.0, trainable=True, constraint=Bounds(-4, 4))
        up = restarted(lambda: -valleys(x), [x], lambda p, s: PatternSearch(p, "maximize"), 30, starts=6)
        assert (up.best_score, x.data) == (-searched(pattern, starts=6)[1], searched(pattern, starts=6)[2])

    def test_trainable_code_is_searched_in_other_processes_too(self):
        @bundle(trainable=True)
        def law(x):
            """A number to be guessed."""
            return 1.0 * x

        def program():
            return (law(2.0) - 7.0) ** 2

        text = law.parameter.data
        make = lambda parameters, seed: CodeEdits(parameters, seed=seed)  # noqa: E731
        found = []
        for workers in (1, 2):
            law.parameter.set(text)
            options = {"starts": 2, "failed": 1e6, "workers": workers}
            found.append(
                (restarted(program, [law.parameter], make, 25, **options).scores, law.parameter.data)
            )
        assert found[0] == found[1]
        assert min(found[0][0]) < 25.0

    def test_a_run_that_raises_has_the_score_it_is_given_or_ends_it(self):
        x = node(0.0, trainable=True, name="x")
        for workers in (1, 2):
            with pytest.raises(ExecutionError, match="ZeroDivisionError"):
                restarted(lambda: 1 / x, [x], pattern, 5, workers=workers)
        found = restarted(lambda: 1 / x + x, [x], lambda p, s: PatternSearch(p), 20, starts=1, failed=1e9)
        assert found.best_score < 1e9
        assert x.feedback == []

    def test_a_score_of_failed_runs_that_beats_the_others_is_refused(self):
        x = node(0.0, trainable=True, name="x")
        for runs in (1, 5):  # all raise; or one does, and the others are above 3
            with pytest.raises(InvalidProblem, match="no run is better than failed=0"):
                restarted(lambda: 1 / (x * x) + 3, [x], pattern, runs, starts=1, failed=0.0)
            assert x.data == 0.0

    def test_parameters_that_each_process_makes_for_itself_are_refused(self):
        assert restarted(by_a_module, [OF_THIS_MODULE], pattern, 5, starts=2).best_score <= 4.0
        OF_THIS_MODULE.set(2.0)
        with pytest.raises(InvalidProblem, match="of_this_module belongs to a module"):
            restarted(by_a_module, [OF_THIS_MODULE], pattern, 5, starts=2, workers=2)
        assert OF_THIS_MODULE.data == 2.0

    def test_what_does_not_travel_is_refused(self):
        x = node(1.0, trainable=True, name="x")
        computed, lock = x * 2, threading.Lock()
        with pytest.raises(InvalidProblem, match="cannot be sent to other processes"):
            restarted(lambda: x + lock.locked(), [x], pattern, 3, workers=2)
        with pytest.raises(InvalidProblem, match="was computed, and its trace does not go"):
            restarted(lambda: x + computed, [x], pattern, 3, workers=2)
        model = LanguageModel("m", "http://localhost:1/v1")
        with pytest.raises(InvalidParameter, match="counts its calls and tokens in one process"):
            restarted(lambda: x + len(model.model), [x], pattern, 3, workers=2)
        with pytest.raises(InvalidProblem, match="its score, a number; got str"):
            restarted(lambda: node("a") + "b" * (x > 0), [x], pattern, 3)
        with pytest.raises(InvalidParameter, match="restarted needs starts >= 1"):
            restarted(lambda: x + 1, [x], pattern, 3, starts=0)


class TestDrawing:
    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ("ab", "tuple of values"),
            ((1,), "two values or more"),
            ((1, 1), "values that differ"),
            ((1.0, math.nan), "NaN does not"),
        ],
    )
    def test_choices_that_are_none_are_refused(self, values, words):
        with pytest.raises(InvalidParameter, match=words):
            Choices(values)

    @given(st.integers(0, 1000))
    def test_what_is_drawn_fits(self, seed):
        rng = np.random.default_rng(seed)
        for constraint, old in [
            (Bounds(1e-4, 1e2, log=True), 1.0),
            (Bounds(0, 5, whole=True), 2),
            (Choices(("a", "b")), "a"),
            (None, 7),
            (None, -0.5),
            (lambda v: v > 0, 1.0),
        ]:
            value = drawn(constraint, old, rng)
            assert refusal(constraint, old, value) is None
            assert type(value) is type(old)
        assert drawn(None, "text", rng) == "text"
        assert drawn(None, True, rng) is True

    def test_ratios_are_even(self):
        rng = np.random.default_rng(0)
        drawn_ones = [drawn(Bounds(1e-4, 1e2, log=True), 1.0, rng) for _ in range(2000)]
        assert np.mean(np.array(drawn_ones) < 0.1) == pytest.approx(0.5, abs=4 * 0.5 / 2000**0.5)


def test_a_sandbox_has_a_process_of_its_own_where_it_is_sent():
    with Sandbox(seconds=3.0) as box:
        box.call("def f(): return 1", "f")
        with pickle.loads(pickle.dumps(box)) as copy:
            assert (copy.seconds, copy._process) == (3.0, None)
            assert copy.call("def f(): return 2", "f") == 2
