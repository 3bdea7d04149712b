"""Chances that are none are refused; tables of Gymnasium become transitions."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.core import InvalidProblem
from thalweg.numerics.markov import (
    check_chances,
    made_environment,
    square_moves,
    start_chances,
    table_chances,
)


@pytest.mark.parametrize(
    ("chances", "message"),
    [
        ([[0.5, 0.5], [0.5, 0.4]], r"at \(1,\) sum to 0.9"),
        ([[1.5, -0.5]], "the least is -0.5"),
        ([[np.nan, 1.0]], "sum to nan"),
    ],
)
def test_chances_that_are_none(chances, message):
    with pytest.raises(InvalidProblem, match=message):
        check_chances("rows", np.array(chances))


def test_a_start_is_a_state_or_chances():
    np.testing.assert_array_equal(start_chances("Walk", np.int64(1), 2), [0.0, 1.0])
    np.testing.assert_array_equal(start_chances("Walk", [0.25, 0.75], 2), [0.25, 0.75])
    with pytest.raises(InvalidProblem, match=r"Walk: start is -1; expected a state in 0 \.\. 1"):
        start_chances("Walk", -1, 2)
    with pytest.raises(InvalidProblem, match=r"start has shape \(3,\)"):
        start_chances("Walk", [1.0, 0.0, 0.0], 2)


def test_a_square_slips_into_all_directions_alike():
    moves = square_moves(4, 0.2)
    np.testing.assert_allclose(moves.sum(-1), 1.0)
    inner = 5
    assert moves[inner, 1, inner + 1] == pytest.approx(0.8 + 0.05)
    assert moves[inner, 1, inner - 4] == pytest.approx(0.05)


def test_what_ends_waits_in_a_state_more():
    moves, rewards = table_chances({0: {0: [(0.5, 0, 2.0, False), (0.5, 0, 4.0, True)]}}, 1, 1)
    np.testing.assert_array_equal(moves[:, 0], [[0.5, 0.5], [0.0, 1.0]])
    np.testing.assert_array_equal(rewards[:, 0], [3.0, 0.0])


@pytest.mark.parametrize("name", ["Nope-v0", "CartPole-v99", "nowhere:Foo-v0", ""])
def test_environments_that_are_none_are_refused_in_a_line(name):
    pytest.importorskip("gymnasium")
    with pytest.raises(InvalidProblem, match="Gymnasium makes no environment") as caught:
        made_environment(name)
    assert "\n" not in str(caught.value)
