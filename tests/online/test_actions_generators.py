"""Tables of actions against what they promise: exact coherence, the worst misfit, needles, real features."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from thalweg import Stop, solve
from thalweg.core import InvalidParameter, UnknownName
from thalweg.online import GOptimal, LinUCB, RandomActions
from thalweg.online.actions.generators import (
    nearly_linear,
    needle,
    real_actions,
    reed_muller,
    sign_packing,
    signs,
    sparse_parameter,
    sphere,
    worst_for_least_squares,
)


def test_spheres_and_signs_are_what_they_say():
    np.testing.assert_allclose(np.linalg.norm(sphere(50, 7), axis=1), 1.0)
    assert set(np.unique(signs(20, 5))) == {-1.0, 1.0}
    assert len(np.unique(signs(32, 5, 1), axis=0)) == 32
    theta = sparse_parameter(20, 4, alike=True)
    assert np.abs(theta).sum() == pytest.approx(1.0)
    assert np.linalg.norm(sparse_parameter(20, 4)) == pytest.approx(1.0)
    np.testing.assert_array_equal(sphere(5, 3, 1), sphere(5, 3, 1))
    assert (sphere(5, 3, 1) != sphere(5, 3, 2)).all()


@pytest.mark.parametrize(("m", "count"), [(2, 8), (3, 64), (4, 1024)])
def test_reed_muller_words_are_half_coherent_in_exact_integers(m, count):
    words = reed_muller(m)
    assert words.shape == (count, 2**m)
    products = np.abs(words @ words.T)
    np.fill_diagonal(products, 0)
    assert products.max() == 2 ** (m - 1)
    assert len(np.unique(words, axis=0)) == count
    assert (words[:, 0] == 1).all()  # of a word and its opposite one


def test_the_largest_packing_is_half_coherent_too():
    """A product of two words is a word, or the opposite of one: sums of words are all inner products there are."""
    words = reed_muller(5)
    assert words.shape == (32_768, 32)
    sums = np.sort(np.abs(words.sum(1)))
    assert sums[-1] == 32  # the word of ones, a word with itself
    assert sums[-2] == 16
    products = words[np.array([5, 99, 4000])] * words[np.array([7, 20_000, 31_000])]
    assert {tuple(w) for w in products.tolist()} <= {tuple(w) for w in words.tolist()}


def test_reed_muller_words_are_the_quadratic_forms():
    words = {tuple(w) for w in reed_muller(2).tolist()}
    points = list(itertools.product((0, 1), repeat=2))
    forms = {
        tuple((-1) ** (a * x + b * y + c * x * y) for x, y in points)
        for a, b, c in itertools.product((0, 1), repeat=3)
    }
    assert words == forms


@pytest.mark.parametrize("words", [reed_muller(3), sign_packing(24, 0.4)], ids=["RM", "random"])
def test_a_needles_rewards_are_within_eps_of_linear_and_hidden_in_a_sparse_place(words):
    table, place = needle(words, 0.1, d=60, seed=2)
    used = np.flatnonzero(np.abs(table.features).sum(0))
    assert len(used) == words.shape[1]
    np.testing.assert_allclose(np.linalg.norm(table.features, axis=1), 1.0)
    theta = table.rewards[place] * table.features[place]
    off = np.abs(table.features @ theta - table.rewards)
    assert off.max() == pytest.approx(0.1)
    assert np.flatnonzero(table.rewards).tolist() == [place]
    assert table.rewards[place] > 0.15


@pytest.mark.parametrize("method", [RandomActions(), LinUCB()], ids=lambda m: m.name)
def test_a_needle_takes_half_of_the_actions_on_average(method):
    words, runs = reed_muller(3), 60
    found = [
        solve(needle(words, 0.1, seed=k)[0], method, seed=k, stop=Stop(below={"gap": 0.0})).calls
        for k in range(runs)
    ]
    # The mean of a uniform number of 1 .. 64 has the deviation 18.5 / sqrt(60) = 2.4.
    assert abs(np.mean(found) - 32.5) < 3 * 2.4


@pytest.mark.parametrize("d", [8, 32])
def test_the_worst_misfit_is_worse_than_chance(d):
    F, theta = sphere(200, d), sparse_parameter(d, 1)
    errors = {}
    for misfit in ("uniform", "signs", "adversarial"):
        problem = nearly_linear(F, theta, 0.05, misfit)
        assert np.abs(problem.rewards - F @ theta).max() <= 0.05 + 1e-12
        search = GOptimal(0.05).begin(F)
        while not search.done:
            search.observe(problem.rewards[search.next_action()])
        errors[misfit] = np.abs(search.estimates - F @ theta).max() / 0.05
    assert errors["adversarial"] > max(errors["uniform"], errors["signs"])
    assert errors["adversarial"] >= 0.6 * np.sqrt(d)


def test_the_worst_misfit_raises_the_estimate_by_the_rows_sum():
    F, theta = sphere(60, 6), sparse_parameter(6, 2)
    weights = np.random.default_rng(0).dirichlet(np.ones(60))
    nu = worst_for_least_squares(F, F @ theta, 0.1, weights)
    hat = F @ np.linalg.solve(F.T @ (weights[:, None] * F), F.T * weights)
    raised = F @ theta + 0.1 * np.abs(hat).sum(1)
    able = np.flatnonzero(raised >= (F @ theta).max())
    a0 = able[np.argmin((F @ theta)[able])]
    assert (F @ theta + hat @ nu)[a0] == pytest.approx(raised[a0])


@pytest.mark.parametrize(("name", "shape"), [("breast_cancer", (569, 30)), ("digits", (1797, 61))])
def test_real_features_have_sparse_rewards_and_a_real_misfit(name, shape):
    table, theta = real_actions(name, 3, 0.1, seed=1)
    assert table.features.shape == shape
    assert np.linalg.norm(table.features, axis=1).max() == pytest.approx(1.0)
    assert np.count_nonzero(theta) == 3
    assert np.linalg.norm(theta) == pytest.approx(1.0)
    assert np.abs(table.features @ theta - table.rewards).max() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: sphere(0, 3), InvalidParameter, "n >= 1"),
        (lambda: signs(9, 3), InvalidParameter, "There are 8 different actions"),
        (lambda: sparse_parameter(3, 4), InvalidParameter, "1 <= sparsity <= d"),
        (lambda: nearly_linear(sphere(3, 2), np.ones(2), -0.1), InvalidParameter, "eps >= 0"),
        (lambda: nearly_linear(sphere(3, 2), np.ones(2), 0.1, "worst"), UnknownName, "No misfit 'worst'"),
        (lambda: reed_muller(6), InvalidParameter, "two million"),
        (lambda: sign_packing(8, 1.0), InvalidParameter, "0 < coherence < 1"),
        (lambda: needle(reed_muller(3), 0.0), InvalidParameter, "eps > 0"),
        (lambda: needle(reed_muller(3), 0.1, place=64), InvalidParameter, r"place in 0 \.\. 63"),
        (lambda: needle(reed_muller(3), 0.1, d=7), InvalidParameter, "d >= s = 8"),
        (lambda: needle(np.ones((2, 4), dtype=int), 0.1), InvalidParameter, "lie between 0 and s = 4"),
        (lambda: real_actions("wine", 2, 0.1), UnknownName, "No table of actions 'wine'"),
        (lambda: real_actions("digits", 0, 0.1), InvalidParameter, "1 <= sparsity <= 61"),
    ],
)
def test_bad_input_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
