"""Exact pairs and the numbers by which plans are judged, against other ways to compute them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.stats import wasserstein_distance

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.transport import (
    bw2,
    bw2_uvp,
    conditional_bw2_uvp,
    earth_mover,
    energy_distance,
    eot_pair,
    exact_bridge,
    sliced_w2,
)


def test_an_exact_plan_is_the_mixture_of_the_benchmark(rng):
    eps, D, J = 0.6, 3, 2
    mu, p = rng.standard_normal((J, D)), np.array([0.3, 0.7])
    A = rng.standard_normal((J, D, D))
    Sigma = A @ A.transpose(0, 2, 1) + 0.2 * np.eye(D)
    bridge, x = exact_bridge(eps, mu, Sigma, p), rng.standard_normal(D)
    P = [np.linalg.inv(np.eye(D) / eps + np.linalg.inv(S)) for S in Sigma]
    means = [Pj @ (x / eps + np.linalg.inv(S) @ m) for Pj, S, m in zip(P, Sigma, mu, strict=True)]
    density = [
        math.exp(
            torch.distributions.MultivariateNormal(
                torch.tensor(m), torch.tensor(S + eps * np.eye(D))
            ).log_prob(torch.tensor(x))
        )
        for m, S in zip(mu, Sigma, strict=True)
    ]
    weights = p * density / (p @ density)
    np.testing.assert_allclose(bridge.weights(x[None])[0], weights, rtol=1e-10)
    np.testing.assert_allclose(eps * bridge.S, P, rtol=1e-10)
    np.testing.assert_allclose(bridge.barycentric(x[None])[0], weights @ means, rtol=1e-10)


def test_the_pair_of_a_seed_is_the_same_and_those_of_others_differ():
    assert torch.equal(eot_pair(3, 1.0, seed=1).R, eot_pair(3, 1.0, seed=1).R)
    assert not torch.equal(eot_pair(3, 1.0, seed=1).R, eot_pair(3, 1.0, seed=2).R)


def test_bw2_is_the_formula_with_roots_of_matrices(rng):
    A, B = rng.standard_normal((2, 4, 4))
    C0, C1, m0, m1 = A @ A.T, B @ B.T, *rng.standard_normal((2, 4))
    half = sqrtm(C0).real
    cross = np.trace(sqrtm(half @ C1 @ half).real)
    expected = ((m0 - m1) ** 2).sum() / 2 + (np.trace(C0) + np.trace(C1)) / 2 - cross
    found = bw2(*(torch.from_numpy(v) for v in (m0, C0, m1, C1)))
    assert float(found) == pytest.approx(expected)


def test_a_plan_that_says_nothing_costs_what_the_plan_explains():
    """Of a single Gaussian plan, one with the mean of y and its variance in place of the conditional ones."""
    bridge = exact_bridge(1.0, [[2.0]], [[[1.0]]])  # y given x: mean (x + 2) / 2, variance 1/2
    x = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    same = conditional_bw2_uvp(bridge, bridge, x, 0.75)
    other = exact_bridge(1.0, [[4.0]], [[[1.0]]])  # mean (x + 4) / 2: one further
    assert same == pytest.approx(0.0, abs=1e-9)
    assert conditional_bw2_uvp(bridge, other, x, 0.75) == pytest.approx(100 / 0.75)


def test_energy_distance_is_that_of_sums_over_pairs_and_zero_in_the_mean(rng):
    x, y = rng.standard_normal((5, 2)), rng.standard_normal((4, 2))
    pairs = [np.linalg.norm(a - b) for a in x for b in y]
    inside = [[np.linalg.norm(z[i] - z[j]) for i in range(len(z)) for j in range(i)] for z in (x, y)]
    expected = np.mean(pairs) - np.mean(inside[0]) / 2 - np.mean(inside[1]) / 2
    assert energy_distance(x, y) == pytest.approx(expected)
    many = [energy_distance(*rng.standard_normal((2, 50, 2))) for _ in range(100)]
    assert abs(np.mean(many)) < 3 * np.std(many) / 10


def test_sliced_w2_in_one_dimension_is_w2(rng):
    x, y = rng.standard_normal((30, 1)), 3 + rng.standard_normal((30, 1))
    assert sliced_w2(x, y) == pytest.approx(math.sqrt(np.mean((np.sort(x, 0) - np.sort(y, 0)) ** 2)))
    assert sliced_w2(np.repeat(x, 2, 0), np.repeat(y, 3, 0)) == pytest.approx(sliced_w2(x, y))
    two = np.array([[0.0], [1.0]]), np.array([[0.0], [0.0], [2.0]])
    assert sliced_w2(*two) ** 2 == pytest.approx(1 / 6 + 1 / 3)  # |1 - 0|^2 on a sixth, |1 - 2|^2 on a third
    assert wasserstein_distance(two[0][:, 0], two[1][:, 0]) == pytest.approx(1 / 6 + 1 / 3)


def test_moments_of_a_shifted_sample(rng):
    y = rng.standard_normal((4000, 2))
    assert bw2_uvp(y, y) == pytest.approx(0.0, abs=1e-9)
    assert bw2_uvp(y, y + 1.0) == pytest.approx(200 / y.var(0, ddof=1).sum())


def test_what_is_no_pair_is_refused():
    with pytest.raises(InvalidParameter, match="eps > 0"):
        exact_bridge(0.0, [[1.0]], [[[1.0]]])
    with pytest.raises(InvalidProblem, match="expected \\(J, D\\), \\(J, D, D\\)"):
        exact_bridge(1.0, [[1.0]], [[1.0]])
    with pytest.raises(InvalidProblem, match="positive numbers"):
        exact_bridge(1.0, [[1.0]], [[[1.0]]], [-1.0])
    with pytest.raises(InvalidParameter, match="J >= 1"):
        eot_pair(2, 1.0, J=0)
    with pytest.raises(InvalidProblem, match="two rows or more"):
        energy_distance([[1.0]], [[1.0], [2.0]])


@pytest.mark.parametrize("unit", [1e-300, 1e-200, 1e200, 1e300])
def test_distances_have_the_unit_of_the_points(rng, unit):
    x, y = rng.standard_normal((20, 3)), 2 + rng.standard_normal((25, 3))
    for judge in (energy_distance, sliced_w2, earth_mover):
        assert judge(unit * x, unit * y) / unit == pytest.approx(judge(x, y))
    assert bw2_uvp(unit * x, unit * y) == pytest.approx(bw2_uvp(x, y))


def test_gaussians_that_are_flat_have_a_distance(rng):
    flat = np.c_[rng.standard_normal(50), np.zeros(50)]
    assert bw2_uvp(flat, flat) == pytest.approx(0.0, abs=1e-9)
    assert bw2_uvp(flat, flat + np.array([0.0, 2.0])) == pytest.approx(400 / flat[:, 0].var(ddof=1))
    with pytest.raises(InvalidProblem, match="y has none"):
        bw2_uvp(np.ones((5, 2)), flat)


def test_no_points_are_refused():
    bridge = eot_pair(2, 1.0)
    with pytest.raises(InvalidProblem, match="points x, one or more"):
        conditional_bw2_uvp(bridge, bridge, np.zeros((0, 2)), 1.0)
