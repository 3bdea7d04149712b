"""Rows of a matrix in the hands of workers: who holds what, failures, and an engine that is not there."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidProblem, MissingExtra
from thalweg.matrix import CGAltMin, Completion, CoordinateAltMin, MatrixCompletion, ray_rows


class Lost(Exception):
    """What an engine raises for a worker that is gone."""


class Engine:
    """An engine whose workers are objects here; ``failing`` of their first answers are lost."""

    def __init__(self, failing=0):
        self.failing, self.hired, self.address = failing, 0, "here"
        self.exceptions = SimpleNamespace(RayError=Lost)

    def remote(self, **options):
        return lambda kind: SimpleNamespace(remote=lambda *held: self.hire(kind, held))

    def hire(self, kind, held):
        self.hired += 1
        worker = kind(*held)
        return SimpleNamespace(fit=SimpleNamespace(remote=lambda *given: Answer(worker, given)))

    def get_runtime_context(self):
        return SimpleNamespace(gcs_address=self.address)

    def nodes(self):
        return [{"Alive": True}]

    def put(self, value):
        return value

    def kill(self, actor):
        pass

    def wait(self, futures, num_returns, timeout):
        return futures[-1:], futures[:-1]  # the last first

    def get(self, answer):
        self.failing -= 1
        if self.failing >= 0:
            raise Lost("gone")
        return answer.worker.fit(*answer.given)


class Answer:
    def __init__(self, worker, given):
        self.worker, self.given = worker, given


@pytest.fixture
def engine(monkeypatch):
    found = Engine()
    monkeypatch.setattr(ray_rows, "start_ray", lambda: found)
    monkeypatch.setattr("thalweg.matrix.alternating.start_ray", lambda: found)
    return found


@pytest.fixture
def problem(rng):
    return Completion(
        np.where(rng.random((40, 30)) < 0.6, rng.standard_normal((40, 30)), np.nan), 3, ridge=0.1
    )


STOP = Stop(steps=3)


@pytest.mark.parametrize("workers", [1, 3, 100])
def test_any_number_of_workers_gives_the_same_bits(engine, problem, workers):
    found = solve(problem, CGAltMin(workers=workers), stop=STOP)
    np.testing.assert_array_equal(found.x, solve(problem, CGAltMin(), stop=STOP).x)
    assert engine.hired == min(workers, 40)  # none without a row or column; hired once for all half-steps


@pytest.mark.parametrize(
    "options",
    [{"biases": True}, {"confidence": 2.0}, {"weights": True}, {"dtype": np.float32}, {"rank": "auto"}],
    ids=str,
)
def test_every_kind_of_problem_can_be_parted(engine, rng, options):
    counts = np.where(rng.random((40, 30)) < 0.6, rng.poisson(2.0, (40, 30)) + 1.0, np.nan)
    if "weights" in options:
        options = {"weights": rng.uniform(0.5, 2.0, counts.shape)}
    problem = Completion(counts, **{"rank": 3, "ridge": 0.1, **options})
    found = solve(problem, CGAltMin(workers=4), stop=STOP)
    np.testing.assert_array_equal(found.x, solve(problem, CGAltMin(), stop=STOP).x)


def test_bounds_hold_in_workers_too(engine, rng):
    problem = Completion(rng.random((40, 30)), 3, nonnegative=True, ridge=0.1)
    found = solve(problem, CoordinateAltMin(workers=3), stop=STOP)
    assert found.x.min() >= 0
    np.testing.assert_array_equal(found.x, solve(problem, CoordinateAltMin(), stop=STOP).x)


def test_lost_answers_are_redone_by_others(engine, problem):
    engine.failing = 5
    found = solve(problem, CGAltMin(workers=2), stop=STOP)
    np.testing.assert_array_equal(found.x, solve(problem, CGAltMin(), stop=STOP).x)
    assert engine.hired == 2 + 5


def test_work_that_always_fails_is_told(engine, problem):
    engine.failing = 10**6
    with pytest.raises(InvalidProblem, match="Worker 1 has failed 5 times in a row: gone"):
        solve(problem, CGAltMin(workers=2), stop=STOP)


def test_workers_of_an_engine_that_was_started_again_are_not_asked(engine, problem):
    solve(problem, CGAltMin(workers=2), stop=STOP)
    engine.address = "there"
    solve(problem, CGAltMin(workers=2), stop=STOP)
    assert engine.hired == 4


def test_workers_end_with_their_problem(engine, problem):
    other = Completion(np.eye(3), 1, held_out=0.0)
    solve(other, CGAltMin(workers=2), stop=STOP)
    assert other in ray_rows._HELD
    held = len(ray_rows._HELD)
    del other
    gc.collect()
    assert len(ray_rows._HELD) == held - 1


def test_a_run_goes_on_with_another_number_of_workers(engine, problem, tmp_path):
    whole = solve(problem, CGAltMin(), stop=STOP)
    solve(problem, CGAltMin(workers=2), stop=Stop(steps=2), callbacks=[Checkpoint(tmp_path / "run", every=2)])
    for workers in (None, 3):
        again = solve(problem, CGAltMin(workers=workers), stop=STOP, resume=tmp_path / "run")
        np.testing.assert_array_equal(again.x, whole.x)


def test_the_estimator_hands_its_workers_on(engine, rng):
    X = np.where(rng.random((40, 30)) < 0.6, rng.standard_normal((40, 30)), np.nan)
    found = MatrixCompletion(2, workers=3).fit(X)
    assert engine.hired == 3
    np.testing.assert_array_equal(found.row_factors_, MatrixCompletion(2).fit(X).row_factors_)


def test_an_engine_that_is_not_installed_is_told_before_any_work(monkeypatch, problem):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"thalweg\[ray\]"):
        solve(problem, CGAltMin(workers=2), stop=STOP)
