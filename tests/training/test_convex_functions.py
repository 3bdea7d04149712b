"""Kernels: Fenchel-Young, subgradients and conjugates, for every one of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter
from thalweg.training import (
    L1,
    CustomFunction,
    GroupL2,
    HalfSquare,
    Huber,
    Lp,
    PseudoHuber,
    ThresholdedL1,
    TopK,
)

FUNCTIONS = [
    L1(),
    Lp(1.0),
    Lp(1.5),
    Lp(2.0),
    Lp(4.0),
    GroupL2(),
    HalfSquare(),
    ThresholdedL1(0.5),
    TopK(3),
    TopK(100),
    Huber(0.7),
    PseudoHuber(0.4),
    CustomFunction(lambda m: m.abs().sum(), torch.sign, lambda x: x.new_zeros(())),
]
every_function = pytest.mark.parametrize("K", FUNCTIONS, ids=lambda K: type(K).__name__)


def draw(seed, scale=1.0):
    torch.manual_seed(seed)
    return scale * torch.randn(4, 5, dtype=torch.float64)


@every_function
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100))
def test_fenchel_young_holds_with_equality_at_subgradients(K, seed, scale):
    m = draw(seed, scale)
    x = K.subgradient(m)
    gap = K.value(m) + K.conjugate(x) - (m * x).sum()
    assert abs(float(gap)) <= 1e-9 * max(1.0, float(K.value(m)))


@every_function
@given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 1.0))
def test_fenchel_young_is_an_inequality_elsewhere(K, seed, factor):
    m, x = draw(seed), factor * K.subgradient(draw(seed + 1))
    assert float(K.value(m) + K.conjugate(x) - (m * x).sum()) >= -1e-9


@every_function
@given(seed=st.integers(0, 10_000))
def test_the_subgradient_supports_the_function_from_below(K, seed):
    m, other = draw(seed), draw(seed + 1, 3.0)
    bound = K.value(m) + (K.subgradient(m) * (other - m)).sum()
    assert float(K.value(other) - bound) >= -1e-9


@every_function
def test_the_domain_of_the_conjugate_is_where_it_says(K):
    x = K.subgradient(draw(3))
    assert K.contains(x)
    if isinstance(K, HalfSquare | CustomFunction):
        return
    assert not K.contains(1.5 * x / x.abs().max() * 10)
    assert torch.isinf(K.conjugate(100 * x))


@every_function
def test_many_tensors_at_once_give_what_one_by_one_gives(K):
    tensors = [draw(i) for i in range(3)]
    for one, many in zip(tensors, K.subgradients(tensors), strict=True):
        assert torch.equal(K.subgradient(one), many)


@every_function
def test_zero_momentum_gives_a_finite_update(K):
    assert torch.equal(K.subgradient(torch.zeros(3, 2)), torch.zeros(3, 2))


def test_groups_of_a_bias_and_of_a_number_have_one_entry():
    assert torch.equal(GroupL2().subgradient(torch.tensor([3.0, -2.0])), torch.tensor([1.0, -1.0]))
    assert GroupL2().subgradient(torch.tensor(-2.0)) == -1


def test_the_composite_term_scales_as_the_theory_says():
    x = torch.tensor([0.1, -0.2])
    assert float(HalfSquare().composite(x, 2.0)) == pytest.approx(0.5 * 2.0 * 0.05)
    assert float(ThresholdedL1(3.0).composite(x, 2.0)) == pytest.approx(3.0 * 0.3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lp(0.5), "p >= 1"),
        (lambda: Lp(float("inf")), "finite p"),
        (lambda: TopK(0), "k >= 1"),
        (lambda: Huber(0.0), "e > 0"),
        (lambda: PseudoHuber(-1.0), "e > 0"),
        (lambda: ThresholdedL1(-1.0), "e >= 0"),
    ],
)
def test_parameters_outside_their_range_are_refused(make, message):
    with pytest.raises(InvalidParameter, match=message):
        make()


def test_a_custom_function_without_conjugate_says_so():
    with pytest.raises(InvalidParameter, match="conjugate_of="):
        CustomFunction(lambda m: m.sum(), torch.ones_like).conjugate(torch.zeros(1))
