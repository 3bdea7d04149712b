"""Derivatives of an aligned reward against re-solved objectives, closed forms and automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from thalweg.bilevel.alignment import (
    Enumerated,
    NetworkPolicy,
    NetworkReward,
    PreferenceTask,
    ScriptedTeacher,
    Segments,
    TablePolicy,
    TableReward,
    TabularMDP,
    Trajectories,
    TrajectorySurrogate,
    exact_ascent,
    gridworld,
    responses,
    sampled_ascent,
    soft_policy,
    trajectory_gradient,
)
from thalweg.bilevel.alignment.levels import is_worth
from thalweg.bilevel.alignment.objectives import expected
from thalweg.bilevel.alignment.trajectories import Clipped
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName


def small_world(seed=0, horizon=3):
    rng = np.random.default_rng(seed)
    moves = rng.dirichlet(np.ones(3), (3, 2))
    return TabularMDP(moves, np.full(3, 1 / 3), 0.9, horizon, rng.standard_normal((3, 2)))


@pytest.fixture
def lives():
    world = small_world()
    return PreferenceTask(world, TableReward(3, 2), ScriptedTeacher(beta=3.0), scores=world.reward)


@pytest.fixture
def grid():
    world = gridworld(4, traps=3)
    return PreferenceTask(world, TableReward(16, 4), ScriptedTeacher(beta=3.0), scores=world.reward)


def differences(task, objective, nu, h=1e-5):
    """Central differences of the objective, the lower level solved anew on either side."""

    def value(at):
        return exact_ascent(task, at, objective).value

    return np.array([(value(nu + h * e) - value(nu - h * e)) / (2 * h) for e in np.eye(len(nu))])


def error(found, true):
    return np.linalg.norm(found - true) / np.linalg.norm(true)


class TestWholeDerivative:
    @pytest.mark.parametrize("objective", ["loglik", "utility"])
    @pytest.mark.parametrize("name", ["lives", "grid"])
    def test_it_is_that_of_the_re_solved_objective_and_needs_the_term_with_its_sign(
        self, name, objective, request, rng
    ):
        task = request.getfixturevalue(name)
        nu = 0.5 * rng.standard_normal(task.reward.size)
        true, found = differences(task, objective, nu), exact_ascent(task, nu, objective)
        assert error(found.direct + found.term, true) <= 1e-6
        assert error(found.direct, true) >= 0.05
        assert error(found.direct - found.term, true) >= 0.05

    def test_versus_is_the_slope_against_a_policy_that_stays(self, grid, rng):
        nu, h = 0.5 * rng.standard_normal(64), 1e-5
        frozen = soft_policy(grid.world, nu.reshape(16, 4), 0.1).occupancy().ravel()

        def chance(at):
            own = soft_policy(grid.world, at.reshape(16, 4), 0.1).occupancy().ravel()
            return expected("versus", own, at, grid.preferred, reference=frozen).value

        true = np.array([(chance(nu + h * e) - chance(nu - h * e)) / (2 * h) for e in np.eye(64)])
        found = exact_ascent(grid, nu, "versus")
        assert not found.direct.any()
        assert error(found.term, true) <= 1e-6

    def test_the_default_adds_the_direct_part_of_one_to_the_term_of_the_other(self, grid, rng):
        nu = rng.standard_normal(64)
        both, first, second = (exact_ascent(grid, nu, o) for o in ("loglik+versus", "loglik", "versus"))
        np.testing.assert_array_equal(both.direct, first.direct)
        np.testing.assert_allclose(both.term, second.term, rtol=1e-12)

    def test_a_network_in_a_table_has_it_too(self, rng):
        world = small_world(horizon=None)
        task = PreferenceTask(world, NetworkReward(3, 2, hidden=(4,), networks=2), ScriptedTeacher(3.0))
        nu = task.reward.start(0)
        found = exact_ascent(task, nu, "loglik")
        assert error(found.direct + found.term, differences(task, "loglik", nu)) <= 1e-6

    def test_an_unfinished_lower_level_says_so_and_errs(self, lives, rng):
        nu = rng.standard_normal(6)
        true = exact_ascent(lives, nu, "loglik")
        few = exact_ascent(lives, nu, "loglik", inner_steps=1)
        assert few.gap > 1e-4 > true.gap
        assert error(few.direct + few.term, true.direct + true.term) > 1e-3


class TestClosedForms:
    @given(st.integers(0, 10**6), st.floats(0.05, 5.0))
    def test_a_bandits_policy_moves_by_its_covariance(self, seed, entropy):
        rng = np.random.default_rng(seed)
        world = TabularMDP(np.ones((1, 5, 1)), discount=0.5)
        soft = soft_policy(world, rng.standard_normal((1, 5)), entropy)
        pi = soft.policy[0]
        moved = soft.pull((np.eye(5) * pi)[:, None, :])[:, 0]  # of pi_k = exp ln pi_k
        np.testing.assert_allclose(moved, (np.diag(pi) - np.outer(pi, pi)) / entropy, atol=1e-12)

    def test_the_soft_policy_is_that_of_value_iteration(self, grid):
        q = np.zeros((16, 4))
        for _ in range(2000):
            q = grid.world.reward + 0.9 * grid.world.transitions @ (0.1 * np.log(np.exp(q / 0.1).sum(1)))
        np.testing.assert_allclose(soft_policy(grid.world, grid.world.reward, 0.1).q, q, atol=1e-10)

    def test_the_soft_bellman_route_is_that_of_the_hessians_pseudo_inverse(self, rng):
        """In the logits the Hessian of the soft value has a null direction for each state."""
        world, entropy = small_world(horizon=None), 0.3
        nu = rng.standard_normal((3, 2))
        soft = soft_policy(world, nu, entropy)
        moves, start = torch.tensor(world.transitions), torch.tensor(world.start)

        def value(theta, r):
            logs = theta.reshape(3, 2).log_softmax(1)
            pi = logs.exp()
            gain = (pi * (r.reshape(3, 2) - entropy * logs)).sum(1)
            P = torch.einsum("sa,sat->st", pi, moves)
            return start @ torch.linalg.solve(torch.eye(3, dtype=torch.float64) - 0.9 * P, gain)

        theta, r = torch.tensor(np.log(soft.policy)).ravel(), torch.tensor(nu).ravel()
        H = torch.func.hessian(value)(theta, r)
        mixed = torch.func.jacrev(torch.func.grad(value), argnums=1)(theta, r)
        assert int((torch.linalg.eigvalsh(H).abs() < 1e-10).sum()) == 3
        moved = (-torch.linalg.pinv(H, rtol=1e-10) @ mixed).numpy().reshape(3, 2, 6)  # d theta / d nu
        by_log = moved - (soft.policy[..., None] * moved).sum(1, keepdims=True)
        pulled = soft.pull(np.eye(6).reshape(6, 3, 2)).reshape(6, 6)
        np.testing.assert_allclose(by_log.reshape(6, 6), pulled, atol=1e-10)

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_scaled_rewards_have_the_same_policy_under_scaled_entropy(self, scale, grid):
        soft = soft_policy(grid.world, scale * grid.world.reward, 0.1 * scale)
        np.testing.assert_allclose(
            soft.policy, soft_policy(grid.world, grid.world.reward, 0.1).policy, atol=1e-9
        )

    def test_rewards_far_above_the_entropy_stop_at_rounding(self, grid):
        soft = soft_policy(grid.world, grid.world.reward, 1e-6)
        assert soft.steps < 60
        assert soft.gap < 1e-8

    def test_occupancy_is_a_law_and_its_own_flow(self, grid, rng):
        soft = soft_policy(grid.world, rng.standard_normal((16, 4)), 0.1)
        d = soft.occupancy()
        assert d.sum() == pytest.approx(1.0)
        after = 0.1 * grid.world.start + 0.9 * np.einsum("sa,sat->t", d, grid.world.transitions)
        np.testing.assert_allclose(d.sum(1), after, atol=1e-12)
        value = grid.world.value(soft.policy, grid.world.reward)
        assert (d * grid.world.reward).sum() == pytest.approx(0.1 * value)


class TestInvariance:
    def test_a_constant_leaves_the_policy_and_the_likelihood(self, grid, lives, rng):
        for task in (grid, lives):
            nu = rng.standard_normal(task.reward.size)
            np.testing.assert_allclose(task.policy_of(nu + 2.5), task.policy_of(nu), atol=1e-8)
            assert exact_ascent(task, nu + 2.5, "loglik").value == pytest.approx(
                exact_ascent(task, nu, "loglik").value, abs=1e-9
            )

    def test_swapping_the_pairs_and_their_labels_leaves_everything(self, rng):
        P = rng.random((6, 6))
        P = P / (P + P.T)
        d, r = rng.dirichlet(np.ones(6)), rng.standard_normal(6)
        u = lambda a, b: P[a, b] * np.log(1 / (1 + np.exp(r[b] - r[a])))  # noqa: E731
        by_pair = sum(d[a] * d[b] * (u(a, b) + u(b, a)) for a in range(6) for b in range(6))
        assert expected("loglik", d, r, P).value == pytest.approx(by_pair)


class TestFormulas:
    def sample(self, lives, rng):
        nu, theta = rng.standard_normal((3, 2)), rng.standard_normal((3, 2))
        return nu, theta, lives.enumerated.at(theta, nu, 0.05)

    def exact_value(self, lives, theta, nu):
        """V by dynamic programming in torch."""
        world, pi = lives.world, theta.reshape(3, 2).softmax(1)
        P, after = torch.tensor(world.transitions), torch.zeros(3, dtype=torch.float64)
        for _ in range(3):
            after = (pi * (nu.reshape(3, 2) + 0.9 * P @ after)).sum(1)
        return torch.tensor(world.start) @ after - 0.025 * theta @ theta

    def test_all_trajectories_are_there_once(self, lives, rng):
        _, _, found = self.sample(lives, rng)
        assert len(found.segments) == 3 * 2 * (3 * 2) ** 2
        assert found.weights.sum() == pytest.approx(1.0)

    def test_they_are_those_of_automatic_differentiation_of_the_exact_value(self, lives, rng):
        nu, theta, found = self.sample(lives, rng)
        t, r = torch.tensor(theta).ravel(), torch.tensor(nu).ravel()
        value = lambda a, b: self.exact_value(lives, a, b)  # noqa: E731
        np.testing.assert_allclose(found.gradient(), torch.func.grad(value)(t, r), atol=1e-13)
        np.testing.assert_allclose(found.hessian(), torch.func.hessian(value)(t, r), atol=1e-13)
        mixed = torch.func.jacrev(torch.func.grad(value), argnums=1)(t, r).numpy()
        v = rng.standard_normal(6)
        steps = found.mixed_transposed(v)
        at = found.segments.observations * 2 + found.segments.actions
        np.testing.assert_allclose(
            np.bincount(at.ravel(), steps.ravel(), minlength=6), mixed.T @ v, atol=1e-13
        )

    def test_without_the_outer_product_the_hessian_is_far_off(self, lives, rng):
        _, _, found = self.sample(lives, rng)
        assert error(found.hessian(outer=False), found.hessian()) > 0.5

    def test_the_surrogate_differentiated_twice_is_the_same(self, lives, rng):
        nu, theta, _ = self.sample(lives, rng)
        drawn = lives.rollouts(torch.tensor(theta).ravel(), 50, rng)[0]
        own = Trajectories(drawn, theta, nu[drawn.observations, drawn.actions], np.full(50, 0.02), 0.9, 0.05)
        surrogate = TrajectorySurrogate(
            TablePolicy(3, 2),
            TableReward(3, 2),
            drawn,
            torch.tensor(theta).ravel(),
            torch.tensor(nu).ravel(),
            discount=0.9,
            entropy=0.0,
            ridge=0.05,
        )
        v = torch.tensor(rng.standard_normal(6))
        np.testing.assert_allclose(surrogate.gradient, own.gradient(), atol=1e-13)
        np.testing.assert_allclose(surrogate.hessian_product(v), own.hessian() @ v.numpy(), atol=1e-13)
        at = drawn.observations * 2 + drawn.actions
        pulled = np.bincount(at.ravel(), own.mixed_transposed(v.numpy()).ravel(), minlength=6)
        np.testing.assert_allclose(surrogate.mixed_transposed(v), pulled, atol=1e-13)

    def test_the_entropys_part_is_unbiased(self, lives):
        """Against the exact gradient of the value with entropy, within four standard errors."""
        rng, theta = np.random.default_rng(3), torch.tensor(np.random.default_rng(1).standard_normal(6))

        def exact(t):
            pi, logs = t.reshape(3, 2).softmax(1), t.reshape(3, 2).log_softmax(1)
            P, after = torch.tensor(lives.world.transitions), torch.zeros(3, dtype=torch.float64)
            for _ in range(3):
                after = (pi * (0.9 * P @ after - logs)).sum(1)
            return torch.tensor(lives.world.start) @ after

        rows = []
        for _ in range(40):
            drawn = lives.rollouts(theta, 200, rng)[0]
            made = TrajectorySurrogate(
                TablePolicy(3, 2),
                TableReward(3, 2),
                drawn,
                theta,
                torch.zeros(6, dtype=torch.float64),
                discount=0.9,
                entropy=1.0,
                ridge=0.0,
            )
            rows.append(
                torch.cat([made.gradient, made.hessian_product(torch.ones(6).double() * theta)]).numpy()
            )
        rows = np.array(rows)
        true = torch.cat([torch.func.grad(exact)(theta), torch.func.hessian(exact)(theta) @ theta]).numpy()
        standard = rows.std(0, ddof=1) / np.sqrt(len(rows))
        assert (np.abs(rows.mean(0) - true) <= 4 * standard + 1e-9).all()


class TestResponses:
    def hessian(self, rng, n=12, least=0.05):
        Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
        return torch.tensor(-Q @ np.diag(np.linspace(least, 1.0, n)) @ Q.T)

    @pytest.mark.parametrize(
        ("how", "steps", "tol"), [("dense", 1, 1e-12), ("cg", 12, 1e-8), ("neumann", 400, 1e-6)]
    )
    def test_all_ways_solve_it(self, how, steps, tol, rng):
        H, b = self.hessian(rng), torch.tensor(rng.standard_normal((2, 12)))
        found = responses(lambda v: H @ v, b, how, 1e-3, steps=steps)
        np.testing.assert_allclose(found.x, torch.linalg.solve(-H, b.T).T, atol=tol * 100)
        assert found.raised == 0

    @pytest.mark.parametrize("how", ["cg", "neumann", "dense"])
    def test_negative_curvature_is_damped_and_told(self, how, rng):
        H, b = self.hessian(rng, least=-0.2), torch.tensor(rng.standard_normal((1, 12)))
        found = responses(lambda v: H @ v, b, how, 0.05, steps=40)
        assert found.raised >= 1
        assert found.damping >= 0.05
        assert float(b[0] @ found.x[0]) > 0  # an ascent direction

    def test_networks_form_no_matrix(self):
        """Products cost vectors alone, and `dense` is refused for many parameters."""
        policy = NetworkPolicy(4, 2, hidden=(128,))
        with pytest.raises(
            InvalidParameter, match=r"makes an n x n matrix, for up to 512 parameters; the policy has 898"
        ):
            responses(lambda v: -v, torch.ones(1, policy.size, dtype=torch.float64), "dense", 0.1)
        seen = []
        found = responses(
            lambda v: seen.append(v.shape) or -v, torch.ones(1, policy.size, dtype=torch.float64), "cg", 0.1
        )
        assert set(seen) == {(898,)}
        assert len(seen) == found.products < 898

    def test_unknown_ways_are_refused(self):
        with pytest.raises(UnknownName, match="Did you mean 'cg'"):
            responses(lambda v: v, torch.ones(1, 2), "cgg", 0.1)

    def test_clipped_eigenvalues_are_counted(self):
        assert Clipped.of(-np.diag([3.0, 0.1, -2.0]), 0.5).clipped == 2


class TestSampling:
    def test_the_error_falls_with_pairs_and_the_term_pays_from_some_thousand(self):
        task = PreferenceTask(small_world(1), TableReward(3, 2), ScriptedTeacher(beta=3.0))
        nu = 0.3 * np.random.default_rng(5).standard_normal(6)
        theta = task.enumerated.solved(nu.reshape(3, 2), task.ridge, np.zeros((3, 2)))[0].theta
        exact = exact_ascent(task, nu, "loglik")
        whole = exact.direct + exact.term

        def errors(pairs, seeds):
            rows = [
                trajectory_gradient(task, nu, theta, "loglik", pairs, np.random.default_rng(s))
                for s in range(seeds)
            ]
            return np.mean([[error(d + t, whole), error(d, whole)] for d, t in rows], axis=0)

        few, many = errors(32, 12), errors(8192, 4)
        assert many[0] < few[0] / 4
        assert many[0] < many[1]

    @pytest.mark.parametrize("objective", ["loglik", "versus", "utility"])
    def test_sampled_single_states_agree_with_exact_expectations(self, objective):
        """With discount 0, occupancy is the start's law, so that segments of one step are its draws."""
        rng = np.random.default_rng(0)
        world = TabularMDP(
            rng.dirichlet(np.ones(3), (3, 2)), np.full(3, 1 / 3), 0.0, None, rng.standard_normal((3, 2))
        )
        task = PreferenceTask(
            world, TableReward(3, 2), ScriptedTeacher(2.0), scores=world.reward, entropy=0.5
        )
        nu = rng.standard_normal(6)
        exact = exact_ascent(task, nu, objective)
        found = sampled_ascent(task, nu, objective, 40_000, np.random.default_rng(1))
        assert np.linalg.norm(found.term - exact.term) <= 4 * found.noise
        np.testing.assert_allclose(found.direct, exact.direct, atol=0.02)
        assert found.value == pytest.approx(exact.value, abs=0.02)

    def test_the_switch_asks_for_more_than_noise(self):
        assert is_worth(np.array([1.0, 1.0]), 0.9)
        assert not is_worth(np.array([1.0, 1.0]), 1.1)
        assert is_worth(np.array([1e-9]), 0.0)
        assert not is_worth(np.zeros(2), 0.0)


