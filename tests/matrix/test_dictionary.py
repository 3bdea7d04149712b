"""The estimator as scikit-learn uses it, what it saves, and what it refuses."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, UnreadableFile
from thalweg.core.tree import save_tree
from thalweg.matrix import OnlineDictionary, SparseStream, merge_dictionaries, recovery_error

STREAM = SparseStream(8, 0.25, seed=1)


@pytest.fixture(scope="module", name="Y")
def samples():
    return next(STREAM.batches(1200))


@pytest.fixture(scope="module")
def fitted(Y):
    return OnlineDictionary(random_state=0).fit(Y)


class TestScikitLearn:
    @pytest.mark.parametrize(
        "estimator",
        [OnlineDictionary(), OnlineDictionary(whiten=True, center=True, missing="fill")],
        ids=["default", "whitened and filled"],
    )
    def test_it_passes_the_checks_of_estimators(self, estimator):
        for made, check in estimator_checks_generator(estimator):
            if "array_api" not in str(check):
                check(made)

    def test_a_pipeline_is_searched_by_grid(self, Y):
        target = np.abs(Y @ STREAM.basis).sum(1)
        pipe = make_pipeline(
            StandardScaler(with_std=False),
            OnlineDictionary(coding="top-k", n_nonzero=2, random_state=0),
            Ridge(),
        )
        found = GridSearchCV(pipe, {"onlinedictionary__n_nonzero": [1, 4]}, cv=2).fit(Y, target)
        assert set(found.best_params_) == {"onlinedictionary__n_nonzero"}

    def test_a_search_without_a_rule_takes_the_sparsest_codes(self, Y):
        found = GridSearchCV(OnlineDictionary(random_state=0), {"epochs": [1, 5]}, cv=2).fit(Y)
        assert found.best_params_ == {"epochs": 5}

    def test_tables_keep_their_names_and_give_tables(self, Y):
        frame = pd.DataFrame(Y, columns=[f"s{i}" for i in range(8)])
        model = OnlineDictionary(random_state=0).set_output(transform="pandas").fit(frame)
        assert list(model.transform(frame).columns) == [f"onlinedictionary{i}" for i in range(8)]
        with pytest.raises(ValueError, match="feature names"):
            model.partial_fit(frame[[f"s{i}" for i in range(7, -1, -1)]])

    def test_pickles_and_clones(self, fitted, Y):
        again = pickle.loads(pickle.dumps(fitted))
        np.testing.assert_array_equal(again.transform(Y), fitted.transform(Y))
        assert not hasattr(clone(fitted), "state_")

    @pytest.mark.parametrize("kind", [np.float32, np.int64, bool])
    def test_other_kinds_of_numbers_are_taken(self, Y, kind):
        assert OnlineDictionary(epochs=1).fit((2 * Y[:50]).astype(kind)).components_.dtype == np.float64

    def test_rows_that_lie_apart_in_memory_give_the_same(self, Y):
        one = OnlineDictionary(random_state=0, epochs=1).fit(np.asfortranarray(Y))
        other = OnlineDictionary(random_state=0, epochs=1).fit(Y)
        np.testing.assert_allclose(one.components_, other.components_, atol=1e-12)


class TestCodes:
    def test_codes_go_back_to_their_samples(self, fitted, Y):
        np.testing.assert_allclose(fitted.inverse_transform(fitted.transform(Y)), Y, atol=1e-12)

    def test_codes_of_a_whitened_and_centred_learner_go_back_too(self, Y):
        model = OnlineDictionary(whiten=True, center=True, random_state=0).fit(3.0 + Y * np.arange(1, 9))
        back = model.inverse_transform(model.transform(Y))
        np.testing.assert_allclose(back, Y, atol=1e-10)

    def test_atoms_are_orthonormal(self, fitted):
        np.testing.assert_allclose(fitted.components_ @ fitted.components_.T, np.eye(8), atol=1e-12)

    def test_fit_finds_the_basis(self, fitted):
        assert recovery_error(fitted.components_.T, STREAM.basis) < 5e-3

    @pytest.mark.parametrize(
        ("options", "holds"),
        [
            ({"coding": "top-k", "n_nonzero": 3}, lambda Z, full: (np.count_nonzero(Z, axis=1) <= 3).all()),
            (
                {"coding": "hard", "threshold": 0.5},
                lambda Z, full: np.array_equal(Z, np.where(abs(full) > 0.5, full, 0)),
            ),
            (
                {"coding": "soft", "threshold": 0.5},
                lambda Z, full: np.allclose(abs(Z), np.maximum(abs(full) - 0.5, 0)),
            ),
        ],
        ids=["top-k", "hard", "soft"],
    )
    def test_codings_keep_what_they_say(self, fitted, Y, options, holds):
        full = fitted.transform(Y)
        assert holds(clone(fitted).set_params(**options).fit(Y).transform(Y), full)

    def test_missing_entries_are_filled_by_codes(self, Y):
        model = OnlineDictionary(missing="fill", random_state=0).fit(Y)
        row = Y[np.count_nonzero(np.abs(Y @ STREAM.basis) > 1e-9, axis=1) == 1][:1]
        holed = row.copy()
        holed[0, np.abs(row[0]).argmin()] = np.nan
        np.testing.assert_allclose(
            model.inverse_transform(model.transform(holed)), row, atol=0.1 * np.abs(row).max()
        )

    def test_samples_without_any_entry_are_left_out_and_columns_without_any_are_named(self, Y):
        empty = np.vstack([Y, np.full((40, Y.shape[1]), np.nan)])
        model = OnlineDictionary(missing="fill", random_state=0, epochs=1).fit(empty)
        assert (model.n_incomplete_, model.n_samples_seen_ + model.n_zero_) == (40, len(Y))
        assert np.isnan(model.transform(empty[-1:])).all()
        assert np.isfinite(model.score(empty))
        with pytest.raises(InvalidProblem, match="no sample of X says anything"):
            clone(model).fit(empty[-40:])
        with pytest.raises(InvalidProblem, match="column 2 of X has no entry"):
            clone(model).fit(np.where(np.arange(Y.shape[1]) == 2, np.nan, Y))

    def test_skipped_samples_have_codes_of_nan(self, Y):
        holed = np.where(np.arange(len(Y))[:, None] == 3, np.nan, Y)
        model = OnlineDictionary(missing="skip", epochs=1).fit(holed)
        assert np.isnan(model.transform(holed)).all(1).nonzero()[0].tolist() == [3]
        assert model.n_incomplete_ == 1

    def test_a_score_does_not_change_with_the_scale(self, fitted, Y):
        assert fitted.score(1e-80 * Y) == pytest.approx(fitted.score(Y))
        assert fitted.score(np.zeros((2, 8))) == 0.0


class TestStream:
    def test_one_call_and_many_take_the_same_steps(self, Y):
        one = OnlineDictionary(random_state=0).partial_fit(Y[:160])
        many = OnlineDictionary(random_state=0)
        for first in range(0, 160, 16):
            many.partial_fit(Y[first : first + 16])
        np.testing.assert_array_equal(one.components_, many.components_)

    def test_samples_of_zeros_are_counted_and_say_nothing(self, Y):
        with_zeros = np.insert(Y[:16], [3, 9], 0.0, axis=0)
        one = OnlineDictionary(batch_size=18, random_state=0).partial_fit(with_zeros)
        other = OnlineDictionary(batch_size=16, random_state=0).partial_fit(Y[:16])
        np.testing.assert_allclose(one.components_, other.components_, atol=1e-12)
        assert (one.n_zero_, one.n_samples_seen_) == (2 + other.n_zero_, other.n_samples_seen_)

    def test_a_stream_that_begins_with_zeros_keeps_its_start(self):
        model = OnlineDictionary(start=np.eye(3)[:, ::-1]).partial_fit(np.zeros((4, 3)))
        assert (model.n_steps_, model.n_zero_) == (0, 4)
        np.testing.assert_array_equal(model.components_, np.eye(3)[::-1])
        assert np.isnan(model.gap_)

    def test_memory_does_not_grow_with_the_samples(self):
        def size(model):
            return len(pickle.dumps(model))

        model = OnlineDictionary(random_state=0, whiten=True)
        sizes = []
        for k, batch in enumerate(SparseStream(6, 0.3).batches(16, 400)):
            model.partial_fit(batch)
            if k in (50, 399):
                sizes.append(size(model))
        assert abs(sizes[1] - sizes[0]) < 64


class TestSaved:
    def test_a_learner_goes_on_with_the_same_bits(self, Y, tmp_path):
        options = {"whiten": True, "center": True, "clip": 0.9, "missing": "fill", "forgetting": 0.999}
        whole = OnlineDictionary(random_state=0, **options).partial_fit(Y[:320]).partial_fit(Y[320:640])
        half = OnlineDictionary(random_state=0, **options).partial_fit(Y[:320])
        half.save(tmp_path / "basis")
        other = OnlineDictionary(random_state=7, **options).load(tmp_path / "basis").partial_fit(Y[320:640])
        np.testing.assert_array_equal(other.components_, whole.components_)
        assert other.n_samples_seen_ == whole.n_samples_seen_

    def test_names_of_columns_are_kept(self, Y, tmp_path):
        frame = pd.DataFrame(Y, columns=[f"s{i}" for i in range(8)])
        OnlineDictionary(epochs=1).fit(frame).save(tmp_path / "basis")
        with pytest.raises(ValueError, match="feature names"):
            OnlineDictionary().load(tmp_path / "basis").transform(frame.rename(columns={"s0": "other"}))

    @pytest.mark.parametrize(
        "options", [{"loss": "l4"}, {"whiten": True}, {"batch_size": 8}, {"missing": "skip"}]
    )
    def test_other_settings_are_refused(self, fitted, tmp_path, options):
        fitted.save(tmp_path / "basis")
        name = next(iter(options))
        with pytest.raises(CheckpointMismatch, match=f"learned with {name}="):
            OnlineDictionary(**options).load(tmp_path / "basis")

    def test_other_files_are_refused(self, fitted, tmp_path):
        (tmp_path / "text").write_text("no archive")
        save_tree(tmp_path / "tree", {"settings": {}})
        shapes = fitted.state_dict()
        shapes["state"]["momentum"] = np.zeros((2, 2))
        save_tree(tmp_path / "shapes", shapes)
        for name in ("absent", "text", "tree", "shapes"):
            with pytest.raises(UnreadableFile):
                OnlineDictionary().load(tmp_path / name)

    def test_nothing_is_saved_before_anything_is_learned(self, tmp_path):
        with pytest.raises(ValueError, match="not fitted"):
            OnlineDictionary().save(tmp_path / "basis")


class TestMerge:
    @pytest.mark.parametrize("options", [{}, {"whiten": True, "center": True}, {"loss": "l4", "clip": 0.95}])
    def test_two_halves_are_not_worse_than_one(self, options):
        stream = SparseStream(8, 0.2, seed=2)
        halves = [OnlineDictionary(random_state=k, **options) for k in range(2)]
        for k, batch in enumerate(stream.batches(16, 1200)):
            halves[k % 2].partial_fit(batch)
        whole = merge_dictionaries(*halves)
        errors = [recovery_error(_basis(m), stream.basis) for m in (whole, *halves)]
        assert errors[0] <= max(errors[1:])
        assert whole.n_samples_seen_ == sum(h.n_samples_seen_ for h in halves)
        whole.partial_fit(next(stream.batches(64)))

    def test_a_learner_merged_with_itself_is_itself(self, fitted):
        whole = merge_dictionaries(fitted, fitted)
        np.testing.assert_allclose(whole.components_, fitted.components_, atol=1e-12)

    def test_units_of_the_two_may_differ_by_hundreds_of_powers(self):
        stream = SparseStream(5, 0.3, seed=4)
        small, large = (OnlineDictionary(random_state=k) for k in range(2))
        for batch in stream.batches(16, 200):
            small.partial_fit(np.ldexp(batch, -500))
            large.partial_fit(np.ldexp(batch, 500))
        assert recovery_error(merge_dictionaries(small, large).components_.T, stream.basis) < 0.02

    def test_learners_that_do_not_fit_are_refused(self, fitted, Y):
        with pytest.raises(InvalidProblem, match="loss='l3' and loss='l4'"):
            merge_dictionaries(fitted, OnlineDictionary("l4", epochs=1).fit(Y))
        with pytest.raises(InvalidProblem, match="of 8 and 3 entries"):
            merge_dictionaries(fitted, OnlineDictionary(epochs=1).fit(Y[:, :3]))


def _basis(model):
    return (
        model.components_.T
        if not model.whiten
        else np.linalg.svd(model.components_.T)[0] @ np.linalg.svd(model.components_.T)[2]
    )


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"coding": "top-k"}, "coding='top-k' needs n_nonzero, how many codes to keep, 1 to 8; got None"),
            ({"coding": "top-k", "n_nonzero": 9}, "1 to 8; got 9"),
            ({"coding": "soft"}, "coding='soft' needs threshold"),
        ],
    )
    def test_codings_without_their_numbers(self, Y, options, message):
        with pytest.raises(InvalidParameter, match=message):
            OnlineDictionary(**options).fit(Y)

    @pytest.mark.parametrize("start", [np.ones((8, 8)), np.eye(3), np.full((8, 8), np.nan)])
    def test_a_start_that_is_not_orthogonal(self, Y, start):
        with pytest.raises(InvalidProblem, match=r"expected orthonormal columns, \(8, 8\)"):
            OnlineDictionary(start=start).fit(Y)

    def test_data_that_say_nothing(self):
        with pytest.raises(InvalidProblem, match="no sample of X says anything"):
            OnlineDictionary().fit(np.zeros((4, 3)))
        with pytest.raises(InvalidProblem, match="has missing entries"):
            OnlineDictionary(missing="skip").fit(np.full((4, 3), np.nan))

    @pytest.mark.parametrize(
        "options", [{"batch_size": 0}, {"clip": 1.0}, {"forgetting": 0.0}, {"loss": "l5"}]
    )
    def test_parameters_outside_their_range(self, Y, options):
        with pytest.raises(ValueError, match=next(iter(options))):
            OnlineDictionary(**options).fit(Y)

    @pytest.mark.parametrize(
        "X",
        [np.ones((3, 8), complex), sp.csr_array(np.eye(8)), np.full((3, 8), np.nan), np.full((3, 8), np.inf)],
    )
    def test_data_of_other_kinds(self, fitted, X):
        for use in (OnlineDictionary().fit, clone(fitted).partial_fit, fitted.transform):
            with pytest.raises((ValueError, TypeError)):
                use(X)

    def test_another_number_of_entries(self, fitted, Y):
        with pytest.raises(ValueError, match="7 features"):
            pickle.loads(pickle.dumps(fitted)).partial_fit(Y[:, :7])
        with pytest.raises(InvalidProblem, match=r"expected \(samples, 8\)"):
            fitted.inverse_transform(Y[:, :7])


class TestTogether:
    def test_threads_learn_as_each_would_alone(self):
        batches = [list(SparseStream(8, 0.3, seed=s).batches(16, 40)) for s in range(4)]

        def learn(seed):
            model = OnlineDictionary(random_state=seed)
            for Y in batches[seed]:
                model.partial_fit(Y)
            return model.components_

        alone = [learn(seed) for seed in range(4)]
        with ThreadPoolExecutor(4) as pool:
            for found, expected in zip(pool.map(learn, range(4)), alone, strict=True):
                np.testing.assert_array_equal(found, expected)

    def test_a_stream_cut_elsewhere_goes_on_from_a_copy(self):
        batches = list(SparseStream(8, 0.3, seed=1).batches(16, 30))
        whole, half = OnlineDictionary(random_state=0), OnlineDictionary(random_state=0)
        for Y in batches:
            whole.partial_fit(Y)
        for Y in batches[:10]:
            half.partial_fit(Y)
        other = pickle.loads(pickle.dumps(half))
        for Y in batches[10:]:
            other.partial_fit(Y)
        np.testing.assert_array_equal(other.components_, whole.components_)

    def test_rows_of_another_width_are_told(self):
        model = OnlineDictionary(random_state=0).partial_fit(next(SparseStream(8, 0.3).batches(16)))
        with pytest.raises(ValueError, match="9 features"):
            model.partial_fit(np.ones((16, 9)))
