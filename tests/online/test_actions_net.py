"""The net of sparse vectors against brute force, and elimination on it against what theory promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg import Checkpoint, Status, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.online import ActionTable, NetElimination
from thalweg.online.actions.net import Net, NetSize, lattice


def rows(n, d, seed=0, scale=1.0):
    F = np.random.default_rng(seed).standard_normal((n, d))
    return scale * F / np.linalg.norm(F, axis=1, keepdims=True)


def sparse(d, s, rng, norm=1.0):
    theta = np.zeros(d)
    theta[rng.choice(d, s, replace=False)] = rng.standard_normal(s)
    return theta * norm / np.linalg.norm(theta)


class TestNet:
    @pytest.mark.parametrize(
        ("d", "s", "eta", "count"),
        [
            (16, 1, 0.1, 176),
            (64, 1, 0.05, 1344),
            (8, 2, 0.1, 5180),
            (16, 2, 0.1, 22_200),
            (8, 3, 0.25, 19_096),
        ],
    )
    def test_the_usual_spacing_has_the_usual_counts(self, d, s, eta, count):
        F = np.vstack(
            [np.eye(d), np.r_[np.full(s, s**-0.5), np.zeros(d - s)]]
        )  # whose spacing is 2 eta / sqrt(s)
        F = np.unique(F, axis=0)
        size = NetSize.of(F, s, eta)
        assert size.spacing == pytest.approx(2 * eta / s**0.5)
        assert size.count == count

    @given(s=st.integers(0, 4), whole=st.integers(0, 15))
    def test_the_lattice_is_every_point_of_the_ball(self, s, whole):
        bound = whole + 0.5  # between the squares, which are whole
        size = NetSize(5, s, 1.0, bound**0.5)
        most = int(bound**0.5) + 1
        inside = [
            p for p in itertools.product(range(-most, most + 1), repeat=s) if sum(i * i for i in p) <= bound
        ]
        assert size.points == len(inside)
        np.testing.assert_array_equal(lattice(size), np.array(sorted(inside)).reshape(len(inside), s))

    @pytest.mark.parametrize("scale", [1.0, 30.0])
    @pytest.mark.parametrize(("d", "s", "eta"), [(6, 1, 0.1), (5, 2, 0.15), (4, 3, 0.3), (3, 0, 0.2)])
    def test_every_sparse_vector_has_a_point_within_eta_at_all_actions(self, d, s, eta, scale):
        rng = np.random.default_rng(1)
        F = rows(40, d, scale=scale)
        radius = 1.0 / scale
        net = Net(F, NetSize.of(F, s, eta, radius))
        values = F @ np.array([net.vector(k) for k in range(net.count)]).T
        for _ in range(50):
            theta = sparse(d, s, rng, radius * rng.random() ** (1 / max(s, 1))) if s else np.zeros(d)
            assert np.abs(values - (F @ theta)[:, None]).max(0).min() <= eta * (1 + 1e-9)

    @pytest.mark.parametrize("s", [0, 1, 2, 3])
    def test_promises_and_their_order_are_those_of_brute_force(self, s):
        F = rows(30, 6, 2)
        net = Net(F, NetSize.of(F, s, 0.4))
        vectors = np.array([net.vector(k) for k in range(net.count)])
        exact = (vectors @ F.T).max(1)
        np.testing.assert_allclose(net._promises(), exact, atol=net.rounding)
        assert (np.diff(exact[net.alive]) <= 2 * net.rounding).all()
        promise, action = net.top()
        assert promise == pytest.approx(exact.max(), abs=2 * net.rounding)
        assert vectors[net.alive[0]] @ F[action] == pytest.approx(promise, abs=1e-12)

    def test_what_an_answer_leaves_is_what_is_near_it(self):
        F = rows(30, 5, 3)
        net = Net(F, NetSize.of(F, 2, 0.3))
        vectors = np.array([net.vector(k) for k in range(net.count)])
        before = net.alive.copy()
        net.keep(4, 0.2, 0.25)
        np.testing.assert_array_equal(net.alive, [k for k in before if abs(vectors[k] @ F[4] - 0.2) <= 0.25])

    def test_its_size_is_told_before_the_work(self):
        F = rows(20, 500)
        with pytest.raises(
            InvalidParameter, match=r"124750 supports with \d+ points on each.*LazyElimination"
        ):
            NetElimination(sparsity=2, eps=0.01).begin(F)
        assert NetSize.of(rows(5, 1000), 8, 1e-6).count > 10**50

    @pytest.mark.parametrize(
        ("s", "eta", "radius", "message"),
        [
            (6, 0.1, 1.0, "from 0 to d = 5"),
            (-1, 0.1, 1.0, "from 0 to d = 5"),
            (1.5, 0.1, 1.0, "whole number"),
            (2, 0.0, 1.0, "eta > 0"),
            (2, np.nan, 1.0, "eta > 0"),
            (2, 0.1, 0.0, "radius"),
        ],
    )
    def test_what_no_net_can_be_is_refused(self, s, eta, radius, message):
        with pytest.raises(InvalidParameter, match=message):
            NetSize.of(rows(4, 5), s, eta, radius)


def table(seed, n=60, d=5, s=2, eps=0.1, scale=1.0, nu="signs"):
    """Rewards within eps of sparse linear ones; the worst of them lies at the ends, +-eps."""
    rng = np.random.default_rng(seed)
    F = rows(n, d, seed, scale)
    theta = sparse(d, s, rng, rng.random() / scale) if s else np.zeros(d)
    off = eps * (rng.choice([-1.0, 1.0], n) if nu == "signs" else rng.uniform(-1, 1, n))
    return ActionTable(F, F @ theta + off), theta


class TestNetElimination:
    @given(
        seed=st.integers(0, 10**6),
        s=st.integers(0, 3),
        prune=st.booleans(),
        scale=st.sampled_from([1.0, 7.0]),
    )
    def test_the_answer_is_within_twice_the_tolerance(self, seed, s, prune, scale):
        problem, _ = table(seed, s=s, scale=scale, d=4)
        eta = 0.1 if s < 3 else 0.25
        found = solve(problem, NetElimination(s, 0.1, eta=eta, radius=1.0 / scale, prune=prune))
        assert found.converged
        assert found.metrics["gap"] <= 2 * (0.1 + eta)
        assert "too small" not in found.message
        assert found.calls <= problem.actions

    @given(seed=st.integers(0, 10**6), order=st.permutations(range(12)))
    def test_the_nearest_point_survives_every_answer_in_every_order(self, seed, order):
        problem, theta = table(seed, n=12, d=4)
        net = Net(problem.features, NetSize.of(problem.features, 2, 0.1))
        vectors = np.array([net.vector(k) for k in range(net.count)])
        nearest = int(np.abs(problem.features @ (vectors - theta).T).max(0).argmin())
        for action in order:
            net.keep(action, problem.rewards[action], 0.2)
            assert nearest in net.alive

    @given(seed=st.integers(0, 10**6))
    def test_its_certificate_is_true(self, seed):
        problem, _ = table(seed)
        search = NetElimination(2, 0.1).begin(problem.features)
        while not search.done:
            search.observe(problem.rewards[search.next_action()])
        found = search.result()
        assert problem.metrics(found.action)["gap"] <= found.certificate.gap <= 0.4 + 1e-6
        assert found.certificate.given
        assert found.certificate.survivors > 0
        assert found.reward == problem.rewards[found.action]

    @given(seed=st.integers(0, 10**6))
    def test_pruning_asks_for_no_more_than_one_candidate_a_query(self, seed):
        problem, _ = table(seed)
        pruned, plain = (solve(problem, NetElimination(2, 0.1, prune=p)).calls for p in (True, False))
        assert pruned <= plain + 1  # the orders differ, so that a lucky last query may

    @given(seed=st.integers(0, 10**6), s=st.integers(1, 2))
    def test_without_misspecification_a_fine_net_finds_the_best(self, seed, s):
        problem, _ = table(seed, n=20, d=3, s=s, eps=0.0)
        ordered = np.sort(problem.rewards)
        eta = max((ordered[-1] - ordered[-2]) / 4.1, 0.004)
        found = solve(problem, NetElimination(s, 0.0, eta=eta))
        assert found.metrics["gap"] <= 2 * eta
        if eta > 0.004:
            assert found.metrics["gap"] == 0.0

    @given(seed=st.integers(0, 10**6))
    def test_permuting_actions_and_features_leaves_the_answers_value(self, seed):
        problem, _ = table(seed, nu="uniform")
        rng = np.random.default_rng(seed)
        actions, columns = rng.permutation(60), rng.permutation(5)
        other = ActionTable(problem.features[actions][:, columns], problem.rewards[actions])
        first, second = (solve(p, NetElimination(2, 0.1)).metrics["reward"] for p in (problem, other))
        assert first == second

    @pytest.mark.parametrize("seed", range(5))
    def test_with_noise_it_holds_after_enough_draws(self, seed):
        problem, _ = table(seed)
        noisy = ActionTable(problem.features, problem.rewards, noise=0.1)
        method = NetElimination(2, 0.1, accuracy=0.05)
        found = solve(noisy, method, seed=seed)
        draws = int(np.ceil(2 * 0.1**2 * np.log(2 * 60 / 0.05) / 0.05**2))
        assert found.metrics["gap"] <= 2 * (0.1 + 0.1 + 0.05)
        assert found.calls == draws * found.history["queries"][-1]

    @given(seed=st.integers(0, 10**6), prune=st.booleans())
    def test_an_eps_that_is_too_small_is_doubled_and_told(self, seed, prune):
        problem, _ = table(seed, eps=0.3)
        search = NetElimination(2, 0.01, eta=0.1, radius=1.5, prune=prune).begin(problem.features)
        while not search.done:
            search.observe(problem.rewards[search.next_action()])
        found = search.result()
        if search.eps > 0.01:
            assert "eps = 0.01 is too small" in found.message
            assert not found.certificate.given
            assert np.log2(search.eps / 0.01) % 1 == 0
        # what is left agrees with all answers
        if prune:
            thetas = np.array([search.net.vector(k) for k in search.net.alive])
            seen = search.queried
            off = np.abs(thetas @ problem.features[seen].T - problem.rewards[seen]).max()
            assert off <= search.tolerance + 1e-12

    def test_an_unknown_eps_is_found_from_below(self):
        problem, _ = table(3, eps=0.1)
        found = solve(problem, NetElimination(2))
        assert found.converged
        assert "do not contradict" in found.message

    def test_no_features_count_when_the_sparsity_is_zero(self):
        problem, _ = table(0, s=0)
        found = solve(problem, NetElimination(0, 0.1))
        assert found.calls == 1
        assert found.metrics["gap"] <= 0.4

    def test_a_resumed_run_has_the_same_bits(self, tmp_path):
        problem = ActionTable(rows(300, 16), rows(300, 16) @ np.eye(16)[3] * 0.9, noise=0.2)
        method, path = NetElimination(2, 0.1), tmp_path / "run"
        whole = solve(problem, method)
        assert whole.calls > 20
        solve(problem, method, stop=Stop(steps=13), callbacks=[Checkpoint(path, every=13)])
        again = solve(problem, method, resume=path)
        assert (again.x, again.calls, again.message) == (whole.x, whole.calls, whole.message)
        np.testing.assert_array_equal(again.history["gap"], whole.history["gap"])
        solve(problem, method, callbacks=[Checkpoint(path)])
        ended = solve(problem, method, resume=path)
        assert (ended.x, ended.status, ended.steps) == (whole.x, Status.CONVERGED, whole.steps + 1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sparsity": -1}, "sparsity >= 0"),
            ({"sparsity": True}, "sparsity >= 0"),
            ({"eps": -0.1}, "eps >= 0"),
            ({"eps": np.nan}, "eps >= 0"),
            ({"eta": 0.0}, "eta > 0"),
            ({"eps": 0.0}, "eps = 0 needs eta"),
            ({"radius": 0.0}, "radius > 0"),
            ({"delta": 1.0}, "0 < delta < 1"),
            ({"accuracy": 0.0}, "accuracy > 0"),
            ({"limit": 0}, "limit >= 1"),
        ],
    )
    def test_options_out_of_range_are_refused(self, options, message):
        with pytest.raises(InvalidParameter, match=message):
            NetElimination(**options)

    def test_rewards_beyond_the_radius_are_refused_and_not_learned(self):
        problem, _ = table(0)
        search = NetElimination(2, 0.1).begin(problem.features)
        search.next_action()
        with pytest.raises(
            InvalidProblem, match=r"reward of action \d+ is 7; eps = 0.1 and the radius allow at most"
        ):
            search.observe(7.0)
        assert search.queries == 0
        search.observe(0.0)

    def test_more_entries_than_features_are_refused(self):
        with pytest.raises(InvalidParameter, match="from 0 to d = 5"):
            NetElimination(sparsity=6, eps=0.1).begin(rows(9, 5))
