"""Exact Gaussian-process regression, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process import kernels as sk

from thalweg.core import InvalidProblem, NotFinite
from thalweg.numerics.gaussian_process import (
    RBF,
    GaussianProcess,
    Linear,
    Matern,
    NearSingular,
    Periodic,
    RationalQuadratic,
    Scaled,
    cholesky,
    draw_paths,
    inducing_points,
    sparse_posterior,
)

LENGTHS = [0.4, 0.9]


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def data(n=25, d=2, seed=0):
    X = torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return X, torch.sin(4 * X[:, 0]) + X[:, 1:].square().sum(1)


PAIRS = {
    "rbf": (Scaled(RBF()), np.log([1.7, *LENGTHS]), 1.7 * sk.RBF(LENGTHS)),
    "matern12": (Scaled(Matern(nu=0.5)), np.log([1.7, *LENGTHS]), 1.7 * sk.Matern(LENGTHS, nu=0.5)),
    "matern32": (Scaled(Matern(nu=1.5)), np.log([1.7, *LENGTHS]), 1.7 * sk.Matern(LENGTHS, nu=1.5)),
    "matern52": (Scaled(Matern()), np.log([1.7, *LENGTHS]), 1.7 * sk.Matern(LENGTHS, nu=2.5)),
    "rq": (
        Scaled(RationalQuadratic()),
        np.log([1.7, 0.6, 0.6, 0.8]),
        1.7 * sk.RationalQuadratic(length_scale=0.6, alpha=0.8),
    ),
    "sum": (
        Scaled(RBF()) + Linear(),
        np.log([1.7, *LENGTHS, 1, 1]),
        1.7 * sk.RBF(LENGTHS) + sk.DotProduct(0),
    ),
    "product": (Matern() * RBF(), np.log([*LENGTHS, 2, 2]), sk.Matern(LENGTHS, nu=2.5) * sk.RBF([2, 2])),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_posterior_and_the_likelihood_are_scikit_learns(name):
    kernel, theta, peer_kernel = PAIRS[name]
    X, y = data()
    A = data(7, seed=5)[0]
    peer = GaussianProcessRegressor(peer_kernel, alpha=1e-3, optimizer=None).fit(X.numpy(), y.numpy())
    ours = GaussianProcess(kernel, degree=-1, learn_noise=False).posterior(tensor(theta), X, y, noise=1e-3)
    mean, covariance = ours.joint(A)
    peer_mean, peer_covariance = peer.predict(A.numpy(), return_cov=True)
    np.testing.assert_allclose(mean, peer_mean, atol=1e-8)
    np.testing.assert_allclose(covariance, peer_covariance, atol=1e-8)
    np.testing.assert_allclose(ours.predict(A)[1], peer_covariance.diagonal(), atol=1e-8)
    np.testing.assert_allclose(ours.log_likelihood(), peer.log_marginal_likelihood_value_, rtol=1e-9)


def test_a_periodic_kernel_is_scikit_learns_in_one_dimension():
    X, y = data(15, 1)
    peer = GaussianProcessRegressor(sk.ExpSineSquared(0.7, 0.3), alpha=1e-3, optimizer=None).fit(X, y)
    ours = GaussianProcess(Periodic(), degree=-1, learn_noise=False)
    posterior = ours.posterior(tensor(np.log([0.7, 0.3])), X, y, noise=1e-3)
    np.testing.assert_allclose(posterior.mean(X[:4] + 0.01), peer.predict(X[:4] + 0.01), atol=1e-8)


def test_noise_may_be_known_for_each_observation():
    X, y = data()
    noise = torch.linspace(1e-3, 0.5, 25, dtype=torch.float64)
    peer = GaussianProcessRegressor(sk.RBF(0.5), alpha=noise.numpy(), optimizer=None).fit(X, y)
    ours = GaussianProcess(RBF(), degree=-1, learn_noise=False).posterior(
        tensor(np.log([0.5, 0.5])), X, y, noise
    )
    np.testing.assert_allclose(ours.mean(X), peer.predict(X.numpy()), atol=1e-8)


def test_a_quadratic_mean_follows_a_parabola_beyond_the_data():
    X = torch.linspace(0, 0.5, 8, dtype=torch.float64)[:, None]
    y = 1 + 2 * X[:, 0] - 3 * X[:, 0] ** 2
    posterior = GaussianProcess(RBF(), degree=2, learn_noise=False).posterior(
        tensor([-1.0]), X, y, noise=1e-6
    )
    assert float(posterior.mean(tensor([[2.0]]))) == pytest.approx(1 + 4 - 12, abs=1e-3)


KERNELS = [
    *(pair[0] for pair in PAIRS.values()),
    Periodic(),
    Scaled(Matern(dims=(1,))) * RBF(dims=(0,)),
]


@given(index=st.integers(0, len(KERNELS) - 1), seed=st.integers(0, 30))
def test_the_gradient_of_the_energy_is_its_finite_difference(index, seed):
    process = GaussianProcess(KERNELS[index], degree=seed % 3)
    X, y = data(12, seed=seed)
    size = process.kernel.size(2) + 1
    theta = 0.5 * torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 1
    _, gradient = process.energy(theta, X, y)
    for i in range(size):
        step = 1e-5 * torch.eye(size, dtype=torch.float64)[i]
        ahead, behind = process.energy(theta + step, X, y)[0], process.energy(theta - step, X, y)[0]
        assert float(gradient[i]) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-4, abs=1e-5)


@given(index=st.integers(0, len(KERNELS) - 1), seed=st.integers(0, 30))
def test_covariance_matrices_are_positive_and_have_their_diagonal(index, seed):
    kernel = KERNELS[index]
    X, _ = data(10, seed=seed)
    theta = torch.randn(kernel.size(2), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    K = kernel(theta, X, X)
    assert torch.allclose(K, K.T)
    assert torch.allclose(K.diagonal(), kernel.diagonal(theta, X), atol=1e-9)
    assert float(torch.linalg.eigvalsh(K).min()) > -1e-8 * float(K.diagonal().max())


def test_gradients_of_mean_and_variance_are_their_finite_differences():
    X, y = data()
    posterior = GaussianProcess().fit(X, y)
    A = data(6, seed=9)[0]
    slope, spread = posterior.gradient(A)
    for j in range(2):
        step = 1e-6 * torch.eye(2, dtype=torch.float64)[j]
        (m1, v1), (m0, v0) = posterior.predict(A + step), posterior.predict(A - step)
        np.testing.assert_allclose(slope[:, j], (m1 - m0) / 2e-6, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(spread[:, j], (v1 - v0) / 2e-6, rtol=1e-3, atol=1e-6)


def test_growing_is_the_same_as_conditioning_on_everything():
    X, y = data(30)
    process = GaussianProcess()
    theta = process.fit(X, y).theta
    whole = process.posterior(theta, X, y)
    grown = process.posterior(theta, X[:20], y[:20]).grow(X[20:21], y[20:21]).grow(X[21:], y[21:])
    A = data(5, seed=3)[0]
    for a, b in zip(grown.joint(A), whole.joint(A), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)
    np.testing.assert_allclose(grown.log_likelihood(), whole.log_likelihood(), rtol=1e-9)


def test_leaving_one_out_is_leaving_one_out():
    X, y = data(12)
    process = GaussianProcess(degree=-1)
    theta = tensor([0.0, -1.0, -1.0, -4.0])
    means, variances = process.posterior(theta, X, y).leave_one_out()
    for i in range(12):
        rest = torch.arange(12) != i
        mean, variance = process.posterior(theta, X[rest], y[rest]).predict(X[i : i + 1])
        assert float(means[i]) == pytest.approx(float(mean), abs=1e-9)
        assert float(variances[i]) == pytest.approx(float(variance) + np.exp(-4.0), abs=1e-9)


def test_a_batch_of_models_is_a_loop_over_them():
    X, y = data(15)
    process = GaussianProcess()
    theta = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 1
    ys = torch.stack([y, -y, 2 * y])
    batch = process.posterior(theta, X, ys)
    A = torch.rand(2, 5, 3, 2, dtype=torch.float64)
    mean, covariance = batch.joint(A)
    assert mean.shape == (3, 2, 5, 3)
    assert covariance.shape == (3, 2, 5, 3, 3)
    energies, gradients = process.energy(theta, X, ys)
    for i in range(3):
        one = process.posterior(theta[i], X, ys[i])
        np.testing.assert_allclose(one.joint(A)[0], mean[i], atol=1e-10)
        np.testing.assert_allclose(one.joint(A)[1], covariance[i], atol=1e-10)
        np.testing.assert_allclose(one.predict(A)[1], batch.predict(A)[1][i], atol=1e-10)
        energy, gradient = process.energy(theta[i], X, ys[i])
        np.testing.assert_allclose(energy, energies[i], rtol=1e-10)
        np.testing.assert_allclose(gradient, gradients[i], rtol=1e-7, atol=1e-9)


def test_draws_have_the_posteriors_moments():
    X, y = data(6)
    posterior = GaussianProcess().posterior(tensor([0.0, -1.0, -1.0, -3.0]), X, y)
    A = data(4, seed=2)[0]
    draws = posterior.sample(A, 20_000, torch.Generator().manual_seed(0))
    mean, covariance = posterior.joint(A)
    # standard errors: at most 1/sqrt(20 000) = 0.007 of a unit variance
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.03)
    np.testing.assert_allclose(torch.cov(draws.T), covariance, atol=0.03)


@pytest.mark.parametrize("kernel", [Scaled(RBF()), Scaled(Matern()), Scaled(Matern(nu=1.5))])
def test_paths_have_the_posteriors_moments(kernel):
    X, y = data(6)
    posterior = GaussianProcess(kernel).posterior(tensor([0.0, -1.0, -1.0, -3.0]), X, y)
    A = data(4, seed=2)[0]
    draws = draw_paths(posterior, 4000, features=2000)(A)
    mean, covariance = posterior.joint(A)
    # 1/sqrt(4000) = 0.016, and as much again for the random features
    np.testing.assert_allclose(draws.mean(0), mean, atol=0.08)
    np.testing.assert_allclose(torch.cov(draws.T), covariance, atol=0.08)


class TestFitting:
    def test_it_finds_the_parameters_that_made_the_data(self):
        X = torch.rand(150, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        K = RBF()(tensor([np.log(0.2)]), X, X) + 0.01 * torch.eye(150)
        y = torch.linalg.cholesky(K) @ torch.randn(
            150, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
        )
        theta = GaussianProcess(RBF()).fit(X, y).theta
        assert float(theta[0].exp()) == pytest.approx(0.2, rel=0.25)
        assert float(theta[1].exp()) == pytest.approx(0.01, rel=0.4)

    def test_the_gradient_vanishes_there(self):
        X, y = data(20)
        process = GaussianProcess(learn_noise=False)
        posterior = process.fit(X, y, noise=1e-2)
        assert float(process.energy(posterior.theta, X, y, 1e-2)[1].abs().max()) < 0.05

    def test_bayesian_parameters_have_the_moments_of_the_density(self):
        """One parameter: the density is integrated on a grid."""
        X, y = data(8, 1)
        process = GaussianProcess(RBF(), learn_noise=False)
        grid = torch.linspace(-6, 8, 800, dtype=torch.float64)[:, None]
        energy = process.energy(grid, X, y, 0.05)[0]
        density = torch.softmax(-energy, 0)
        mean = float((density * grid[:, 0]).sum())
        std = float((density * (grid[:, 0] - mean) ** 2).sum().sqrt())
        draws = process.fit_bayes(X, y, 0.05, models=400, warmup=40).theta[:, 0]
        assert float(draws.mean()) == pytest.approx(mean, abs=4 * std / 20)
        assert float(draws.std()) == pytest.approx(std, rel=0.2)


class TestSparse:
    def test_with_every_point_inducing_it_is_exact(self):
        X, y = data(40)
        process = GaussianProcess()
        theta = tensor([0.3, -1.0, -1.0, -3.0])
        exact, sparse = process.posterior(theta, X, y), sparse_posterior(process, theta, X, y, inducing=40)
        A = data(6, seed=2)[0]
        for a, b in zip(sparse.predict(A), exact.predict(A), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        assert sparse.bound == pytest.approx(float(exact.log_likelihood()), abs=1e-4)

    @given(count=st.integers(3, 30))
    def test_the_bound_is_below_the_likelihood(self, count):
        X, y = data(40)
        process, theta = GaussianProcess(degree=-1), tensor([0.3, -1.0, -1.0, -3.0])
        sparse = sparse_posterior(process, theta, X, y, inducing=count)
        assert sparse.bound <= float(process.posterior(theta, X, y).log_likelihood()) + 1e-8

    def test_greedy_points_leave_little_uncertain(self):
        X, _ = data(400)
        process, theta = GaussianProcess(RBF(), learn_noise=False), tensor([0.0, 0.0])
        Z = inducing_points(process, theta, X, 30)
        left = process.posterior(theta, Z, torch.zeros(len(Z), dtype=torch.float64), 1e-8).predict(X)[1]
        assert float(left.max()) < 1e-4

    def test_twenty_thousand_points(self):
        X, y = data(20_000)
        process = GaussianProcess()
        theta = tensor([0.5, -1.0, -0.5, -7.0])
        sparse = sparse_posterior(process, theta, X, y, inducing=200)
        A, truth = data(200, seed=4)
        assert float((sparse.predict(A)[0] - truth).abs().max()) < 0.01


class TestBadInput:
    def test_nan_is_refused(self):
        X, y = data()
        y[3] = torch.nan
        with pytest.raises(NotFinite, match="y holds NaN"):
            GaussianProcess().fit(X, y)

    def test_shapes_that_do_not_fit_are_refused(self):
        X, y = data()
        with pytest.raises(InvalidProblem, match=r"expected \(25,\)"):
            GaussianProcess().fit(X, y[:-1])
        with pytest.raises(InvalidProblem, match="theta has 2 entries; expected 4"):
            GaussianProcess().posterior(torch.zeros(2, dtype=torch.float64), X, y)

    def test_constant_values_and_duplicates_are_fine(self):
        X = torch.full((10, 2), 0.5, dtype=torch.float64)
        mean, variance = GaussianProcess().fit(X, torch.ones(10, dtype=torch.float64)).predict(X)
        assert torch.allclose(mean, torch.ones(10, dtype=torch.float64))
        assert bool(torch.isfinite(variance).all())

    def test_a_near_singular_matrix_is_told(self):
        nearly = torch.ones(3, 3, dtype=torch.float64) - 1e-7 * torch.eye(3)
        with pytest.warns(NearSingular, match="nearly singular"):
            cholesky(nearly)

    def test_a_matrix_that_is_no_covariance_is_refused(self):
        with pytest.raises(InvalidProblem, match="not positive definite"):
            cholesky(-torch.eye(3, dtype=torch.float64))


DEPENDENT = {
    "a coordinate twice": (1, lambda X: torch.cat([X, X[:, :1]], 1)),
    "a constant coordinate": (1, lambda X: torch.cat([X, torch.full_like(X[:, :1], 0.5)], 1)),
    "squares of zeros and ones": (2, lambda X: torch.cat([X[:, :1], (X[:, 1:] > 0.5).to(X)], 1)),
    "fewer points than terms": (2, lambda X: X[:4]),
}


@pytest.mark.parametrize(("degree", "make"), DEPENDENT.values(), ids=DEPENDENT)
def test_a_trend_whose_terms_depend_on_one_another_is_the_projection_every_time(degree, make):
    """``H trend`` is H's generalised least-squares fit, from NumPy's singular values, and the trend the shortest."""
    X, y = data(n=40)
    X = make(X)
    y = y[: len(X)]
    process = GaussianProcess(Scaled(RBF()), degree=degree, learn_noise=False)
    theta = torch.log(tensor([1.7, *[0.4] * X.shape[1]]))
    factor = cholesky(process.kernel(theta, X, X) + 1e-2 * torch.eye(len(X), dtype=torch.float64))
    H = process.basis(X)
    white = np.linalg.solve(factor.numpy(), H.numpy())
    expected = np.linalg.lstsq(white, np.linalg.solve(factor.numpy(), y.numpy()), rcond=1e-12)[0]
    for _ in range(60):  # a solver that reads memory it has not written is wrong now and then
        trend, weights = process.weights(X, y, factor)
        np.testing.assert_allclose(trend.numpy(), expected, rtol=1e-6, atol=1e-8)
        assert float((H.T @ weights).abs().max()) < 1e-7 * float(weights.abs().max()) + 1e-10


@pytest.mark.parametrize(("degree", "make"), list(DEPENDENT.values())[:3], ids=list(DEPENDENT)[:3])
def test_a_sparse_posterior_takes_dependent_terms_too(degree, make):
    X, y = data(n=40)
    X = make(X)
    process = GaussianProcess(Scaled(RBF()), degree=degree, learn_noise=False)
    theta = torch.log(tensor([1.7, *[0.4] * X.shape[1]]))
    exact = process.posterior(theta, X, y, 1e-2)
    sparse = sparse_posterior(process, theta, X, y, 1e-2, inducing=40)
    torch.testing.assert_close(sparse.predict(X)[0], exact.predict(X)[0], rtol=1e-4, atol=1e-5)
