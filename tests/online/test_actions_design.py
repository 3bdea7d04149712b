"""Designs against Kiefer and Wolfowitz, sparse fits against their programs, and the rivals against plain formulas."""

from __future__ import annotations

import itertools

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thalweg import Checkpoint, Status, Stop, compare, solve
from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.online import (
    METHODS,
    ActionSearch,
    ActionTable,
    EpsilonGreedy,
    ExploreThenCommit,
    GOptimal,
    LazyElimination,
    LinUCB,
    NetElimination,
    PhasedElimination,
    RandomActions,
    SparseDesign,
    g_optimal_design,
)
from thalweg.online.actions.generators import nearly_linear, signs, sparse_parameter, sphere
from thalweg.online.actions.sparse_design import swaps
from thalweg.online.actions.sparse_fit import (
    closest_fit,
    lasso_fit,
    refitted,
    restricted_eigenvalue,
    shortest_fit,
    support_of,
)

ALL = [
    NetElimination(1, 0.1),
    NetElimination(1, 0.1, prune=False),
    LazyElimination(1, 0.1),
    LazyElimination(2),
    SparseDesign(0.1, 1),
    SparseDesign(0.1, 1, estimator="lasso"),
    SparseDesign(0.1, 1, follow=True),
    ExploreThenCommit(),
    GOptimal(0.1),
    GOptimal(dimension=3),
    PhasedElimination(0.1),
    LinUCB(),
    EpsilonGreedy(),
    RandomActions(),
]
by_name = pytest.mark.parametrize("method", ALL, ids=lambda m: m.name)


def asked(method, problem, seed=0, noise=0.0):
    """A search played to its end on exact rewards."""
    search = method.begin(problem.features, seed=seed, noise=noise)
    while not search.done:
        search.observe(problem.rewards[search.next_action()])
    return search


class TestGOptimalDesign:
    @given(seed=st.integers(0, 10**6), n=st.integers(3, 60), d=st.integers(1, 8))
    def test_its_leverage_is_the_rank(self, seed, n, d):
        X = np.random.default_rng(seed).standard_normal((n, d)) * np.geomspace(1, 100, d)
        design = g_optimal_design(X)
        rank = min(n, d)
        assert design.rank == rank
        assert design.weights.sum() == pytest.approx(1.0)
        assert (design.weights >= 0).all()
        moments = X.T @ (design.weights[:, None] * X)
        leverages = np.einsum("ij,ij->i", X @ np.linalg.pinv(moments, rcond=1e-12), X)
        assert rank * (1 - 1e-6) <= leverages.max() <= 1.02 * rank * (1 + 1e-6)
        assert design.leverage == pytest.approx(leverages.max(), rel=1e-6)

    def test_it_has_the_determinant_of_a_convex_solver(self):
        X = sphere(20, 3)
        w = cp.Variable(20, nonneg=True)
        best = cp.Problem(cp.Maximize(cp.log_det(X.T @ cp.diag(w) @ X)), [cp.sum(w) == 1]).solve(
            solver=cp.CLARABEL
        )
        design = g_optimal_design(X, tol=1e-4)
        assert np.linalg.slogdet(X.T @ (design.weights[:, None] * X))[1] == pytest.approx(best, abs=1e-3)

    def test_a_basis_is_its_own_design(self):
        design = g_optimal_design(np.eye(5))
        np.testing.assert_allclose(design.weights, 0.2)
        assert design.steps == 0

    def test_scaling_and_turning_change_nothing(self):
        X = sphere(40, 4)
        turned = 7.0 * X @ np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
        first, second = g_optimal_design(X, 1e-3), g_optimal_design(turned, 1e-3)
        assert first.leverage == pytest.approx(second.leverage, rel=2e-3)
        np.testing.assert_allclose(first.weights, second.weights, atol=0.01)

    def test_units_of_features_do_not_count(self):
        X, units = sphere(40, 3), np.array([1e-12, 1.0, 1e12])
        first, second = g_optimal_design(X), g_optimal_design(X * units)
        assert first.rank == second.rank == 3
        np.testing.assert_allclose(second.weights, first.weights, atol=1e-9)
        rewards = X @ [1.0, 0.5, -0.2]
        found = solve(ActionTable(X * units, rewards), GOptimal())
        assert found.x == rewards.argmax()  # without noise a linear reward is known from three actions

    def test_bad_input_is_refused(self):
        with pytest.raises(InvalidParameter, match="not all zero"):
            g_optimal_design([[0.0, 0.0]])
        with pytest.raises(InvalidParameter, match="tol > 0"):
            g_optimal_design(np.eye(2), tol=0.0)
        with pytest.raises(InvalidParameter, match=r"after 1 steps; expected"):
            g_optimal_design(sphere(50, 5), max_steps=1)


