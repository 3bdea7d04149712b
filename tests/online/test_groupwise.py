"""Groupwise regression against exact identities of its learners, the bound of every group, and itself row by row."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import SGDRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName
from thalweg.online import By, GroupwiseRegressor, OutsideRange, TimeIntervals, Where
from thalweg.online.learners import GroupLearners

UNIT = {"low": 0.0, "high": 1.0, "fit_intercept": False}


def stream(seed, rounds=300, columns=4, groups=3):
    rng = np.random.default_rng(seed)
    X = rng.random((rounds, columns))
    mask = rng.random((rounds, groups)) < 0.5
    slopes = rng.random((groups, columns))
    y = np.clip((X @ slopes.T * mask).sum(1) / np.maximum(mask.sum(1), 1) / columns * 2, 0, 1)
    return X, y, mask


def unclipped(base, X, y, alpha=1.0):
    """What one learner proposes row by row, without the cut to [0, 1]."""
    from thalweg.online import _group_kernels as kernels

    kind = {"ridge": kernels.RIDGE, "vaw": kernels.VAW}[base]
    theta, inverse, z = np.zeros(X.shape[1]), np.eye(X.shape[1]) / alpha, np.empty(len(X))
    for t, x in enumerate(X):
        z[t] = kernels.propose(kind, x, theta, inverse)
        kernels.learn_squares(x, y[t], theta, inverse, np.empty(X.shape[1]))
    return z, theta, inverse


class TestLearners:
    @given(st.integers(0, 10_000), st.floats(0.01, 10))
    def test_online_ridge_has_its_identity(self, seed, alpha):
        """``sum (z - y)^2 / (1 + q) = min_u sum (u.x - y)^2 + alpha |u|^2``."""
        X, y, _ = stream(seed, 40)
        z, theta, _ = unclipped("ridge", X, y, alpha)
        A, total = alpha * np.eye(X.shape[1]), 0.0
        for x, label, played in zip(X, y, z, strict=True):
            total += (played - label) ** 2 / (1 + x @ np.linalg.solve(A, x))
            A += np.outer(x, x)
        best = np.linalg.solve(A, X.T @ y)
        np.testing.assert_allclose(theta, best, rtol=1e-8, atol=1e-10)
        least = ((X @ best - y) ** 2).sum() + alpha * best @ best
        assert total == pytest.approx(least, rel=1e-9)

    @given(st.integers(0, 10_000))
    def test_vovk_azoury_warmuth_has_its_identity(self, seed):
        """Regret to the regularised best = ``sum y^2 x'A_t^-1 x - sum z^2 q``."""
        X, y, _ = stream(seed, 40)
        z, _, _ = unclipped("vaw", X, y)
        A, right = np.eye(X.shape[1]), 0.0
        for x, label, played in zip(X, y, z, strict=True):
            q = x @ np.linalg.solve(A, x)
            A += np.outer(x, x)
            right += label**2 * (x @ np.linalg.solve(A, x)) - played**2 * q
        best = np.linalg.solve(A, X.T @ y)
        least = ((X @ best - y) ** 2).sum() + best @ best
        assert ((z - y) ** 2).sum() - least == pytest.approx(right, abs=1e-10)

    @pytest.mark.parametrize("base", ["gradient", "logistic"])
    def test_gradient_learners_stay_in_their_ball_and_learn(self, base):
        X, y, _ = stream(0, 3000)
        X = np.column_stack([X, -np.ones(len(X)) / 2])
        y = (X[:, 0] > 0.5).astype(float) if base == "logistic" else y
        model = GroupwiseRegressor(base=base, radius=5.0, **UNIT).partial_fit(X, y)
        assert np.linalg.norm(model._learners.theta[0]) <= 5.0 + 1e-12
        assert model.losses_[-500:].mean() < 0.8 * np.var(y)

    def test_a_million_updates_keep_the_inverse(self):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((200_000, 3)) * [1e3, 1.0, 1e-3]
        model = GroupwiseRegressor(**UNIT).partial_fit(X, rng.random(len(X)))
        A = np.eye(3) + X.T @ X
        np.testing.assert_allclose(model._learners.inverse[0], np.linalg.inv(A), rtol=1e-6, atol=1e-18)


