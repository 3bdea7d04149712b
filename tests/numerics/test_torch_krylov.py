"""Linear systems by products: the way that is chosen, singular matrices, and a trap of torch."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import thalweg
from thalweg.numerics.torch_krylov import DENSE, DENSE_SYMMETRIC, LinearSolver

DOUBLE = torch.float64


def numbers(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


class Counted:
    """Products with a matrix, counted; under vmap many count as one."""

    def __init__(self, A):
        self.A, self.calls = A, 0

    def __call__(self, v):
        self.calls += 1
        return self.A @ v


def definite(n, seed=0):
    B = numbers(n, n, seed=seed) / n**0.5
    return B @ B.T + torch.eye(n, dtype=DOUBLE)


class TestBreakdown:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_system_that_is_solved_at_once_is_solved(self, dtype):
        found = LinearSolver("bicgstab")(lambda v: 2 * v, torch.ones(5, dtype=dtype))
        torch.testing.assert_close(found.x, torch.full((5,), 0.5, dtype=dtype))
        assert found.residual == 0.0

    def test_a_turn_by_a_right_angle_leaves_a_finite_answer_with_its_residual(self):
        turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        found = LinearSolver("bicgstab")(lambda v: turn @ v, torch.tensor([1.0, 0.0]))
        assert torch.isfinite(found.x).all()
        assert found.residual == 1.0


class TestTheMethodThatAutoChooses:
    def test_small_matrices_are_made_at_once(self):
        A, b = Counted(definite(DENSE_SYMMETRIC)), numbers(DENSE_SYMMETRIC, seed=1)
        found = LinearSolver()(A, b)
        torch.testing.assert_close(found.x, torch.linalg.solve(A.A, b), rtol=1e-11, atol=1e-12)
        assert A.calls == 1

    @pytest.mark.parametrize("n", [100, 400])
    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_symmetric_ones_take_conjugate_gradients(self, n, sign):
        A, b = Counted(sign * definite(n)), numbers(n, seed=1)
        found = LinearSolver()(A, b)
        assert found.residual <= 1e-10
        torch.testing.assert_close(found.x, torch.linalg.solve(A.A, b), rtol=1e-8, atol=1e-9)
        assert A.calls == found.products < n / 4 + 2  # a matrix would be one call, and n products

    def test_one_that_is_not_symmetric_is_made_and_a_large_one_is_not(self):
        for n in (100, 400):
            A, b = Counted(definite(n) + 0.3 * numbers(n, n, seed=2) / n**0.5), numbers(n, seed=1)
            found = LinearSolver()(A, b)
            assert found.residual <= 1e-10
            torch.testing.assert_close(found.x, torch.linalg.solve(A.A, b), rtol=1e-7, atol=1e-8)
            assert A.calls == (3 if n <= DENSE else found.products + 1)

    @pytest.mark.parametrize("n", [100, 400])
    def test_an_indefinite_or_hard_symmetric_one_is_solved_too(self, n):
        hard = torch.diag(torch.logspace(-5, 0, n, dtype=DOUBLE))
        saddle = definite(n)
        saddle[: n // 2, : n // 2] *= -1.0
        for A in (saddle, hard) if n <= DENSE else (hard,):
            b = numbers(n, seed=1)
            found = LinearSolver()(lambda v, A=A: A @ v, b)
            assert found.residual <= 1e-9
            torch.testing.assert_close(found.x, torch.linalg.solve(A, b), rtol=1e-4, atol=1e-5)

    def test_where_symmetry_shows_only_on_one_vector_the_residual_tells(self):
        """``(A - A') b = 0``, so that the probe sees nothing."""
        n = 100
        A = definite(n)
        b = torch.zeros(n, dtype=DOUBLE)
        b[0] = 1.0
        A[1:, 1:] += numbers(n - 1, n - 1, seed=3) / n**0.5
        found = LinearSolver()(lambda v: A @ v, b)
        torch.testing.assert_close(found.x, torch.linalg.solve(A, b), rtol=1e-8, atol=1e-9)

    def test_a_ridge_a_start_and_single_precision(self):
        A, b = definite(100), numbers(100, seed=1)
        shifted = torch.linalg.solve(A + 0.5 * torch.eye(100, dtype=DOUBLE), b)
        found = LinearSolver(ridge=0.5)(lambda v: A @ v, b)
        torch.testing.assert_close(found.x, shifted, rtol=1e-8, atol=1e-9)
        warm = LinearSolver()(lambda v: A @ v, b, x0=torch.linalg.solve(A, b) + 1e-6)
        torch.testing.assert_close(warm.x, torch.linalg.solve(A, b), rtol=1e-8, atol=1e-9)
        single = LinearSolver(tol=1e-5)(lambda v: A.float() @ v, b.float())
        torch.testing.assert_close(single.x.double(), torch.linalg.solve(A, b), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("method", ["cg", "gmres"])
def test_what_is_handed_over_is_not_changed(method):
    A, b, x0 = definite(30), numbers(30, seed=1), numbers(30, seed=2)
    before = b.clone(), x0.clone()
    LinearSolver(method)(lambda v: A @ v, b, x0=x0)
    LinearSolver(method)(lambda v: v, b)  # a product that gives its argument back
    assert torch.equal(b, before[0])
    assert torch.equal(x0, before[1])


@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 8))
def test_gmres_with_restarts_is_that_of_a_least_squares_problem(seed, n, restart):
    """After k products the residual is the least over the Krylov space, SciPy's least squares being the judge."""
    A, b = definite(n, seed) + 0.3 * numbers(n, n, seed=seed + 1) / n**0.5, numbers(n, seed=seed + 2)
    k = min(restart, n)
    found = LinearSolver("gmres", tol=0.0, restart=restart, max_steps=k)(lambda v: A @ v, b)
    space = [b]
    for _ in range(k - 1):
        space.append(A @ space[-1])
    Q = np.linalg.qr(torch.stack(space, 1).numpy())[0]
    y = np.linalg.lstsq(A.numpy() @ Q, b.numpy(), rcond=None)[0]
    least = np.linalg.norm(b.numpy() - A.numpy() @ Q @ y)
    assert float(torch.linalg.vector_norm(b - A @ found.x)) == pytest.approx(least, rel=1e-6, abs=1e-9)


