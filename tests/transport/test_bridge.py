"""The bridge's closed forms against integrals, finite differences, invariants, and its own diffusion."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.core.seeding import torch_generator
from thalweg.transport import Bridge


def make(K=3, D=2, full=True, eps=0.7, seed=0, centred=False):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((K, D, D))
    S = A @ A.transpose(0, 2, 1) / D + 0.3 * np.eye(D) if full else rng.uniform(0.3, 1.5, (K, D))
    log_a, R = rng.standard_normal(K), rng.standard_normal((K, D))
    return Bridge(eps, log_a, R, S, *(rng.standard_normal((2, D)) if centred else ()))


def plan_of(bridge, x):
    """The conditional law at one x as torch's own mixture, of a bridge without centres."""
    S = bridge.S if bridge.is_full else torch.diag_embed(bridge.S)
    exponent = bridge.log_a + (x @ S @ x + 2 * bridge.R @ x) / (2 * bridge.eps)
    means = bridge.R + S @ x
    return MixtureSameFamily(Categorical(logits=exponent), MultivariateNormal(means, bridge.eps * S))


@pytest.mark.parametrize("full", [False, True])
def test_the_conditional_plan_is_the_mixture_that_the_paper_writes(full):
    bridge = make(full=full)
    x, y = torch.randn(2, 5, 2, dtype=torch.float64)
    plans = [plan_of(bridge, row) for row in x]
    expected = torch.stack([p.log_prob(v) for p, v in zip(plans, y, strict=True)])
    torch.testing.assert_close(bridge.log_density(y, x), expected)
    torch.testing.assert_close(bridge.barycentric(x), torch.stack([p.mean for p in plans]))
    variance = torch.stack([p.variance for p in plans])
    torch.testing.assert_close(bridge.conditional_covariance(x).diagonal(dim1=1, dim2=2), variance)
    torch.testing.assert_close(bridge.weights(x).sum(1), torch.ones(5, dtype=torch.float64))


def test_full_and_diagonal_bridges_agree_where_the_matrices_are_diagonal():
    thin = make(full=False, centred=True)
    thick = Bridge(thin.eps, thin.log_a, thin.R, torch.diag_embed(thin.S), thin.centre0, thin.centre1)
    x, y = torch.randn(2, 7, 2, dtype=torch.float64)
    for ask in (
        lambda b: b.log_density(y, x),
        lambda b: b.drift(x, 0.6),
        lambda b: b.conditional_covariance(x),
        lambda b: b.trajectory(x, 4, torch_generator(1)),
        lambda b: b.interpolate(x, 0.3, torch_generator(1)),
    ):
        torch.testing.assert_close(ask(thick), ask(thin))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("t", [0.0, 0.35, 0.9])
def test_the_drift_is_the_gradient_of_the_log_of_an_integral(full, t):
    """eps grad log of the integral of N(y; x, eps (1 - t)) exp(|y|^2 / 2 eps) v(y), on a fine grid in one dimension."""
    bridge = make(D=1, full=full)
    y = torch.linspace(-60, 60, 600_001, dtype=torch.float64)[:, None]
    potential = bridge.potential(y) + y[:, 0] ** 2 / (2 * bridge.eps)

    def log_integral(x):
        return (potential - (y[:, 0] - x) ** 2 / (2 * bridge.eps * (1 - t))).logsumexp(0)

    h, points = 1e-4, [-1.3, 0.2, 1.7]
    slope = [bridge.eps * (log_integral(x + h) - log_integral(x - h)) / (2 * h) for x in points]
    found = bridge.drift(np.array(points)[:, None], t)[:, 0]
    torch.testing.assert_close(found, torch.stack(slope), rtol=1e-5, atol=1e-6)


@given(st.integers(0, 1000), st.booleans())
def test_the_drift_at_the_start_leads_to_the_mean_of_the_end(seed, full):
    bridge = make(full=full, seed=seed, centred=True)
    x = torch.randn(4, 2, dtype=torch.float64)
    torch.testing.assert_close(bridge.drift(x, 0.0), bridge.barycentric(x) - x)


