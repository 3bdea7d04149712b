"""MatrixCompletion as scikit-learn and its users meet it."""

from __future__ import annotations

import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.matrix import ColdWarning, Completion, Factors, MatrixCompletion, held_out_error


@pytest.fixture
def table(rng):
    """A 120 x 80 table of rank 2 with biases and a little noise, three in ten seen."""
    M = rng.standard_normal((120, 2)) @ rng.standard_normal((2, 80))
    M += 3.0 + rng.standard_normal((120, 1)) + rng.standard_normal(80)
    seen = rng.random(M.shape) < 0.3
    return M, np.where(seen, M + 0.05 * rng.standard_normal(M.shape), np.nan)


def sparse(X):
    rows, columns = np.nonzero(~np.isnan(X))
    return sp.coo_array((X[rows, columns], (rows, columns)), X.shape)


def test_it_passes_scikit_learns_checks():
    whole = "predict of a matrix is a matrix, not a vector"
    excused = {f"check_estimator_sparse_{kind}": whole for kind in ("array", "matrix")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in check_estimator(MatrixCompletion(), expected_failed_checks=excused, on_skip=None):
            assert row["status"] in ("passed", "skipped", "xfail"), row


def test_missing_entries_are_predicted(table):
    M, X = table
    model = MatrixCompletion().fit(X)
    assert model.rank_ in (2, 4)
    rows, columns = np.nonzero(np.isnan(X))
    error = np.sqrt(np.mean((model.predict(rows, columns) - M[rows, columns]) ** 2))
    assert error < 0.3  # the ridge shrinks what has little noise
    low, high = model.test_error_.low, model.test_error_.high
    assert low < np.sqrt(error**2 + 0.05**2) < 1.5 * high


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "frame", "triples", "float32", "fortran"])
def test_every_form_of_the_entries_gives_the_same_model(table, form):
    _, X = table
    coo = sparse(X)
    given = {
        "coo": coo,
        "csr": coo.tocsr(),
        "csc": sp.csc_matrix(coo),
        "frame": pd.DataFrame(X),
        "triples": (coo.row[::-1], coo.col[::-1], coo.data[::-1]),
        "float32": X.astype(np.float32),
        "fortran": np.asfortranarray(X),
    }[form]
    options = {"shape": X.shape} if form == "triples" else {}
    found = MatrixCompletion(2, max_iter=5)
    other = MatrixCompletion(2, max_iter=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.fit(given, **options)
        other.fit(X)
    tolerance = 1e-4 if form == "float32" else 1e-12
    np.testing.assert_allclose(found.row_factors_, other.row_factors_, atol=tolerance)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_the_unit_of_the_entries_changes_nothing_else(table, scale):
    _, X = table
    model = MatrixCompletion(2).fit(scale * X)
    plain = MatrixCompletion(2).fit(X)
    np.testing.assert_allclose(
        model.predict([3, 5], [7, 9]) / scale, plain.predict([3, 5], [7, 9]), rtol=1e-6
    )
    assert model.test_error_.error / scale == pytest.approx(plain.test_error_.error, rel=1e-6)
    np.testing.assert_allclose(model.transform(scale * X[:3]) / scale, plain.transform(X[:3]), rtol=1e-6)


def test_new_rows_get_the_least_squares_of_their_own_entries(table):
    _, X = table
    model = MatrixCompletion(2, ridge=0.1).fit(X[:100])
    u = model.transform(X[100:])
    V = np.hstack([model.column_factors_, np.ones((80, 1))])
    for row, x in zip(u, X[100:], strict=True):
        seen = ~np.isnan(x)
        y = (x - model.mean_ - model.column_bias_)[seen] / model.unit_
        lift = 0.1 * seen.sum() * np.eye(3)
        exact = np.linalg.solve(V[seen].T @ V[seen] + lift, V[seen].T @ y) * model.unit_
        np.testing.assert_allclose(row, exact, rtol=1e-8, atol=1e-10)


def test_rows_that_come_later_stand_below_the_others(table):
    M, X = table
    model = MatrixCompletion(2).fit(X[:100]).partial_fit(X[100:])
    assert model.row_factors_.shape == (120, 2)
    error = model.predict(np.arange(100, 120), np.zeros(20, int)) - M[100:, 0]
    assert np.sqrt(np.mean(error**2)) < 0.5
    whole = MatrixCompletion(2).partial_fit(X)
    assert whole.row_factors_.shape == (120, 2)


def test_one_argument_completes_other_rows(table):
    M, X = table
    model = MatrixCompletion(2).fit(X[:100])
    assert np.sqrt(np.mean((model.predict(X[100:]) - M[100:]) ** 2)) < 0.3


def test_rows_and_columns_without_entries_are_told_and_get_their_bias(table):
    _, X = table
    X[7], X[:, 9] = np.nan, np.nan
    with pytest.warns(ColdWarning, match="1 rows and 1 columns have no entry"):
        model = MatrixCompletion(2).fit(X)
    assert list(model.cold_rows_) == [7]
    assert list(model.cold_columns_) == [9]
    assert model.predict([7], [9])[0] == pytest.approx(model.mean_)
    assert model.predict([7], [4])[0] == pytest.approx(model.mean_ + model.column_bias_[4])


def test_a_row_without_entries_gets_the_columns_bias(table):
    _, X = table
    model = MatrixCompletion(2).fit(X)
    nothing = np.full((1, 80), np.nan)
    assert not model.transform(nothing).any()
    np.testing.assert_allclose(model.predict(nothing)[0], model.mean_ + model.column_bias_)
    model.partial_fit(nothing)
    assert list(model.cold_rows_) == [120]


@pytest.mark.parametrize(
    "later",
    [
        {"biases": False},
        {"nonnegative": True},
        {"confidence": 3.0},
        {"ridge": 100.0},
        {"ridge_by_count": False},
    ],
    ids=str,
)
def test_parameters_that_are_changed_hold_from_the_next_fit_on(table, later):
    _, X = table
    model = MatrixCompletion(2).fit(X)
    before = model.transform(X[:5])
    np.testing.assert_array_equal(model.set_params(**later).transform(X[:5]), before)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).transform(X[:5]), before)


