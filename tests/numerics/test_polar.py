"""Polar factors against singular values, other algorithms, and random rivals."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg as la
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.numerics.polar import newton_schulz, polar_factor, spectral_ball


def random_orthogonal(n, rng):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


@given(seed=st.integers(0, 10**6), n=st.integers(1, 9))
def test_the_factor_is_that_of_scipy(seed, n):
    A = np.random.default_rng(seed).standard_normal((n, n))
    np.testing.assert_allclose(polar_factor(A), la.polar(A)[0], atol=1e-9)


@given(seed=st.integers(0, 10**6), n=st.integers(1, 8), rank=st.integers(0, 8))
def test_of_the_nearest_ones_the_nearest_to_near_is_taken(seed, n, rank):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, min(rank, n))) @ rng.standard_normal((min(rank, n), n))
    near = random_orthogonal(n, rng)
    Q = polar_factor(A, near)
    np.testing.assert_allclose(Q.T @ Q, np.eye(n), atol=1e-10)
    assert np.vdot(A, Q) == pytest.approx(np.linalg.svd(A, compute_uv=False).sum(), abs=1e-9)
    # A turned part of the null space is as near to A, and not nearer to `near`.
    U, s, Vt = np.linalg.svd(A)
    null = s <= 1e-10 * max(s[0], 1e-300)
    turn = random_orthogonal(int(null.sum()), rng)
    other = U[:, ~null] @ Vt[~null] + U[:, null] @ turn @ Vt[null]
    assert np.vdot(near, other) <= np.vdot(near, Q) + 1e-9


def test_a_matrix_of_zeros_keeps_what_is_near(rng):
    near = random_orthogonal(5, rng)
    np.testing.assert_allclose(polar_factor(np.zeros((5, 5)), near), near, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e150])
def test_the_factor_does_not_change_with_the_scale(rng, scale):
    A = rng.standard_normal((6, 6))
    np.testing.assert_allclose(polar_factor(scale * A), polar_factor(A), atol=1e-12)
    np.testing.assert_allclose(newton_schulz(scale * A), polar_factor(A), atol=1e-9)


def test_the_balls_least_value_is_minus_the_nuclear_norm_and_no_rival_is_below(rng):
    G = rng.standard_normal((7, 7))
    best = np.vdot(G, spectral_ball(G, radius=2.0))
    assert best == pytest.approx(-2.0 * np.linalg.norm(G, "nuc"))
    for _ in range(200):
        rival = rng.standard_normal((7, 7))
        assert np.vdot(G, 2.0 * rival / np.linalg.norm(rival, 2)) >= best


@pytest.mark.parametrize("shape", [(5, 5), (3, 4, 4), (2, 3, 3, 5), (6, 2)])
def test_newton_and_schulz_find_the_factors_of_batches(rng, shape):
    A = rng.standard_normal(shape)
    U, _, Vt = np.linalg.svd(A, full_matrices=False)
    for steps, tolerance in ((24, 1e-3), (60, 1e-10)):
        np.testing.assert_allclose(newton_schulz(A, steps), U @ Vt, atol=tolerance if steps > 24 else 0.5)
    found = newton_schulz(torch.tensor(A), 60)
    np.testing.assert_allclose(found.numpy(), U @ Vt, atol=1e-10)


def test_newton_and_schulz_stay_in_the_ball_where_a_matrix_is_singular(rng):
    A = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 5))
    assert np.linalg.norm(newton_schulz(A), 2) <= 1 + 1e-12
    np.testing.assert_array_equal(newton_schulz(np.zeros((3, 3))), np.zeros((3, 3)))


def test_what_is_no_square_matrix_is_refused():
    with pytest.raises(InvalidProblem, match=r"needs a square matrix; got shape \(2, 3\)"):
        polar_factor(np.ones((2, 3)))
    with pytest.raises(NotFinite, match="holds 1 NaN"):
        polar_factor(np.array([[1.0, np.nan], [0.0, 1.0]]))
    with pytest.raises(InvalidParameter, match="radius >= 0"):
        spectral_ball(np.eye(2), radius=-1.0)
    with pytest.raises(InvalidProblem, match="a batch of them"):
        newton_schulz(np.ones(3))
    with pytest.raises(InvalidParameter, match="steps >= 1"):
        newton_schulz(np.eye(2), 0)


def test_complex_matrices_are_refused():
    for function in (polar_factor, spectral_ball):
        with pytest.raises(InvalidProblem, match="is complex"):
            function(np.eye(2) * 1j)
