"""Leaders, covariances, estimates and bonuses of episodic control, against solvers, sums and closed forms."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.online.mdp import _kernels as kernels
from thalweg.online.mdp import (
    dilated_bonus,
    entropy_probabilities,
    geometric_resampling,
    inverse_covariance,
    log_barrier_probabilities,
    negative_mean,
    plain_estimates,
    reduced_estimates,
    resampling_length,
    samples_needed,
)

seeds = st.integers(0, 10_000)


class TestLeaders:
    @given(
        losses=arrays(
            np.float64, st.tuples(st.integers(1, 4), st.integers(1, 20)), elements=st.floats(-1e9, 1e9)
        ),
        eta=st.floats(1e-9, 1e9),
    )
    def test_the_log_barriers_are_distributions_in_the_order_of_losses(self, losses, eta):
        p = log_barrier_probabilities(losses, eta)
        np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-12)
        assert (p > 0).all()
        for row, chances in zip(losses, p, strict=True):
            assert (np.diff(chances[np.argsort(row)]) <= 1e-12).all()

    @given(losses=arrays(np.float64, 6, elements=st.floats(-1e3, 1e3)), eta=st.floats(1e-3, 1e2))
    def test_the_optimality_condition_of_the_log_barrier_holds(self, losses, eta):
        """The slope ``eta losses - 1/p`` is one number, the multiplier, for all actions."""
        p = log_barrier_probabilities(losses, eta)
        slope = eta * losses - 1.0 / p
        np.testing.assert_allclose(slope, slope[0], rtol=1e-9, atol=1e-8 * (1.0 + np.abs(eta * losses).max()))

    @pytest.mark.parametrize("eta", [0.05, 1.0, 20.0])
    def test_both_solve_their_problem(self, eta):
        losses = np.array([3.0, 0.0, 1.0, -2.0, 0.5])
        for name, ours in (("log", log_barrier_probabilities), ("entropy", entropy_probabilities)):
            p = cp.Variable(5)
            barrier = -cp.sum(cp.log(p)) if name == "log" else -cp.sum(cp.entr(p))
            cp.Problem(cp.Minimize(eta * losses @ p + barrier), [cp.sum(p) == 1]).solve(
                solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11
            )
            np.testing.assert_allclose(ours(losses, eta), p.value, atol=2e-5)

    def test_units_do_not_matter(self):
        losses = np.array([0.0, 1.0, 5.0])
        for make in (log_barrier_probabilities, entropy_probabilities):
            expected = make(losses, 0.3)
            for unit in (1e-250, 1e-6, 1e6, 1e250):
                np.testing.assert_allclose(make(unit * losses, 0.3 / unit), expected, rtol=1e-12)
            np.testing.assert_allclose(make(losses - 1e6, 0.3), expected, rtol=1e-8)

    def test_extreme_losses_overflow_nothing(self):
        for make in (log_barrier_probabilities, entropy_probabilities):
            p = make([-1e308, 1e308, 1e308], 1e10)
            np.testing.assert_allclose(p, [1.0, 0.0, 0.0], atol=1e-12)

    def test_ties_are_uniform_and_one_action_is_certain(self):
        for make in (log_barrier_probabilities, entropy_probabilities):
            np.testing.assert_array_equal(make(np.full((2, 4), 7.0), 3.0), 0.25)
            np.testing.assert_array_equal(make([[5.0]], 1.0), 1.0)

    def test_bad_input_is_refused(self):
        with pytest.raises(InvalidParameter, match="log_barrier_probabilities needs eta > 0; got 0"):
            log_barrier_probabilities([1.0], 0.0)
        with pytest.raises(InvalidParameter, match="entropy_probabilities needs eta > 0; got nan"):
            entropy_probabilities([1.0], np.nan)
        with pytest.raises(NotFinite, match="losses holds 1 NaN"):
            log_barrier_probabilities([1.0, np.nan], 1.0)
        with pytest.raises(InvalidProblem, match="complex"):
            log_barrier_probabilities(np.array([1j]), 1.0)
        with pytest.raises(InvalidProblem, match=r"shape \(0,\)"):
            log_barrier_probabilities([], 1.0)


def stability(p, losses, eta, kind):
    """``max_q <p - q, l> - D(q, p)/eta``, and the bound ``(eta/2) sum p l^2``."""
    if kind == "log":
        q = log_barrier_probabilities(eta * losses + 1.0 / p, 1.0)
        x = q / p
        apart = (x - 1.0 - np.log(x)).sum()
        return (p - q) @ losses - apart / eta, eta / 2.0 * (p @ losses**2)
    scaled = -eta * losses
    top = scaled.max()
    return p @ losses + (top + np.log(p @ np.exp(scaled - top))) / eta, eta / 2.0 * (p @ losses**2)


class TestKeyLemma:
    """One step against any estimate, however negative, costs the log-barrier at most half of eta sum p l^2."""

    @given(seed=seeds, actions=st.integers(2, 12), eta=st.floats(1e-3, 1e3), size=st.floats(1e-3, 1e4))
    def test_it_holds_for_the_log_barrier(self, seed, actions, eta, size):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet(np.full(actions, 0.3)) + 1e-9
        p /= p.sum()
        losses = size * rng.standard_normal(actions) * rng.exponential(size=actions)
        lost, bound = stability(p, losses, eta, "log")
        assert lost <= bound * (1 + 1e-6) + 1e-9 * size

    def test_the_entropy_violates_it_without_limit(self):
        p = np.array([1e-4, 1.0 - 1e-4])
        losses = np.array([-50.0, 0.0])
        lost, bound = stability(p, losses, 1.0, "entropy")
        assert lost > 300 * bound
        lost, bound = stability(p, losses, 1.0, "log")
        assert lost <= bound

    @given(seed=seeds, eta=st.floats(1e-3, 1.0))
    def test_the_entropy_keeps_to_twice_of_it_where_estimates_are_not_below_minus_one_over_eta(
        self, seed, eta
    ):
        rng = np.random.default_rng(seed)
        p = rng.dirichlet(np.full(5, 0.3)) + 1e-9
        lost, bound = stability(p / p.sum(), rng.uniform(-1.0, 10.0, 5) / eta, eta, "entropy")
        assert lost <= 2.0 * bound * (1 + 1e-9)


@pytest.fixture
def layer(rng):
    """Features of six states and three actions, chances of states, a policy, and values linear in the features."""
    phi = rng.dirichlet(np.full(4, 0.3), (6, 3)) * rng.choice([-1.0, 1.0], (6, 3, 4))
    chances, policy = rng.dirichlet(np.ones(6)), rng.dirichlet(np.full(3, 0.5), 6)
    weights = (chances[:, None] * policy).ravel()
    return phi.reshape(18, 4), weights, rng.standard_normal(4)


class TestEstimates:
    @pytest.mark.parametrize("gamma", [1.0, 0.1, 1e-3])
    def test_the_mean_over_everything_played_is_q_less_a_known_bias(self, layer, gamma):
        phi, weights, theta = layer
        S, Q = inverse_covariance(phi, gamma, weights), phi @ theta
        expected = Q - gamma * phi @ S @ theta
        plain = sum(w * plain_estimates(phi, S, i, Q[i]) for i, w in enumerate(weights))
        np.testing.assert_allclose(plain, expected, atol=1e-12)
        mean = negative_mean(phi, S, weights)
        shift = np.abs(Q).max()  # losses in [0, most], as the estimator takes them
        moved = sum(
            w * reduced_estimates(phi, S, i, Q[i] + shift, 2 * shift, mean) for i, w in enumerate(weights)
        )
        unmoved = sum(w * plain_estimates(phi, S, i, Q[i] + shift) for i, w in enumerate(weights))
        np.testing.assert_allclose(moved, unmoved, atol=1e-9)

    @given(seed=seeds, gamma=st.floats(1e-4, 1.0), loss=st.floats(0.0, 3.0))
    def test_the_reduced_ones_keep_to_their_bounds(self, seed, gamma, loss):
        rng = np.random.default_rng(seed)
        phi = rng.standard_normal((10, 3))
        phi /= np.maximum(np.linalg.norm(phi, axis=1, keepdims=True), 1.0)
        weights = rng.dirichlet(np.full(10, 0.3))
        S = inverse_covariance(phi, gamma, weights)
        mean, lengths = negative_mean(phi, S, weights), np.sqrt(np.einsum("id,de,ie->i", phi, S, phi))
        assert (mean >= -lengths * (1 + 1e-9)).all()
        second = np.zeros(10)
        for i, w in enumerate(weights):
            found = reduced_estimates(phi, S, i, loss, 3.0, mean)
            assert (found - 3.0 * mean >= -1e-9).all()  # the first two terms together
            assert (found >= -3.0 * lengths * (1 + 1e-9)).all()
            assert (found >= -3.0 / np.sqrt(gamma) * (1 + 1e-9)).all()
            second += w * found**2
        assert (second <= 4.0 * 9.0 * lengths**2 * (1 + 1e-9)).all()

    def test_plain_ones_are_as_low_as_the_reduced_ones_never_are(self):
        phi, gamma = np.array([[1.0], [-1.0]]), 1e-4
        weights = np.array([0.0, 1e-3])
        S = inverse_covariance(phi, gamma, weights)
        assert plain_estimates(phi, S, 1, 1.0)[0] < -900
        assert reduced_estimates(phi, S, 1, 1.0, 1.0, negative_mean(phi, S, weights))[0] > -1.0 / np.sqrt(
            gamma
        )

    def test_the_mean_of_negatives_of_samples_goes_to_the_exact_one(self, layer, rng):
        phi, weights, _ = layer
        S = inverse_covariance(phi, 0.1, weights)
        shares = rng.multinomial(200_000, weights) / 200_000
        np.testing.assert_allclose(negative_mean(phi, S, shares), negative_mean(phi, S, weights), atol=0.01)

    def test_bad_input_is_refused(self, layer):
        phi, weights, _ = layer
        S = inverse_covariance(phi, 0.1, weights)
        with pytest.raises(InvalidProblem, match=r"features has shape \(18, 4\) and inverse \(3, 3\)"):
            plain_estimates(phi, np.eye(3), 0, 1.0)
        with pytest.raises(InvalidParameter, match=r"played is a row, 0 .. 17; got 18"):
            plain_estimates(phi, S, 18, 1.0)
        with pytest.raises(NotFinite, match="loss"):
            plain_estimates(phi, S, 0, np.nan)
        with pytest.raises(InvalidProblem, match="0 <= loss <= most"):
            reduced_estimates(phi, S, 0, 2.0, 1.0, np.zeros(18))
        with pytest.raises(InvalidProblem, match=r"mean has shape \(2,\)"):
            reduced_estimates(phi, S, 0, 0.5, 1.0, np.zeros(2))


class TestCovariance:
    def test_it_is_the_inverse(self, layer):
        phi, weights, _ = layer
        S = inverse_covariance(phi, 0.05, weights)
        np.testing.assert_allclose(
            S @ (0.05 * np.eye(4) + phi.T @ (weights[:, None] * phi)), np.eye(4), atol=1e-10
        )

    def test_chances_below_zero_are_refused(self):
        with pytest.raises(InvalidProblem, match="weights >= 0"):
            inverse_covariance(np.eye(2), 0.1, [-1.0, 2.0])

    def test_samples_count_alike(self, rng):
        rows = rng.standard_normal((50, 3))
        np.testing.assert_allclose(
            inverse_covariance(rows, 0.2), np.linalg.inv(0.2 * np.eye(3) + rows.T @ rows / 50), rtol=1e-10
        )

    @pytest.mark.parametrize("gamma", [0.1, 0.01])
    def test_enough_samples_keep_it_within_a_factor_of_two(self, rng, gamma):
        """In the order of matrices: all eigenvalues of ``S^-1/2 S' S^-1/2`` lie in [1/2, 2]."""
        phi, weights = rng.dirichlet(np.full(4, 0.3), 30), rng.dirichlet(np.full(30, 0.1))
        exact = inverse_covariance(phi, gamma, weights)
        root = np.linalg.cholesky(np.linalg.inv(exact))
        for _ in range(50):
            shares = kernels.counted(rng, weights, samples_needed(gamma, 4, 4, 1000))
            assert shares.sum() == pytest.approx(1.0, abs=1e-12)
            values = np.linalg.eigvalsh(root.T @ inverse_covariance(phi, gamma, shares) @ root)
            assert 0.5 <= values.min() <= values.max() <= 2.0

    def test_counts_have_the_law_of_a_multinomial(self, rng):
        weights = np.array([0.5, 0.0, 0.3, 0.2])
        shares = np.array([kernels.counted(rng, weights, 100) for _ in range(4000)])
        assert (shares[:, 1] == 0).all()
        np.testing.assert_allclose(shares.mean(0), weights, atol=5 * np.sqrt(0.25 / 100 / 4000))
        expected = (np.diag(weights) - np.outer(weights, weights)) / 100
        np.testing.assert_allclose(np.cov(shares.T), expected, atol=3e-4)

    def test_the_mean_of_resampling_is_the_cut_neumann_sum(self, rng):
        phi, weights, gamma, length = rng.dirichlet(np.ones(3), 6), rng.dirichlet(np.ones(6)), 0.3, 12
        sigma = gamma * np.eye(3) + phi.T @ (weights[:, None] * phi)
        factor, power, cut = np.eye(3) - 0.5 * sigma, np.eye(3), np.zeros((3, 3))
        for _ in range(length + 1):
            cut += 0.5 * power
            power = power @ factor
        found = np.array(
            [geometric_resampling(phi[rng.choice(6, (20, length), p=weights)], gamma) for _ in range(1000)]
        )
        off = np.abs(found.mean(0) - cut) / (found.std(0) / np.sqrt(1000))
        assert off.max() < 4.5
        whole = kernels.resampled(rng, phi, weights, gamma, length, 20_000)
        np.testing.assert_allclose(whole, cut, atol=5 * found.std(0).max() / np.sqrt(1000))

    def test_one_inverse_of_the_samples_is_nearer_than_resampling(self, rng):
        phi, weights, gamma = rng.dirichlet(np.full(4, 0.3), 30), rng.dirichlet(np.ones(30)), 0.05
        exact, length = inverse_covariance(phi, gamma, weights), resampling_length(gamma)
        apart = []
        for _ in range(20):
            rows = phi[rng.choice(30, (10, length), p=weights)]
            both = inverse_covariance(rows.reshape(-1, 4), gamma), geometric_resampling(rows, gamma)
            apart.append([np.linalg.norm(S - exact) for S in both])
        direct, resampled = np.mean(apart, axis=0)
        assert direct < 0.6 * resampled

    def test_bad_input_is_refused(self):
        for gamma in (0.0, -1.0, np.nan, np.inf):
            with pytest.raises(InvalidParameter, match="gamma > 0"):
                inverse_covariance(np.eye(2), gamma)
        with pytest.raises(NotFinite, match="singular to rounding with gamma = 1e-300"):
            inverse_covariance(np.ones((1, 2)), 1e-300)
        with pytest.raises(InvalidProblem, match=r"shape \(2,\); expected \(n, d\)"):
            inverse_covariance(np.ones(2), 0.1)
        with pytest.raises(InvalidProblem, match=r"weights has shape \(3,\); expected \(2,\)"):
            inverse_covariance(np.eye(2), 0.1, np.ones(3))
        with pytest.raises(InvalidProblem, match="repetitions, N, d"):
            geometric_resampling(np.eye(2), 0.1)
        with pytest.raises(InvalidParameter, match="0 < accuracy < 1"):
            resampling_length(0.1, 2.0)


