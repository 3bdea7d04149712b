"""Polytopes against linear programs, and elimination on them against what theory promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial import HalfspaceIntersection

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, recommended
from thalweg.online import ActionTable, LazyElimination, NetElimination
from thalweg.online.actions._polytope_kernels import polytope_promise, polytope_vertices
from thalweg.online.actions.generators import nearly_linear, sparse_parameter, sphere
from thalweg.online.actions.lazy import PolytopeSearch


def program(direction, rows, rewards, tolerance, radius):
    """The largest <direction, t> on the polytope, by HiGHS; None where it is empty."""
    found = linprog(
        -direction,
        A_ub=np.vstack([rows, -rows]),
        b_ub=np.concatenate([rewards + tolerance, tolerance - rewards]),
        bounds=(-radius, radius),
        method="highs",
    )
    return None if found.status == 2 else -found.fun


class TestPolytope:
    @given(seed=st.integers(0, 10**6), s=st.integers(1, 4), k=st.integers(0, 12), eps=st.floats(0.01, 0.5))
    def test_its_vertices_answer_every_linear_program(self, seed, s, k, eps):
        rng = np.random.default_rng(seed)
        rows = rng.standard_normal((k, s)) / s
        rewards = rows @ rng.uniform(-1, 1, s) + rng.uniform(-1.5, 1.5, k) * eps  # now and then too far off
        vertices = polytope_vertices(rows, rewards, eps, 1.0)
        for _ in range(5):
            direction = rng.standard_normal(s)
            exact = program(direction, rows, rewards, eps, 1.0)
            if exact is None:
                assert not len(vertices)
            else:
                assert (vertices @ direction).max() == pytest.approx(exact, abs=1e-7)

    @given(seed=st.integers(0, 10**6), s=st.integers(2, 3))
    def test_it_has_the_vertices_that_qhull_finds(self, seed, s):
        rng = np.random.default_rng(seed)
        rows, centre = rng.standard_normal((5, s)), rng.uniform(-0.5, 0.5, s)
        rewards = rows @ centre
        vertices = polytope_vertices(rows, rewards, 0.2, 1.0)
        faces = np.vstack([np.eye(s), -np.eye(s), rows, -rows])
        bounds = np.concatenate([np.ones(2 * s), rewards + 0.2, 0.2 - rewards])
        exact = HalfspaceIntersection(np.column_stack([faces, -bounds]), centre).intersections
        exact = np.unique(exact.round(8), axis=0)
        np.testing.assert_allclose(np.unique(vertices.round(8), axis=0), exact, atol=1e-7)

    @given(seed=st.integers(0, 10**6), s=st.integers(1, 4))
    def test_without_width_it_is_the_one_parameter(self, seed, s):
        rng = np.random.default_rng(seed)
        theta, rows = rng.uniform(-0.9, 0.9, s), rng.standard_normal((s + 3, s))
        vertices = polytope_vertices(rows, rows @ theta, 1e-7, 1.0)
        assert len(vertices)
        np.testing.assert_allclose(vertices, np.tile(theta, (len(vertices), 1)), atol=1e-3)

    @given(
        seed=st.integers(0, 10**6), s=st.integers(1, 4), k=st.integers(1, 9), eps=st.sampled_from([0.1, 0.5])
    )
    def test_planes_that_coincide_leave_few_vertices_and_the_right_ones(self, seed, s, k, eps):
        rng = np.random.default_rng(seed)
        rows = rng.integers(-1, 2, (k, s)).astype(float)
        rewards = rows @ rng.choice([-1.0, -0.5, 0.0, 0.5, 1.0], s) + eps * rng.choice([-1.0, 0.0, 1.0], k)
        vertices = polytope_vertices(rows, rewards, eps, 1.0)
        assert len(vertices) <= 200
        direction = rng.choice([-1.0, 0.0, 1.0], s)
        exact = program(direction, rows, rewards, eps, 1.0)
        assert exact is not None
        assert (vertices @ direction).max() == pytest.approx(exact, abs=1e-6)

    def test_a_face_that_two_answers_pin_down_has_no_more_points_than_vertices(self):
        rows = np.array(
            [[0, 0, -1, -1], [1, 0, 0, 1], [0, -1, -1, 1], [0, 0, 1, 1], [-1, 0, 1, -1], [-1, -1, 1, -1]]
        )
        rows = np.vstack([rows, np.zeros(4), [1, -1, 1, 0]]).astype(float)
        rewards = np.array(
            [-1.25861262, -0.40601655, 0.5591253, 0.25861262, -0.02518757, 0.41291686, -0.5, -0.58893299]
        )
        vertices = polytope_vertices(rows, rewards, 0.5, 1.0)
        assert len(np.unique(vertices.round(9), axis=0)) == len(vertices) < 30

    def test_answers_that_lie_on_corners_and_edges_are_no_trouble(self):
        rows = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, 0.0]])
        vertices = polytope_vertices(rows, np.array([0.5, 0.5, 1.0, 0.0, 0.5]), 0.5, 1.0)
        for direction in itertools.product((-1.0, 0.0, 1.0), repeat=2):
            exact = program(np.array(direction), rows, np.array([0.5, 0.5, 1.0, 0.0, 0.5]), 0.5, 1.0)
            assert (vertices @ direction).max() == pytest.approx(exact, abs=1e-9)

    def test_nothing_is_left_where_answers_contradict_each_other(self):
        assert not len(polytope_vertices(np.array([[1.0], [1.0]]), np.array([0.5, -0.5]), 0.4, 1.0))
        assert not len(polytope_vertices(np.array([[1.0]]), np.array([2.0]), 0.4, 1.0))

    @given(seed=st.integers(0, 10**6), s=st.integers(1, 3))
    def test_a_promise_is_the_best_programs_over_actions(self, seed, s):
        rng = np.random.default_rng(seed)
        columns, rows = rng.standard_normal((s, 15)), rng.standard_normal((3, s))
        rewards = rows @ rng.uniform(-0.5, 0.5, s)
        where = np.zeros(s)
        promise, action = polytope_promise(columns, polytope_vertices(rows, rewards, 0.2, 1.0), 1.0, where)
        exact = [min(program(phi, rows, rewards, 0.2, 1.0), float(np.linalg.norm(phi))) for phi in columns.T]
        assert promise == pytest.approx(max(exact), abs=1e-7)
        assert exact[action] == pytest.approx(promise, abs=1e-7)
        assert np.abs(rows @ where - rewards).max() <= 0.2 + 1e-7


def table(seed, n=60, d=6, s=2, eps=0.1, misfit="signs"):
    theta = sparse_parameter(d, s, seed) if s else np.zeros(d)
    return nearly_linear(sphere(n, d, seed), theta, eps, misfit, seed=seed)


class TestLazyElimination:
    @given(
        seed=st.integers(0, 10**6),
        s=st.integers(0, 3),
        misfit=st.sampled_from(["signs", "uniform", "adversarial"]),
    )
    def test_the_answer_is_within_twice_eps_and_its_certificate_is_true(self, seed, s, misfit):
        problem = table(seed, s=s, misfit=misfit)
        search = LazyElimination(s, 0.1).begin(problem.features)
        while not search.done:
            search.observe(problem.rewards[search.next_action()])
        found = search.result()
        assert problem.metrics(found.action)["gap"] <= found.certificate.gap + 1e-9
        assert found.certificate.gap <= 0.2 + 1e-9
        assert found.queries == found.draws <= 60
        assert found.certificate.given
        assert found.message == ""

    @given(seed=st.integers(0, 10**6), net=st.booleans())
    def test_what_is_certified_is_true_at_every_query_and_never_rises(self, seed, net):
        problem = table(seed, misfit="signs")
        found = solve(problem, NetElimination(2, 0.1) if net else LazyElimination(2, 0.1))
        certified, gaps = found.history["certified"], found.history["gap"]
        assert (gaps <= certified + 1e-9).all()
        assert (np.diff(certified) <= 1e-9).all()

    def test_a_user_may_end_it_when_enough_is_certain(self):
        problem = table(0, d=16, n=300, eps=0.05)
        whole = solve(problem, LazyElimination(2, 0.05))
        enough = solve(problem, LazyElimination(2, 0.05), stop=Stop(below={"certified": 0.6}))
        assert enough.converged
        assert enough.calls < whole.calls
        assert enough.metrics["gap"] <= 0.6

    @settings(max_examples=8)
    @given(seed=st.integers(0, 10**6), s=st.integers(1, 2))
    def test_every_choice_is_the_largest_linear_program_of_all(self, seed, s):
        problem = table(seed, n=12, d=4, s=s)
        search = LazyElimination(s, 0.1).begin(problem.features)
        for _ in range(4):
            if search.done:
                break
            action = search.next_action()
            rows, means = np.array(search.asked, dtype=int), problem.rewards[search.asked]
            best = -np.inf
            for support in map(list, itertools.combinations(range(4), s)):
                asked = problem.features[rows][:, support]
                for phi in problem.features[:, support]:
                    value = program(phi, asked, means, 0.1, 1.0)
                    if value is not None:
                        best = max(best, min(value, float(np.linalg.norm(phi))))
            assert search.bounds.max() == pytest.approx(best, abs=1e-7)
            search.observe(problem.rewards[action])

    @given(seed=st.integers(0, 10**6), s=st.integers(1, 3))
    def test_without_misspecification_it_finds_the_best(self, seed, s):
        problem = table(seed, n=30, s=s, eps=0.0)
        found = solve(problem, LazyElimination(s, 0.0))
        assert found.converged
        assert found.metrics["gap"] <= 2.1e-7
        assert "too small" not in found.message

    @given(seed=st.integers(0, 10**6))
    def test_permuting_actions_and_features_leaves_the_answers_value(self, seed):
        problem, rng = table(seed, misfit="uniform"), np.random.default_rng(seed)
        actions, columns = rng.permutation(60), rng.permutation(6)
        other = ActionTable(problem.features[actions][:, columns], problem.rewards[actions])
        first, second = (solve(p, LazyElimination(2, 0.1)).metrics["reward"] for p in (problem, other))
        assert first == second

    def test_features_and_radius_may_be_in_any_unit(self):
        problem = table(4)
        scaled = ActionTable(50.0 * problem.features, problem.rewards)
        first = solve(problem, LazyElimination(2, 0.1))
        second = solve(scaled, LazyElimination(2, 0.1, radius=1 / 50))
        assert (first.x, first.calls) == (second.x, second.calls)

    def test_its_guarantee_is_half_of_a_nets_at_the_same_eps(self):
        bounds = {}
        for method in (LazyElimination(2, 0.1), NetElimination(2, 0.1)):
            gaps = []
            for seed in range(8):
                problem = table(seed, misfit="adversarial")
                search = method.begin(problem.features)
                while not search.done:
                    search.observe(problem.rewards[search.next_action()])
                gaps.append(search.result().certificate.gap)
            bounds[method.name] = max(gaps)
        assert min(bounds.values()) <= 0.2 + 1e-9 < max(bounds.values())

    def test_an_eps_that_is_too_small_is_doubled_and_told(self):
        problem = table(2, eps=0.3)
        found = solve(problem, LazyElimination(2, 0.01, radius=3.0))
        assert found.converged
        assert "eps = 0.01 is too small, or the radius or the sparsity is" in found.message
        zero = solve(problem, LazyElimination(2, 0.0, radius=3.0))
        assert "eps = 0 is too small" in zero.message

    @pytest.mark.parametrize("seed", range(5))
    def test_with_noise_it_holds_after_enough_draws(self, seed):
        problem = table(seed)
        noisy = ActionTable(problem.features, problem.rewards, noise=0.1)
        found = solve(noisy, LazyElimination(2, 0.1, accuracy=0.05), seed=seed)
        assert found.metrics["gap"] <= 2 * (0.1 + 0.05)
        with pytest.raises(InvalidParameter, match="accuracy > 0"):
            LazyElimination(2, 0.0).begin(problem.features, noise=0.1)
        with pytest.raises(InvalidParameter, match="accuracy > 0"):
            LazyElimination(2).begin(problem.features, noise=0.1)
        assert recommended(noisy).accuracy == 0.1

    def test_an_unknown_eps_is_tried_by_actions_at_random_so_that_its_certificate_is_true(self):
        wrong = {0: 0, None: 0}
        for seed in range(20):
            problem = table(seed, n=200, misfit="adversarial")
            for probes in wrong:
                search = LazyElimination(2, probes=probes).begin(problem.features, seed=seed)
                while not search.done:
                    search.observe(problem.rewards[search.next_action()])
                found = search.result()
                assert not found.certificate.given
                assert "do not contradict" in str(found.certificate)
                wrong[probes] += problem.metrics(found.action)["gap"] > found.certificate.gap + 1e-9
                assert search.queries >= (20 if probes is None else 1)
        assert wrong[None] == 0 < wrong[0]

    def test_it_is_what_solve_takes_by_default(self):
        problem = table(0)
        assert isinstance(recommended(problem), LazyElimination)
        assert solve(problem).converged
        assert recommended(ActionTable(np.eye(3000)[:4], np.zeros(4))).sparsity == 1
        assert recommended(ActionTable([[1.0], [2.0]], [1.0, 2.0])).sparsity == 1

    def test_a_resumed_run_has_the_same_bits(self, tmp_path):
        problem = nearly_linear(sphere(60, 6, 1), sparse_parameter(6, 2, 1), 0.1, noise=0.2)
        method, path = LazyElimination(2, 0.1), tmp_path / "run"
        whole = solve(problem, method)
        half = whole.calls // 2
        solve(problem, method, stop=Stop(steps=half), callbacks=[Checkpoint(path, every=half)])
        again = solve(problem, method, resume=path)
        assert (again.x, again.calls, again.message) == (whole.x, whole.calls, whole.message)
        np.testing.assert_array_equal(again.history["gap"], whole.history["gap"])

    def test_supports_may_be_some(self):
        problem = table(3, eps=0.05)
        supports = np.array([np.flatnonzero(sparse_parameter(6, 2, 3)), [0, 1]])
        search = PolytopeSearch(problem.features, supports, eps=0.05, given=True, slack=0.0, radius=1.0)
        search.start()
        while not search.done:
            search.observe(problem.rewards[search.next_action()])
        assert problem.metrics(search.answer())["gap"] <= 0.1 + 1e-9

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sparsity": 7}, "from 0 to d = 6"),
            ({"sparsity": 9}, "polytopes of 9 dimensions have too many vertices.*SparseDesign"),
            ({"sparsity": 2, "limit": 14}, "There are 15 supports of 2 among 6 features; the limit is 14"),
        ],
    )
    def test_more_than_there_are_or_than_the_limit_is_refused(self, options, message):
        with pytest.raises(InvalidParameter, match=message):
            LazyElimination(**options).begin(sphere(9, 6) if options["sparsity"] < 9 else sphere(9, 9))

    @pytest.mark.parametrize(
        "options",
        [{"sparsity": -1}, {"eps": -1.0}, {"radius": np.inf}, {"delta": 0.0}, {"limit": 0.5}, {"probes": -1}],
    )
    def test_options_out_of_range_are_refused(self, options):
        with pytest.raises(InvalidParameter, match=f"LazyElimination needs .*{next(iter(options))}"):
            LazyElimination(**options)

    def test_rewards_beyond_the_radius_are_refused(self):
        search = LazyElimination(2, 0.1).begin(sphere(9, 6))
        search.next_action()
        with pytest.raises(InvalidProblem, match="allow at most"):
            search.observe(-2.0)
