"""Bandits against a convex solver, regret bounds, and polynomials."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import lsq_linear

from thalweg.core import CheckpointMismatch, InvalidParameter, NotFinite
from thalweg.core.tree import load_tree, save_tree
from thalweg.online import Binned, ChebCB, Fixed, OutsideRange, TsallisINF, tsallis_probabilities
from thalweg.online._kernels import box_least_squares

POLICIES = [Fixed(4, 2), TsallisINF(4), ChebCB(4, 0.0, 1.0), Binned(TsallisINF(4), 3, 0.0, 1.0)]
by_name = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: type(p).__name__)


def play(policy, losses, contexts=None, seed=0):
    """Total loss of a fresh copy of ``policy`` on a table of losses, shape (T, d)."""
    policy, total = policy.started(seed), 0.0
    for t, row in enumerate(losses):
        arm = policy.act(None if contexts is None else contexts[t])
        policy.learn(arm, row[arm])
        total += row[arm]
    return total


class TestTsallisProbabilities:
    @given(
        losses=arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1e6)),
        eta=st.floats(1e-4, 10),
    )
    def test_they_are_a_distribution_for_every_input(self, losses, eta):
        p = tsallis_probabilities(losses, eta)
        assert p.sum() == pytest.approx(1.0, abs=1e-13)
        assert (p > 0).all()
        assert losses[p.argmax()] == pytest.approx(losses.min(), abs=1e-9)

    @given(losses=arrays(np.float64, 6, elements=st.floats(0, 1e4)), eta=st.floats(1e-3, 2))
    def test_the_optimality_condition_holds(self, losses, eta):
        # d/dp [<p, k> - (4/eta) sum sqrt(p)] = k - 2/(eta sqrt(p)) is the same number for every arm.
        p = tsallis_probabilities(losses, eta)
        multiplier = losses - 2.0 / (eta * np.sqrt(p))
        np.testing.assert_allclose(multiplier, multiplier[0], atol=1e-9 * (1 + np.abs(multiplier).max()))

    @pytest.mark.parametrize("eta", [0.05, 0.5, 2.0])
    def test_they_solve_the_regularised_leader_problem(self, eta):
        losses = np.array([3.0, 0.0, 1.0, 7.0, 0.5])
        p = cp.Variable(5)
        cp.Problem(cp.Minimize(losses @ p - 4.0 / eta * cp.sum(cp.sqrt(p))), [cp.sum(p) == 1]).solve(
            solver=cp.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10
        )
        np.testing.assert_allclose(tsallis_probabilities(losses, eta), p.value, atol=1e-5)

    @pytest.mark.parametrize("unit", [1e-300, 1e-200, 1e200, 1e300])
    def test_only_eta_times_losses_counts(self, unit):
        expected = tsallis_probabilities([0.0, 1.0, 2.0], 1.0)
        np.testing.assert_allclose(
            tsallis_probabilities([0.0, unit, 2 * unit], 1 / unit), expected, rtol=1e-12
        )
        far = tsallis_probabilities([1.0, 2.0], 1e300)
        assert far.sum() == 1.0
        assert far[0] == pytest.approx(1.0, abs=1e-12)

    def test_bad_input_is_refused(self):
        with pytest.raises(InvalidParameter, match="eta > 0"):
            tsallis_probabilities([1.0], 0.0)
        with pytest.raises(NotFinite, match="1 NaN"):
            tsallis_probabilities([1.0, np.nan], 1.0)


class TestRegret:
    @pytest.mark.parametrize("d", [2, 10])
    def test_it_is_within_the_adversarial_bound(self, d):
        T = 4000
        gap = np.sqrt(d / T)  # the lower bound's construction: a coin per arm, one slightly better
        phases = np.zeros((T, d))  # the good arm moves, each time to one that was bad so far
        for i in range(4):
            phases[i * T // 4 : (i + 1) * T // 4] = 1.0 - np.eye(d)[i % d]
        for name, losses in {
            "coins": (np.random.default_rng(1).random((T, d)) < 0.5 - gap * (np.arange(d) == 1)) * 1.0,
            "moving": phases,
        }.items():
            regret = np.mean([play(TsallisINF(d, scale=1.0), losses, seed=s) for s in range(8)])
            regret -= losses.sum(0).min()
            assert regret <= 4 * np.sqrt(d * T) + 1, name

    def test_on_a_stochastic_bandit_it_grows_as_the_logarithm(self):
        d, T, runs = 4, 16000, 8
        means = np.array([0.3, 0.6, 0.6, 0.6])
        half = full = 0.0
        for s in range(runs):
            losses = (np.random.default_rng(s).random((T, d)) < means) * 1.0
            policy = TsallisINF(d, scale=1.0).started(s)
            regret = np.zeros(T)
            for t, row in enumerate(losses):
                arm = policy.act()
                policy.learn(arm, row[arm])
                regret[t] = means[arm] - 0.3
            half, full = half + regret[: T // 4].sum() / runs, full + regret.sum() / runs
        # Four times the rounds add log 4 times a constant, where sqrt(T) would double the regret.
        assert full < 1.5 * half
        assert full < sum(4 / g for g in (0.3, 0.3, 0.3)) * np.log(T) + 50

    def test_chebcb_beats_the_best_fixed_arm_when_the_context_decides(self):
        rng = np.random.default_rng(0)
        contexts = rng.random(3000)
        losses = 10 * np.abs(contexts[:, None] - np.linspace(0, 1, 8)) + rng.random((3000, 8))
        totals = [play(ChebCB(8, 0.0, 1.0), losses, contexts, s) for s in range(3)]
        assert np.mean(totals) < 0.75 * losses.sum(0).min()


class TestChebyshevRegression:
    @pytest.mark.parametrize("unit", [1e-300, 1e-200, 1e100])
    def test_the_unit_of_the_losses_does_not_count(self, unit):
        def arms(scale):
            policy, rng, played = ChebCB(3, 0.0, 1.0).started(1), np.random.default_rng(0), []
            for context in rng.random(200):
                played.append(policy.act(context))
                policy.learn(played[-1], scale * [1.0, 0.2, 1.0][played[-1]] * (1 + 0.1 * rng.random()))
            return np.bincount(played, minlength=3)

        assert (
            abs(arms(unit) - arms(1.0)).max() <= 4
        )  # squares below 1e-308 are lost to the weight of a gap alone

    def test_it_is_exact_on_polynomials_of_lower_degree(self):
        rng = np.random.default_rng(0)
        policy = ChebCB(1, -1.0, 1.0, terms=4)

        def cubic(c):
            return 5 + c - 0.5 * c**2 + 0.2 * c**3

        for context in rng.uniform(-1, 1, 200):
            policy.learn(policy.act(context), cubic(context))
        expected = np.polynomial.chebyshev.poly2cheb([5, 1, -0.5, 0.2])
        np.testing.assert_allclose(policy.theta[0], expected, atol=1e-6)

    @given(seed=st.integers(0, 1000))
    def test_the_box_is_kept_and_the_fit_is_the_best_in_it(self, seed):
        rng = np.random.default_rng(seed)
        X, y, bound = rng.standard_normal((20, 4)), 3 * rng.standard_normal(20), 0.3 * rng.random(4) + 0.01
        theta, _ = box_least_squares(X.T @ X, X.T @ y, bound, np.zeros(4))
        best = lsq_linear(X, y, (-bound, bound), tol=1e-12)
        assert (np.abs(theta) <= bound).all()
        np.testing.assert_allclose(theta, best.x, atol=1e-5)

    def test_with_few_points_it_is_the_solution_of_least_norm(self):
        rng = np.random.default_rng(0)
        X, y = rng.standard_normal((2, 5)), rng.standard_normal(2)
        theta, constrained = box_least_squares(X.T @ X, X.T @ y, np.full(5, 100.0), np.zeros(5))
        assert not constrained
        np.testing.assert_allclose(theta, np.linalg.pinv(X) @ y, atol=1e-9)


class TestContract:
    @by_name
    def test_a_saved_policy_draws_the_same_arms(self, policy, tmp_path):
        rng = np.random.default_rng(0)
        contexts, losses = rng.random(60), rng.random((60, 4))
        whole = policy.started(3)
        arms = []
        for t in range(60):
            if t == 30:
                save_tree(tmp_path / "policy", whole.state_dict())
            arms.append(whole.act(contexts[t]))
            whole.learn(arms[-1], losses[t, arms[-1]])
        resumed = policy.started(99)
        resumed.load_state_dict(load_tree(tmp_path / "policy"))
        for t in range(30, 60):
            arm = resumed.act(contexts[t])
            resumed.learn(arm, losses[t, arm])
            assert arm == arms[t]

    @by_name
    def test_starting_a_copy_leaves_the_original_alone(self, policy):
        def arms():
            fresh = policy.started(7)
            return [fresh.act(0.3) for _ in range(10)]

        before, copy = arms(), policy.started(1)
        for _ in range(50):
            copy.learn(copy.act(0.5), 1.0)
        assert arms() == before

    def test_the_state_of_another_policy_is_refused(self):
        with pytest.raises(CheckpointMismatch, match="TsallisINF with 3 arms"):
            TsallisINF(4).load_state_dict(TsallisINF(3).state_dict())
        with pytest.raises(CheckpointMismatch, match="2 bins"):
            Binned(TsallisINF(3), 4, 0, 1).load_state_dict(Binned(TsallisINF(3), 2, 0, 1).state_dict())

    @pytest.mark.parametrize(
        ("saved", "here", "message"),
        [
            (ChebCB(3, 0.0, 1.0), ChebCB(3, 0.0, 10.0), "saved ChebCB has high=1.0; expected high=10.0"),
            (ChebCB(3, 0.0, 1.0, 4), ChebCB(3, 0.0, 1.0), "has terms=4; expected terms=6"),
            (TsallisINF(3, 2.0), TsallisINF(3), "has scale=2.0; expected scale=None"),
            (Fixed(3, 2), Fixed(3, 1), "has arm=2; expected arm=1"),
            (Binned(TsallisINF(3), 2, 0, 1), Binned(TsallisINF(3), 2, 0, 2), "has high=1; expected high=2"),
            (Binned(TsallisINF(3, 2.0), 2, 0, 1), Binned(TsallisINF(3), 2, 0, 1), "expected scale=None"),
        ],
    )
    def test_what_was_learned_with_other_settings_is_refused(self, saved, here, message):
        with pytest.raises(CheckpointMismatch, match=message):
            here.load_state_dict(saved.state_dict())

    @pytest.mark.parametrize("policy", POLICIES[1:], ids=lambda p: type(p).__name__)
    @pytest.mark.parametrize("unit", [2.0**-400, 2.0**400])
    def test_the_arms_are_the_same_for_losses_in_other_units(self, policy, unit, rng):
        losses, contexts = rng.random((60, 4)), rng.random(60)
        arms = []
        for factor in (1.0, unit):
            fresh, drawn = policy.started(1), []
            for row, context in zip(losses * factor, contexts, strict=True):
                drawn.append(fresh.act(context))
                fresh.learn(drawn[-1], row[drawn[-1]])
            arms.append(drawn)
        assert arms[0] == arms[1]

    @pytest.mark.parametrize("policy", [ChebCB(2, 0.0, 1.0), Binned(TsallisINF(2), 3, 0.0, 1.0)])
    def test_a_context_outside_the_range_is_told(self, policy):
        with pytest.warns(OutsideRange, match=r"outside \[0, 1\]"):
            policy.act(3.0)


class TestBadInput:
    def test_an_arm_that_could_not_have_been_drawn_is_refused(self):
        policy = TsallisINF(3)
        with pytest.raises(InvalidParameter, match="could not have been drawn"):
            policy.learn(0, 1.0)
        policy.act()
        with pytest.raises(InvalidParameter, match="arm 7"):
            policy.learn(7, 1.0)

    @pytest.mark.parametrize("loss", [True, "0.5", 1j, None, [0.1, 0.2], 1e200])
    def test_a_loss_that_is_no_number_of_a_usable_size_is_refused(self, loss):
        policy = ChebCB(2, 0.0, 1.0)
        arm = policy.act(0.5)
        with pytest.raises(InvalidParameter, match=f"The loss of arm {arm}"):
            policy.learn(arm, loss)
        policy.learn(arm, np.array([0.5]))

    @pytest.mark.parametrize("context", [True, "a", 1j, None, np.nan, [0.1, 0.2]])
    def test_a_context_that_is_no_number_is_refused(self, context):
        with pytest.raises(InvalidParameter, match=r"ChebCB\.act"):
            ChebCB(2, 0.0, 1.0).act(context)

    def test_an_arm_is_a_whole_number(self):
        policy = TsallisINF(2)
        policy.act()
        with pytest.raises(InvalidParameter, match="arm True"):
            policy.learn(True, 0.5)

    @pytest.mark.parametrize("loss", [-1.0, -1e-300])
    def test_a_negative_loss_is_finite_and_refused_for_its_sign(self, loss):
        policy = TsallisINF(3)
        arm = policy.act()
        with pytest.raises(InvalidParameter, match="must be >= 0: add a constant") as caught:
            policy.learn(arm, loss)
        assert not isinstance(caught.value, NotFinite)

    @pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
    def test_a_loss_that_is_no_number_is_refused(self, loss):
        policy = TsallisINF(3)
        arm = policy.act()
        with pytest.raises(NotFinite, match="loss of arm"):
            policy.learn(arm, loss)

    def test_a_missing_context_is_refused(self):
        with pytest.raises(InvalidParameter, match=r"The context of ChebCB\.act is a real number; got None"):
            ChebCB(2, 0.0, 1.0).act()

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: TsallisINF(0), "arms >= 1"),
            (lambda: TsallisINF(2, scale=-1.0), "scale > 0"),
            (lambda: ChebCB(2, 1.0, 1.0), "low < high"),
            (lambda: ChebCB(2, 0.0, 1.0, terms=0), "terms >= 1"),
            (lambda: Binned(TsallisINF(2), 0, 0.0, 1.0), "bins >= 1"),
            (lambda: Fixed(2, arm=2), "arm in 0"),
        ],
    )
    def test_parameters_outside_their_range_are_refused(self, make, message):
        with pytest.raises(InvalidParameter, match=message):
            make()
