"""Kernels of derivatives, tasks, fidelities and bent inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.numerics.gaussian_process import (
    RBF,
    Coregion,
    Derivative,
    Downsampling,
    GaussianProcess,
    Matern,
    RationalQuadratic,
    Scaled,
    Warped,
    with_gradients,
)


def points(n, d, seed=0):
    return torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(base=st.sampled_from([RBF(), Matern()]), seed=st.integers(0, 20))
def test_covariances_of_derivatives_are_derivatives_of_covariances(base, seed):
    a, b = points(2, 3, seed).requires_grad_(True)[:1], points(2, 3, seed + 100)[:1].requires_grad_(True)
    theta = torch.tensor([-0.5, 0.2, 0.4], dtype=torch.float64)
    kernel = Derivative(base)

    def k(x, y):
        scaled = (x - y) * torch.exp(-theta)
        return base.profile(scaled.square().sum())[0]

    hessian = torch.autograd.functional.hessian(k, (a[0].detach(), b[0].detach()))
    first = torch.autograd.functional.jacobian(k, (a[0].detach(), b[0].detach()))

    def coded(x, code):
        return torch.cat([x.detach(), torch.tensor([[float(code)]], dtype=torch.float64)], 1)

    for i in range(1, 4):
        assert float(kernel(theta, coded(a, i), coded(b, 0))) == pytest.approx(
            float(first[0][i - 1]), abs=1e-9
        )
        assert float(kernel(theta, coded(a, 0), coded(b, i))) == pytest.approx(
            float(first[1][i - 1]), abs=1e-9
        )
        for j in range(1, 4):
            got = float(kernel(theta, coded(a, i), coded(b, j)))
            assert got == pytest.approx(float(hessian[0][1][i - 1, j - 1]), abs=1e-8)


def test_a_process_with_gradients_is_the_limit_of_one_with_differences():
    X = points(6, 2)
    f = lambda x: torch.sin(3 * x[:, 0]) * x[:, 1]  # noqa: E731
    gradients = torch.stack([3 * torch.cos(3 * X[:, 0]) * X[:, 1], torch.sin(3 * X[:, 0])], 1)
    theta = torch.tensor([0.0, -0.5, -0.5], dtype=torch.float64)
    coded, y = with_gradients(X, f(X), gradients)
    with_slopes = GaussianProcess(Scaled(Derivative(RBF())), degree=-1, learn_noise=False)
    h = 1e-3
    # values with noise of variance 1e-10, whose differences over h have noise of variance 2e-10/h^2
    noise = torch.where(coded[:, -1] > 0, 2e-10 / h**2, 1e-10)
    ours = with_slopes.posterior(theta, coded, y, noise)
    near = torch.cat([X + h * torch.eye(2, dtype=torch.float64)[j] for j in range(2)])
    plain = GaussianProcess(Scaled(RBF()), degree=-1, learn_noise=False)
    differences = plain.posterior(theta, torch.cat([X, near]), torch.cat([f(X), f(near)]), noise=1e-10)
    A = points(20, 2, 7)
    ahead = ours.mean(torch.cat([A, torch.zeros(20, 1)], 1))
    np.testing.assert_allclose(ahead, differences.mean(A), atol=1e-2)
    # with gradients the truth is nearer than without
    without = plain.posterior(theta, X, f(X), noise=1e-9).mean(A)
    assert float((ahead - f(A)).abs().mean()) < 0.5 * float((without - f(A)).abs().mean())


def test_derivatives_can_be_predicted():
    X = torch.linspace(0, 1, 12, dtype=torch.float64)[:, None]
    coded = torch.cat([X, torch.zeros(12, 1)], 1)
    process = GaussianProcess(Scaled(Derivative(RBF())), degree=-1, learn_noise=False)
    posterior = process.fit(coded, torch.sin(3 * X[:, 0]), noise=1e-8)
    slope, variance = posterior.predict(torch.tensor([[0.5, 1.0]], dtype=torch.float64))
    assert float(slope) == pytest.approx(3 * np.cos(1.5), abs=1e-2)
    assert 0 < float(variance) < 1e-2


def test_the_energy_of_a_process_with_gradients_is_differentiated_right():
    coded, y = with_gradients(points(4, 2), points(4, 1)[:, 0], points(4, 2, 3))
    process = GaussianProcess(Scaled(Derivative(Matern())))
    theta = torch.tensor([0.1, -0.3, 0.2, -2.0], dtype=torch.float64)
    _, gradient = process.energy(theta, coded, y)
    for i in range(4):
        step = 1e-5 * torch.eye(4, dtype=torch.float64)[i]
        ahead, behind = (process.energy(theta + s * step, coded, y)[0] for s in (1, -1))
        assert float(gradient[i]) == pytest.approx(float(ahead - behind) / 2e-5, rel=1e-4, abs=1e-6)


def test_tasks_that_are_alike_help_one_another():
    X = points(30, 1)
    truth = torch.sin(6 * X[:, 0])
    task = (torch.arange(30) % 2 == 0).double()[:, None]
    few = torch.cat([X, task], 1)[:24]
    keep = (few[:, 1] == 0) | (torch.arange(24) < 4)
    process = GaussianProcess(Matern(dims=(0,)) * Coregion(2, dim=1), degree=-1)
    values = truth[:24][keep] * (1 + few[keep, 1])  # task 1 is twice task 0
    A = torch.cat([points(20, 1, 4), torch.ones(20, 1)], 1)
    errors = []
    for chosen in (keep[keep], few[keep, 1] == 1):  # all tasks, and task 1 by itself
        mean, variance = process.fit(few[keep][chosen], values[chosen]).predict(A)
        errors.append(float((mean - 2 * torch.sin(6 * A[:, 0])).square().mean().sqrt()))
        assert bool((variance > 0).all())
    assert errors[0] < 0.5 * errors[1]


def test_the_matrix_of_tasks_is_low_rank_plus_diagonal():
    theta = torch.tensor([1.0, 2.0, 0.0, 0.0], dtype=torch.float64)
    B = Coregion(2, dim=0).matrix(theta)
    np.testing.assert_allclose(B, [[2.0, 2.0], [2.0, 5.0]])


def test_at_the_highest_fidelity_the_kernel_is_a_constant():
    theta = torch.tensor([np.log(0.7), 0.0], dtype=torch.float64)
    full = torch.ones(3, 1, dtype=torch.float64)
    np.testing.assert_allclose(Downsampling()(theta, full, full), 0.7, atol=1e-9)
    assert float(Downsampling().diagonal(theta, 0 * full)[0]) == pytest.approx(1.7)


def test_warping_makes_a_function_that_changes_fast_at_one_end_more_likely():
    X = torch.linspace(0.02, 1, 30, dtype=torch.float64)[:, None] ** 2
    y = torch.sin(12 * X[:, 0] ** 0.3)
    plain, warped = (GaussianProcess(k).fit(X, y) for k in (Scaled(Matern()), Warped(Scaled(Matern()))))
    assert float(warped.log_likelihood()) > float(plain.log_likelihood()) + 5
    assert float(warped.theta[0]) < -0.3  # the exponent of x


def test_kernels_without_derivatives_are_refused():
    with pytest.raises(InvalidProblem, match="Matern"):
        Derivative(Matern(nu=0.5))
    with pytest.raises(InvalidProblem, match="RationalQuadratic takes no derivative"):
        Derivative(RationalQuadratic())


def test_a_nu_that_is_none_is_refused():
    with pytest.raises(InvalidParameter, match="nu = 1/2"):
        Matern(nu=2.0)
