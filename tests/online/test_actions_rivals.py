"""The rivals of eliminations against plain formulas, and their options."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg import Status, solve
from thalweg.core import InvalidParameter
from thalweg.online import (
    ActionTable,
    EpsilonGreedy,
    ExploreThenCommit,
    GOptimal,
    LinUCB,
    PhasedElimination,
    RandomActions,
)
from thalweg.online.actions.generators import nearly_linear, sparse_parameter, sphere


class TestRivals:
    @pytest.mark.parametrize("method", [LinUCB(beta=0.7, ridge=0.5), EpsilonGreedy(ridge=0.5)])
    @pytest.mark.parametrize("noise", [0.0, 0.1])
    def test_updates_are_the_ridge_regression(self, method, noise):
        F, rng = sphere(30, 4, 1), np.random.default_rng(0)
        search = method.begin(F, noise=noise)
        for _ in range(15):
            search.next_action()
            search.observe(rng.standard_normal())
        played = F[search.actions]
        V = 0.5 * np.eye(4) + played.T @ played
        theta = np.linalg.solve(V, played.T @ np.array(search.rewards))
        np.testing.assert_allclose(search.estimates, F @ theta, atol=1e-9)
        np.testing.assert_allclose(search.squares, np.einsum("ij,ij->i", F @ np.linalg.inv(V), F), atol=1e-9)
        if isinstance(method, LinUCB):
            upper = F @ theta + 0.7 * np.sqrt(search.squares)
            may = np.arange(30) if noise else np.flatnonzero(search.counts == 0)
            assert search.next_action() == may[np.argmax(upper[may])]

    @pytest.mark.parametrize("method", [LinUCB(), EpsilonGreedy(), RandomActions()])
    def test_exact_rewards_are_asked_for_once_each(self, method):
        problem = nearly_linear(sphere(25, 4), sparse_parameter(4, 1), 0.1)
        found = solve(problem, method)
        assert found.status is Status.EXHAUSTED
        assert found.calls == found.history["queries"][-1] == 25
        assert found.metrics["gap"] == 0.0
        assert "no certificate" in found.message

    def test_rounds_end_a_noisy_search(self):
        problem = ActionTable(sphere(25, 4), sphere(25, 4)[:, 0], noise=0.1)
        assert solve(problem, LinUCB(rounds=60)).calls == 60
        assert solve(problem, RandomActions()).calls == 250
        assert solve(problem, LinUCB()).metrics["gap"] < 0.3

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: LinUCB(beta=-1.0), "beta >= 0"),
            (lambda: LinUCB(ridge=0.0), "ridge > 0"),
            (lambda: LinUCB(rounds=0), "rounds >= 1"),
            (lambda: EpsilonGreedy(share=1.5), "0 <= share <= 1"),
            (lambda: EpsilonGreedy(ridge=-1.0), "ridge > 0"),
            (lambda: RandomActions(rounds=1.5), "rounds >= 1"),
            (lambda: GOptimal(eps=-1.0), "eps >= 0"),
            (lambda: GOptimal(tol=0.0), "tol > 0"),
            (lambda: GOptimal(delta=0.0), "0 < delta < 1"),
            (lambda: GOptimal(dimension=0), "dimension >= 1"),
            (lambda: PhasedElimination(eps=None), "number eps"),
            (lambda: PhasedElimination(least=0.0), "least > 0"),
            (lambda: PhasedElimination(delta=1.0), "0 < delta < 1"),
            (lambda: ExploreThenCommit(queries=None), "queries >= 1"),
            (lambda: ExploreThenCommit(weight=0.0), "weight > 0"),
        ],
    )
    def test_options_out_of_range_are_refused(self, make, message):
        with pytest.raises(InvalidParameter, match=message):
            make()