class TestWorlds:
    def test_values_with_a_horizon_are_those_of_all_trajectories(self, lives, rng):
        theta = rng.standard_normal((3, 2))
        all_of_them = lives.enumerated.at(theta, lives.world.reward, 0.0)
        value = lives.world.value(softmax(theta, axis=1), lives.world.reward)
        assert all_of_them.weights @ all_of_them.returns == pytest.approx(value)

    def test_rollouts_visit_states_as_often_as_their_chances_say(self):
        world = small_world()
        drawn = world.rollouts(np.full((3, 2), 0.5), 20_000, 2, np.random.default_rng(0))
        second = np.bincount(drawn.observations[:, 1], minlength=3) / 20_000
        true = world.start @ world.transitions.mean(1)
        assert (np.abs(second - true) < 4 * np.sqrt(true * (1 - true) / 20_000)).all()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"transitions": np.ones((2, 2))}, r"transitions has shape \(2, 2\); expected \(S, A, S\)"),
            ({"transitions": np.ones((2, 1, 2))}, "sum to 2"),
            ({"transitions": np.full((2, 1, 2), np.nan)}, "4 NaN"),
            ({"discount": 1.0}, r"discount in \[0, 1\)"),
            ({"horizon": 0}, "horizon >= 1"),
            ({"reward": [1.0, np.nan]}, "reward holds 1 NaN"),
            ({"reward": [1.0, 2.0, 3.0]}, r"reward has shape \(3,\); expected \(2, 1\)"),
            ({"start": 5}, r"start is 5; expected a state in 0 \.\. 1"),
        ],
    )
    def test_worlds_that_are_none_are_refused(self, given, message):
        with pytest.raises(InvalidProblem, match=message):
            TabularMDP(**{"transitions": np.full((2, 1, 2), 0.5), **given})

    def test_large_worlds_are_not_listed(self):
        with pytest.raises(InvalidProblem, match="more than 3000 trajectories: take SampledAPARL"):
            Enumerated.of(gridworld(4, horizon=6))
        with pytest.raises(InvalidProblem, match="needs a world with a horizon"):
            Enumerated.of(gridworld(4))

    def test_a_reward_that_is_not_finite_is_told(self):
        with pytest.raises(NotFinite, match="not finite"):
            soft_policy(gridworld(3, 1), np.full((9, 4), np.nan), 0.1)

    def test_segments_of_unequal_length_are_refused(self):
        with pytest.raises(InvalidProblem, match="with the same N and L"):
            Segments([[0, 1]], [[0, 1, 1]])
