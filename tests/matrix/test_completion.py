"""Alternating minimisation against lstsq row by row, singular vectors, subspace iteration, and bad input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from thalweg import Checkpoint, Stop, solve
from thalweg.core import Status
from thalweg.matrix import (
    AutomaticAltMin,
    CGAltMin,
    Completion,
    CoordinateAltMin,
    ExactAltMin,
    SketchedAltMin,
)
from thalweg.matrix.half_steps import Work, rows_of

EXACT = {"held_out": 0.0}
METHODS = [ExactAltMin(), CGAltMin(), SketchedAltMin(), AutomaticAltMin()]


def low_rank(rng, m=60, n=50, k=3, share=0.5, noise=0.0):
    """Seen entries of a random matrix of rank k, as triples, and the matrix."""
    M = rng.standard_normal((m, k)) @ rng.standard_normal((k, n))
    rows, columns = np.nonzero(rng.random((m, n)) < share)
    return (rows, columns, M[rows, columns] + noise * rng.standard_normal(len(rows))), M


def completed(problem, x):
    U, V = problem.pair(x)
    return problem.mean + U @ V.T


def after(problem, method, steps, **options):
    return solve(problem, method, stop=Stop(steps=steps), progress=False, **options)


class TestRecovery:
    @pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
    def test_a_matrix_without_noise_is_recovered(self, rng, method):
        entries, M = low_rank(rng)
        problem = Completion(entries, 3, **EXACT)
        result = solve(problem, method, stop=Stop(below={"gradient": 1e-11}))
        assert result.converged
        np.testing.assert_allclose(completed(problem, result.x), M, atol=1e-8 * np.abs(M).max())

    @pytest.mark.parametrize("method", [ExactAltMin(), CGAltMin(cg_steps=20)], ids=lambda m: m.name)
    def test_rank_one_of_a_full_matrix_is_its_leading_singular_pair(self, rng, method):
        M = rng.standard_normal((20, 12))
        problem = Completion(M, 1, **EXACT)
        x = solve(problem, method, stop=Stop(below={"gradient": 1e-12})).x
        U, s, Vt = np.linalg.svd(M)
        np.testing.assert_allclose(completed(problem, x), s[0] * np.outer(U[:, 0], Vt[0]), atol=1e-8)

    def test_a_sweep_of_a_full_matrix_is_a_step_of_subspace_iteration(self, rng):
        M = rng.standard_normal((30, 20))
        problem, method = Completion(M, 4, **EXACT), ExactAltMin()
        state = method.init(problem, 0)
        U = state.x[:30]
        new = method.step(problem, state).x[:30]
        expected = np.linalg.qr(M @ (M.T @ U))[0]
        np.testing.assert_allclose(new @ new.T / 30, expected @ expected.T, atol=1e-10)

    def test_split_entries_recover_as_well(self, rng):
        entries, M = low_rank(rng, 120, 100, 2, 0.8)
        problem = Completion(entries, 2, **EXACT)
        x = after(problem, ExactAltMin(parts=5), 25).x
        np.testing.assert_allclose(completed(problem, x), M, atol=1e-7)

    def test_weak_columns_of_a_badly_scaled_matrix_are_found_by_the_sketch(self, rng):
        scales = 10.0 ** -np.arange(4)
        M = (rng.standard_normal((80, 4)) * scales) @ rng.standard_normal((4, 70))
        rows, columns = np.nonzero(rng.random(M.shape) < 0.6)
        problem = Completion((rows, columns, M[rows, columns]), 4, **EXACT)
        x = solve(problem, SketchedAltMin(), stop=Stop(below={"gradient": 1e-12}, steps=300)).x
        np.testing.assert_allclose(completed(problem, x), M, atol=1e-7)

    def test_biases_are_recovered(self, rng):
        (rows, columns, _), M = low_rank(rng, 60, 50, 2, 0.6)
        a, b = rng.standard_normal(60), rng.standard_normal(50)
        M = M + 5.0 + a[:, None] + b
        problem = Completion((rows, columns, M[rows, columns]), 2, biases=True, **EXACT)
        x = solve(problem, ExactAltMin(), stop=Stop(below={"gradient": 1e-12}, steps=500)).x
        np.testing.assert_allclose(completed(problem, x), M, atol=1e-6)

    def test_float32_ends_within_its_own_rounding(self, rng):
        entries, M = low_rank(rng)
        problem = Completion(entries, 3, dtype=np.float32, **EXACT)
        result = solve(problem, CGAltMin())
        assert result.x.dtype == np.float32
        assert np.abs(completed(problem, result.x) - M).max() < 1e-2 * np.abs(M).max()


def one_half_step(problem, method, rng, at=1):
    """V (or U) anew from random factors of the other side, and these."""
    x = rng.standard_normal((problem.m + problem.n, problem.columns(problem.rank)))
    own, other = (x[: problem.m], x[problem.m :])[:: 1 - 2 * at]
    return method.updated(problem, at, other, own, 0, 0)[0], own, other


TIGHT = [ExactAltMin(), CGAltMin(cg_steps=300), SketchedAltMin(accuracy=1e-13), AutomaticAltMin(cg_steps=300)]


class TestHalfSteps:
    @pytest.mark.parametrize("method", TIGHT, ids=lambda m: m.name)
    @pytest.mark.parametrize("rank", [1, 6, 30, 70])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_each_row_is_its_least_squares_problem_with_ridge(self, rng, method, rank, weighted):
        (rows, columns, values), _ = low_rank(rng, 90, 80, 3, 0.7, noise=1.0)
        weights = rng.uniform(0.5, 2.0, len(values)) if weighted else None
        problem = Completion(
            (rows, columns, values), rank, weights=weights, ridge=0.3, ridge_by_count=weighted, **EXACT
        )
        V, _, U = one_half_step(problem, method, rng)
        for j in (0, 7, 79):
            mine = columns == j
            w = weights[mine] if weighted else np.ones(mine.sum())
            A, y = U[rows[mine]], values[mine]
            lift = 0.3 * (mine.sum() if weighted else 1)
            exact = np.linalg.solve(A.T @ (w[:, None] * A) + lift * np.eye(rank), A.T @ (w * y))
            np.testing.assert_allclose(V[j], exact, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("method", TIGHT, ids=lambda m: m.name)
    @pytest.mark.parametrize("rank", [5, 20, 70])
    def test_too_few_entries_get_the_solution_of_least_norm(self, rng, method, rank):
        (rows, columns, values), _ = low_rank(rng, 90, 80, 3, 0.04)
        problem = Completion((rows, columns, values), rank, shape=(90, 80), **EXACT)
        U = rng.standard_normal((90, rank))
        V = method.updated(problem, 1, U, np.zeros((80, rank)), 0, 0)[0]
        for j in range(80):
            mine = columns == j
            exact = np.linalg.lstsq(U[rows[mine]], values[mine])[0] if mine.any() else np.zeros(rank)
            np.testing.assert_allclose(V[j], exact, atol=1e-5)

    @pytest.mark.parametrize("method", [ExactAltMin(), CGAltMin(cg_steps=40)], ids=lambda m: m.name)
    def test_implicit_feedback_fits_what_was_not_seen_too(self, rng, method):
        counts = rng.poisson(0.5, (40, 30)).astype(float)
        problem = Completion(sp.csr_array(counts), 5, confidence=3.0, ridge=0.2, **EXACT)
        V, _, U = one_half_step(problem, method, rng)
        for j in range(30):
            c, seen = 1.0 + 3.0 * counts[:, j], counts[:, j] > 0
            exact = np.linalg.solve(U.T @ (c[:, None] * U) + 0.2 * np.eye(5), U.T @ (c * seen))
            np.testing.assert_allclose(V[j], exact if seen.any() else 0.0, atol=1e-8)

    def test_bounded_rows_meet_the_conditions_of_optimality(self, rng):
        (rows, columns, values), _ = low_rank(rng, 60, 50, 3, 0.5, noise=0.3)
        problem = Completion((rows, columns, values), 4, nonnegative=True, ridge=0.1, **EXACT)
        V, _, U = one_half_step(problem, CoordinateAltMin(passes=500), rng)
        assert (V >= 0).all()
        assert (V == 0).any()
        for j in range(50):
            mine = columns == j
            slope = U[rows[mine]].T @ (U[rows[mine]] @ V[j] - values[mine]) + 0.1 * V[j]
            np.testing.assert_allclose(np.where(V[j] > 0, slope, np.minimum(slope, 0)), 0, atol=1e-8)

    def test_rows_longer_than_the_buffer_are_taken_in_pieces(self, rng):
        n, k = 3000, 64  # 3000 x 64 doubles are more than the 704 kB of the buffer
        U = rng.standard_normal((n, k))
        v = rng.standard_normal(k)
        problem = Completion((np.arange(n), np.zeros(n, int), U @ v), 1, ridge=1e-9, **EXACT)
        for method in (ExactAltMin(), CGAltMin(cg_steps=300), SketchedAltMin(accuracy=1e-12)):
            found = method.updated(problem, 1, U, np.zeros((1, k)), 0, 0)[0]
            np.testing.assert_allclose(found[0], v, atol=1e-7)

    @pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
    @pytest.mark.parametrize("rank", [5, 20, 70])
    @pytest.mark.parametrize("ridge", [0.0, 0.1])
    def test_no_row_depends_on_its_block(self, rng, method, rank, ridge):
        rows, columns = np.nonzero(rng.random((150, 90)) < np.linspace(0.0, 1.0, 90))
        problem = Completion((rows, columns, rng.standard_normal(len(rows))), rank, ridge=ridge, **EXACT)
        D, V = rng.standard_normal((150, rank)), rng.standard_normal((problem.n, rank))
        rows, none = rows_of(problem, problem.train, 1), np.empty(0)

        def fitted(*cuts):
            found = []
            for a, b in pairwise((0, *cuts, problem.n)):
                part = rows.part(a, b)  # as another process gets it
                X, slopes, rights = V[a:b].copy(), np.zeros(b - a), np.zeros(b - a)
                work = Work(part, D, problem.gram(D), part.targets(none))
                method.half_step(3)(work, 0, b - a, X, slopes, rights)
                found.append(np.column_stack([X, slopes, rights]))
            return np.vstack(found)

        np.testing.assert_array_equal(fitted(), fitted(1, 17, 18, 60))

    def test_threads_change_no_bit(self, rng):
        import numba

        entries, _ = low_rank(rng, 300, 200, 3, 0.6)
        problem = Completion(entries, 20, ridge=0.1)
        if numba.config.NUMBA_NUM_THREADS < 2:
            pytest.skip("one thread here")
        found = []
        for threads in (1, 2):
            numba.set_num_threads(threads)
            found.append(after(problem, CGAltMin(), 3).x)
        np.testing.assert_array_equal(*found)

    @pytest.mark.parametrize("rank", [40, 128])
    def test_threads_of_the_library_change_no_bit(self, rng, rank):
        entries, _ = low_rank(rng, 700, 60, 3, 0.9)
        problem, U = Completion(entries, 3, ridge=0.1), rng.standard_normal((700, rank))
        found = []
        for threads in (1, 2):
            with threadpool_limits(threads, user_api="blas"):
                found.append(ExactAltMin().updated(problem, 1, U, np.zeros((60, rank)), 0, 0)[0])
        np.testing.assert_array_equal(*found)


class TestObjective:
    @pytest.mark.parametrize("method", [*METHODS, CoordinateAltMin()], ids=lambda m: m.name)
    @pytest.mark.parametrize("ridge", [0.0, 0.5])
    def test_it_never_rises(self, rng, method, ridge):
        entries, _ = low_rank(rng, noise=0.5)
        problem = Completion(entries, 5, ridge=ridge, **EXACT)
        seen = []
        solve(
            problem,
            method,
            stop=Stop(steps=15),
            callbacks=[lambda run: seen.append(problem.metrics(run.state.x)["objective"])],
        )
        assert (np.diff(seen) <= 1e-9 * seen[0]).all()

    @pytest.mark.parametrize(
        "options",
        [{}, {"biases": True}, {"ridge_by_count": True}, {"confidence": 2.0}, {"weights": True}],
        ids=str,
    )
    def test_its_gradient_is_that_of_differences(self, rng, options):
        (rows, columns, values), _ = low_rank(rng, 8, 7, 2, 0.6)
        if "weights" in options:
            options = {"weights": rng.uniform(0.5, 2, len(values))}
        values = np.abs(values)
        problem = Completion((rows, columns, values), 2, shape=(8, 7), ridge=0.3, **EXACT, **options)
        x = rng.standard_normal((15, problem.columns(2)))
        F = lambda y: problem.metrics(y)["objective"]  # noqa: E731
        slope = np.zeros_like(x)
        for at in np.ndindex(x.shape):
            e = np.zeros_like(x)
            e[at] = 1e-6
            slope[at] = (F(x + e) - F(x - e)) / 2e-6
        ratios = []
        for side, own, other in ((0, slice(0, 8), slice(8, 15)), (1, slice(8, 15), slice(0, 8))):
            D, offset = problem.design(x[other])
            entries, out = problem.sides()[side], np.zeros_like(x[own])
            t = problem.targets(entries, offset)
            for i in range(entries.rows):
                for e in range(entries.starts[i], entries.starts[i + 1]):
                    out[i] += t[e] * D[entries.others[e]]
            ratios.append(np.linalg.norm(slope[own]) / 2 / np.linalg.norm(out))
        assert problem.metrics(x)["gradient"] == pytest.approx(max(ratios), rel=1e-5)

    def test_its_value_for_implicit_feedback_counts_every_place(self, rng):
        counts = rng.poisson(0.7, (9, 8)).astype(float)
        problem = Completion(sp.csr_array(counts), 2, confidence=4.0, ridge=0.1, **EXACT)
        x = rng.standard_normal((17, 2))
        U, V = x[:9], x[9:]
        full = ((1 + 4.0 * counts) * ((counts > 0) - U @ V.T) ** 2).sum()
        seen = np.concatenate([(counts > 0).any(1), (counts > 0).any(0)])
        assert problem.metrics(x)["objective"] == pytest.approx(full + 0.1 * (x[seen] ** 2).sum())

    def test_a_weight_of_two_is_an_entry_twice(self, rng):
        (rows, columns, values), _ = low_rank(rng, noise=0.5)
        twice = rng.random(len(values)) < 0.3
        x = rng.standard_normal((110, 3))
        weighted = Completion((rows, columns, values), 3, weights=1.0 + twice, ridge=0.1, **EXACT)
        found = weighted.metrics(x)["objective"]
        plain = Completion((rows, columns, values), 3, ridge=0.1, **EXACT).metrics(x)["objective"]
        again = (rows[twice], columns[twice], values[twice])
        extra = Completion(again, 3, shape=(60, 50), **EXACT).metrics(x)["objective"]
        assert found == pytest.approx(plain + extra)


class TestEquivariance:
    def test_permuted_rows_give_permuted_factors(self, rng):
        (rows, columns, values), _ = low_rank(rng)
        order = rng.permutation(60)
        x = solve(Completion((rows, columns, values), 3, **EXACT), CGAltMin()).x
        one = Completion((rows, columns, values), 3, **EXACT)
        two = Completion((order[rows], columns, values), 3, **EXACT)
        y = solve(two, CGAltMin()).x
        np.testing.assert_allclose(completed(two, y)[order], completed(one, x), atol=1e-4)

    @given(st.integers(-60, 60))
    def test_scaled_entries_give_the_scaled_completion(self, power):
        entries, M = low_rank(np.random.default_rng(0), 20, 15, 2, 0.8)
        scale = 2.0**power
        problem = Completion((*entries[:2], scale * entries[2]), 2, **EXACT)
        x = after(problem, CGAltMin(), 20).x
        np.testing.assert_allclose(completed(problem, x), scale * M, atol=1e-6 * scale)


class TestRanks:
    def test_the_rank_is_found_by_doubling(self, rng):
        entries, M = low_rank(rng, 200, 150, 4, 0.4, noise=0.1)
        problem = Completion(entries, "auto", held_out=0.1, ridge=0.1)
        result = solve(problem)
        assert result.converged
        assert problem.rank_of(result.x) == 4
        assert np.sqrt(np.mean((completed(problem, result.x) - M) ** 2)) < 0.06

    def test_doubling_leaves_the_completion_as_it_was(self, rng):
        entries, _ = low_rank(rng, 80, 60, 4, 0.5)
        problem, method = Completion(entries, "auto", held_out=0.1, biases=True), ExactAltMin()
        state = method.init(problem, 0)
        while problem.rank_of(state.x) == 1:
            state = method.step(problem, state)
        np.testing.assert_allclose(completed(problem, state.x), completed(problem, state.settled), atol=1e-9)

    def test_a_run_ends_with_the_factors_of_the_smallest_held_out_error(self, rng):
        entries, _ = low_rank(rng, 60, 50, 2, 0.4, noise=1.0)
        problem = Completion(entries, 8, held_out=0.2)
        result = solve(problem, ExactAltMin())
        assert result.converged
        assert "has not fallen" in result.message
        assert result.metrics["held_out"] == pytest.approx(np.nanmin(result.history["held_out"]))

    def test_a_resumed_search_has_the_same_bits(self, rng, tmp_path):
        entries, _ = low_rank(rng, 100, 80, 4, 0.4, noise=0.1)
        problem = Completion(entries, "auto", held_out=0.1)
        whole = solve(problem)
        stop = Stop(steps=5)
        solve(problem, stop=stop, callbacks=[Checkpoint(tmp_path / "run", every=5)])
        np.testing.assert_array_equal(solve(problem, resume=tmp_path / "run").x, whole.x)


class TestHoldingOut:
    def test_parts_are_apart_and_make_up_the_whole(self, rng):
        entries, _ = low_rank(rng)
        parts = Completion(entries, 2, held_out=0.1, test=0.2).parts
        places = np.concatenate([p.rows * 50 + p.columns for p in parts.values()])
        assert len(np.unique(places)) == len(entries[2]) == len(places)
        assert len(parts["test"]) == pytest.approx(0.2 * len(places), abs=2)

    def test_no_row_and_no_column_loses_all_its_entries(self, rng):
        rows, columns = np.nonzero(rng.random((300, 300)) < 0.006)
        train = Completion((rows, columns, np.ones(len(rows))), 1, held_out=0.5).parts["train"]
        assert set(train.rows) == set(rows)
        assert set(train.columns) == set(columns)

    def test_the_mean_rank_of_a_guess_is_a_half(self, rng):
        counts = sp.random_array((300, 200), density=0.1, rng=rng)
        problem = Completion(counts, 3, confidence=1.0, held_out=0.2)
        guess = problem.error(rng.standard_normal((500, 3)), "held_out")
        assert guess == pytest.approx(0.5, abs=4 * 0.29 / np.sqrt(len(problem.parts["held_out"])))


def test_too_long_rows_of_the_first_factor_are_shortened(rng):
    from thalweg.matrix.initial import clipped

    U = np.linalg.qr(rng.standard_normal((100, 3)) * np.where(np.arange(100) == 0, 50, 1)[:, None])[0]
    assert np.linalg.norm(U, axis=1).max() > 0.9
    for clip in ("rows", "entries"):
        new = clipped(U, clip, 1.0)
        np.testing.assert_allclose(new.T @ new, np.eye(3), atol=1e-12)
        assert np.linalg.norm(new, axis=1).max() < 0.85


def test_the_gradient_that_a_sweep_reports_is_the_problems_half_a_sweep_late(rng):

    entries, _ = low_rank(rng, noise=0.3)
    problem = Completion(entries, 3, **EXACT)
    result = after(problem, ExactAltMin(), 60)
    assert result.status is Status.EXHAUSTED
    assert result.history["gradient"][-1] == pytest.approx(result.metrics["gradient"], rel=0.5)