class TestBonus:
    @pytest.fixture
    def world(self, rng):
        moves, policy = rng.dirichlet(np.ones(4), (3, 4, 2)), rng.dirichlet(np.ones(2), (3, 4))
        return moves, policy, rng.random((3, 4, 2))

    def test_with_factor_one_it_is_the_policys_value(self, world):
        """The sum over layers of the chances of being there times the bonus."""
        moves, policy, local = world
        B = dilated_bonus(local, moves, policy, 1.0)
        chances = np.full(4, 0.25)
        total = 0.0
        for h in range(3):
            pairs = chances[:, None] * policy[h]
            total += (pairs * local[h]).sum()
            chances = np.einsum("sa,sat->t", pairs, moves[h])
        assert (0.25 * (policy[0] * B[0]).sum()) == pytest.approx(total, rel=1e-12)

    def test_a_chain_has_its_geometric_sum(self):
        H = 5
        one = np.ones((H, 1, 1))
        B = dilated_bonus(2.0 * one, np.ones((H, 1, 1, 1)), one).ravel()
        q = 1.0 + 1.0 / H
        np.testing.assert_allclose(B, [2.0 * (q ** (H - h) - 1.0) / (q - 1.0) for h in range(H)], rtol=1e-12)

    def test_it_solves_its_equation(self, world):
        moves, policy, local = world
        B = dilated_bonus(local, moves, policy)
        for h in range(2):
            ahead = moves[h] @ (policy[h + 1] * B[h + 1]).sum(1)
            np.testing.assert_allclose(B[h], local[h] + 4 / 3 * ahead, rtol=1e-12)
        np.testing.assert_array_equal(B[2], local[2])

    def test_bad_input_is_refused(self, world):
        moves, policy, local = world
        with pytest.raises(InvalidProblem, match=r"policy \(3, 4\)"):
            dilated_bonus(local, moves, policy[..., 0])
        with pytest.raises(NotFinite, match="local"):
            dilated_bonus(local * np.nan, moves, policy)
        with pytest.raises(InvalidParameter, match="factor >= 0"):
            dilated_bonus(local, moves, policy, -1.0)
