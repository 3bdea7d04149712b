"""Coded training and rows of a matrix in processes of Ray: the same answers as here, workers killed on the way."""

from __future__ import annotations

import math
import os
import signal
import time

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import Stop, solve
from thalweg.core import InvalidProblem, Status
from thalweg.core.ray_engine import RayLost
from thalweg.core.waiting import GivenUp, run_ends
from thalweg.distributed.coding import (
    CodedTraining,
    DataParallel,
    DelayProfile,
    GradientCoding,
    Multiplexed,
    RayCluster,
    Uncoded,
    VirtualCluster,
)
from thalweg.matrix import AutomaticAltMin, CGAltMin, Completion, ExactAltMin, SketchedAltMin
from thalweg.matrix.half_steps import Exact

os.environ.setdefault(
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
)  # before Ray is imported: listen on the loopback
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.usefixtures("ray_engine")


def line():
    X = torch.linspace(0, 1, 24)[:, None]
    return DataParallel(
        lambda: nn.Linear(1, 1), lambda out, y: ((out[:, 0] - y) ** 2).sum(), X, 2 * X[:, 0] + 1
    )


def trained(scheme, cluster, steps=12, callbacks=()):
    method = CodedTraining(scheme, cluster, lr=0.3, mu=0.5)
    return solve(line(), method, stop=Stop(steps=steps), seed=4, callbacks=callbacks)


@pytest.mark.parametrize("scheme", [GradientCoding(3, 1), Multiplexed(4, 1, 2, 2)], ids=repr)
def test_processes_train_the_models_of_virtual_time(scheme):
    delays = np.full((6, scheme.n), 0.01)
    delays[::2, 1] = 0.3
    cluster = RayCluster(DelayProfile(delays))
    states, virtual = [], []
    trained(scheme, cluster, callbacks=[lambda run: states.append(run.state) or False])
    trained(
        scheme,
        VirtualCluster(DelayProfile(delays)),
        callbacks=[lambda run: virtual.append(run.state) or False],
    )
    cluster.end()
    by_jobs = {s.jobs: s.models for s in virtual}
    same = [s for s in states if s.jobs in by_jobs]
    assert same
    torch.testing.assert_close(same[-1].models, by_jobs[same[-1].jobs], atol=1e-5, rtol=1e-4)
    assert states[-1].seconds < 0.3 * len(states)  # nobody waited for the late one


def test_work_that_always_fails_is_told_and_not_tried_without_end(monkeypatch):
    monkeypatch.setattr("thalweg.core.ray_engine.RESTARTS", 2)

    def broken(out, y):
        if torch.is_grad_enabled():  # the judge asks without
            raise RuntimeError("no loss today")
        return out.sum()

    problem = DataParallel(lambda: nn.Linear(1, 1), broken, torch.ones(4, 1), torch.ones(4))
    cluster = RayCluster()
    with pytest.raises(InvalidProblem, match="has failed 2 times in a row"):
        solve(problem, CodedTraining(Uncoded(1), cluster), stop=Stop(steps=2))
    cluster.end()


@pytest.mark.parametrize("scheme", [GradientCoding(3, 1), Uncoded(2)], ids=repr)
def test_a_killed_worker_comes_back_and_the_model_is_the_same(scheme):
    cluster = RayCluster(DelayProfile(np.full((1, scheme.n), 0.05)))

    def kill(run):
        if run.steps == 4:
            os.kill(ray.get(cluster.actors[1].ready.remote()), signal.SIGKILL)

    disturbed = trained(scheme, cluster, callbacks=[kill])
    cluster.end()
    quiet = trained(scheme, VirtualCluster(DelayProfile(np.ones((1, scheme.n)))))
    assert disturbed.history["faults"][-1] >= 1 or disturbed.history["late"][4] >= 1
    assert disturbed.history["jobs"][-1] == 12
    torch.testing.assert_close(disturbed.x, quiet.x, atol=1e-5, rtol=1e-4)


class Silent:
    """A Ray whose results never come."""

    def __init__(self, alive):
        self.alive, self.looks = alive, 0

    def wait(self, futures, num_returns, timeout):
        self.looks += 1
        return [], futures

    def nodes(self):
        return [{"Alive": self.alive}, {"Alive": False}]


class TestWaiting:
    def waiting(self, engine):
        cluster = RayCluster()
        cluster.ray, cluster.started, cluster.pending = engine, time.perf_counter(), {object(): 0}
        return cluster

    def test_where_no_node_is_left_the_wait_ends_with_an_error(self):
        with pytest.raises(RayLost, match="No node of the Ray cluster is alive"):
            self.waiting(Silent(alive=False)).wait(math.inf)

    def test_a_runs_time_limit_ends_it(self):
        engine = Silent(alive=True)
        with run_ends(lambda: engine.looks == 3), pytest.raises(GivenUp):
            self.waiting(engine).wait(math.inf)

    def test_a_round_that_may_end_does_not_wait_beyond_its_time(self):
        engine = Silent(alive=True)
        assert self.waiting(engine).wait(0.3) is None
        assert engine.looks == 1

    def test_the_limit_of_a_run_holds_in_a_round_that_never_ends(self):
        cluster = RayCluster(DelayProfile(np.full((1, 2), 30.0)))
        try:
            found = solve(line(), CodedTraining(Uncoded(2), cluster), stop=Stop(steps=3, seconds=0.7))
        finally:
            cluster.end()
        assert (found.status, found.steps) == (Status.EXHAUSTED, 0)
        assert "seconds used, the last of them waiting" in found.message
        assert math.isfinite(found.metrics["loss"])


@pytest.fixture(scope="module")
def uneven():
    """A matrix whose rows are of very unlike length, some without any entry."""
    rng = np.random.default_rng(0)
    rows, columns = np.nonzero(rng.random((300, 200)) < np.linspace(0.0, 0.8, 200))
    return Completion((rows, columns, rng.standard_normal(len(rows))), 20, biases=True, shape=(310, 200))


class TestRowsOfAMatrix:
    @pytest.mark.filterwarnings("ignore::thalweg.matrix.Underdetermined")
    def test_processes_give_what_one_gives(self, uneven):
        """To rounding: kernels that two processes have compiled may differ in the order of their sums."""
        for method in (AutomaticAltMin, CGAltMin, ExactAltMin, SketchedAltMin):
            one = solve(uneven, method(), stop=Stop(steps=3))
            many = solve(uneven, method(workers=2), stop=Stop(steps=3))
            np.testing.assert_allclose(many.x, one.x, rtol=1e-9, atol=1e-10)
            np.testing.assert_allclose(many.history["gradient"], one.history["gradient"], rtol=1e-8)

    @pytest.mark.filterwarnings("ignore::thalweg.matrix.Underdetermined")
    def test_a_worker_killed_in_the_midst_changes_nothing(self, uneven, tmp_path):
        note = tmp_path / "killed"

        class Dying(Exact):  # goes to the workers by value
            def __call__(self, work, first, last, X, slopes, rights):
                if os.getpid() != here and not note.exists():
                    note.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                super().__call__(work, first, last, X, slopes, rights)

        class DyingAltMin(ExactAltMin):
            def half_step(self, seed):
                return Dying()

        here = os.getpid()
        disturbed = solve(uneven, DyingAltMin(workers=2), stop=Stop(steps=2))
        assert note.exists()
        undisturbed = solve(uneven, ExactAltMin(), stop=Stop(steps=2))
        np.testing.assert_allclose(disturbed.x, undisturbed.x, rtol=1e-9, atol=1e-10)