def test_what_is_masked_was_not_seen(table):
    _, X = table
    masked = MatrixCompletion(2).fit(np.ma.masked_invalid(X))
    np.testing.assert_array_equal(masked.row_factors_, MatrixCompletion(2).fit(X).row_factors_)
    hidden = np.ma.array(np.nan_to_num(X, nan=1e6), mask=np.isnan(X))
    np.testing.assert_array_equal(masked.transform(hidden), masked.transform(X))


def test_models_fitted_in_threads_are_those_fitted_one_by_one(table):
    _, X = table
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda k: MatrixCompletion(k, solver="cg").fit(X).row_factors_, (1, 2, 3)))
    for k, factors in zip((1, 2, 3), found, strict=True):
        np.testing.assert_array_equal(factors, MatrixCompletion(k, solver="cg").fit(X).row_factors_)


def test_all_entries_equal_are_completed_by_that_number(table):
    X = np.where(np.isnan(table[1]), np.nan, 7.0)
    model = MatrixCompletion().fit(X)
    np.testing.assert_allclose(model.predict([0, 3], [1, 2]), 7.0)
    assert model.test_error_.error < 1e-12


def test_bounds_hold_for_new_rows_too(rng):
    M = rng.random((60, 3)) @ rng.random((3, 40))
    X = np.where(rng.random(M.shape) < 0.5, M, np.nan)
    model = MatrixCompletion(3, nonnegative=True, ridge=1e-3).fit(X)
    assert (model.row_factors_ >= 0).all()
    assert (model.transform(X) >= 0).all()
    assert model.test_error_.error < 0.1


def test_implicit_feedback_ranks_what_comes_next_before_the_rest(rng):
    groups = rng.integers(4, size=200), rng.integers(4, size=100)
    rate = np.where(groups[0][:, None] == groups[1], 0.6, 0.02)
    counts = rng.poisson(rate).astype(float)
    model = MatrixCompletion(8, confidence=5.0, ridge=0.01).fit(sp.csr_array(counts))
    assert model.test_error_.high < 0.35
    assert model.mean_ == 0.0


def test_weights_of_entries_count_as_copies(table):
    _, X = table
    weights = np.ones_like(X)
    weights[:60] = 2.0
    options = {"held_out": 0.0, "test": 0.0, "ridge": 0.0, "max_iter": 400}
    model = MatrixCompletion(2, **options).fit(X, weights=weights)
    problem = Completion(X, 2, weights=weights, biases=True, held_out=0.0)
    mine = Factors.of(problem, np.zeros((200, 3)))
    assert model.mean_ == pytest.approx(mine.mean)