class TestSingularMatrices:
    def test_a_consistent_system_is_solved_by_least_norm_every_time(self):
        """A saddle matrix of rank 12 of 14: equations said twice."""
        for seed in range(50):
            P, A = definite(10, seed), numbers(2, 10, seed=seed)
            K = torch.zeros(14, 14, dtype=DOUBLE)
            K[:10, :10], K[:10, 10:], K[10:, :10] = P, torch.cat([A, A]).T, torch.cat([A, A])
            b = K @ numbers(14, seed=seed + 1)
            found = LinearSolver("dense")(lambda v, K=K: K @ v, b)
            assert found.residual < 1e-12
            expected = np.linalg.pinv(K.numpy(), rcond=1e-10) @ b.numpy()
            np.testing.assert_allclose(found.x.numpy(), expected, rtol=1e-8, atol=1e-10)

    def test_an_inconsistent_one_is_least_squares_and_says_so(self):
        A = torch.diag(torch.tensor([2.0, 0.0, 1.0], dtype=DOUBLE))
        found = LinearSolver("dense")(lambda v: A @ v, torch.ones(3, dtype=DOUBLE))
        assert found.x.tolist() == pytest.approx([0.5, 0.0, 1.0])
        assert found.residual == pytest.approx(3**-0.5)

    def test_gmres_stops_where_the_krylov_space_ends(self):
        A = torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0], dtype=DOUBLE))
        b = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=DOUBLE)
        found = LinearSolver("gmres")(lambda v: A @ v, b)
        assert found.x.tolist() == pytest.approx([1.0, 0.5, 0.0, 0.0])
        outside = LinearSolver("gmres")(lambda v: A @ v, torch.ones(4, dtype=DOUBLE))
        assert outside.residual == pytest.approx(0.5**0.5, rel=1e-6)


def test_nobody_takes_torchs_default_least_squares():
    """On the CPU its driver, gelsy, is wrong at random for matrices without full rank; gelsd is not."""
    bad = []
    for path in Path(thalweg.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if "lstsq" in text else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.linalg.lstsq", "torch.lstsq"):
                drivers = [k.value.value for k in node.keywords if k.arg == "driver"]
                if drivers != ["gelsd"]:
                    bad.append(f"{path}:{node.lineno}")
    assert bad == []