class TestLeastSquares:
    @given(seed=st.integers(0, 10**6), misfit=st.sampled_from(["uniform", "signs", "adversarial"]))
    def test_its_error_and_its_certificate_are_within_the_bound(self, seed, misfit):
        F, theta = sphere(60, 5, seed), sparse_parameter(5, 2, seed)
        problem = nearly_linear(F, theta, 0.1, misfit, seed=seed)
        search = asked(GOptimal(0.1), problem)
        found = search.result()
        assert np.abs(search.estimates - F @ theta).max() <= 0.1 * np.sqrt(1.02 * 5) + 1e-9
        assert problem.metrics(found.action)["gap"] <= found.certificate.gap + 1e-9
        assert found.queries <= 60

    def test_a_projection_keeps_what_is_linear_in_few_directions(self):
        F = sphere(80, 200, 1)
        problem = ActionTable(F, F @ sparse_parameter(200, 2, 1))
        found = solve(problem, GOptimal(dimension=60))
        assert found.status is Status.EXHAUSTED  # no certificate
        assert found.metrics["gap"] < 0.5 * (problem.rewards.max() - problem.rewards.mean())
        with pytest.raises(InvalidParameter, match="dimension < d = 5"):
            GOptimal(dimension=5).begin(sphere(9, 5))

    @pytest.mark.parametrize("noise", [0.0, 0.1])
    def test_phases_keep_the_best_of_a_linear_table(self, noise):
        F = sphere(100, 4, 2)
        problem = ActionTable(F, F @ sparse_parameter(4, 4, 3), noise=noise)
        found = solve(problem, PhasedElimination(least=0.05), seed=1)
        assert found.metrics["gap"] <= (0.1 if noise else 1e-9)
        assert "phases left" in found.message

    def test_features_of_zero_are_no_trouble(self):
        assert solve(ActionTable([[0.0], [1.0]], [0.0, 0.5]), PhasedElimination()).x == 1
        assert solve(ActionTable([[0.0, 0.0]], [0.3]), PhasedElimination()).x == 0


class TestSparseFits:
    @given(seed=st.integers(0, 10**6))
    def test_the_shortest_fit_fits_and_is_no_longer_than_the_truth(self, seed):
        F, theta = signs(20, 30, seed), sparse_parameter(30, 2, seed)
        rewards = F @ theta + np.random.default_rng(seed).uniform(-0.1, 0.1, 20)
        found = shortest_fit(F, rewards, 0.1)
        assert np.abs(F @ found - rewards).max() <= 0.1 + 1e-7
        assert np.abs(found).sum() <= np.abs(theta).sum() + 1e-7

    def test_it_is_that_of_another_solver(self):
        F, theta = signs(15, 20, 3), sparse_parameter(20, 3, 3)
        rewards = F @ theta + 0.05
        x = cp.Variable(20)
        exact = cp.Problem(cp.Minimize(cp.norm1(x)), [cp.norm_inf(F @ x - rewards) <= 0.1]).solve(
            solver=cp.CLARABEL
        )
        assert np.abs(shortest_fit(F, rewards, 0.1)).sum() == pytest.approx(exact, abs=1e-6)

    def test_where_nothing_fits_the_closest_is_told(self):
        F, rewards = np.ones((3, 1)), np.array([0.0, 1.0, 0.4])
        assert shortest_fit(F, rewards, 0.4) is None
        theta, off = closest_fit(F, rewards)
        assert (theta[0], off) == (pytest.approx(0.5), pytest.approx(0.5))

    def test_a_lasso_meets_its_optimality_condition(self):
        F, rewards = signs(30, 40, 1), np.random.default_rng(1).standard_normal(30)
        theta = lasso_fit(F, rewards, 0.1)
        slope = F.T @ (rewards - F @ theta) / 30
        assert np.abs(slope).max() <= 0.1 + 1e-6
        np.testing.assert_allclose(slope[theta != 0], 0.1 * np.sign(theta[theta != 0]), atol=1e-5)

    @given(theta=arrays(np.float64, 6, elements=st.floats(-2, 2)), s=st.integers(1, 6))
    def test_a_refit_is_least_squares_on_the_largest(self, theta, s):
        F, rewards = sphere(12, 6), sphere(12, 1)[:, 0]
        places = support_of(theta, s)
        assert len(places) == min(s, np.count_nonzero(theta))
        found = refitted(F, rewards, theta, s)
        assert set(np.flatnonzero(found)) <= set(places)
        np.testing.assert_allclose(F[:, places].T @ (rewards - F @ found), 0.0, atol=1e-9)

    def test_the_restricted_eigenvalue_sees_equal_columns_and_too_few_rows(self):
        rng = np.random.default_rng(0)
        twins = np.column_stack([signs(20, 6, 0)] * 2)
        assert restricted_eigenvalue(twins, 2, rng) < 1e-7
        assert restricted_eigenvalue(signs(3, 10), 2, rng) == 0.0
        F = sphere(400, 6)
        exact = min(
            np.linalg.svd(F[:, list(four)], compute_uv=False)[-1]
            for four in itertools.combinations(range(6), 4)
        )
        found = restricted_eigenvalue(F, 2, rng, np.array([0, 3]))  # 15 supports, 200 draws
        assert found == pytest.approx(exact / 20)

    def test_swaps_are_all_supports_one_entry_away(self):
        found = {tuple(row) for row in swaps(np.array([2, 5]), 7, 2).tolist()}
        everything = {(i, j) for i in range(7) for j in range(i + 1, 7)}
        assert found == {pair for pair in everything if set(pair) & {2, 5}}
        assert len(swaps(np.array([], dtype=int), 4, 2)) == 1 + 2 * 2