class TestGroups:
    def test_one_group_is_its_learner_bit_for_bit(self):
        X, y, _ = stream(1)
        model = GroupwiseRegressor(**UNIT).partial_fit(X, y)
        np.testing.assert_array_equal(model.predictions_, np.clip(unclipped("ridge", X, y)[0], 0, 1))

    def test_disjoint_groups_are_their_learners_apart(self):
        X, y, mask = stream(2, groups=1)
        both = np.column_stack([mask[:, 0], ~mask[:, 0]])
        model = GroupwiseRegressor(everyone=False, **UNIT).partial_fit(X, y, both)
        for g in range(2):
            alone = GroupwiseRegressor(**UNIT).partial_fit(X[both[:, g]], y[both[:, g]])
            np.testing.assert_array_equal(model.predictions_[both[:, g]], alone.predictions_)

    @settings(max_examples=25)
    @given(st.integers(0, 10_000), st.sampled_from(["mean", "draw", "mixable"]))
    def test_no_group_ever_exceeds_its_bound(self, seed, combine):
        X, y, mask = stream(seed, 120)
        model = GroupwiseRegressor(combine=combine, random_state=seed, **UNIT)
        for rows in np.array_split(np.arange(len(X)), 12):
            model.partial_fit(X[rows], y[rows], mask[rows])
            assert (model.regrets_ <= model.bounds_ + 1e-9).all()

    def test_the_mean_loses_no_more_than_the_draw_in_a_round_of_the_same_weights(self):
        X, y, mask = stream(3)
        for t in range(60, 80):
            before = GroupwiseRegressor(**UNIT).partial_fit(X[:t], y[:t], mask[:t])
            drawn = copy.deepcopy(before)
            drawn._learners.combine = 1
            losses = [
                m.partial_fit(X[t : t + 1], y[t : t + 1], mask[t : t + 1]).losses_[0] for m in (before, drawn)
            ]
            assert losses[0] <= losses[1] + 1e-15

    def test_groups_that_differ_lose_less_than_one_model_for_all(self):
        X, y, mask = stream(4, 3000, groups=3)
        ours = GroupwiseRegressor(**UNIT).partial_fit(X, y, mask).losses_
        one = GroupwiseRegressor(**UNIT).partial_fit(X, y).losses_
        for g in range(3):
            assert ours[mask[:, g]].sum() < one[mask[:, g]].sum()

    def test_a_row_of_no_group_is_the_mean_of_all_and_teaches_nothing(self):
        X, y, mask = stream(5)
        model = GroupwiseRegressor(everyone=False, **UNIT).partial_fit(X, y, mask | ~mask.any(1)[:, None])
        before = model._learners.state_dict()
        proposals = np.clip(model._learners.theta @ X[0], 0, 1)
        model.partial_fit(X[:1], y[:1], np.zeros((1, 3), dtype=bool))
        assert model.predictions_[0] == pytest.approx(proposals.mean())
        np.testing.assert_array_equal(model._learners.theta, before["theta"])

    def test_time_intervals_follow_a_drift(self):
        rng = np.random.default_rng(0)
        X = rng.random((2000, 3))
        first, second = rng.random(3) / 3, rng.random(3) / 3
        y = np.where(np.arange(2000) < 1000, X @ first, 1 - X @ second)
        still = GroupwiseRegressor(low=0, high=1).partial_fit(X, y).losses_[1000:].sum()
        moving = (
            GroupwiseRegressor([TimeIntervals(32, 512)], low=0, high=1).partial_fit(X, y).losses_[1000:].sum()
        )
        assert moving < 0.3 * still

    def test_learners_of_intervals_begin_anew(self):
        X, y, _ = stream(6, 128)
        model = GroupwiseRegressor([TimeIntervals(32, 64)], everyone=False, **UNIT).partial_fit(
            X[:97], y[:97]
        )
        np.testing.assert_array_equal(model.counts_, [1, 33])
        alone = GroupwiseRegressor(**UNIT).partial_fit(X[64:97], y[64:97])
        np.testing.assert_array_equal(model._learners.theta[1], alone._learners.theta[0])


class TestOrder:
    @settings(max_examples=20)
    @given(
        st.integers(0, 1000),
        st.sampled_from(["ridge", "vaw", "gradient", "logistic"]),
        st.sampled_from(["mean", "draw", "mixable", "smallest"]),
        st.integers(1, 79),
    )
    def test_rows_in_pieces_are_rows_at_once(self, seed, base, combine, cut):
        X, y, mask = stream(seed, 80)
        whole = GroupwiseRegressor(base=base, combine=combine, **UNIT).partial_fit(X, y, mask)
        parts = GroupwiseRegressor(base=base, combine=combine, **UNIT)
        played = [parts.partial_fit(X[r], y[r], mask[r]).predictions_ for r in (slice(cut), slice(cut, None))]
        np.testing.assert_array_equal(np.concatenate(played), whole.predictions_)

    @pytest.mark.parametrize("base", ["ridge", "vaw", "gradient"])
    def test_predict_then_update_is_partial_fit(self, base):
        X, y, mask = stream(7, 60)
        rules = {"base": base, **UNIT}
        whole = GroupwiseRegressor(**rules).partial_fit(X, y, mask)
        rows = GroupwiseRegressor(**rules).partial_fit(X[:1], y[:1], mask[:1])
        for t in range(1, 60):
            assert rows.predict(X[t : t + 1], mask[t : t + 1])[0] == pytest.approx(
                whole.predictions_[t], abs=1e-13
            )
            rows.update(y[t])
        np.testing.assert_allclose(rows.regrets_, whole.regrets_, atol=1e-12)

    def test_predicting_changes_nothing(self):
        X, y, mask = stream(8)
        model = GroupwiseRegressor(**UNIT).partial_fit(X, y, mask)
        before = pickle.dumps(model._learners)
        model.predict(X, mask)
        assert pickle.dumps(model._learners) == before

    def test_labels_in_any_unit_are_predicted_alike(self):
        X, y, mask = stream(9)
        unit = GroupwiseRegressor(**UNIT).partial_fit(X, y, mask)
        for scale, shift in ((1e30, 0.0), (1e-30, 0.0), (8.0, -3.0)):
            found = GroupwiseRegressor(low=shift, high=shift + scale, fit_intercept=False)
            found.partial_fit(X, shift + scale * y, mask)
            np.testing.assert_allclose((found.predictions_ - shift) / scale, unit.predictions_, atol=1e-9)


