"""Activation patterns: counts in general position, special position, samples, bad input."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from thalweg.convex import (
    all_patterns,
    count_patterns,
    pattern_margins,
    patterns_needed,
    patterns_of,
    sample_patterns,
)
from thalweg.convex.relu.neurons import sample_neurons
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite


def strictly_feasible(X, signs):
    """Whether some u has ``signs * (X u) >= 1``: an open cell, by a linear program."""
    return (
        linprog(
            np.zeros(X.shape[1]), -signs[:, None] * X, -np.ones(len(X)), bounds=[(None, None)] * X.shape[1]
        ).status
        == 0
    )


@pytest.mark.parametrize(("n", "d"), [(1, 1), (4, 1), (5, 2), (16, 3), (9, 4), (5, 7)])
def test_rows_in_general_position_have_as_many_patterns_as_covers_theorem_says(n, d):
    X = np.random.default_rng(n).standard_normal((n, d))
    assert len(all_patterns(X)) == count_patterns(n, min(n, d))


@given(st.integers(0, 10_000))
def test_integers_in_any_position_have_exactly_their_open_cells(seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(-1, 2, (5, rng.integers(1, 4))).astype(float)
    X[rng.integers(5)] = 2 * X[rng.integers(5)]
    alive = np.abs(X).sum(1) > 0
    found = {tuple(p) for p in all_patterns(X)[:, alive]}
    signs = itertools.product([True, False], repeat=int(alive.sum()))
    expected = {s for s in signs if strictly_feasible(X[alive], np.where(s, 1.0, -1.0))}
    assert found == expected


def test_rows_of_zeros_are_always_on():
    assert all_patterns([[0.0, 0.0], [1.0, 2.0]])[:, 0].all()
    assert all_patterns(np.zeros((3, 2))).tolist() == [[True, True, True]]


def test_samples_are_distinct_patterns_of_all():
    X = np.random.default_rng(1).standard_normal((8, 3))
    every = {p.tobytes() for p in all_patterns(X)}
    found = sample_patterns(X, 30)
    assert len(found) == 30 == len({p.tobytes() for p in found})
    assert {p.tobytes() for p in found} <= every


def test_sampling_ends_where_no_new_patterns_come():
    X = np.random.default_rng(1).standard_normal((4, 2))
    assert len(sample_patterns(X, 1000)) == count_patterns(4, 2)
    assert len(sample_patterns(np.ones((5, 1)), 10)) == 2


def test_a_seed_gives_the_same_sample_and_perturbed_rows_others():
    X = np.random.default_rng(1).standard_normal((30, 4))
    assert (sample_patterns(X, 20, seed=3) == sample_patterns(X, 20, seed=3)).all()
    assert not (sample_patterns(X, 20, seed=3) == sample_patterns(X, 20, seed=3, radius=1.0)).all()


def test_patterns_of_a_network_are_those_of_its_neurons():
    X = np.random.default_rng(1).standard_normal((7, 3))
    W = np.random.default_rng(2).standard_normal((5, 3))
    assert {tuple(p) for p in patterns_of(X, np.vstack([W, 2 * W]))} == {tuple(X @ w >= 0) for w in W}


def test_the_scenario_bound_is_the_smaller_of_its_two_forms():
    assert patterns_needed(16, 0.5, 0.5) == 67
    assert patterns_needed(100, 0.01, 0.1) == int(np.ceil(20 * (101 - np.log(0.01))))


def test_the_scenario_bound_holds_for_the_next_draw():
    """The chance of a new pattern bounds that of a lower optimum, and is below (n + 1)/(P + 1) on average."""
    X = np.c_[np.random.default_rng(0).standard_normal((16, 2)), np.ones(16)]
    fresh = patterns_of(X, np.random.default_rng(9).standard_normal((1, 3)))
    probabilities = []
    for seed in range(5):
        known = {p.tobytes() for p in sample_patterns(X, 200, seed=seed)}
        drawn = np.random.default_rng(100 + seed).standard_normal((500, 3)) @ X.T >= 0
        probabilities.append(np.mean([p.tobytes() not in known for p in drawn]))
    assert fresh.shape == (1, 16)
    assert np.mean(probabilities) <= 17 / 201


def test_margins_are_what_a_perturbation_may_be():
    X = np.array([[1.0, 0.0], [-2.0, 1.0]])
    found = pattern_margins(X, np.array([[True, False], [True, True]]), mask=[1, 1])
    assert found[0] == pytest.approx(1.0)
    assert found[1] > 0
    assert np.isinf(pattern_margins([[3.0, 1.0]], np.array([[True]]), mask=[1, 0])).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sample_patterns(np.eye(2), 0), InvalidParameter, "one pattern or more"),
        (lambda: sample_patterns(np.eye(2), 2, radius=-1), InvalidParameter, "radius >= 0"),
        (lambda: sample_patterns([[np.nan]], 2), NotFinite, "1 NaN"),
        (lambda: sample_patterns(np.zeros((0, 2)), 2), InvalidProblem, "without an empty side"),
        (lambda: sample_patterns(np.eye(2) + 1j, 2), InvalidProblem, "complex"),
        (lambda: sample_patterns(np.eye(1000), 100, most_bytes=1000), InvalidProblem, "bytes"),
        (lambda: sample_patterns(np.eye(2), 2, radius=1.0, mask=[1]), InvalidProblem, "mask has shape"),
        (
            lambda: all_patterns(np.random.default_rng(0).standard_normal((60, 12))),
            InvalidProblem,
            "up to .* patterns",
        ),
        (lambda: patterns_of(np.eye(2), np.eye(3)), InvalidProblem, "neurons have shape"),
        (lambda: patterns_needed(10, 0.0, 0.5), InvalidParameter, "0 < failure < 1"),
        (lambda: count_patterns(0, 1), InvalidParameter, "one row or more"),
        (lambda: sample_neurons(np.eye(2), 10**9), InvalidProblem, "bytes"),
    ],
)
def test_what_cannot_be_done_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
