"""Streams in groups: judged by least squares, played by methods, kept and gone on with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.online import (
    METHODS,
    GroupedStream,
    Groupwise,
    GroupwiseRegressor,
    Hindsight,
    LossTable,
    OneForAll,
    Play,
    TsallisINF,
    regret_curve,
)
from thalweg.workbench import compare


@pytest.fixture
def stream(rng):
    X = np.column_stack([rng.random((600, 3)), np.ones(600)])
    mask = rng.random((600, 2)) < 0.5
    y = np.where(mask[:, 0], X[:, 0], 1 - X[:, 1]) / 2
    return GroupedStream(X, y, mask, names=["a", "b"], low=0, high=1)


class TestHindsight:
    @given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 12), st.booleans())
    def test_its_loss_is_that_of_least_squares_in_any_pieces(self, seed, columns, rows, dependent):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((rows, columns)), rng.standard_normal(rows)
        if dependent:
            X[:, 0] = X[:, -1]
        best = Hindsight(columns)
        for part in np.array_split(np.arange(rows), 3):
            best.add(X[part], y[part])
        theirs = np.linalg.lstsq(X, y, rcond=None)[0] if rows else np.zeros(columns)
        assert best.loss() == pytest.approx(((X @ theirs - y) ** 2).sum(), abs=1e-10)
        np.testing.assert_allclose(best.coefficients(), theirs, atol=1e-7)

    def test_columns_of_very_different_sizes_are_fitted(self):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((500, 4)) * [1e6, 1.0, 1e-6, 1.0]
        best = Hindsight(4)
        best.add(X, X @ [1e-6, 1.0, 1e6, -1.0])
        assert best.loss() < 1e-15

    def test_units_of_columns_do_not_count(self):
        rng = np.random.default_rng(0)
        X, units = rng.standard_normal((40, 3)), np.array([1e-12, 1.0, 1e12])
        y, one, other = rng.standard_normal(40), Hindsight(3), Hindsight(3)
        one.add(X, y)
        other.add(X * units, y)
        assert other.loss() == pytest.approx(one.loss(), rel=1e-9)
        np.testing.assert_allclose(other.coefficients() * units, one.coefficients(), rtol=1e-9)

    def test_rows_that_are_none_are_refused_and_not_taken_in(self):
        best = Hindsight(2)
        for X, error, words in (
            (np.ones((3, 1)), InvalidProblem, r"expected \(rows, 2\)"),
            (np.ones((3, 2)) * 1j, InvalidProblem, "X is complex"),
            (np.full((3, 2), np.nan), NotFinite, "6 NaN"),
            (np.ones((2, 2)), InvalidProblem, r"y has shape \(3,\)"),
        ):
            with pytest.raises(error, match=words):
                best.add(X, np.ones(3))
        assert (best.rows, best.loss()) == (0, 0.0)

    def test_complex_losses_are_refused_and_the_users_own_are_left(self):
        with pytest.raises(InvalidProblem, match="losses is complex"):
            LossTable(np.ones((2, 2)) * 1j)
        mine = np.ones((2, 2))
        table = LossTable(mine)
        mine[:] = 9.0
        assert table.losses.max() == 1.0

    def test_a_curve_ends_at_the_whole_regret(self, rng):
        X, y, losses = rng.random((250, 2)), rng.random(250), rng.random(250)
        at, regrets = regret_curve(X, y, losses)
        assert len(at) == 100
        best = Hindsight(2)
        best.add(X, y)
        assert at[-1] == 250
        assert regrets[-1] == pytest.approx(losses.sum() - best.loss())
        middle = Hindsight(2)
        middle.add(X[: at[40]], y[: at[40]])
        assert regrets[40] == pytest.approx(losses[: at[40]].sum() - middle.loss())


class TestGroupedStream:
    def test_it_judges_by_the_best_model_of_each_group(self, stream):
        x = np.full(600, 0.3)
        x[500:] = np.nan
        found, ledger = stream.metrics(x), stream.ledger(x)
        assert list(ledger) == ["a", "b", "everyone"]
        assert found["left"] == 100
        rows = stream.groups[:, 0] & (np.arange(600) < 500)
        X, y = stream.X[rows], stream.labels[rows]
        theirs = np.linalg.lstsq(X, y, rcond=None)[0]
        assert ledger["a"] == pytest.approx(((0.3 - y) ** 2).sum() - ((X @ theirs - y) ** 2).sum())
        assert found["worst"] == max(ledger.values())
        assert stream.curve(x, "a")[1][-1] == pytest.approx(ledger["a"])

    def test_before_the_first_round_nothing_is_lost(self, stream):
        assert stream.metrics(np.full(600, np.nan)) == {
            "loss": 0.0,
            "regret": 0.0,
            "worst": 0.0,
            "left": 600.0,
        }

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"X": np.ones(3)}, InvalidProblem, r"X has shape \(3,\); expected \(rounds, d\)"),
            ({"X": np.ones((0, 2)), "y": []}, InvalidProblem, r"X has shape \(0, 2\)"),
            ({"y": [1.0, np.nan, 0.0]}, NotFinite, "1 NaN"),
            ({"y": [1.0]}, InvalidProblem, r"y has shape \(1,\)"),
            ({"groups": [[1], [0], [1]]}, InvalidProblem, "of truth values"),
            ({"groups": [[False]] * 3}, InvalidProblem, "no row is in 'group 0'"),
            ({"names": ["a", "b"]}, InvalidProblem, "2 names for 1 groups"),
            ({"low": 0.5}, InvalidProblem, r"y\[0\] is 0, outside \[0.5, 2\]"),
            ({"low": 3.0, "high": 3.0}, InvalidProblem, "expected low < high"),
        ],
    )
    def test_bad_input_is_refused(self, options, error, words):
        given = {"X": np.ones((3, 1)), "y": [0.0, 1.0, 2.0], "groups": [[True], [False], [True]]}
        with pytest.raises(error, match=words):
            GroupedStream(**(given | options))


class TestMethods:
    def test_groupwise_plays_what_the_estimator_predicts(self, stream):
        found = solve(stream, Groupwise(block=7))
        assert found.converged
        model = GroupwiseRegressor(low=0, high=1, fit_intercept=False, everyone=False)
        model.partial_fit(stream.X, stream.y, stream.groups)
        np.testing.assert_allclose(found.x, model.predictions_, atol=1e-14)
        assert found.metrics["loss"] == pytest.approx(model.losses_.mean())

    @pytest.mark.parametrize("combine", ["mean", "draw", "mixable", "smallest"])
    def test_blocks_of_any_size_play_alike(self, stream, combine):
        found = [solve(stream, Groupwise(combine=combine, block=b), seed=3).x for b in (1, 64, 10_000)]
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])

    def test_one_for_all_is_one_learner(self, stream):
        found = solve(stream, OneForAll())
        model = GroupwiseRegressor(low=0, high=1, fit_intercept=False).partial_fit(stream.X, stream.y)
        np.testing.assert_array_equal(found.x, model.predictions_)

    def test_the_recommended_method_keeps_every_group_small(self, stream):
        assert solve(stream).metrics["worst"] < 0.5 * solve(stream, OneForAll()).metrics["worst"]

    def test_a_resumed_run_has_the_same_bits(self, stream, tmp_path):
        method = Groupwise(combine="draw", block=50)
        whole = solve(stream, method, seed=1)
        solve(stream, method, seed=1, stop=Stop(steps=5), callbacks=[Checkpoint(tmp_path / "run", every=5)])
        np.testing.assert_array_equal(solve(stream, method, seed=1, resume=tmp_path / "run").x, whole.x)

    def test_they_are_compared_on_one_stream(self, stream):
        found = compare(stream, {"ours": Groupwise(), "one": OneForAll()}).rows
        assert [row["status"] for row in found] == ["converged"] * 2
        assert found[0]["worst"] < found[1]["worst"]

    def test_a_policy_has_converged_when_all_rounds_are_played(self, rng):
        found = solve(LossTable(rng.random((50, 2))), Play(TsallisINF(2)))
        assert found.converged
        assert found.metrics["left"] == 0
        part = solve(
            LossTable(rng.random((50, 2))), Play(TsallisINF(2)), stop=Stop(below={"left": 0}, steps=20)
        )
        assert part.metrics["left"] == 30
        assert not part.converged

    def test_options_are_checked(self):
        assert {"groupwise", "one-for-all"} <= set(METHODS)
        with pytest.raises(InvalidParameter, match="block >= 1"):
            Groupwise(block=0)
        with pytest.raises(InvalidParameter, match="alpha > 0"):
            Groupwise(alpha=-1.0)
