"""Training tasks: what is judged, repeatability, resuming."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.core import Checkpoint, InvalidProblem, NotFinite, Status, Stop, solve
from thalweg.training import REX, Lion, Train, TrainingTask


def network():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


@pytest.fixture
def task():
    torch.manual_seed(1)
    X = torch.randn(150, 4)
    y = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
    return TrainingTask(network, (X[:100], y[:100]), (X[100:], y[100:]), steps=200, batch_size=16)


METHOD = Train(Lion, {"lr": 3e-3, "weight_decay": 0.1}, REX)


def test_it_learns_and_is_judged_on_the_held_out_data(task):
    result = solve(task, METHOD)
    assert result.status is Status.EXHAUSTED
    assert result.steps == 200
    assert result.metrics["accuracy"] > 0.7  # the commonest class has half of the examples
    with torch.no_grad():
        right = (result.x.eval()(task.test[0]).argmax(1) == task.test[1]).double().mean()
    assert result.metrics["accuracy"] == float(right)


def test_a_seed_makes_it_repeatable_and_another_does_not(task):
    a, b, c = (solve(task, METHOD, seed=s).history["loss"] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


@pytest.mark.parametrize("method", [METHOD, Train(torch.optim.AdamW, {"lr": 1e-3})], ids=["lion", "adamw"])
def test_a_resumed_run_has_the_same_bits(task, method, tmp_path):
    whole = solve(task, method)
    solve(task, method, stop=Stop(steps=77), callbacks=[Checkpoint(tmp_path / "run")])
    torch.manual_seed(123)  # what happened in between does not matter
    resumed = solve(task, method, resume=tmp_path / "run")
    np.testing.assert_array_equal(whole.history["loss"], resumed.history["loss"])
    for p, q in zip(whole.x.parameters(), resumed.x.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_diverging_run_says_what_where_and_the_mend(task):
    result = solve(task, Train(torch.optim.SGD, {"lr": 1e30}))
    assert result.status is Status.DIVERGED
    assert re.fullmatch(
        r"The loss is (nan|inf) in step \d+, after steps at rates up to 1e\+30: .* Lower the rate\.",
        result.message,
    )
    assert f"step {result.steps + 1}" in result.message
    assert np.isfinite(result.history["loss"]).all()


def test_no_step_is_taken_on_a_loss_that_is_not_finite(task):
    """The weights at the end are those that gave it."""
    losses = iter([1.0, 1.0, math.inf])

    def loss(model, *batch):
        return next(losses) * model(batch[0]).square().mean()

    broken = TrainingTask(network, task.train, task.test, steps=9, loss=loss, scores={})
    state = METHOD.init(broken, 0)
    for _ in range(2):
        state = METHOD.step(broken, state)
    kept = [p.detach().clone() for p in state.x.parameters()]
    with pytest.raises(NotFinite, match=r"The loss is inf in step 3"):
        METHOD.step(broken, state)
    assert all(torch.equal(p, q) for p, q in zip(state.x.parameters(), kept, strict=True))


def test_the_shortest_call_trains_for_the_tasks_own_length(task):
    result = solve(task)
    assert (result.status, result.steps) == (Status.EXHAUSTED, 200)
    assert result.metrics["accuracy"] > 0.5


class TestBadInput:
    def test_tensors_of_different_lengths_are_refused(self):
        with pytest.raises(InvalidProblem, match=r"lengths \[3, 2\]"):
            TrainingTask(network, (torch.zeros(3, 4), torch.zeros(2)), (torch.zeros(1), torch.zeros(1)), 5)

    @pytest.mark.parametrize("make", [np.asarray, list])
    def test_arrays_are_refused(self, task, make):
        X, y = task.train
        with pytest.raises(InvalidProblem, match=r"test\[1\] is a (ndarray|list); expected a tensor"):
            TrainingTask(network, task.train, (X, make(y)), 5)

    def test_missing_values_are_refused(self):
        X = torch.full((3, 4), float("nan"))
        with pytest.raises(NotFinite, match=r"train\[0\] holds NaN"):
            TrainingTask(network, (X, torch.zeros(3)), (X, torch.zeros(3)), 5)

    def test_no_steps_are_refused(self, task):
        with pytest.raises(InvalidProblem, match="steps >= 1"):
            TrainingTask(network, task.train, task.test, 0)