class TestSparseDesign:
    @pytest.mark.parametrize("seed", range(3))
    def test_the_program_is_within_four_eps_where_the_features_are_good(self, seed):
        F, theta = signs(400, 128, seed), sparse_parameter(128, 2, seed, alike=True)
        problem = nearly_linear(F, theta, 0.02, "signs", seed=seed)
        search = asked(SparseDesign(0.02, 2), problem, seed)
        found = search.result()
        assert found.queries <= 41
        assert np.abs(F @ (search.theta - theta)).max() <= 4 * 0.02
        assert problem.metrics(found.action)["gap"] <= found.certificate.gap
        assert "linear and the restricted eigenvalue is at least" in str(found.certificate)
        assert np.abs(search.theta).sum() <= 1 + 1e-7

    def test_elimination_afterwards_certifies_twice_eps(self):
        F, theta = signs(300, 40, 1), sparse_parameter(40, 2, 1, alike=True)
        problem = nearly_linear(F, theta, 0.1, "signs", seed=1)
        search = asked(SparseDesign(0.1, 2, follow=True), problem)
        found = search.result()
        assert found.certificate.gap <= 0.2 + 1e-9
        assert problem.metrics(found.action)["gap"] <= found.certificate.gap
        assert f"Elimination on {1 + 2 * 38} supports" in found.message
        assert "linear and the parameter's entries are those found" in str(found.certificate)

    def test_an_eps_that_nothing_fits_is_raised_and_told(self):
        problem = nearly_linear(sphere(100, 5, 1), sparse_parameter(5, 1, 1), 0.2, "signs")
        search = asked(SparseDesign(0.01, 1), problem)
        assert "No theta fits 40 answers within eps = 0.01" in search.message
        assert search.eps >= 0.02
        assert np.abs(search.features[search.plan] @ search.theta - problem.rewards[search.plan]).max() <= (
            search.eps * (1 + 1e-6)
        )

    @pytest.mark.parametrize("unit", [1e-30, 1e30])
    def test_an_eps_that_nothing_fits_is_raised_in_the_rewards_unit(self, unit):
        one = nearly_linear(sphere(100, 5, 1), sparse_parameter(5, 1, 1), 0.2, "signs")
        other = ActionTable(one.features, one.rewards * unit)
        found = [asked(SparseDesign(s * 0.01, 1), t) for s, t in ((1.0, one), (unit, other))]
        np.testing.assert_allclose(found[1].eps / unit, found[0].eps, rtol=1e-6)
        np.testing.assert_allclose(found[1].theta / unit, found[0].theta, rtol=1e-6, atol=1e-9)

    def test_a_degenerate_design_is_told_and_certifies_nothing(self):
        F = signs(100, 8, 0)
        problem = ActionTable(np.column_stack([F, F]), F[:, 0])
        found = solve(problem, SparseDesign(0.1, 2))
        assert found.status is Status.EXHAUSTED
        assert "degenerate" in found.message

    def test_few_actions_are_all_queried(self):
        assert asked(SparseDesign(0.1, 1), nearly_linear(signs(10, 8), np.eye(8)[0], 0.1)).queries == 10

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"eps": None}, "number eps"),
            ({"eps": -1.0}, "eps >= 0"),
            ({"eps": 0.1, "sparsity": 0}, "sparsity >= 1"),
            ({"eps": 0.1, "queries": 0}, "queries >= 1"),
            ({"eps": 0.1, "estimator": "ols"}, "'lp' or 'lasso'"),
            ({"eps": 0.0, "estimator": "lasso"}, "a lasso needs eps > 0"),
            ({"eps": 0.1, "radius": 0.0}, "radius > 0"),
            ({"eps": 0.1, "sparsity": 9, "follow": True}, "with follow: polytopes of 9 dimensions"),
            ({"eps": 0.1, "delta": 2.0}, "0 < delta < 1"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options, message):
        with pytest.raises(InvalidParameter, match=message):
            SparseDesign(**options)

    def test_more_entries_than_features_are_refused(self):
        with pytest.raises(InvalidParameter, match="at most d = 5"):
            SparseDesign(0.1, 6).begin(sphere(9, 5))