@given(st.integers(0, 1000), st.booleans(), st.floats(-50, 50))
def test_order_and_scale_of_the_components_change_nothing(seed, full, shift):
    bridge, order = make(full=full, seed=seed), torch.tensor([2, 0, 1])
    other = Bridge(bridge.eps, bridge.log_a[order] + shift, bridge.R[order], bridge.S[order])
    x, y = torch.randn(2, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(other.log_density(y, x), bridge.log_density(y, x))
    torch.testing.assert_close(other.drift(x, 0.4), bridge.drift(x, 0.4))


@pytest.mark.parametrize("full", [False, True])
def test_centres_move_the_plan_and_nothing_else(full):
    """y - m1 given x - m0 has the plan of the bridge without centres; and so have the ways between them."""
    plain, moved = make(full=full), make(full=full, centred=True)
    x, y = torch.randn(2, 6, 2, dtype=torch.float64)
    c0, c1 = moved.centre0, moved.centre1
    torch.testing.assert_close(moved.log_density(y + c1, x + c0), plain.log_density(y, x))
    way = moved.trajectory(x + c0, 5, torch_generator(3))
    t = torch.linspace(0, 1, 6, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(way - (1 - t) * c0 - t * c1, plain.trajectory(x, 5, torch_generator(3)))


def test_centres_can_be_taken_into_the_parameters():
    """r - S m and log a + (m' S m / 2 - m' r) / eps, from the product of a Gaussian and exp(-m'y / eps)."""
    bridge = make(full=False)
    m = torch.tensor([0.4, -1.1], dtype=torch.float64)
    R = bridge.R + m - bridge.S * m
    log_a = bridge.log_a + ((bridge.S * m * m).sum(1) / 2 - (bridge.R + m) @ m) / bridge.eps
    x, y = torch.randn(2, 6, 2, dtype=torch.float64)
    centred = Bridge(bridge.eps, bridge.log_a, bridge.R, bridge.S, m, m)
    torch.testing.assert_close(
        Bridge(bridge.eps, log_a, R, bridge.S).log_density(y, x), centred.log_density(y, x)
    )


def test_one_gaussian_is_carried_to_another_by_the_closed_form():
    """N(0, a^2) to N(b, c^2): S = s / a^2 and r = b, s = (sqrt(4 a^2 c^2 + eps^2) - eps) / 2."""
    a, b, c, eps = 1.3, 2.0, 0.6, 0.8
    s = (math.sqrt(4 * a * a * c * c + eps * eps) - eps) / 2
    bridge = Bridge(eps, [0.0], [[b]], [[s / a**2]])
    x = a * torch.randn(200_000, 1, dtype=torch.float64, generator=torch_generator(0))
    y = bridge.sample(x, torch_generator(1))
    assert float(y.mean()) == pytest.approx(b, abs=0.01)
    assert float(y.std()) == pytest.approx(c, rel=0.01)
    assert float(((x - 0) * (y - b)).mean()) == pytest.approx(s, rel=0.02)


@pytest.mark.parametrize("full", [False, True])
def test_the_diffusion_ends_in_the_plan(full):
    bridge = make(full=full, centred=True)
    x = torch.tensor([[0.5, -0.3]], dtype=torch.float64).expand(40_000, 2)
    mean, covariance = bridge.barycentric(x[:1])[0], bridge.conditional_covariance(x[:1])[0]
    for how, steps in (("sde", 60), ("bridge", 3)):
        end = bridge.trajectory(x, steps, torch_generator(2), how)[-1]
        torch.testing.assert_close(end.mean(0), mean, atol=0.04, rtol=0.02)
        torch.testing.assert_close(torch.cov(end.T), covariance, atol=0.06, rtol=0.04)


def test_ways_drawn_at_once_and_by_steps_agree_in_the_middle():
    bridge = make()
    x = torch.tensor([[0.5, -0.3]], dtype=torch.float64).expand(40_000, 2)
    at_once = bridge.interpolate(x, 0.5, torch_generator(0))
    for how in ("sde", "bridge"):
        middle = bridge.trajectory(x, 40, torch_generator(1), how)[20]
        torch.testing.assert_close(middle.mean(0), at_once.mean(0), atol=0.03, rtol=0.0)
        torch.testing.assert_close(torch.cov(middle.T), torch.cov(at_once.T), atol=0.03, rtol=0.03)


def test_the_end_is_drawn_from_its_law_at_any_time():
    """The law of the end given the middle, drawn after the middle, is the plan."""
    bridge = make(full=False)
    x = torch.tensor([[0.5, -0.3]], dtype=torch.float64).expand(60_000, 2)
    end = bridge.sample(bridge.interpolate(x, 0.5, torch_generator(0)), torch_generator(1), t=0.5)
    torch.testing.assert_close(end.mean(0), bridge.barycentric(x[:1])[0], atol=0.03, rtol=0.0)
    torch.testing.assert_close(
        torch.cov(end.T), bridge.conditional_covariance(x[:1])[0], atol=0.04, rtol=0.04
    )


def test_a_large_eps_makes_an_independent_plan():
    """A potential held fixed while eps grows: S = cov / eps, and the end no longer hears of x."""
    covariance, eps = np.full((3, 2), 0.5), 1e6
    bridge = Bridge(eps, np.zeros(3), np.random.default_rng(0).standard_normal((3, 2)), covariance / eps)
    x = torch.randn(9, 2, dtype=torch.float64)
    assert float(bridge.barycentric(x).std(0).max()) < 1e-5


def test_a_batch_of_one_is_a_row_of_the_batch():
    bridge, x = make(), torch.randn(5, 2, dtype=torch.float64)
    torch.testing.assert_close(torch.cat([bridge.drift(row[None], 0.3) for row in x]), bridge.drift(x, 0.3))
    torch.testing.assert_close(
        torch.func.vmap(lambda v: bridge._exponents(v[None], 0.3)[0])(x), bridge._exponents(x, 0.3)
    )


def test_pairs_are_drawn_from_rows_and_their_ends():
    bridge, x = make(), torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    a, b = bridge.rvs(x, 7, torch_generator(0))
    assert a.shape == b.shape == (7, 2)
    assert set(a[:, 0].tolist()) <= {0.0, 1.0}


def test_single_precision_stays_single():
    bridge = Bridge(0.5, torch.zeros(2), torch.randn(2, 3), torch.ones(2, 3))
    assert bridge.drift(torch.randn(4, 3).half(), 0.2).dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0.0, [0.0], [[1.0]], [[1.0]]), InvalidParameter, "eps > 0"),
        ((1.0, [0.0], [1.0], [[1.0]]), InvalidProblem, "expected \\(components, dimensions\\)"),
        ((1.0, [0.0], [[1.0]], [[1.0, 2.0]]), InvalidProblem, "S \\(1, 2\\); expected \\(1,\\)"),
        ((1.0, [0.0], [[1.0]], [[-1.0]]), InvalidProblem, "positive diagonals"),
        ((1.0, [0.0], [[1.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]), InvalidProblem, "not positive definite"),
        ((1.0, [0.0], [[1.0, 0.0]], [[[1.0, 0.2], [0.0, 1.0]]]), InvalidProblem, "not symmetric"),
        ((1.0, [math.nan], [[1.0]], [[1.0]]), NotFinite, "log_a holds 1 NaN"),
        ((1.0, [0.0], [[1.0]], [[1.0]], [0.0, 0.0]), InvalidProblem, "centre0 has shape"),
    ],
)
def test_parameters_that_make_no_bridge_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        Bridge(*arguments)


def test_questions_that_have_no_answer_are_refused():
    bridge, x = make(), [[0.0, 0.0]]
    with pytest.raises(InvalidParameter, match="0 <= t < 1; got 1\\.0\\. At 1 the end is reached"):
        bridge.drift(x, 1.0)
    with pytest.raises(InvalidProblem, match="expected \\(points, 2\\)"):
        bridge.barycentric([[0.0]])
    with pytest.raises(InvalidProblem, match="2 y and 1 x"):
        bridge.log_density([[0.0, 0.0]] * 2, x)
    with pytest.raises(InvalidParameter, match="steps >= 1"):
        bridge.trajectory(x, 0, torch_generator(0))
    with pytest.raises(InvalidParameter, match="sde or bridge"):
        bridge.trajectory(x, 2, torch_generator(0), "ode")
    with pytest.raises(InvalidParameter, match="0 <= t <= 1"):
        bridge.interpolate(x, 1.5, torch_generator(0))
    with pytest.raises(InvalidProblem, match="complex"):
        bridge.barycentric(np.array([[1j, 0.0]]))
