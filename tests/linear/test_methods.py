"""Relaxation and Krylov methods against closed forms, explicit matrices and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, Status, Stop, solve
from thalweg.linear import (
    GMRES,
    SOR,
    SSOR,
    SSORCG,
    ConjugateGradient,
    DeflatedCG,
    Direct,
    FlexibleCG,
    GaussSeidel,
    Jacobi,
    LinearSystem,
    RedBlackSOR,
    optimal_omega,
    relaxation,
    ssor_preconditioner,
)
from thalweg.numerics import FivePointStencil

ACCURATE = Stop(below={"residual": 1e-10})


def random_spd(seed, n=30):
    """Sparse, symmetric, positive definite by dominance of the diagonal."""
    rng = np.random.default_rng(seed)
    A = sp.random_array((n, n), density=0.15, rng=rng, data_sampler=lambda size: rng.standard_normal(size))
    A = A + A.T
    return (A + sp.diags_array(abs(A).sum(axis=1) + 0.1 + rng.random(n))).tocsr()


@pytest.fixture
def system(rng):
    return LinearSystem(random_spd(1), rng.standard_normal(30))


def split(A, omega):
    A = A.toarray()
    return np.diag(np.diag(A)) / omega + np.tril(A, -1), A


def iterates(method, system, count):
    state, out = method.init(system, 0), []
    for _ in range(count):
        state = method.step(system, state)
        out.append((state.x.copy(), state.metrics["residual"]))
    return out


@given(seed=st.integers(0, 100), omega=st.floats(0.1, 1.9))
def test_sor_is_the_iteration_of_its_splitting(seed, omega):
    b = np.random.default_rng(seed).standard_normal(30)
    system = LinearSystem(random_spd(seed), b)
    M, A = split(system.csr, omega)
    x = np.zeros(30)
    for got, residual in iterates(SOR(omega), system, 4):
        x = x + np.linalg.solve(M, b - A @ x)
        np.testing.assert_allclose(got, x, rtol=1e-11, atol=1e-12)
        assert residual == pytest.approx(np.linalg.norm(b - A @ x) / np.linalg.norm(b), rel=1e-9)


@given(seed=st.integers(0, 100), omega=st.floats(0.1, 1.9))
def test_ssor_is_a_forward_and_a_backward_sweep(seed, omega):
    b = np.random.default_rng(seed).standard_normal(30)
    system = LinearSystem(random_spd(seed), b, x0=b)
    M, A = split(system.csr, omega)
    x = b.copy()
    for got, residual in iterates(SSOR(omega), system, 3):
        x = x + np.linalg.solve(M, b - A @ x)
        x = x + np.linalg.solve(M.T, b - A @ x)
        np.testing.assert_allclose(got, x, rtol=1e-11, atol=1e-12)
        assert residual == pytest.approx(np.linalg.norm(b - A @ x) / np.linalg.norm(b), rel=1e-9)


def test_sor_with_omega_one_is_gauss_seidel(system):
    for (a, _), (b, _) in zip(iterates(SOR(1.0), system, 5), iterates(GaussSeidel(), system, 5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_jacobi_is_its_formula(system):
    x, D = np.zeros(30), system.csr.diagonal()
    for got, residual in iterates(Jacobi(weight=0.8), system, 5):
        x = x + 0.8 * (system.b - system.csr @ x) / D
        np.testing.assert_allclose(got, x, rtol=1e-12)
        assert residual == pytest.approx(system.metrics(x)["residual"])


def test_the_spectral_radius_of_sor_at_the_optimal_omega_is_omega_minus_one():
    n = 9
    A = FivePointStencil(n, n).to_csr()
    omega = optimal_omega(np.cos(np.pi / (n + 1)))  # the Jacobi radius of the model problem
    M, dense = split(A, omega)
    radius = np.abs(np.linalg.eigvals(np.eye(n * n) - np.linalg.solve(M, dense))).max()
    # the eigenvalue is defective at the optimum, so rounding enters by its square root
    assert radius == pytest.approx(omega - 1, abs=1e-6)


def test_sweeps_in_a_wavefront_give_the_same_bits_as_one_by_one(monkeypatch, rng):
    system = LinearSystem(FivePointStencil(70, 300), rng.standard_normal(21_000))
    alone = iterates(SOR(1.8), system, 9)
    monkeypatch.setattr(relaxation, "WAVEFRONT_ROWS", 1000)
    monkeypatch.setattr(relaxation, "BLOCK", 1024)
    for (a, norm_a), (b, norm_b) in zip(iterates(SOR(1.8), system, 9), alone, strict=True):
        np.testing.assert_array_equal(a, b)
        assert norm_a == pytest.approx(norm_b, rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2), (5, 8), (8, 5), (12, 13)])
def test_red_black_sor_is_sor_in_red_black_order(shape, rng):
    stencil = FivePointStencil(*shape, center=4.3)
    n = stencil.shape[0]
    b = rng.standard_normal(n)
    i, j = np.divmod(np.arange(n), shape[1])
    order = np.argsort((i + j) % 2, kind="stable")
    permuted = LinearSystem(stencil.to_csr()[order][:, order], b[order])
    ours = iterates(RedBlackSOR(1.6), LinearSystem(stencil, b), 4)
    for (a, norm_a), (c, norm_c) in zip(ours, iterates(SOR(1.6), permuted, 4), strict=True):
        np.testing.assert_allclose(a[order], c, rtol=1e-12, atol=1e-13)
        assert norm_a == pytest.approx(norm_c, rel=1e-9)


def test_ssor_cg_is_cg_with_the_explicit_preconditioner(system):
    omega = 1.3
    M, A = split(system.csr, omega)
    W = M @ np.diag(1 / np.diag(A)) @ M.T * omega / (2 - omega)
    explicit = ConjugateGradient(preconditioner=np.linalg.inv(W))
    operator = ConjugateGradient(preconditioner=ssor_preconditioner(system, omega))
    for (a, _), (b, _), (c, _) in zip(
        *(iterates(m, system, 8) for m in (SSORCG(omega), explicit, operator)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-7)
        np.testing.assert_allclose(c, b, rtol=1e-7)


def test_cg_ends_within_as_many_steps_as_there_are_eigenvalues():
    system = LinearSystem(np.diag([1.0, 1.0, 2.0, 5.0, 5.0]), np.arange(1.0, 6.0))
    assert solve(system, ConjugateGradient(), stop=Stop(below={"residual": 1e-12})).steps == 3


@pytest.mark.parametrize(
    "method",
    [SOR(1.1), SSOR(1.1), GaussSeidel(), Jacobi(), SSORCG(1.1), ConjugateGradient(), GMRES(), Direct()],
)
def test_every_method_finds_the_answer_of_a_dense_solve(method, system):
    result = solve(system, method, stop=ACCURATE)
    assert result.converged
    np.testing.assert_allclose(
        result.x, np.linalg.solve(system.csr.toarray(), system.b), rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("method", [SOR(1.1), SSOR(1.1), Jacobi(), SSORCG(1.1), ConjugateGradient(), GMRES()])
def test_a_warm_start_at_the_answer_takes_no_step(method, system):
    answer = np.linalg.solve(system.csr.toarray(), system.b)
    assert solve(LinearSystem(system.A, system.b, x0=answer), method, stop=ACCURATE).steps == 0


def test_a_zero_right_hand_side_is_answered_by_zero(system):
    for method in (SOR(1.1), SSORCG(1.1), ConjugateGradient()):
        result = solve(LinearSystem(system.A, np.zeros(30)), method, stop=ACCURATE)
        assert result.converged
        assert not result.x.any()


def test_the_problem_is_left_as_it_was(system):
    data, b = system.csr.data.copy(), system.b.copy()
    for method in (SOR(1.1), SSOR(1.1), Jacobi(), SSORCG(1.1), ConjugateGradient(), GMRES()):
        solve(system, method, stop=Stop(steps=3))
    np.testing.assert_array_equal(system.csr.data, data)
    np.testing.assert_array_equal(system.b, b)


class TestBadInput:
    def test_a_rectangular_matrix(self):
        with pytest.raises(InvalidProblem, match=r"A is 3 x 2.*lsqr"):
            LinearSystem(np.ones((3, 2)), np.ones(3))

    def test_an_empty_matrix(self):
        with pytest.raises(InvalidProblem, match="non-empty"):
            LinearSystem(np.zeros((0, 0)), np.zeros(0))

    def test_a_right_hand_side_of_another_length(self):
        with pytest.raises(InvalidProblem, match=r"b has shape \(3,\); expected \(2,\)"):
            LinearSystem(np.eye(2), np.ones(3))

    def test_nan_in_the_right_hand_side(self):
        b = np.ones(20)
        b[[17, 18, 19]] = np.nan
        with pytest.raises(NotFinite, match=r"b holds 3 NaN \(first at index 17\)"):
            LinearSystem(np.eye(20), b)

    def test_infinity_in_the_matrix(self):
        with pytest.raises(NotFinite, match=r"A .* holds 1 non-finite"):
            LinearSystem(np.diag([1.0, np.inf]), np.ones(2))

    def test_a_complex_matrix(self):
        with pytest.raises(InvalidProblem, match="complex"):
            LinearSystem(np.eye(2) * 1j, np.ones(2))

    @pytest.mark.parametrize("omega", [0.0, 2.0, -1.0, 2.5, float("nan")])
    @pytest.mark.parametrize("method", [SOR, SSOR, SSORCG, RedBlackSOR])
    def test_omega_outside_its_range(self, method, omega):
        with pytest.raises(InvalidParameter, match=r"omega in \(0, 2\)"):
            method(omega)

    @pytest.mark.parametrize("method", [SOR(), SSOR(), Jacobi(), SSORCG(), ConjugateGradient()])
    def test_a_zero_on_the_diagonal(self, method):
        with pytest.raises(InvalidProblem, match=r"1 zero diagonal entries \(first in row 1\)"):
            solve(LinearSystem(np.array([[1.0, 0.0], [0.0, 0.0]]), np.ones(2)), method)

    @pytest.mark.parametrize("method", [SSORCG(), ConjugateGradient()])
    def test_an_asymmetric_matrix_for_cg(self, method):
        with pytest.raises(InvalidProblem, match=r"not symmetric.*GMRES"):
            solve(LinearSystem(np.array([[2.0, 1.0], [0.0, 2.0]]), np.ones(2)), method)

    @pytest.mark.parametrize("method", [SSORCG(), ConjugateGradient()])
    def test_a_negative_diagonal_for_cg(self, method):
        with pytest.raises(InvalidProblem, match="1 negative diagonal"):
            solve(LinearSystem(np.diag([1.0, -1.0]), np.ones(2)), method)

    @pytest.mark.parametrize("method", [SSORCG(1.0), ConjugateGradient()])
    def test_an_indefinite_matrix_for_cg_is_named_on_the_way_with_the_best_answer(self, method):
        A = np.array([[1.0, 3.0], [3.0, 1.0]])  # eigenvalues 4 and -2
        with pytest.raises(InvalidProblem, match="not positive definite: p'Ap") as caught:
            solve(LinearSystem(A, np.array([1.0, -1.0])), method)
        assert np.isfinite(caught.value.result.x).all()

    def test_red_black_without_a_stencil(self, system):
        with pytest.raises(InvalidProblem, match="FivePointStencil"):
            solve(system, RedBlackSOR())

    def test_a_matrix_free_operator_for_a_sweep(self):
        from scipy.sparse.linalg import aslinearoperator

        with pytest.raises(InvalidProblem, match="needs its entries"):
            solve(LinearSystem(aslinearoperator(np.eye(3)), np.ones(3)), SOR())

    def test_a_singular_matrix_for_a_direct_solve(self):
        with pytest.raises(InvalidProblem, match="singular"):
            solve(LinearSystem(np.ones((2, 2)), np.ones(2)), Direct())

    def test_a_preconditioner_of_another_shape(self, system):
        with pytest.raises(InvalidProblem, match=r"preconditioner has shape \(2, 2\)"):
            solve(system, ConjugateGradient(preconditioner=np.eye(2)))


class TestRounding:
    """A recurrence that has reached rounding ends, instead of running on until its numbers mean nothing."""

    @pytest.mark.parametrize(
        "method",
        [ConjugateGradient(), SSORCG(1.8), FlexibleCG(np.eye(900)), DeflatedCG(4)],
        ids=lambda m: m.name[:12],
    )
    def test_without_a_rule_on_the_residual_it_stalls_near_the_best_answer(self, method):
        system = LinearSystem(FivePointStencil(30, 30), np.ones(900))
        result = solve(system, method, stop=Stop(steps=20_000))
        assert result.status is Status.STALLED
        assert "as near as rounding allows" in result.message
        assert result.steps < 120
        assert result.metrics["residual"] <= 2 * system.rounding(result.x)

    @pytest.mark.parametrize("method", [ConjugateGradient(), SSORCG(1.2)], ids=lambda m: m.name[:12])
    @pytest.mark.parametrize("scale", [1.0, 1e-50, 1e50])
    def test_badly_scaled_unknowns_are_not_taken_for_rounding(self, method, scale):
        """x = (1, 1e-10) for A = diag(1, 1e10): |A| |x| / |b| is 1e10, and yet the residual goes to 1e-15."""
        system = LinearSystem(np.diag([1.0, 1e10]) * scale, np.ones(2) * scale)
        assert solve(system, method, stop=Stop(below={"residual": 1e-12})).converged

    def test_a_rule_that_is_met_is_convergence_even_at_rounding(self):
        system = LinearSystem(np.array([[4.0, 1.0], [1.0, 3.0]]), np.ones(2))
        assert solve(system, SSORCG()).converged