class TestAllAlike:
    @pytest.fixture
    def problem(self):
        return nearly_linear(sphere(50, 5, 3), sparse_parameter(5, 1, 3), 0.1, seed=3)

    def test_every_search_of_the_area_is_tried_here(self):
        searches = {kind for kind in METHODS.values() if issubclass(kind, ActionSearch)}
        assert searches == {type(method) for method in ALL}

    @by_name
    @pytest.mark.parametrize("noise", [0.0, 0.3])
    def test_a_resumed_run_has_the_same_bits(self, method, noise, problem, tmp_path):
        if noise and getattr(method, "eps", 0.1) is None and not isinstance(method, GOptimal):
            pytest.skip("needs an accuracy")
        if noise and isinstance(method, GOptimal) and method.eps is None:
            method = GOptimal(dimension=3, accuracy=0.2)
        table, path = ActionTable(problem.features, problem.rewards, noise=noise), tmp_path / "run"
        stop = Stop(steps=300)
        whole = solve(table, method, stop=stop, seed=2)
        half = max(whole.steps // 2, 1)
        solve(table, method, stop=Stop(steps=half), seed=2, callbacks=[Checkpoint(path, every=half)])
        again = solve(table, method, stop=stop, seed=2, resume=path)
        assert (again.x, again.calls, again.message) == (whole.x, whole.calls, whole.message)
        np.testing.assert_array_equal(again.history["gap"], whole.history["gap"])

    @by_name
    def test_asking_and_telling_is_what_solve_does(self, method, problem):
        search, found = asked(method, problem), solve(problem, method)
        assert search.answer() == found.x
        assert (len(search.actions), search.queries) == (found.calls, found.history["queries"][-1])
        proof = search.result().certificate
        assert found.converged == (proof is not None)
        if proof is not None:
            assert str(proof) in found.message
            assert found.metrics["gap"] <= proof.gap + 1e-9 or not proof.given

    @pytest.mark.parametrize("size", [1e-9, 1e9])
    @pytest.mark.parametrize(
        "make",
        [
            lambda eps, radius: NetElimination(1, eps, radius=radius),
            lambda eps, radius: LazyElimination(1, eps, radius=radius),
            lambda eps, radius: SparseDesign(eps, 1),
            lambda eps, radius: SparseDesign(eps, 1, estimator="lasso"),
            lambda eps, radius: SparseDesign(eps, 1, follow=True, radius=radius),
            lambda eps, radius: GOptimal(eps),
            lambda eps, radius: PhasedElimination(eps),
        ],
    )
    def test_other_units_of_rewards_and_features_change_nothing(self, make, size, problem):
        plain = asked(make(0.1, 1.0), problem)
        scaled = asked(
            make(0.1 * size, size / 1e3), ActionTable(1e3 * problem.features, size * problem.rewards)
        )
        assert (scaled.answer(), scaled.queries) == (plain.answer(), plain.queries)
        first, second = plain.certificate(), scaled.certificate()
        assert (first is None) == (second is None)
        if first is not None:
            assert second.gap == pytest.approx(size * first.gap, rel=1e-4, abs=1e-6 * size)

    @by_name
    def test_one_action_is_the_answer(self, method):
        if isinstance(method, GOptimal) and method.dimension:
            method = GOptimal()
        assert solve(ActionTable([[0.5, 0.2]], [0.3]), method).x == 0

    @by_name
    @pytest.mark.parametrize("features", [[[np.nan, 1.0]], [[1j, 1.0]], np.zeros((0, 2)), [[1.0], [1.0]]])
    def test_features_that_are_none_are_refused(self, method, features):
        with pytest.raises(InvalidProblem):
            method.begin(features)

    def test_compare_has_a_row_for_each(self, problem):
        found = compare(problem, ALL)
        assert len(found.rows) == len(ALL)
        assert all(row["gap"] >= 0 for row in found.rows)
        with pytest.raises(InvalidParameter, match="compared by"):
            compare(problem, ["lin-ucb"])
