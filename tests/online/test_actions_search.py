"""The table of actions, asking and telling, and what is kept, for every search alike."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from thalweg import solve
from thalweg.core import (
    CheckpointMismatch,
    InvalidParameter,
    InvalidProblem,
    NotFinite,
    UnreadableFile,
)
from thalweg.online import ActionTable, NetElimination
from thalweg.online.actions.tolerance import draws_for


@pytest.fixture
def table(rng):
    F = rng.standard_normal((40, 6))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    return ActionTable(F, 0.9 * F[:, 2] + rng.uniform(-0.05, 0.05, 40))


class TestActionTable:
    def test_it_judges_an_answer(self):
        table = ActionTable([[1, 0], [0, 1], [1, 1]], [0.25, -0.5, 0.75])
        assert table.metrics(1) == {"gap": 1.25, "reward": -0.5}
        assert table.metrics(2)["gap"] == 0.0

    def test_rewards_may_be_a_function(self):
        seen = []
        table = ActionTable([[1.0], [0.5]], lambda action: seen.append(action) or 0.5)
        found = solve(table, NetElimination(1, 0.1))
        assert found.metrics == {}
        assert len(seen) == found.calls == found.history["queries"][-1]

    def test_what_the_function_raises_comes_with_the_best_so_far(self, table):
        def broken(action, calls=[]):  # noqa: B006 -- counts
            calls.append(action)
            if len(calls) == 2:
                raise OSError("the bench is on fire")
            return 0.0

        with pytest.raises(OSError, match="fire") as caught:
            solve(ActionTable(table.features, broken), NetElimination(1, 0.1))
        assert caught.value.result.calls == 1

    @pytest.mark.parametrize(
        ("features", "rewards", "error", "message"),
        [
            (np.zeros((0, 3)), [], InvalidProblem, "at least one of each"),
            (np.zeros((3, 0)), [0, 0, 0], InvalidProblem, "at least one of each"),
            ([1.0, 2.0], [0, 0], InvalidProblem, r"shape \(2,\)"),
            ([[1.0], [2.0], [1.0]], [0, 0, 0], InvalidProblem, "Actions 0 and 2 have the same features"),
            ([[0.0, 1.0], [-0.0, 1.0]], [0, 0], InvalidProblem, "Actions 0 and 1 have the same features"),
            ([[1.0], [np.nan]], [0, 0], NotFinite, "features holds 1 NaN"),
            ([[1.0], [2.0]], [0.0, np.inf], NotFinite, "rewards holds 1"),
            ([[1.0], [2.0]], [0.0], InvalidProblem, r"rewards has shape \(1,\); expected \(2,\)"),
            ([[1.0], [2j]], [0.0, 1.0], InvalidProblem, "features is complex"),
            ([[1.0], [2.0]], [0.0, 1j], InvalidProblem, "rewards is complex"),
            ([["a"], ["b"]], [0.0, 1.0], InvalidProblem, "expected numbers"),
            ([[1e200], [2.0]], [0.0, 1.0], InvalidProblem, "largest feature is 1e.200.*Scale them"),
            ([[1e-200], [0.0]], [0.0, 1.0], InvalidProblem, "largest feature is 1e-200"),
            (sp.eye_array(2).tocsr(), [0.0, 1.0], InvalidProblem, "sparse matrix"),
        ],
    )
    def test_what_is_no_table_is_refused(self, features, rewards, error, message):
        with pytest.raises(error, match=message):
            ActionTable(features, rewards)

    def test_a_negative_noise_and_an_unknown_action_are_refused(self, table):
        with pytest.raises(InvalidParameter, match="noise >= 0"):
            ActionTable([[1.0]], [1.0], noise=-1.0)
        with pytest.raises(InvalidParameter, match="no action 40"):
            table.metrics(40)
        with pytest.raises(InvalidParameter, match="noise >= 0"):
            NetElimination(1, 0.1).begin([[1.0]], noise=np.nan)

    def test_frames_of_pandas_are_taken_and_nothing_is_shared(self, table):
        given = table.features.copy()
        other = ActionTable(pd.DataFrame(given), pd.Series(table.rewards))
        given[:] = 0.0
        np.testing.assert_array_equal(other.features, table.features)
        assert other.fingerprint() == table.fingerprint()


class TestAsking:
    @pytest.fixture
    def search(self, table):
        return NetElimination(1, 0.1).begin(table.features)

    def test_an_answer_without_a_question_is_refused(self, search):
        with pytest.raises(InvalidParameter, match="ask for one first"):
            search.observe(0.1)
        search.next_action()
        search.observe(0.1)
        with pytest.raises(InvalidParameter, match="ask for one first"):
            search.observe(0.1)

    def test_asking_twice_is_the_same_question(self, search):
        assert search.next_action() == search.next_action()

    def test_an_ended_search_asks_nothing(self, search, table):
        while not search.done:
            search.observe(table.rewards[search.next_action()])
        with pytest.raises(InvalidParameter, match="has ended"):
            search.next_action()
        with pytest.raises(InvalidParameter, match="last next_action"):
            search.observe(0.0)

    @pytest.mark.parametrize(
        ("reward", "error", "message"),
        [
            (np.nan, NotFinite, "is nan; expected a finite"),
            (np.inf, NotFinite, "is inf"),
            ("0.3", InvalidProblem, "expected a number"),
            (1j, InvalidProblem, "expected a number"),
            (None, InvalidProblem, "expected a number"),
        ],
    )
    def test_a_reward_that_is_none_is_refused_and_may_be_told_again(self, search, reward, error, message):
        action = search.next_action()
        with pytest.raises(error, match=message):
            search.observe(reward)
        search.observe(np.float32(0.25))
        assert search.mean(action) == 0.25

    def test_before_the_end_there_is_an_answer_and_what_is_certain_so_far(self, search, table):
        first = search.result()
        assert (first.queries, first.certificate) == (0, None)
        assert np.isnan(first.reward)
        search.next_action()
        search.observe(0.3)
        assert search.result().reward == 0.3
        assert search.result().certificate.gap > 0.4

    def test_repeated_draws_are_averaged(self, table):
        search = NetElimination(1, 0.1, accuracy=0.1).begin(table.features, noise=0.1)
        draws = draws_for(0.1, 0.1, 40, 0.05)
        first = search.next_action()
        for k in range(draws):
            assert search.next_action() == first
            search.observe(0.1 + (k % 2) * 0.1)
        assert search.mean(first) == pytest.approx(0.1 + 0.1 * (draws // 2) / draws)
        assert search.result().draws == draws
        assert search.queries == 1


class TestKeeping:
    def test_other_features_options_and_kinds_are_refused(self, table):
        search = NetElimination(1, 0.1).begin(table.features)
        while not search.done:
            search.observe(table.rewards[search.next_action()])
        state = search.state_dict()
        with pytest.raises(CheckpointMismatch, match="Its features or its options are others"):
            NetElimination(1, 0.1).begin(table.features[::-1]).load_state_dict(state)
        with pytest.raises(CheckpointMismatch, match="saved search is a None"):
            NetElimination(1, 0.1).begin(table.features).load_state_dict({**state, "search": None})
        with pytest.raises(UnreadableFile, match="no actions"):
            NetElimination(1, 0.1).begin(table.features).load_state_dict({})
        with pytest.raises(InvalidParameter, match="just begun"):
            search.load_state_dict(state)
