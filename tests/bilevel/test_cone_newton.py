"""The compiled residuals and matrices of conic programs, against torch's derivative of the same conditions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.bilevel._cone_kernels import jacobian, turned
from thalweg.bilevel._cone_newton import EXACT, Jacobian, Judge, Program, refined
from thalweg.bilevel._cones import Cones

CONES = Cones(SimpleNamespace(zero=2, nonneg=3, soc=[3, 1, 4, 4], psd=[2]))
N, M = 22, CONES.m  # more unknowns than rows, or the matrix may be singular


def program(seed, k):
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((1, N, N))
    A = rng.standard_normal((1 if seed % 2 else k, M, N))
    return Program(half @ half.swapaxes(1, 2), A, rng.standard_normal((k, M)), rng.standard_normal((k, N)))


def conditions(given, i, u, v):
    P, A = (torch.from_numpy(t[i % len(t)]) for t in (given.P, given.A))
    b, c, y = torch.from_numpy(given.b[i]), torch.from_numpy(given.c[i]), CONES.project(v)
    return torch.cat([P @ u + A.T @ y + c, b - A @ u + v - y])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_residuals_and_steps_are_those_of_the_conditions(seed, k):
    """Points lie inside, outside and on the edge of the cones; Newton's step solves the derivative's system."""
    rng = np.random.default_rng(seed)
    given, u, v = program(seed, k), rng.standard_normal((k, N)), rng.standard_normal((k, M))
    v[:, CONES.starts] *= rng.choice([0.1, 5.0], (k, len(CONES.starts)))
    point = Judge(given, CONES, u, v).first
    newton = Jacobian(given, CONES, point)
    du, dv = newton.step(point)
    g = rng.standard_normal((k, N))
    w = np.concatenate(newton.adjoint_at(point, g), 1)
    for i in range(k):
        at = torch.from_numpy(np.concatenate([u[i], v[i]]))

        def of(x, i=i):
            return conditions(given, i, x[:N], x[N:])

        value, J = of(at).numpy(), torch.func.jacrev(of)(at).numpy()
        np.testing.assert_allclose(np.r_[point.stationarity[i], point.primal[i]], value, atol=1e-12)
        step = np.r_[du[i], dv[i]]
        size = np.abs(J) @ np.abs(step)
        np.testing.assert_allclose(J @ step, -value, atol=1e-9 * size.max())
        size = np.abs(J.T) @ np.abs(w[i])
        np.testing.assert_allclose(J.T @ w[i], np.r_[g[i], np.zeros(M)], atol=1e-9 * size.max())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_projections_derivative_times_a_vector(seed):
    rng = np.random.default_rng(seed)
    v, x = rng.standard_normal((2, M)), rng.standard_normal((2, M))
    active = v[:, : CONES.flat] > 0
    active[:, : CONES.zero] = True
    found = x.copy()
    turned(v, active, CONES.starts, CONES.sizes, found)
    rows = slice(0, CONES.semidefinite[0].start)
    for i in range(2):
        D = torch.func.jacrev(CONES.project)(torch.from_numpy(v[i])).numpy()
        np.testing.assert_allclose(found[i, rows], (D @ x[i])[rows], atol=1e-13)


def test_rows_that_are_not_active_are_those_of_the_identity():
    given, v = program(0, 1), np.full((1, M), -1.0)
    active = np.zeros((1, CONES.flat), dtype=np.bool_)
    rows = np.arange(M)
    J = jacobian(given.P, given.A, v, active, rows, CONES.starts, CONES.sizes, N)[0].T
    np.testing.assert_array_equal(J[:N, :N], given.P[0])
    np.testing.assert_array_equal(J[N : N + CONES.flat, :N], 0.0)
    np.testing.assert_array_equal(J[N : N + CONES.flat, N : N + CONES.flat], np.eye(CONES.flat))


@pytest.mark.parametrize("copies", [1, 2])
def test_rows_said_twice_are_solved_from_afar(copies):
    """Nearest point of a halfspace, the closed form; the matrix is singular with the row in it twice."""
    flat = Cones(SimpleNamespace(zero=0, nonneg=copies, soc=[], psd=[]))
    a, x = np.array([3.0, 4.0]), np.array([2.0, 1.0])
    given = Program(np.eye(2)[None], np.tile(a, (1, copies, 1)), np.full((1, copies), 5.0), -x[None])
    found, newton = refined(given, flat, np.array([[1.2, 0.1]]), np.full((1, copies), 0.3))
    assert found.gap.max() <= EXACT
    np.testing.assert_allclose(found.u[0], x - a * (a @ x - 5.0) / 25.0, atol=1e-14)
    assert (newton.singular is None) == (copies == 1)
    w, _ = newton.adjoint_at(found, np.array([[1.0, 0.0]]))
    np.testing.assert_allclose(w[0], [1.0 - 9.0 / 25.0, -12.0 / 25.0], atol=1e-13)
