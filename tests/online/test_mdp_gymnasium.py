"""Gymnasium's environments as worlds of learners, and any object with their interface."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from thalweg import solve
from thalweg.core import InvalidParameter, InvalidProblem, MissingExtra
from thalweg.online.mdp import (
    AdversarialMDP,
    GymnasiumWorld,
    MagnitudeReduced,
    UniformPolicy,
    random_linear_mdp,
)


class Space:
    def __init__(self, n, start=0):
        self.n, self.start = n, start


class Corridor:
    """Three places in a row; action 1 goes right, 0 stays. The last move ends and pays 1; staying costs 1."""

    observation_space, action_space = Space(3), Space(2)

    def __init__(self, cut_after=None):
        self.P = {
            s: {0: [(1.0, s, -1.0, False)], 1: [(1.0, min(s + 1, 2), 1.0 if s == 2 else 0.0, s == 2)]}
            for s in range(3)
        }
        self.initial_state_distrib = [1.0, 0.0, 0.0]
        self.cut_after, self.seeds = cut_after, []

    def reset(self, *, seed=None):
        self.state, self.steps = 0, 0
        self.seeds.append(seed)
        return self.state, {}

    def step(self, action):
        _, self.state, reward, ended = self.P[self.state][action][0]
        self.steps += 1
        return self.state, reward, ended, self.steps == self.cut_after, {}


class TestTables:
    def test_what_ends_waits_at_the_loss_of_nothing(self):
        world = GymnasiumWorld(Corridor(), layers=4)
        d = world.dynamics
        assert (d.states, d.actions, d.layers) == (4, 2, 4)
        assert d.transitions[0, 2, 1, 3] == 1.0
        np.testing.assert_array_equal(d.transitions[0, 3, :, 3], 1.0)
        np.testing.assert_array_equal(world.losses[0], [[1.0, 0.5], [1.0, 0.5], [1.0, 0.0], [0.5, 0.5]])
        choice, total = AdversarialMDP(dynamics=d, losses=world.losses[None]).best()
        np.testing.assert_array_equal(choice[[0, 1, 2], [0, 1, 2]], 1)
        assert total == pytest.approx(0.5 + 0.5 + 0.0 + 0.5)

    def test_gymnasiums_own_table_is_its_simulation(self):
        gymnasium = pytest.importorskip("gymnasium")
        lake = gymnasium.make("FrozenLake-v1")
        world = GymnasiumWorld(lake, layers=10)
        lake.action_space.seed(0)
        counts, tries = np.zeros(17), 3000
        lake.reset(seed=0)
        for _ in range(tries):
            lake.reset()
            after, _, ended, _, _ = lake.step(2)
            counts[16 if ended else after] += 1
        np.testing.assert_allclose(
            counts / tries, world.dynamics.transitions[0, 0, 2], atol=5 * 0.5 / np.sqrt(tries)
        )


class TestPlay:
    def test_a_learner_finds_the_way(self):
        world = GymnasiumWorld(Corridor(), layers=4)
        learner = MagnitudeReduced().learner(world.dynamics, episodes=400, seed=0)
        rewards = world.play(learner, 400)
        assert rewards[:50].mean() < 0.5
        assert rewards[-50:].mean() > 0.8
        assert world.environment.seeds[:2] == [0, None]

    def test_gymnasiums_cliff_is_learned_in_its_own_simulator(self):
        pytest.importorskip("gymnasium")
        world = GymnasiumWorld("FrozenLake-v1", layers=12)
        losses = np.broadcast_to(world.losses, (60, *world.losses.shape))
        problem = AdversarialMDP(dynamics=world.dynamics, losses=losses)
        assert solve(problem, MagnitudeReduced()).converged
        uniform = UniformPolicy().learner(world.dynamics, 60, seed=1)
        assert world.play(uniform, 60).max() <= 1.0


class TestSlips:
    def test_gymnasium_is_named_where_it_is_missing(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "gymnasium", None)
        with pytest.raises(MissingExtra, match=r'gymnasium is not installed. pip install "thalweg\[gym\]"'):
            GymnasiumWorld("FrozenLake-v1", layers=3)

    def test_environments_without_tables_or_numbers_are_refused(self):
        for name, value, words in (
            ("P", None, "no table P of its transitions. Count those of a simulator with measured_dynamics"),
            ("initial_state_distrib", None, "does not say where it starts"),
            ("observation_space", object(), "observation_space is .*expected numbers from 0"),
            ("action_space", Space(2, start=1), "action_space is"),
        ):
            broken = Corridor()
            setattr(broken, name, value)
            with pytest.raises(InvalidProblem, match=words):
                GymnasiumWorld(broken, layers=3)
        with pytest.raises(InvalidParameter, match="layers >= 1"):
            GymnasiumWorld(Corridor(), layers=0)

    def test_episodes_cut_too_early_are_refused(self):
        world = GymnasiumWorld(Corridor(cut_after=2), layers=4)
        with pytest.raises(InvalidProblem, match="cut an episode after 2 steps; expected 4"):
            world.play(UniformPolicy().learner(world.dynamics, 9), 9)

    def test_learners_of_other_worlds_are_refused(self):
        world = GymnasiumWorld(Corridor(), layers=4)
        with pytest.raises(InvalidProblem, match="made for another world"):
            world.play(UniformPolicy().learner(random_linear_mdp(), 9), 9)
