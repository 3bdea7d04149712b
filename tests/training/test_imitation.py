"""Experts against the equations of motion; imitation in Gymnasium's own environments."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import nn

from thalweg import solve
from thalweg.core import InvalidParameter, InvalidProblem, MissingExtra, Status
from thalweg.training import Imitate, ImitationTask, TargetSurrogate
from thalweg.training.experts import CartPoleExpert, PendulumExpert, lqr


class Copy(nn.Module):
    """The expert as a policy."""

    def __init__(self, expert, actions: int = 0) -> None:
        super().__init__()
        self.expert, self.actions = expert, actions

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        wanted = torch.as_tensor(self.expert(observations.double().numpy()))
        return 50.0 * nn.functional.one_hot(wanted, self.actions).float() if self.actions else wanted.float()


def mlp(inputs: int, outputs: int):
    return lambda: nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), nn.Linear(32, outputs))


def test_regulators_gain_is_optimal_among_its_neighbours() -> None:
    A, B = np.array([[0.0, 1.0], [2.0, 0.0]]), np.array([[0.0], [1.0]])
    Q, R = np.diag([1.0, 2.0]), np.array([[0.5]])

    def cost(K: np.ndarray) -> float:
        closed, h = expm((A - B @ K) * 0.01), 0.01
        x, total = np.array([1.0, 0.5]), 0.0
        for _ in range(3000):
            total += h * (x @ Q @ x + (K @ x) @ R @ (K @ x))
            x = closed @ x
        return total

    K = lqr(A, B, Q, R)
    best = cost(K)
    for shift in (np.array([[0.3, 0.0]]), np.array([[0.0, 0.3]])):
        assert cost(K + shift) > best
        assert cost(K - shift) > best


def test_experts_master_their_environments() -> None:
    cart = ImitationTask("CartPole-v1", CartPoleExpert(), mlp(4, 2))
    assert cart.metrics(Copy(CartPoleExpert(), 2))["return"] == 500.0  # the most there is
    pendulum = ImitationTask("Pendulum-v1", PendulumExpert(), mlp(3, 1))
    judged = pendulum.metrics(Copy(PendulumExpert()))
    assert judged["return"] > -250.0  # idle or random: about -1200
    assert judged["loss"] == 0.0


@pytest.mark.parametrize("data", ["round", "all"])
def test_learners_come_closer_to_the_expert(data: str) -> None:
    task = ImitationTask("CartPole-v1", CartPoleExpert(), mlp(4, 2), rounds=15, interactions=100, episodes=2)
    start = solve(task, Imitate(lambda p: torch.optim.SGD(p, lr=1e-12)), progress=False)
    for learner in (
        lambda p: torch.optim.Adam(p, lr=0.02),
        lambda p: TargetSurrogate(p, "softmax", inner_steps=20),
    ):
        end = solve(task, Imitate(learner, data), progress=False)
        assert end.metrics["loss"] < start.metrics["loss"]
        frame = end.history.to_frame()
        assert frame["interactions"].iloc[-1] == 1500
        assert frame["gradient_calls"].iloc[-1] == 15


def test_equal_seeds_give_equal_runs() -> None:
    task = ImitationTask("Pendulum-v1", PendulumExpert(), mlp(3, 1), rounds=3, interactions=50, episodes=1)
    first, second = (solve(task, seed=4, progress=False).metrics for _ in range(2))
    assert first == second


def test_bad_input(monkeypatch) -> None:
    with pytest.raises(InvalidParameter, match="rounds"):
        ImitationTask("CartPole-v1", CartPoleExpert(), mlp(4, 2), rounds=0)
    with pytest.raises(InvalidParameter, match="'round' or 'all'"):
        Imitate(torch.optim.Adam, "some")
    short = ImitationTask("CartPole-v1", lambda o: CartPoleExpert()(o)[:-1], mlp(4, 2), rounds=1)
    with pytest.raises(InvalidProblem, match="199 actions for 200 observations"):
        short.asked(np.zeros((200, 4)))
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingExtra, match="gym"):
        ImitationTask("CartPole-v1", CartPoleExpert(), mlp(4, 2))


def test_a_learner_that_blows_up_ends_the_run_and_says_why() -> None:
    task = ImitationTask("Pendulum-v1", PendulumExpert(), mlp(3, 1), rounds=30, interactions=20, episodes=1)
    method = Imitate(lambda params: torch.optim.SGD(params, lr=1e20), updates=5)
    result = solve(task, method)
    assert result.status is Status.DIVERGED
    assert "Lower the learner's rate" in result.message


def test_the_shortest_call_imitates_for_the_tasks_own_rounds() -> None:
    task = ImitationTask("CartPole-v1", CartPoleExpert(), mlp(4, 2), rounds=4, interactions=50, episodes=1)
    result = solve(task)
    assert (result.status, result.steps) == (Status.EXHAUSTED, 4)
    assert result.history["loss"][-1] < result.history["loss"][0]
