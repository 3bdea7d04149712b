"""No silent wrong answer and no raw traceback: units, singular matrices, odd inputs, sequences."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, Status, Stop, solve
from thalweg.linear import (
    GMRES,
    SOR,
    SSOR,
    SSORCG,
    ConjugateGradient,
    DeepConjugateDirection,
    DeflatedCG,
    Direct,
    FlexibleCG,
    GaussSeidel,
    Jacobi,
    LearnedSolver,
    LinearSystem,
    ListedSystems,
    NotSolved,
    PoissonGrid,
    RedBlackSOR,
    SequenceSolver,
    ShiftedLaplacians,
    direct,
    direction_preconditioner,
    incomplete_cholesky,
    pretrained_direction,
    recommended,
    ssor_preconditioner,
)
from thalweg.linear.obstacles import box_of_fluid
from thalweg.numerics import FivePointStencil, as_csr, cg, gmres, lsqr, minres
from thalweg.online import Fixed

ACCURATE = Stop(below={"residual": 1e-10})
N = 12


def methods():
    eye = np.eye(N)
    return [
        SOR(1.1),
        SSOR(1.1),
        GaussSeidel(),
        Jacobi(),
        SSORCG(1.2),
        ConjugateGradient(),
        ConjugateGradient(eye * 1e140),
        FlexibleCG(eye * 1e-140),
        DeflatedCG(2),
        GMRES(),
        Direct(),
        DeepConjugateDirection(lambda r: r),
    ]


@pytest.fixture(scope="module")
def spd():
    rng = np.random.default_rng(3)
    A = rng.standard_normal((N, N)) * (rng.random((N, N)) < 0.3)
    A = A + A.T
    A += np.diag(np.abs(A).sum(axis=1) + 0.5)
    b = rng.standard_normal(N)
    return A, b, np.linalg.solve(A, b)


class TestUnits:
    @pytest.mark.parametrize("method", methods(), ids=lambda m: m.name[:24])
    @settings(max_examples=12)
    @given(left=st.floats(-150, 150), right=st.floats(-150, 150))
    def test_the_answer_is_the_same_in_any_units_of_a_and_b(self, method, spd, left, right):
        A, b, x = spd
        result = solve(LinearSystem(A * 10.0**left, b * 10.0**right), method, stop=ACCURATE)
        assert result.converged
        np.testing.assert_allclose(result.x * 10.0**left / 10.0**right, x, rtol=0, atol=1e-8)

    @settings(max_examples=12)
    @given(left=st.floats(-150, 150), right=st.floats(-150, 150))
    def test_stencils_and_operators_have_units_too(self, left, right):
        stencil, b = FivePointStencil(3, 4, 5.0 * 10.0**left, -(10.0**left)), np.arange(12.0) * 10.0**right
        x = np.linalg.solve(FivePointStencil(3, 4, 5.0, -1.0).to_csr().toarray(), np.arange(12.0))
        free = LinearOperator((12, 12), matvec=lambda v: stencil @ v, dtype=np.float64)
        for A, method in (
            (stencil, RedBlackSOR(1.1)),
            (stencil, ConjugateGradient()),
            (free, ConjugateGradient()),
        ):
            result = solve(LinearSystem(A, b), method, stop=ACCURATE)
            assert result.converged
            np.testing.assert_allclose(result.x * 10.0**left / 10.0**right, x, rtol=0, atol=1e-8)

    @pytest.mark.parametrize("size", [1e-300, 1e200])
    @pytest.mark.parametrize("method", [SSORCG(1.2), GMRES(), Direct(), SOR(1.1)], ids=lambda m: m.name)
    def test_right_hand_sides_at_the_ends_of_float64(self, method, size):
        result = solve(LinearSystem(np.diag([2.0, 4.0]), np.array([1.0, 2.0]) * size), method, stop=ACCURATE)
        assert result.converged
        np.testing.assert_allclose(result.x, 0.5 * size, rtol=1e-9)

    def test_a_start_in_other_units_is_that_of_the_answer(self):
        A, b = np.diag([2.0, 4.0]) * 1e-100, np.array([2.0, 4.0]) * 1e100
        assert solve(LinearSystem(A, b, x0=[1e200, 1e200]), ConjugateGradient(), stop=ACCURATE).steps == 0
        with pytest.raises(NotFinite, match="x0, in units of b / A"):
            solve(LinearSystem(A, b * 1e-300, x0=[1e300, 1e300]), ConjugateGradient())
        for method in (ConjugateGradient(), SSORCG(), SOR(1.1), GMRES(), Jacobi(), Direct()):
            with pytest.raises(NotFinite, match="x0 is so far from the answer"):
                solve(LinearSystem(np.diag([2.0, 4.0]), np.ones(2), x0=[1e300, 1e300]), method)

    def test_the_judge_sees_a_wrong_answer_in_any_units(self):
        for size in (1e-250, 1.0, 1e250):
            system = LinearSystem(np.diag([2.0, 4.0]), np.array([1.0, 2.0]) * size)
            assert system.metrics([0.0, 0.0])["residual"] == pytest.approx(1.0)
            assert system.metrics([0.5 * size, 0.0])["residual"] == pytest.approx(2 / np.sqrt(5))

    def test_an_answer_beyond_float64_is_told(self):
        result = solve(LinearSystem(np.eye(2) * 1e-200, np.ones(2) * 1e200), Direct())
        assert result.status is Status.DIVERGED
        assert "x is beyond the largest number" in result.message

    def test_numbers_too_far_apart_for_a_norm_are_refused(self):
        with pytest.raises(InvalidProblem, match=r"b holds numbers from .* too far apart"):
            solve(LinearSystem(np.eye(2), [1e-300, 1e300]), Direct())

    def test_factors_of_entries_far_apart_are_exact(self):
        result = solve(LinearSystem(np.diag([1e-300, 1e300]), np.ones(2)), Direct())
        np.testing.assert_allclose(result.x, [1e300, 1e-300], rtol=1e-15)

    def test_preconditioners_of_a_system_in_small_units_are_its_inverses(self):
        A = np.diag([2.0, 4.0]) * 1e-120
        for made in (
            incomplete_cholesky(LinearSystem(A, np.ones(2))),
            ssor_preconditioner(LinearSystem(A, np.ones(2)), 1.0),
        ):
            np.testing.assert_allclose(made @ np.ones(2), [0.5e120, 0.25e120], rtol=1e-12)

    @pytest.mark.parametrize("solver", [cg, minres, gmres, lsqr], ids=lambda s: s.__name__)
    def test_scipys_solvers_take_tiny_and_huge_right_hand_sides(self, solver):
        for size in (1e-300, 1e200):
            found = solver(np.diag([2.0, 4.0]), np.array([1.0, 2.0]) * size)
            assert found.converged
            np.testing.assert_allclose(found.x, 0.5 * size, rtol=1e-7)


class TestSingular:
    @pytest.fixture
    def neumann(self, rng):
        L = FivePointStencil(12, 12).to_csr()
        A = as_csr(L - sp.diags_array(np.asarray(L.sum(axis=1)).ravel()))
        return A, A @ rng.standard_normal(144) + 0.5  # no solution: the columns of A sum to zero, b does not

    def test_factors_of_a_matrix_singular_up_to_rounding_are_not_believed(self, neumann):
        result = solve(LinearSystem(*neumann), Direct())
        assert result.status is Status.STALLED
        assert "singular up to rounding" in result.message
        assert result.metrics["residual"] > 0.01

    def test_gmres_ends_where_its_cycles_no_longer_help(self, neumann):
        for A, b in (neumann, (np.zeros((3, 3)), np.ones(3)), (np.diag([1.0, 0.0]), np.ones(2))):
            result = solve(LinearSystem(A, b), GMRES())
            assert result.status is Status.STALLED
            assert result.steps < 100
            assert "no longer lowers the residual" in result.message

    def test_a_bound_that_factors_miss_is_not_converged(self, rng):
        n = 12
        hilbert = 1.0 / (np.arange(n)[:, None] + np.arange(n) + 1.0)
        result = solve(
            LinearSystem(hilbert, rng.standard_normal(n)), Direct(), stop=Stop(below={"residual": 1e-17})
        )
        assert result.status is Status.STALLED

    @pytest.mark.parametrize(
        "method",
        [SOR(1.5), SSOR(1.5), GaussSeidel(), SSORCG(), ConjugateGradient(), Jacobi()],
        ids=lambda m: m.name,
    )
    def test_a_matrix_without_entries_has_a_zero_diagonal(self, method):
        for A in (np.zeros((3, 3)), sp.csr_array((3, 3)), sp.coo_array((3, 3))):
            with pytest.raises(InvalidProblem, match="3 zero diagonal entries"):
                solve(LinearSystem(A, np.ones(3)), method)

    @pytest.mark.parametrize(
        "method",
        [
            ConjugateGradient(),
            SSORCG(1.5),
            Direct(),
            GMRES(),
            Jacobi(0.8),
            SOR(1.2),
            FlexibleCG(np.eye(144)),
            DeflatedCG(2),
        ],
        ids=lambda m: m.name[:16],
    )
    def test_a_closed_pool_names_the_sum_of_b_and_takes_what_is_projected(self, method, rng):
        grid = PoissonGrid(box_of_fluid((12, 12), "none"))
        for size in (1.0, 1e-250):
            with pytest.raises(InvalidProblem, match=r"over a closed pool of 144 cells.*grid\.project"):
                solve(LinearSystem(grid, np.ones(144) * size), method)
        b = grid.project(rng.standard_normal(144))
        result = solve(LinearSystem(grid, b), method, stop=Stop(below={"residual": 1e-8}))
        assert result.converged
        np.testing.assert_allclose(grid @ result.x, b, atol=1e-6)


class TestOddInput:
    @pytest.mark.parametrize(
        ("b", "message"),
        [
            (np.array([1 + 1j, 2]), "b is complex"),
            ([1 + 0j, 2], "b is complex"),
            (np.array([1j, 2], dtype=object), "b is complex"),
            (np.ma.array([1.0, 2.0], mask=[False, True]), "b has masked entries"),
            (["1", "2"], "expected numbers"),
            ([1.0, None], "b holds 1 NaN"),
            ([1.0, [2.0]], "b is no array of numbers"),
            (pd.Series([1, pd.NA], dtype="Int64"), "b holds 1 NaN"),
            (np.array(["2020-01-01", "2021-01-01"], dtype="datetime64[D]"), "expected numbers"),
            ([2**60 + 1, 2], r"beyond 2\^53"),
            (np.array([2**64 - 1, 2], dtype=np.uint64), r"beyond 2\^53"),
            (sp.csr_array([[1.0, 2.0]]), "b is a sparse matrix"),
            ({1, 2}, "b is no array of numbers"),
            (3.0, "b has shape"),
        ],
    )
    def test_right_hand_sides_that_would_lose_something_are_refused(self, b, message):
        with pytest.raises(InvalidProblem, match=message):
            LinearSystem(2 * np.eye(2), b)

    @pytest.mark.parametrize(
        "b",
        [
            [1, 2],
            (1.0, 2.0),
            pd.Series([1.0, 2.0], index=[7, 3]),
            torch.tensor([1.0, 2.0], requires_grad=True),
            np.ma.array([1.0, 2.0]),
            np.array([2**53, 2**54]) // 2**53,
            np.array([1.0, 2.0], dtype=np.float32),
            np.array([1.0, 0.0, 2.0, 0.0])[::2],
        ],
        ids=lambda b: type(b).__name__,
    )
    def test_right_hand_sides_of_other_kinds_are_taken(self, b):
        np.testing.assert_allclose(solve(LinearSystem(np.eye(2), b), Direct()).x, [1.0, 2.0])

    @pytest.mark.parametrize(
        ("A", "message"),
        [
            (np.eye(2) * 1j, "A is complex"),
            (aslinearoperator(np.eye(2) * 1j), "A is complex"),
            (sp.eye_array(2) * 1j, "A is complex"),
            (np.ma.array(np.eye(2), mask=np.eye(2)), "A has masked entries"),
            ([["a", "b"], ["c", "d"]], "expected numbers"),
            ([[1, 2], [3]], "A is no array of numbers"),
            (np.eye(2, dtype=np.int64) * (2**60 + 1), r"beyond 2\^53"),
            (sp.csr_array(np.eye(2, dtype=np.int64) * (2**60 + 1)), r"beyond 2\^53"),
            (sp.csr_array([[np.nan, 0], [0, 1]]), "1 NaN"),
            (None, "A has shape|no array"),
        ],
    )
    def test_matrices_that_would_lose_something_are_refused(self, A, message):
        with pytest.raises(InvalidProblem, match=message):
            LinearSystem(A, np.ones(2))

    @pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia", "lil", "dok"])
    def test_every_sparse_format_is_taken(self, kind):
        A = np.array([[4.0, 1.0], [1.0, 3.0]])
        x = solve(LinearSystem(sp.csr_array(A).asformat(kind), np.ones(2)), Direct()).x
        np.testing.assert_allclose(x, [2 / 11, 3 / 11])

    def test_duplicates_of_coordinates_add_up(self):
        A = sp.coo_array(([3.0, 1.0, 1.0, 1.0, 3.0], ([0, 0, 0, 1, 1], [0, 0, 1, 0, 1])), shape=(2, 2))
        np.testing.assert_allclose(
            solve(LinearSystem(A, np.ones(2)), SSORCG()).x, [2 / 11, 3 / 11], rtol=1e-7
        )
        np.testing.assert_allclose(
            solve(LinearSystem(pd.DataFrame(A.toarray()), [1, 1]), SSORCG()).x, [2 / 11, 3 / 11]
        )

    def test_an_answer_of_another_shape_is_not_judged(self):
        system = LinearSystem(np.eye(2), np.ones(2))
        assert system.metrics([1.0, 1.0]) == {"residual": 0.0}
        for x in (np.ones((2, 2)), np.ones(3), np.ones((2, 1)), 1.0):
            with pytest.raises(InvalidProblem, match=r"x has shape .*; expected \(2,\)"):
                system.metrics(x)
        with pytest.raises(InvalidProblem, match="x is complex"):
            system.metrics([1j, 1.0])

    def test_an_operator_or_a_preconditioner_that_gives_nan_is_named(self):
        bad = LinearOperator((2, 2), matvec=lambda v: v * np.nan, dtype=np.float64)
        result = solve(LinearSystem(bad, np.ones(2)), ConjugateGradient())
        assert result.status is Status.DIVERGED
        assert "A's product is not finite" in result.message
        with pytest.raises(NotFinite, match="The preconditioner gave NaN"):
            solve(LinearSystem(np.eye(2), np.ones(2)), ConjugateGradient(bad))

    @pytest.mark.parametrize(
        "make", [SOR, SSOR, SSORCG, Jacobi, RedBlackSOR, GMRES, lambda v: DeepConjugateDirection(abs, v)]
    )
    def test_options_that_are_no_numbers_are_refused(self, make):
        for value in ("1.5", True, [1.5], 1j):
            with pytest.raises(InvalidParameter, match="needs"):
                make(value)

    def test_a_method_for_systems_names_another_problem(self):
        with pytest.raises(InvalidProblem, match="SOR solves a LinearSystem; got a ShiftedLaplacians"):
            solve(ShiftedLaplacians(rounds=2), SOR(1.2))

    def test_a_preconditioner_by_a_network_takes_the_system(self):
        network, grid = pretrained_direction(2), PoissonGrid(box_of_fluid((8, 8)))
        assert direction_preconditioner(network, LinearSystem(grid, np.zeros(64))).shape == (64, 64)
        with pytest.raises(InvalidProblem, match="takes the system"):
            direction_preconditioner(network, grid)
        with pytest.raises(InvalidProblem, match="needs a PoissonGrid"):
            direction_preconditioner(network, LinearSystem(np.eye(64), np.zeros(64)))


@pytest.mark.parametrize("shape", [(200, 20), (20, 200), (300, 4), (3, 50), (64, 8, 8), (40, 3, 3)])
def test_the_shipped_networks_solve_on_elongated_grids(shape, rng):
    grid = PoissonGrid(box_of_fluid(shape))
    b = rng.standard_normal(grid.cells.size) * grid.fluid.ravel()
    result = solve(
        LinearSystem(grid, b),
        DeepConjugateDirection(pretrained_direction(len(shape))),
        stop=Stop(below={"residual": 1e-6}),
    )
    assert result.converged
    assert np.linalg.norm(b - grid.to_csr() @ result.x) <= 2e-6 * np.linalg.norm(b)


class TestSequences:
    def test_a_sequence_is_not_converged_where_a_system_is_not(self):
        result = solve(ShiftedLaplacians(rounds=5), LearnedSolver(Fixed(1), [SOR(1.5)], max_steps=3))
        assert result.status is Status.EXHAUSTED
        assert result.message == "5 of 5 systems did not reach the tolerance."

    def test_the_call_warns_and_keeps_the_result(self):
        solver = SequenceSolver(Fixed(1), [SOR(1.5)])
        with pytest.warns(NotSolved, match="System 0 is not solved"):
            solver(np.array([[1.0, 3.0], [3.0, 1.0]]), np.ones(2))
        assert not solver.last.converged

    @pytest.mark.parametrize("cost", ["iterations", "seconds"])
    def test_an_arm_that_solves_nothing_is_no_cheap_one(self, cost):
        learned = []

        class Watched(Fixed):
            def started(self, seed):
                return self

            def learn(self, arm, loss):
                learned.append(loss)

        solver = SequenceSolver(Watched(1), [Direct()], cost=cost, max_steps=500)
        good, singular = np.diag([1.0, 2.0]), np.array([[1.0, 1.0], [1.0, 1.0 + 1e-15]])
        assert solver.solve(LinearSystem(good, np.ones(2))).converged
        result = solver.solve(LinearSystem(singular, [1.0, -1.0e3]))
        if result.converged:  # the factors were exact after all
            pytest.fail("the matrix is not singular enough for this test")
        assert learned[1] >= (499 if cost == "iterations" else 2 * max(learned[0], result.seconds))

    def test_the_factors_of_one_matrix_serve_every_right_hand_side(self, monkeypatch, rng):
        made = []
        monkeypatch.setattr(direct, "splu", lambda A, real=direct.splu: made.append(A) or real(A))
        A = FivePointStencil(10, 10).to_csr()
        solver = SequenceSolver(Fixed(1), [Direct()])
        for _ in range(4):
            b = rng.standard_normal(100)
            np.testing.assert_allclose(A @ solver(A, b), b, atol=1e-10)
        assert len(made) == 1
        listed = ListedSystems([LinearSystem(A, rng.standard_normal(100)) for _ in range(3)])
        assert solve(listed, LearnedSolver(Fixed(1), [Direct()])).converged
        assert len(made) == 2

    def test_factors_are_made_anew_where_an_entry_has_changed_in_place(self):
        A, solver = as_csr(np.diag([2.0, 4.0])), SequenceSolver(Fixed(1), [Direct()])
        np.testing.assert_allclose(solver(A, np.ones(2)), [0.5, 0.25])
        A.data[0] = 4.0
        np.testing.assert_allclose(solver(A, np.ones(2)), [0.25, 0.25])

    def test_the_recommended_method_takes_a_matrix_of_tiny_numbers(self):
        result = solve(LinearSystem(np.array([[4.0, 1.0], [1.0, 3.0]]) * 1e-250, np.ones(2) * 1e-250))
        assert result.converged
        np.testing.assert_allclose(result.x, [2 / 11, 3 / 11], rtol=1e-7)
        assert recommended.METHODS["direct"] is Direct
