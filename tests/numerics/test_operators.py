"""Operators, Krylov wrappers and Chebyshev features against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.polynomial import Chebyshev

from thalweg.core import InvalidProblem
from thalweg.numerics import (
    FivePointStencil,
    adjoint_mismatch,
    as_csr,
    cg,
    chebyshev_features,
    gmres,
    lipschitz_coefficient_bounds,
    lsqr,
    minres,
)


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), center=st.floats(-5, 5), neighbour=st.floats(-5, 5))
def test_the_stencil_equals_its_matrix_and_its_adjoint(rows, columns, center, neighbour):
    stencil = FivePointStencil(rows, columns, center, neighbour)
    x = np.random.default_rng(0).standard_normal(rows * columns)
    np.testing.assert_allclose(stencil @ x, stencil.to_csr() @ x, atol=1e-12)
    assert adjoint_mismatch(stencil) < 1e-12


def test_the_stencil_has_the_eigenvalues_of_the_model_problem():
    n = 6
    k = np.arange(1, n + 1)
    line = 2 - 2 * np.cos(k * np.pi / (n + 1))
    expected = np.sort((line[:, None] + line[None, :]).ravel())
    np.testing.assert_allclose(np.linalg.eigvalsh(FivePointStencil(n, n).to_csr().toarray()), expected)


def test_csr_shares_the_arrays_of_a_matrix_that_is_already_in_form():
    A = as_csr(np.eye(4))
    assert np.shares_memory(as_csr(A).data, A.data)


def test_krylov_wrappers_solve_and_tell_the_true_residual(rng):
    B = rng.standard_normal((20, 20))
    spd, b = B @ B.T + np.eye(20), rng.standard_normal(20)
    for solver, A in [(cg, spd), (minres, spd - 5 * np.eye(20)), (gmres, B + 8 * np.eye(20))]:
        found = solver(A, b, rtol=1e-10)
        assert found.converged
        assert found.iterations == len(found.residuals)
        np.testing.assert_allclose(A @ found.x, b, atol=1e-6)
    found = lsqr(B[:, :5], b, rtol=1e-12)
    np.testing.assert_allclose(found.x, np.linalg.lstsq(B[:, :5], b, rcond=None)[0], rtol=1e-8)


def test_krylov_wrappers_refuse_a_rectangular_matrix():
    with pytest.raises(InvalidProblem, match="lsqr"):
        cg(np.ones((3, 2)), np.ones(3))


@given(terms=st.integers(1, 8), low=st.floats(-3, 0), width=st.floats(0.1, 5))
def test_chebyshev_features_are_the_polynomials_of_the_interval(terms, low, width):
    points = np.linspace(low, low + width, 7)
    features = chebyshev_features(points, terms, low, low + width)
    for j in range(terms):
        np.testing.assert_allclose(features[:, j], Chebyshev.basis(j, [low, low + width])(points), atol=1e-9)


def test_the_coefficients_of_a_lipschitz_function_lie_in_the_box():
    fit = Chebyshev.interpolate(lambda x: np.abs(x - 0.3), 200, domain=[0, 1])
    bounds = lipschitz_coefficient_bounds(201, bound=0.7, lipschitz=1.0, width=1.0)
    assert (np.abs(fit.coef) <= bounds + 1e-9).all()
