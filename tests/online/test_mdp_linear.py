"""The learner without tables: equal to the one with tables, by the sum over all episodes there are, and bad input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, NotFinite
from thalweg.core.tree import load_tree, save_tree
from thalweg.online.mdp import (
    AdversarialMDP,
    EpochLearner,
    LinearLearner,
    LogBarrier,
    Rollouts,
    SimulatedWorld,
    UniformPolicy,
    fixed_losses,
    random_linear_mdp,
)

WORLD = random_linear_mdp(3, 2, 2, 3, seed=4)


def all_episodes(learner):
    """Every episode that can be, with its chance under the learner's policy, instead of samples."""
    d, found = WORLD, []
    for rest in itertools.product(range(2), range(3), range(2), range(3), range(2)):
        states, actions = (0, rest[1], rest[3]), rest[::2]
        features = np.array([d.features[h, s] for h, s in enumerate(states)])
        p = np.array([learner.policy(h, features[h]) for h in range(3)])
        weight = np.prod([p[h, a] for h, a in enumerate(actions)])
        weight *= np.prod([d.transitions[h, states[h], actions[h], states[h + 1]] for h in range(2)])
        found.append((features, p, actions, weight))
    features, p, actions, weights = (np.array(part) for part in zip(*found, strict=True))
    assert weights.sum() == pytest.approx(1.0)
    return Rollouts(features.swapaxes(0, 1), p.swapaxes(0, 1), actions.T, weights)


class TestLinearLearner:
    def test_its_policies_are_those_of_tables(self):
        """What is regressed is exactly linear, so that the two differ by gamma alone."""
        method = LogBarrier(eta=0.5, gamma=1e-9, beta=0.05)
        table = method.learner(WORLD, 40, seed=0)
        linear = LinearLearner(SimulatedWorld(WORLD), 2, 2, 3, 40, method=method)
        rng = np.random.default_rng(0)
        for _ in range(40):
            state, path, losses = 0, [], rng.random(3)
            rollouts = all_episodes(linear)
            for h in range(3):
                action = table.act(state)
                for s in range(3):
                    ours = linear.policy(h, WORLD.features[h, s])
                    np.testing.assert_allclose(ours, table.policy[h, s], atol=1e-6)
                path.append(WORLD.features[h, state, action])
                table.learn(losses[h])
                state = int(rng.choice(3, p=WORLD.transitions[h, state, action]))
            linear.take_in(rollouts, np.array(path)[None], losses[None])
        assert np.ptp(table.policy) > 0.2

    def test_it_learns_from_a_simulator(self):
        world = random_linear_mdp(8, 3, 3, 2, seed=2)
        problem = AdversarialMDP(dynamics=world, losses=fixed_losses(world, 300, seed=2))
        method = LogBarrier(samples=400)
        learner = LinearLearner(SimulatedWorld(world), 3, 3, 2, 300, method=method, seed=1)
        policies, play = np.empty(problem.losses.shape), np.random.default_rng(7)
        for k, losses in enumerate(problem.losses):
            policies[k] = [learner.policy(h, world.features[h]) for h in range(2)]
            state = 0
            for h in range(2):
                action = learner.act(world.features[h, state])
                learner.learn(losses[h, state, action])
                state = int(play.choice(8, p=world.transitions[h, state, action]))
        uniform = problem.metrics(np.full(policies.shape, 1 / 3))["regret"]
        assert problem.metrics(policies)["regret"] < 0.7 * uniform

    def test_simulated_episodes_have_the_chances_of_the_world(self):
        learner = LinearLearner(SimulatedWorld(WORLD), 2, 2, 3, 10, method=LogBarrier(samples=20_000))
        found, exact = learner.rollouts(), all_episodes(learner)
        for h in range(3):
            means = [r.weights @ r.taken[h] for r in (found, exact)]
            np.testing.assert_allclose(*means, atol=5 * 0.5 / np.sqrt(20_000))

    def test_a_saved_one_goes_on_alike(self, tmp_path):
        def made(seed):
            return LinearLearner(SimulatedWorld(WORLD), 2, 2, 3, 50, method=LogBarrier(samples=50), seed=seed)

        def play(learner, rounds):
            actions = []
            for i in range(rounds):
                actions.append(learner.act(WORLD.features[0, i % 3]))
                learner.learn(0.3 * actions[-1])
            return actions

        first, second = made(1), made(2)
        play(first, 14)
        save_tree(tmp_path / "learner", first.state_dict())
        second.load_state_dict(load_tree(tmp_path / "learner"))
        assert play(first, 40) == play(second, 40)

    def test_bad_input_is_refused(self):
        learner = LinearLearner(SimulatedWorld(WORLD), 2, 2, 3, 50, method=LogBarrier(samples=50))
        for features, kind, words in (
            (np.eye(3), InvalidProblem, r"features has shape \(3, 3\); expected \(2, 2\)"),
            (2 * np.eye(2), InvalidProblem, "row of length 2; expected at most 1"),
            (np.eye(2) * np.nan, NotFinite, "features holds"),
            (np.eye(2) * 1j, InvalidProblem, "complex"),
        ):
            with pytest.raises(kind, match=words):
                learner.act(features)
        with pytest.raises(InvalidParameter, match="draw an action first"):
            learner.learn(0.5)
        learner.act(np.eye(2))
        with pytest.raises(InvalidParameter, match="tell the loss"):
            learner.act(np.eye(2))
        with pytest.raises(NotFinite, match="loss"):
            learner.learn(np.inf)
        with pytest.raises(InvalidParameter, match=r"lies in \[0, 1\]"):
            learner.learn(-0.5)
        with pytest.raises(InvalidParameter, match="LinearLearner needs episodes >= 1"):
            LinearLearner(SimulatedWorld(WORLD), 2, 2, 3, 0)
        for other in (
            LinearLearner(SimulatedWorld(WORLD), 2, 2, 2, 50),
            LinearLearner(SimulatedWorld(WORLD), 2, 2, 3, 50, method=LogBarrier(gamma=0.5)),
            EpochLearner(2, 2, 3, 50),
        ):
            with pytest.raises(CheckpointMismatch, match="expected a LinearLearner with"):
                learner.load_state_dict(other.state_dict())
        for method in (LogBarrier(doubling=True), LogBarrier(covariance="resampling")):
            with pytest.raises(InvalidParameter, match="no doubling and no resampling"):
                LinearLearner(SimulatedWorld(WORLD), 2, 2, 3, 50, method=method)

    def test_a_simulator_with_other_shapes_is_refused(self):
        class Narrow(SimulatedWorld):
            def reset(self, count, rng):
                return super().reset(count, rng)[:, :1]

        learner = LinearLearner(Narrow(WORLD), 2, 2, 3, 50, method=LogBarrier(samples=50))
        for _ in range(2):
            learner.act(np.eye(2))
            learner.learn(0.0)
        learner.act(np.eye(2))
        with pytest.raises(
            InvalidProblem, match=r"simulator's features has shape \(50, 1, 2\); expected \(50, 2, 2\)"
        ):
            learner.learn(0.0)

    def test_the_uniform_policy_is_no_log_barrier(self):
        with pytest.raises(InvalidParameter, match="plays LogBarrier; got UniformPolicy"):
            LinearLearner(SimulatedWorld(WORLD), 2, 2, 3, 5, method=UniformPolicy())
