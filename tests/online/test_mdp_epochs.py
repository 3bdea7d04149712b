"""Learning without a simulator: an epoch's estimates in the mean, resumed runs, regret, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg import Checkpoint, Stop, solve
from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem
from thalweg.core.tree import load_tree, save_tree
from thalweg.online.mdp import (
    AdversarialMDP,
    EpochLearner,
    SimulatorFree,
    UniformPolicy,
    fixed_losses,
    inverse_covariance,
    random_linear_mdp,
    sinusoidal_losses,
)


@pytest.fixture(scope="module")
def problem():
    world = random_linear_mdp(5, 3, 3, 3, seed=2)
    return AdversarialMDP(dynamics=world, losses=sinusoidal_losses(world, 90, seed=2))


class TestEpochs:
    def test_after_one_epoch_estimates_are_the_values_but_for_gamma(self):
        """The mean of epochs with one policy: ``epoch (S Sigma) theta``, with S and Sigma from the two halves."""
        world = random_linear_mdp(4, 3, 2, 2, seed=3)
        losses = fixed_losses(world, 1, seed=3)[0]
        theta = np.linalg.lstsq(world.features[0].reshape(-1, 2), losses[1].ravel(), rcond=None)[0]
        method, found, rng = (
            SimulatorFree(epoch=2000, gamma=1e-4, beta=0.0, explore=0.0),
            [],
            np.random.default_rng(0),
        )
        for seed in range(5):
            learner = EpochLearner(2, 3, 2, 2000, method=method, seed=seed)
            for _ in range(2000):
                state = 0
                for h in range(2):
                    action = learner.act(world.features[h, state])
                    loss = losses[h, state, action]
                    state = int(rng.choice(4, p=world.transitions[h, state, action]))
                    learner.learn(loss)
            found.append(learner.estimates[1] / 2000)
        np.testing.assert_allclose(np.mean(found, axis=0), theta, atol=0.1)

    def test_the_policy_stays_for_an_epoch(self, problem):
        x = solve(problem, SimulatorFree(epoch=30)).x
        for start in (0, 30, 60):
            np.testing.assert_array_equal(x[start : start + 30], np.broadcast_to(x[start], (30, *x[0].shape)))
        np.testing.assert_allclose(x[0], 1 / 3, rtol=1e-12)
        assert np.abs(x[30] - x[0]).max() > 0.01
        assert np.abs(x[60] - x[30]).max() > 0.01

    def test_covariances_come_from_the_even_and_estimates_from_the_odd_episodes(self, problem):
        d, learner = problem.dynamics, EpochLearner(3, 3, 3, 4, method=SimulatorFree(epoch=4, beta=0.0))
        rows, tails = [], []
        rng = np.random.default_rng(1)
        for _ in range(4):
            path, losses = [], rng.random(3)
            for h in range(3):
                features = d.features[h, rng.integers(5)]
                path.append(features[learner.act(features)])
                learner.learn(losses[h])
            rows.append(path)
            tails.append(np.cumsum(losses[::-1])[::-1])
        rows, tails = np.array(rows), np.array(tails)
        for h in range(3):
            S = inverse_covariance(rows[0::2, h], 0.25)
            expected = 4 * S @ (rows[1::2, h] * tails[1::2, h, None]).mean(0)
            np.testing.assert_allclose(learner.estimates[h], expected, rtol=1e-12)

    def test_exploring_keeps_every_action_likely(self, problem):
        x = solve(problem, SimulatorFree(explore=0.3, eta=50.0)).x
        assert x.min() >= 0.1 * (1 - 1e-12)

    def test_regret_falls_well_below_the_uniform_policys(self):
        world = random_linear_mdp(seed=0)
        problem = AdversarialMDP(dynamics=world, losses=fixed_losses(world, 1200, seed=0))
        ours = np.mean([solve(problem, SimulatorFree(), seed=s).metrics["regret"] for s in range(2)])
        assert ours < 0.6 * solve(problem, UniformPolicy()).metrics["regret"]

    def test_steps_report_the_problems_metrics_and_blocks_change_nothing(self, problem):
        result = solve(problem, SimulatorFree(block=7))
        at, curve = problem.curve(result.x, points=90)
        np.testing.assert_allclose(
            result.history["regret"], curve[np.minimum(np.arange(7, 97, 7), 90) - 1], atol=1e-9
        )
        assert at[-1] == 90
        np.testing.assert_array_equal(solve(problem, SimulatorFree(block=90)).x, result.x)

    def test_a_resumed_run_has_the_same_bits(self, problem, tmp_path):
        whole, path = solve(problem, SimulatorFree(epoch=8), seed=2), tmp_path / "run"
        stop = Stop(steps=2)
        solve(problem, SimulatorFree(epoch=8), seed=2, stop=stop, callbacks=[Checkpoint(path, every=1)])
        resumed = solve(problem, SimulatorFree(epoch=8), seed=2, resume=path)
        np.testing.assert_array_equal(resumed.x, whole.x)
        assert resumed.metrics == whole.metrics

    def test_a_saved_learner_goes_on_in_the_middle_of_an_epoch(self, tmp_path):
        first, second = (EpochLearner(3, 3, 2, 100, seed=s) for s in (1, 2))
        for i in range(13):
            first.act(np.eye(3))
            first.learn(0.1 * (i % 3))
        save_tree(tmp_path / "learner", first.state_dict())
        second.load_state_dict(load_tree(tmp_path / "learner"))
        actions = []
        for learner in (first, second):
            found = []
            for _ in range(60):
                found.append(learner.act(np.eye(3)))
                learner.learn(0.2 * found[-1])
            actions.append(found)
        assert actions[0] == actions[1]

    def test_one_action_and_one_episode_are_fine(self):
        world = random_linear_mdp(2, 1, 1, 1)
        found = solve(AdversarialMDP(dynamics=world, losses=fixed_losses(world, 1)), SimulatorFree())
        assert found.metrics["regret"] == pytest.approx(0.0, abs=1e-12)

    def test_bad_input_is_refused(self):
        for options, words in (
            ({"epoch": 3}, "epoch is an even number >= 2, or None; got 3"),
            ({"epoch": 0}, "even number"),
            ({"explore": 1.5}, r"explore lies in \[0, 1\]; got 1.5"),
            ({"gamma": 0.0}, "gamma >= 1e-12"),
            ({"constants": "best"}, "practical, theory"),
            ({"block": 0}, "block >= 1"),
        ):
            with pytest.raises(InvalidParameter, match=words):
                SimulatorFree(**options)
        with pytest.raises(InvalidParameter, match="EpochLearner needs layers >= 1"):
            EpochLearner(2, 2, 0, 10)
        learner = EpochLearner(2, 2, 2, 10)
        with pytest.raises(InvalidProblem, match=r"features has shape \(2, 3\); expected \(2, 2\)"):
            learner.act(np.zeros((2, 3)))
        with pytest.raises(
            CheckpointMismatch, match=r"explore=0.5.*; expected a EpochLearner with .* explore=0.02"
        ):
            learner.load_state_dict(EpochLearner(2, 2, 2, 10, method=SimulatorFree(explore=0.5)).state_dict())
        with pytest.raises(CheckpointMismatch, match=r"epoch=6; expected .*epoch=4"):
            learner.load_state_dict(EpochLearner(2, 2, 2, 10, method=SimulatorFree(epoch=6)).state_dict())
