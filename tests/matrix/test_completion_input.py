"""What a completion problem takes, and what it refuses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from thalweg import Stop, recommended, solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.matrix import (
    AutomaticAltMin,
    CGAltMin,
    Completion,
    CoordinateAltMin,
    Entries,
    ExactAltMin,
    SketchedAltMin,
    Underdetermined,
    held_out_error,
)

EXACT = {"held_out": 0.0}


def low_rank(rng, m=60, n=50, k=3, share=0.5):
    """Seen entries of a random matrix of rank k, as triples, and the matrix."""
    M = rng.standard_normal((m, k)) @ rng.standard_normal((k, n))
    rows, columns = np.nonzero(rng.random((m, n)) < share)
    return (rows, columns, M[rows, columns]), M


def completed(problem, x):
    U, V = problem.pair(x)
    return problem.mean + U @ V.T


def test_sparse_dense_and_triples_are_the_same_entries(rng):
    entries, _ = low_rank(rng, 8, 6, 2, 0.6)
    rows, columns, values = entries
    dense = np.full((8, 6), np.nan)
    dense[rows, columns] = values
    given = [
        entries,
        dense,
        *(sp.coo_array((values, (rows, columns)), (8, 6)).asformat(f) for f in ("coo", "csr", "csc")),
    ]
    seen = [Completion(g, 2, shape=(8, 6)).seen for g in given]
    for other in seen[1:]:
        for name in ("rows", "columns", "values"):
            np.testing.assert_array_equal(getattr(seen[0], name), getattr(other, name))


def test_a_stored_zero_is_an_entry():
    stored = sp.coo_array(([0.0, 1.0], ([0, 1], [0, 1])), (2, 2)).tocsr()
    assert len(Completion(stored, 1).seen) == 2


@pytest.mark.parametrize(("how", "value"), [("sum", 3.0), ("mean", 1.5)])
def test_places_given_twice_are_joined(how, value):
    problem = Completion(([1, 0, 1], [0, 0, 0], [1.0, 9.0, 2.0]), 1, duplicates=how)
    np.testing.assert_array_equal(problem.seen.values, [9.0, value])


def test_a_matrix_of_more_than_2_to_the_31_places_is_taken():
    far = 2**20
    problem = Completion(([0, far], [far, 0], [1.0, 2.0]), 1, shape=(far + 1, far + 1), **EXACT)
    assert problem.metrics(problem.start(1))["train"] == pytest.approx(np.sqrt(2.5))


def test_all_entries_equal_are_completed_by_that_number():
    problem = Completion(np.where(np.eye(5), np.nan, 3.0), 1, **EXACT)
    np.testing.assert_allclose(completed(problem, solve(problem).x), 3.0)


def test_zeros_are_completed_by_zeros():
    problem = Completion(np.where(np.eye(5), np.nan, 0.0), 2, **EXACT)
    result = solve(problem)
    assert result.converged
    np.testing.assert_array_equal(completed(problem, result.x), 0.0)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_one_row_or_column_is_completed(shape):
    problem = Completion(np.arange(1.0, 1 + shape[0] * shape[1]).reshape(shape), 1, **EXACT)
    np.testing.assert_allclose(completed(problem, solve(problem).x).ravel(), problem.seen.values)


def test_empty_rows_and_columns_have_zero_factors():
    problem = Completion(([0, 0, 2, 2], [0, 2, 0, 2], [1.0, 2, 2, 4]), 1, shape=(4, 4), **EXACT)
    found = completed(problem, solve(problem).x)
    assert not found[[1, 3]].any()
    assert not found[:, [1, 3]].any()


def test_the_mean_of_a_place_is_weighted():
    given = ([0, 0, 1], [0, 0, 0], [1.0, 4.0, 9.0])
    seen = Completion(given, 1, weights=[2.0, 1.0, 1.0], duplicates="mean").seen
    assert (seen.values.tolist(), seen.weights.tolist()) == ([2.0, 9.0], [3.0, 1.0])


def test_what_is_masked_was_not_seen(rng):
    values = np.ma.masked_where(rng.random((6, 5)) < 0.3, rng.standard_normal((6, 5)))
    assert len(Completion(values, 1).seen) == values.count()


def test_weights_of_any_spread_leave_a_matrix_without_noise_as_it_is(rng):
    """The start knows no weights: the share seen is only a scale."""
    entries, M = low_rank(rng)
    weights = 10.0 ** rng.uniform(-3, 3, len(entries[2]))
    problem = Completion(entries, 3, weights=weights, **EXACT)
    x = solve(problem, ExactAltMin(), stop=Stop(below={"gradient": 1e-12}, steps=500)).x
    np.testing.assert_allclose(completed(problem, x), M, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [1, 0]},
        {"rows": [0, 0]},
        {"rows": [0, 7]},
        {"columns": [0, 9]},
        {"columns": [-1, 0]},
        {"columns": [0, 1, 2]},
        {"weights": np.ones(1)},
        {"values": np.array([1, 2])},
    ],
    ids=str,
)
def test_entries_made_elsewhere_are_looked_at(change):
    made = {"rows": [0, 1], "columns": [0, 0], "values": np.ones(2), "weights": np.empty(0), **change}
    made |= {name: np.array(made[name], dtype=np.int32) for name in ("rows", "columns")}
    with pytest.raises(InvalidProblem, match=r"not sorted int32, within \(3, 2\), each once"):
        Completion(Entries((3, 2), **made), 1)


@pytest.mark.parametrize(
    "x", [np.zeros((3, 2)), np.zeros((6, 0)), np.zeros((6, 9)), np.zeros(6), [[0.0]]], ids=np.shape
)
def test_what_is_no_answer_is_not_judged(x):
    problem = Completion(np.eye(3), 1, **EXACT)
    for ask in (
        problem.metrics,
        lambda x: problem.predict(x, [0], [0]),
        lambda x: held_out_error(problem, x),
    ):
        with pytest.raises(InvalidProblem, match="an answer has shape"):
            ask(x)


@pytest.mark.parametrize(
    ("entries", "options", "message", "error"),
    [
        (
            ([0, 0], [1, 1], [1, 2]),
            {},
            "1 entries at places given before .first: row 0, column 1",
            InvalidProblem,
        ),
        (([], [], []), {}, "holds no entry", InvalidProblem),
        (
            ([0], [0], [np.nan]),
            {},
            "1 values that are NaN or infinite .first in row 0, column 0",
            NotFinite,
        ),
        (([0, -1], [0, 0], [1, 1]), {}, "rows holds -1 .at 1.; expected indices from 0", InvalidProblem),
        (([0.5], [0], [1]), {}, "rows holds 0.5 .at 0.; expected whole numbers", InvalidProblem),
        (([True], [0], [1]), {}, "truth values", InvalidProblem),
        (([0, 1], [0], [1]), {}, "2 rows, 1 columns and 1 values", InvalidProblem),
        (([0, 5], [0, 0], [1, 1]), {"shape": (3, 3)}, "row 5, but only 3 rows", InvalidProblem),
        (([2**32], [0], [1]), {}, "expected indices from 0 to 2147483646", InvalidProblem),
        (np.eye(3) * 1j, {}, "complex", InvalidProblem),
        (np.ones(3), {}, r"shape \(3,\); expected a matrix", InvalidProblem),
        ((1, 2), {}, "tuple of 2", InvalidProblem),
        (np.eye(3), {"weights": -np.eye(3)}, "expected finite weights > 0", InvalidProblem),
        (np.eye(3), {"weights": np.ones(3)}, "one for each entry", InvalidProblem),
        (np.eye(3) * 1e150, {}, "largest value is 1e.150", InvalidProblem),
        (np.eye(3), {"rank": 4}, "rank 4 is more than a 3 x 3 matrix can have", InvalidProblem),
        (np.eye(3), {"rank": 0}, "needs rank >= 1", InvalidParameter),
        (np.eye(3), {"rank": "auto"}, "of 9 entries none is held out", InvalidParameter),
        (np.eye(3), {"ridge": -1.0}, "ridge >= 0", InvalidParameter),
        (np.eye(3), {"held_out": 0.6, "test": 0.6}, "held_out . test < 1", InvalidParameter),
        (np.eye(3), {"duplicates": "first"}, "error, sum or mean", InvalidParameter),
        (np.eye(3), {"dtype": int}, "float64 or float32", InvalidParameter),
        (np.eye(3), {"dtype": np.float16}, "float64 or float32", InvalidParameter),
        (np.eye(3), {"dtype": "fast", "standardize": True}, "float64 or float32", InvalidParameter),
        (np.eye(3) * 1e-300, {"dtype": np.float32}, "all values vanish in float32", InvalidProblem),
        (np.eye(3) * 1e20, {"dtype": np.float32}, "largest value is 1e.20", InvalidProblem),
        (np.eye(3), {"weights": np.full((3, 3), 1e200)}, "between 1e-30 and 1e.30", InvalidProblem),
        (
            np.eye(3),
            {"weights": np.full((3, 3), 1e-9), "dtype": np.float32},
            "weights are from 1e-09",
            InvalidProblem,
        ),
        (sp.csr_array([[1.0, np.nan]]), {}, "NaN or infinite .first in row 0, column 1", NotFinite),
        (
            np.eye(3),
            {"confidence": 1e300},
            "confidence times the largest entry is 1e.300",
            InvalidProblem,
        ),
        (np.eye(3), {"ridge": 1e200}, "ridge <= 1e.120", InvalidParameter),
        (np.eye(3), {"biases": "no"}, "biases is True or False", InvalidParameter),
        (np.eye(3), {"nonnegative": 1}, "nonnegative is True or False", InvalidParameter),
        (np.eye(3), {"row_ids": np.array([2, 1, 0])}, "row_ids are not sorted", InvalidProblem),
        (
            np.eye(3),
            {"column_ids": np.array(["a", "a", "b"])},
            "column_ids are not sorted",
            InvalidProblem,
        ),
        (np.eye(3), {"row_ids": np.array([1, 2])}, "row_ids has shape", InvalidProblem),
        (-np.eye(3), {"confidence": 1.0}, "counts >= 0; the least entry is -1", InvalidProblem),
        (np.eye(3), {"confidence": 1.0, "biases": True}, "takes no biases", InvalidProblem),
        (-np.ones((3, 3)), {"nonnegative": True}, "no entry is positive", InvalidProblem),
    ],
)
def test_it_is_refused(entries, options, message, error):
    with pytest.raises(error, match=message):
        Completion(entries, **{"rank": 1, **options})


def test_bounds_need_a_method_that_knows_them(rng):
    problem = Completion(rng.random((5, 4)), 2, nonnegative=True)
    with pytest.raises(InvalidProblem, match="CGAltMin knows no bounds"):
        solve(problem, CGAltMin())
    assert isinstance(recommended(problem), CoordinateAltMin)


def test_rows_with_fewer_entries_than_unknowns_are_told(rng):
    entries, _ = low_rank(rng, share=0.05)
    with pytest.warns(Underdetermined, match="fewer entries than their 9 unknowns"):
        ExactAltMin().init(Completion(entries, 9, **EXACT), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ExactAltMin().init(Completion(entries, 9, ridge=0.1, **EXACT), 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CGAltMin(cg_steps=0), "cg_steps >= 1"),
        (lambda: AutomaticAltMin(cg_steps=0), "cg_steps >= 1"),
        (lambda: CoordinateAltMin(passes=0), "passes >= 1"),
        (lambda: SketchedAltMin(accuracy=1.0), "0 < accuracy < 1"),
        (lambda: SketchedAltMin(sketch_rows=1), "sketch_rows >= 2"),
        (lambda: ExactAltMin(clip="some"), "clip rows, entries or none"),
        (lambda: ExactAltMin(mu=0.0), "mu > 0"),
        (lambda: ExactAltMin(parts=2), "parts = 1, or 3 and more"),
        (lambda: ExactAltMin(workers=0), "workers >= 1, or None"),
        (lambda: ExactAltMin(workers=2.5), "workers >= 1, or None"),
        (lambda: ExactAltMin(workers=2, parts=3), "workers hold all entries; they need parts = 1"),
    ],
)
def test_an_option_out_of_range_is_refused(make, message):
    with pytest.raises(InvalidParameter, match=message):
        make()
