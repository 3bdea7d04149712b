"""Perturbed leaders: paths against SciPy's, regret against theorems, and groups of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.csgraph import bellman_ford

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.online import BlumLykouris, GroupwiseLeader, PerturbedLeader, ShortestPath, horizon_noise


def grid(side=3):
    """Monotone paths through a grid: edges right and down."""
    node = {p: i for i, p in enumerate(itertools.product(range(side), repeat=2))}
    right = [(node[i, j], node[i, j + 1]) for i in range(side) for j in range(side - 1)]
    down = [(node[i, j], node[i + 1, j]) for i in range(side - 1) for j in range(side)]
    return ShortestPath(right + down, 0, side * side - 1)


class TestShortestPath:
    @given(st.integers(0, 10_000))
    def test_it_is_as_short_as_bellman_fords_with_negative_costs_too(self, seed):
        path = grid()
        costs = np.random.default_rng(seed).uniform(-1, 2, len(path.edges))
        graph = csr_array((costs, path.edges.T), shape=(9, 9))
        found = path(costs)
        assert found @ costs == pytest.approx(bellman_ford(graph, indices=0)[8])
        assert found.sum() == 4

    def test_graphs_without_a_path_or_with_a_cycle_are_refused(self):
        with pytest.raises(InvalidProblem, match="a cycle"):
            ShortestPath([(0, 1), (1, 0)], 0, 1)
        with pytest.raises(InvalidProblem, match="no path leads from 0 to 2"):
            ShortestPath([(0, 1), (2, 1)], 0, 2)
        with pytest.raises(InvalidProblem, match="pairs of whole numbers"):
            ShortestPath([0, 1], 0, 1)


class TestPerturbedLeader:
    def test_its_regret_is_within_the_theorem(self):
        path, rng, rounds = grid(), np.random.default_rng(0), 400
        norm = len(path.edges) / 4
        costs = rng.random((rounds, len(path.edges))) / 4 * (rng.random(len(path.edges)) < 0.6)
        totals = []
        for seed in range(8):
            leader = PerturbedLeader(path, len(path.edges), horizon_noise(8.0, 1.0, norm, rounds), seed)
            total = 0.0
            for c in costs:
                total += leader.decide() @ c
                leader.learn(c)
            totals.append(total)
        best = path(costs.sum(0)) @ costs.sum(0)
        assert np.mean(totals) - best <= 2 * np.sqrt(8.0 * 1.0 * norm * rounds)
        assert np.mean(totals) < 0.5 * (
            best + costs.sum() * 4 / len(path.edges)
        )  # better than a path at random

    def test_without_noise_it_follows_the_leader(self):
        leader = PerturbedLeader(grid(), 12, 0.0)
        leader.learn(np.arange(12.0))
        np.testing.assert_array_equal(leader.decide(), grid()(np.arange(12.0)))

    def test_bad_input_is_refused(self):
        with pytest.raises(InvalidParameter, match="noise >= 0"):
            PerturbedLeader(grid(), 12, -1.0)
        with pytest.raises(InvalidProblem, match=r"costs has shape \(2,\); expected \(12,\)"):
            PerturbedLeader(grid(), 12, 1.0).learn([1.0, 2.0])
        with pytest.raises(InvalidParameter, match="rounds >= 1"):
            horizon_noise(1.0, 1.0, 1.0, 0)


class TestGroupwiseLeader:
    def test_its_regret_to_each_leader_is_within_the_bound(self):
        path, rng = grid(), np.random.default_rng(1)
        leaders = [PerturbedLeader(path, 12, 3.0, seed) for seed in range(3)]
        ours, regrets = GroupwiseLeader(leaders), np.zeros(3)
        bias = rng.random((2, 12))
        for _ in range(300):
            group = int(rng.random() < 0.4)
            ours.decide([group == 0, group == 1, True])
            costs = (bias[group] + rng.random(12)) / 8
            asked = ours._round[1]
            loss = ours.learn(costs)
            for g in (group, 2):
                regrets[g] += loss - asked[g] @ costs
        np.testing.assert_allclose(regrets, ours.hedge.regrets)
        assert (regrets <= ours.hedge.bound()).all()

    def test_rounds_out_of_order_are_refused(self):
        ours = GroupwiseLeader([PerturbedLeader(grid(), 12, 1.0)])
        with pytest.raises(InvalidProblem, match="call decide first"):
            ours.learn(np.zeros(12))
        ours.decide([True])
        with pytest.raises(InvalidProblem, match=r"expected costs in \[0, 1\]"):
            ours.learn(np.ones(12))
        with pytest.raises(InvalidParameter, match="a leader for each group"):
            GroupwiseLeader([])


class TestBlumLykouris:
    def test_its_regret_to_every_pair_is_within_the_bound(self):
        rng, pairs, regrets = np.random.default_rng(2), BlumLykouris(2, 3), np.zeros((2, 3))
        models = rng.random((3, 4))
        for _ in range(300):
            x, active = rng.random(4), np.array([True, rng.random() < 0.5])
            z = np.clip(models @ x / 2, 0, 1)
            y = float(np.clip(models[int(active[1])] @ x / 2, 0, 1))
            pairs.predict(z, active)
            loss = pairs.learn(y)
            regrets[active] += loss - (z - y) ** 2
        assert (regrets.ravel() <= pairs.hedge.bound()).all()
        assert regrets[1].max() < 5

    def test_bad_input_is_refused(self):
        pairs = BlumLykouris(1, 2)
        with pytest.raises(InvalidProblem, match="call predict first"):
            pairs.learn(0.5)
        with pytest.raises(InvalidParameter, match=r"proposals lie in \[0, 1\]"):
            pairs.predict([2.0, 0.0], [True])
        with pytest.raises(InvalidParameter, match="models >= 1"):
            BlumLykouris(1, 0)
