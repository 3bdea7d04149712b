"""One stream for each tuple of integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter
from thalweg.core.seeding import generator, torch_generator

names = st.lists(st.integers(0, 2**40), min_size=1, max_size=4).map(tuple)


@given(names, names)
def test_streams_are_equal_only_for_equal_names(one, other):
    same = generator(*one).random(4).tolist() == generator(*other).random(4).tolist()
    assert same == (one == other)
    draws = [torch.rand(4, generator=torch_generator(*name)).tolist() for name in (one, other)]
    assert (draws[0] == draws[1]) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [((5,), (5, 0)), ((5, 0), (5, 0, 0)), ((2**32,), (0, 1)), ((2**32 + 5,), (5, 1)), ((0,), (0, 0))],
)
def test_a_trailing_zero_and_a_word_boundary_name_other_streams(one, other):
    assert generator(*one).random() != generator(*other).random()
    assert torch_generator(*one).initial_seed() != torch_generator(*other).initial_seed()


@pytest.mark.parametrize("seed", [(), (-1,), (3, -2)])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InvalidParameter, match="integers >= 0"):
        generator(*seed)