class TestObjects:
    def test_a_partial_fit_estimator_is_asked_row_by_row(self):
        X, y, mask = stream(10, 60)
        base = SGDRegressor(random_state=0)
        model = GroupwiseRegressor(base=base, **UNIT).partial_fit(X, y, mask[:, :0])
        alone, played = SGDRegressor(random_state=0), [0.5]
        for t in range(59):
            alone.partial_fit(X[t : t + 1], y[t : t + 1])
            played.append(np.clip(alone.predict(X[t + 1 : t + 2])[0], 0, 1))
        np.testing.assert_allclose(model.predictions_, played, atol=1e-12)
        assert not hasattr(base, "coef_")

    def test_an_object_of_ones_own_is_the_compiled_learner(self):
        class Ridge:
            def __init__(self):
                self.A, self.b = np.eye(4), np.zeros(4)

            def predict_one(self, x):
                return x @ np.linalg.solve(self.A, self.b)

            def learn_one(self, x, y):
                self.A, self.b = self.A + np.outer(x, x), self.b + y * x

        X, y, _mask = stream(11, 100)
        rules = [TimeIntervals(16, 32)]
        theirs = GroupwiseRegressor(rules, base=Ridge(), **UNIT).partial_fit(X, y)
        ours = GroupwiseRegressor(rules, **UNIT).partial_fit(X, y)
        np.testing.assert_allclose(theirs.predictions_, ours.predictions_, atol=1e-10)


class TestEstimator:
    def test_it_keeps_scikit_learns_contract(self):
        check_estimator(GroupwiseRegressor(), on_skip=None)

    def test_rules_read_a_table(self):
        X = pd.DataFrame({"age": [20.0, 40.0, 70.0, 36.0], "sex": [0, 1, 1, 0], "dose": [0.1, 0.2, 0.3, 0.4]})
        rules = [
            By("age", cuts=(35, 50)),
            By("sex", "age", cuts={"age": (50,)}),
            Where("high", lambda t: t["dose"] > 0.25),
        ]
        model = GroupwiseRegressor(rules, low=0, high=1).partial_fit(X, [0.1, 0.2, 0.3, 0.4])
        assert model.group_names_ == [
            "everyone",
            "high",
            "age <= 35",
            "35 < age <= 50",
            "age > 50",
            "sex=0 and age <= 50",
            "sex=1 and age <= 50",
            "sex=1 and age > 50",
        ]
        np.testing.assert_array_equal(model.counts_, [4, 2, 1, 2, 1, 2, 1, 1])

    def test_labels_that_come_later_are_groups_from_then_on(self):
        X, y, _ = stream(12, 40)
        colour = pd.DataFrame({"colour": ["red"] * 20 + ["blue"] * 20})
        parts = GroupwiseRegressor(**UNIT)
        for rows in (slice(20), slice(20, 40)):
            parts.partial_fit(X[rows], y[rows], colour.iloc[rows])
        whole = GroupwiseRegressor(**UNIT).partial_fit(X, y, colour)
        assert parts.group_names_ == whole.group_names_ == ["everyone", "colour=red", "colour=blue"]
        np.testing.assert_array_equal(parts.counts_, [40, 20, 20])
        green = parts.predict(X[:1], pd.DataFrame({"colour": ["green"]}))
        everyone = np.clip(parts._learners.theta[0] @ X[0], 0, 1)
        assert green[0] == pytest.approx(everyone)

    def test_it_stands_in_a_pipeline(self):
        X, y, _ = stream(13)
        model = make_pipeline(StandardScaler(), GroupwiseRegressor([By(0, cuts=(0.0,))])).fit(X, y)
        assert model.score(X, y) > 0.0

    def test_a_prior_by_name_moves_the_first_prediction(self):
        X, y, mask = stream(14, 50)
        heavy = GroupwiseRegressor(prior={"group 0": 1e6}, **UNIT).partial_fit(X, y, mask)
        rows = np.flatnonzero(mask[:, 0])[:1]
        light = heavy._learners.mixed(
            np.array([True, True, False, False]), np.array([0.0, 1.0, np.nan, np.nan]), 0.0
        )[1]
        assert rows.size
        assert light > 0.9

    def test_labels_outside_the_range_are_told(self):
        with pytest.warns(OutsideRange, match=r"1 labels lie outside \[0, 1\] \(the first: 3\)"):
            GroupwiseRegressor(**UNIT).partial_fit([[0.0], [1.0]], [0.5, 3.0])


