"""Coded training in processes of Ray: the same models as in virtual time, workers killed on the way."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import Stop, solve
from thalweg.core import InvalidProblem
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

os.environ.setdefault(
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
)  # before Ray is imported: listen on the loopback
ray = pytest.importorskip("ray")


def line():
    X = torch.linspace(0, 1, 24)[:, None]
    return DataParallel(
        lambda: nn.Linear(1, 1), lambda out, y: ((out[:, 0] - y) ** 2).sum(), X, 2 * X[:, 0] + 1
    )


@pytest.fixture(scope="module", autouse=True)
def engine():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    assert ray.nodes()[0]["NodeManagerAddress"] == "127.0.0.1"
    yield
    ray.shutdown()


def trained(scheme, cluster, steps=12, callbacks=()):
    method = CodedTraining(scheme, cluster, lr=0.3, mu=0.5)
    return solve(line(), method, stop=Stop(steps=steps), seed=4, callbacks=callbacks)


@pytest.mark.parametrize("scheme", [GradientCoding(4, 1), Multiplexed(4, 1, 2, 2)], ids=repr)
def test_processes_train_the_models_of_virtual_time(scheme):
    delays = np.full((6, 4), 0.01)
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


def test_work_that_always_fails_is_told_and_not_tried_without_end():
    def broken(out, y):
        if torch.is_grad_enabled():  # the judge asks without
            raise RuntimeError("no loss today")
        return out.sum()

    problem = DataParallel(lambda: nn.Linear(1, 1), broken, torch.ones(4, 1), torch.ones(4))
    cluster = RayCluster()
    with pytest.raises(InvalidProblem, match="has failed 5 times in a row"):
        solve(problem, CodedTraining(Uncoded(2), cluster), stop=Stop(steps=2))
    cluster.end()


@pytest.mark.parametrize("scheme", [GradientCoding(4, 1), Uncoded(4)], ids=repr)
def test_a_killed_worker_comes_back_and_the_model_is_the_same(scheme):
    cluster = RayCluster(DelayProfile(np.full((1, 4), 0.05)))

    def kill(run):
        if run.steps == 4:
            os.kill(ray.get(cluster.actors[2].ready.remote()), signal.SIGKILL)

    disturbed = trained(scheme, cluster, callbacks=[kill])
    cluster.end()
    quiet = trained(scheme, VirtualCluster(DelayProfile(np.ones((1, 4)))))
    assert disturbed.history["faults"][-1] >= 1 or disturbed.history["late"][4] >= 1
    assert disturbed.history["jobs"][-1] == 12
    torch.testing.assert_close(disturbed.x, quiet.x, atol=1e-5, rtol=1e-4)
