"""The standard error that a sampled term tells, against the spread of repeated samples around the exact term."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg.bilevel.alignment import (
    PreferenceTask,
    SampledAPARL,
    ScriptedTeacher,
    TableReward,
    TabularMDP,
)
from thalweg.bilevel.alignment.levels import counted
from thalweg.bilevel.alignment.objectives import expected
from thalweg.bilevel.alignment.sampled import _asked
from thalweg.bilevel.alignment.trajectories import Clipped

RUNS = 40


@pytest.fixture
def task():
    """Three states, two actions, three steps; the ridge keeps the curvature of a sample positive."""
    rng = np.random.default_rng(4)
    world = TabularMDP(
        rng.dirichlet(np.ones(3), (3, 2)), np.full(3, 1 / 3), 0.9, 3, rng.standard_normal((3, 2))
    )
    return PreferenceTask(world, TableReward(3, 2), ScriptedTeacher(2.0), ridge=1.0)


@pytest.fixture
def point():
    rng = np.random.default_rng(7)
    return rng.standard_normal(6), 0.5 * rng.standard_normal((3, 2))  # nu, theta


def exact_term(task, nu, theta, objective):
    lived = task.enumerated.at(theta, nu.reshape(3, 2), task.ridge)
    g = expected(objective, lived.weights, lived.returns, task.preferred).by_chances
    source = lived.scores.T @ (lived.weights * (g - lived.weights @ g))
    x = Clipped.of(lived.hessian(), 1e-9).solve(source)
    return task.reward.pull(nu, counted(lived.segments, lived.mixed_transposed(x), (3, 2)))


def samples(task, nu, theta, method):
    terms, noises = [], []
    at, reward = torch.from_numpy(theta.ravel()), torch.from_numpy(nu)
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        asked = _asked(task, method.objective, at, reward, method.pairs, rng)
        term, noise, damping, _ = method._through(task, at, reward, asked, rng)
        assert damping == 0
        terms.append(term)
        noises.append(noise)
    return np.array(terms), np.array(noises)


@pytest.mark.parametrize(
    ("objective", "pairs", "episodes"),
    [
        ("versus", 4000, 48),  # nearly all of the noise is the curvature's lives
        ("versus", 64, 1500),  # the pairs and their labels
        ("versus", 400, 150),
        ("loglik", 1000, 64),
    ],
)
def test_the_standard_error_covers_the_exact_term(task, point, objective, pairs, episodes):
    """Of 40 samples: its mean square is that of the distance within a third, and twice it covers nine in ten."""
    nu, theta = point
    method = SampledAPARL(objective, pairs=pairs, episodes=episodes)
    terms, noises = samples(task, nu, theta, method)
    distances = np.linalg.norm(terms - exact_term(task, nu, theta, objective), axis=1)
    ratio = np.sqrt((noises**2).mean() / (distances**2).mean())
    assert 0.75 <= ratio <= 1.33
    assert (distances <= 2 * noises).mean() >= 0.9
