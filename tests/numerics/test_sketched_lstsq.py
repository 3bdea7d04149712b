"""Sketched factors and least squares against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.numerics.sketched_lstsq import sketched_factor, sketched_lstsq


@pytest.mark.parametrize("shape", [(50, 50), (200, 50), (5000, 20)])
def test_the_solution_is_that_of_lstsq(rng, shape):
    A, b = rng.standard_normal(shape) * 10.0 ** rng.uniform(-3, 3, shape[1]), rng.standard_normal(shape[0])
    found = sketched_lstsq(A, b, tol=1e-13)
    exact = np.linalg.lstsq(A, b)[0]
    assert found.converged
    np.testing.assert_allclose(found.x, exact, rtol=1e-6, atol=1e-12)
    assert found.residual == pytest.approx(np.linalg.norm(A @ exact - b), abs=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_a_factor_conditions_any_scaling_of_columns_alike(rng, seed):
    A = rng.standard_normal((3000, 16))
    scales = 10.0 ** rng.uniform(-4, 4, 16)
    plain, scaled = sketched_factor(A, seed=seed), sketched_factor(A * scales, seed=seed)
    np.testing.assert_allclose(scaled, plain * scales, rtol=1e-9)
    assert np.linalg.cond(A @ np.linalg.inv(plain)) < 5


def test_a_short_matrix_has_its_own_r(rng):
    A = rng.standard_normal((30, 10))
    R = sketched_factor(A)
    np.testing.assert_allclose(np.abs(R), np.abs(np.linalg.qr(A)[1]), atol=1e-12)
    assert sketched_lstsq(A, rng.standard_normal(30)).steps <= 2


def test_the_solution_as_a_start_takes_no_step(rng):
    A, x = rng.standard_normal((40, 4)), np.arange(4.0)
    assert sketched_lstsq(A, A @ x, x0=x).steps == 0


@pytest.mark.parametrize(
    ("call", "message", "error"),
    [
        (lambda: sketched_factor(np.ones((3, 5))), "as many rows as columns", InvalidProblem),
        (lambda: sketched_factor(np.ones((9, 2))), "depend on each other", InvalidProblem),
        (lambda: sketched_factor(np.full((9, 2), np.nan)), "A holds 18 NaN", NotFinite),
        (lambda: sketched_factor(np.eye(2), rows=1), "rows >= 2", InvalidParameter),
        (lambda: sketched_factor(np.eye(2), seed=-1), "seed >= 0", InvalidParameter),
        (lambda: sketched_lstsq(np.eye(2), [1.0]), r"b has shape \(1,\)", InvalidProblem),
        (lambda: sketched_lstsq(np.eye(2), [1.0, 1.0], R=np.eye(3)), "R has shape", InvalidProblem),
        (lambda: sketched_lstsq(np.eye(2), [1.0, 1.0], tol=0), "tol > 0", InvalidParameter),
        (lambda: sketched_lstsq(np.eye(2), [1.0, 1.0], max_steps=-1), "max_steps >= 0", InvalidParameter),
    ],
)
def test_bad_input_is_refused(call, message, error):
    with pytest.raises(error, match=message):
        call()