def test_it_works_in_pipelines_searches_clones_and_pickles(table):
    _, X = table
    search = GridSearchCV(MatrixCompletion(), {"rank": [1, 2]}, cv=3).fit(X)
    assert search.best_params_ == {"rank": 2}
    pipe = make_pipeline(FunctionTransformer(), MatrixCompletion(2)).set_output(transform="pandas")
    assert list(pipe.fit_transform(X).columns) == [f"matrixcompletion{i}" for i in range(3)]
    model = clone(MatrixCompletion(2)).fit(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict([0], [1]), model.predict([0], [1]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1), (2, 2)])
def test_tiny_tables_are_fitted(shape):
    X = np.arange(1.0, 1 + shape[0] * shape[1]).reshape(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isfinite(MatrixCompletion().fit(X).predict([0], [0])).all()


class TestHeldOutError:
    def test_its_interval_holds_the_error_as_often_as_it_says(self, rng):
        held = 0
        for seed in range(200):
            values = rng.standard_normal((30, 20)) * rng.exponential(size=(30, 1))
            problem = Completion(values, 1, held_out=0.0, test=0.2, seed=seed)
            found = held_out_error(problem, problem.start(1), level=0.9)
            held += found.low <= np.sqrt(np.mean(values**2)) <= found.high
        # the finite table makes intervals a little wide; heavy tails a little narrow: 180 of 200 +- 3 deviations
        assert 167 <= held <= 200

    def test_it_is_infinite_where_nothing_was_set_apart(self):
        problem = Completion(np.eye(3), 1, held_out=0.0)
        found = held_out_error(problem, problem.start(1))
        assert (found.low, found.high, found.entries) == (0.0, np.inf, 0)

    def test_a_level_out_of_range_is_refused(self):
        problem = Completion(np.eye(3), 1, held_out=0.0)
        with pytest.raises(InvalidParameter, match="0 < level < 1"):
            held_out_error(problem, problem.start(1), level=95)


class TestBadInput:
    @pytest.mark.parametrize(
        ("X", "options", "message", "error"),
        [
            (np.full((3, 3), np.nan), {}, "holds no entry", InvalidProblem),
            (np.array([[1.0, np.inf]]), {}, "infinity", ValueError),
            (([0], [0], [np.inf]), {}, "NaN or infinite", NotFinite),
            (np.eye(3), {"rank": 9}, "rank 9 is more than a 3 x 3 matrix", InvalidProblem),
            (np.eye(3), {"solver": "als"}, "solver", ValueError),
            (np.eye(3), {"confidence": 1.0, "biases": True}, "takes no biases", InvalidProblem),
            (np.eye(3), {"dtype": np.float16}, "float64 or float32", InvalidParameter),
            (np.eye(3) * 1j, {}, "Complex data not supported", ValueError),
            (([0], [0], [1j]), {}, "complex", InvalidProblem),
            ((["ann"], ["x"], [1.0]), {}, "expected numbers", InvalidProblem),
            (([0, 1], [0, 1], [1, 2**60 + 1]), {}, "beyond 2.53", InvalidProblem),
            (sp.csr_array((3, 3)), {}, "holds no entry", InvalidProblem),
        ],
    )
    def test_it_is_refused(self, X, options, message, error):
        with pytest.raises(error, match=message):
            MatrixCompletion(**options).fit(X)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda model: model.predict([0], [0]),
            lambda model: model.transform(np.eye(3)),
            lambda model: model.inverse_transform(np.eye(3)),
            lambda model: model.score(np.eye(3)),
            lambda model: model.factors_,
        ],
    )
    def test_nothing_is_said_before_a_fit(self, ask):
        with pytest.raises(NotFittedError):
            ask(MatrixCompletion())

    def test_places_outside_are_refused(self, table):
        model = MatrixCompletion(2).fit(table[1])
        with pytest.raises(InvalidParameter, match="there are 120, counted from 0"):
            model.predict([0, 120], [0, 0])
        with pytest.raises(InvalidProblem, match="expected indices from 0"):
            model.predict([-1], [0])
        with pytest.raises(InvalidParameter, match="2 rows and 1 columns"):
            model.predict([0, 1], [0])

    def test_rows_of_another_width_are_refused(self, table):
        model = MatrixCompletion(2).fit(table[1])
        with pytest.raises(ValueError, match="79 features"):
            model.transform(table[1][:, :79])
        with pytest.raises(InvalidProblem, match=r"expected \(rows, 3\)"):
            model.inverse_transform(np.ones((2, 2)))

    def test_a_shape_beside_a_matrix_is_refused(self):
        with pytest.raises(InvalidParameter, match="shape is for triples"):
            MatrixCompletion().fit(np.eye(3), shape=(3, 3))