class TestBadInput:
    @pytest.mark.parametrize(
        ("rules", "error", "words"),
        [
            ({"base": "rigde"}, UnknownName, "ridge"),
            ({"base": SGDRegressor}, InvalidParameter, "an estimator with partial_fit"),
            ({"base": 3}, InvalidParameter, "predict_one"),
            ({"combine": "vote"}, InvalidParameter, "combine is one of"),
            ({"alpha": 0.0}, InvalidParameter, "alpha > 0"),
            ({"low": 1.0, "high": 0.0}, InvalidParameter, "must be in order"),
            ({"low": np.nan}, InvalidParameter, "finite number or None"),
            ({"everyone": False}, InvalidParameter, "There is no group"),
            ({"groups": ["sex"]}, InvalidParameter, "expected By, Where or TimeIntervals"),
            ({"groups": [By("age")]}, UnknownName, "age"),
            ({"groups": [By(0)]}, InvalidProblem, "too many for a group each"),
            ({"groups": [Where("w", lambda t: [1])]}, InvalidProblem, "expected \\(40,\\) truth values"),
        ],
    )
    def test_settings_are_checked_before_any_row(self, rules, error, words):
        X, y, _ = stream(15, 40)
        with pytest.raises(error, match=words):
            GroupwiseRegressor(**rules).partial_fit(X, y)

    def test_groups_are_checked(self):
        X, y, mask = stream(16, 10)
        model = GroupwiseRegressor(**UNIT).partial_fit(X, y, mask)
        with pytest.raises(InvalidProblem, match="has 2 columns; the rows before had 3"):
            model.partial_fit(X, y, mask[:, :2])
        with pytest.raises(InvalidProblem, match="groups has 4 rows; expected 10"):
            model.partial_fit(X, y, mask[:4])
        with pytest.raises(InvalidParameter, match="Give groups for these"):
            model.predict(X)
        with pytest.raises(InvalidParameter, match="not from both"):
            GroupwiseRegressor([TimeIntervals()], **UNIT).partial_fit(X, y, mask)
        with pytest.raises(NotFinite, match="Row 1 of the groups' column 'a' has no value"):
            GroupwiseRegressor(**UNIT).partial_fit(X[:2], y[:2], pd.DataFrame({"a": ["x", None]}))

    def test_update_needs_a_prediction_and_finite_labels(self):
        X, y, _ = stream(17, 10)
        model = GroupwiseRegressor(**UNIT).partial_fit(X, y)
        with pytest.raises(InvalidProblem, match="there are none"):
            model.update([0.5])
        model.predict(X[:2])
        before = model._learners.theta.copy()
        with pytest.raises(NotFinite, match="1 NaN"):
            model.update([0.5, np.nan])
        with pytest.raises(InvalidProblem, match=r"expected \(2,\)"):
            model.update([0.5])
        np.testing.assert_array_equal(model._learners.theta, before)
        model.update([0.5, 0.5])

    def test_rules_are_checked(self):
        with pytest.raises(InvalidParameter, match="rising numbers"):
            By("age", cuts=(50, 35))
        with pytest.raises(InvalidParameter, match="not among its columns"):
            By("age", cuts={"sex": (1,)})
        with pytest.raises(InvalidParameter, match="2 <= shortest <= longest"):
            TimeIntervals(1, 8)

    def test_saved_learners_of_other_settings_are_refused(self):
        from thalweg.core import CheckpointMismatch

        saved = GroupLearners(3, "ridge", "mean", 1.0, 1.0).state_dict()
        with pytest.raises(CheckpointMismatch, match=r"alpha=1\.0; expected 2\.0"):
            GroupLearners(3, "ridge", "mean", 2.0, 1.0).load_state_dict(saved)
        with pytest.raises(CheckpointMismatch, match="3 columns; expected 4"):
            GroupLearners(4, "ridge", "mean", 1.0, 1.0).load_state_dict(saved)
