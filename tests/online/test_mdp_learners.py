"""Learners of episodes: one at a time and in blocks, resumed, against bandits, theory's rates, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg import Checkpoint, Stop, compare, solve
from thalweg.core import CheckpointMismatch, InvalidParameter, NotFinite
from thalweg.core.seeding import generator
from thalweg.core.tree import load_tree, save_tree
from thalweg.online.mdp import (
    AdversarialMDP,
    Dynamics,
    LogBarrier,
    LuoWeiLee,
    MagnitudeReduced,
    PlainEntropy,
    UniformPolicy,
    dilated_bonus,
    entropy_probabilities,
    fixed_losses,
    inverse_covariance,
    log_barrier_probabilities,
    negative_mean,
    plain_estimates,
    random_linear_mdp,
    reduced_estimates,
    sinusoidal_losses,
    tabular,
)
from thalweg.online.mdp import _kernels as kernels
from thalweg.online.mdp.constants import log_barrier_schedule, luo_schedule, reduced_schedule

LEARNERS = [MagnitudeReduced(), LogBarrier(), LuoWeiLee(), PlainEntropy(), UniformPolicy()]
by_name = pytest.mark.parametrize("method", LEARNERS, ids=lambda m: type(m).__name__)


@pytest.fixture(scope="module")
def problem():
    world = random_linear_mdp(6, 3, 3, 3, seed=1)
    return AdversarialMDP(dynamics=world, losses=sinusoidal_losses(world, 70, seed=1))


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    world = tabular(rng.dirichlet(np.ones(3), (2, 3, 2)))
    return AdversarialMDP(dynamics=world, losses=rng.random((60, 2, 3, 2)))


def one_by_one(problem, learner, seed):
    """The policies of a learner that is told each loss by itself, in a world of tables."""
    world, d, policies = generator(seed, 1), problem.dynamics, []
    for losses in problem.losses:
        state = int(kernels.choose(world, d.start))
        for h in range(d.layers):
            action = learner.act(state)
            if h == 0:
                policies.append(learner.policy.copy())
            loss = float(losses[h, state, action])
            if h < d.layers - 1:
                state = int(kernels.draw(world, d.sums[h, state, action]))
            learner.learn(loss)
    return np.array(policies)


class TestPlay:
    @by_name
    def test_one_episode_at_a_time_is_the_same_as_blocks(self, problem, method):
        result = solve(problem, method, seed=5)
        learner = method.learner(problem.dynamics, problem.episodes, seed=5)
        np.testing.assert_array_equal(one_by_one(problem, learner, 5), result.x)
        assert result.converged
        assert result.steps == 4

    @by_name
    def test_a_resumed_run_has_the_same_bits(self, problem, method, tmp_path):
        whole = solve(problem, method, seed=2)
        path = tmp_path / "run"
        solve(problem, method, seed=2, stop=Stop(steps=2), callbacks=[Checkpoint(path, every=1)])
        resumed = solve(problem, method, seed=2, resume=path)
        np.testing.assert_array_equal(resumed.x, whole.x)
        assert resumed.metrics == whole.metrics

    def test_blocks_change_nothing(self, problem):
        whole = solve(problem, MagnitudeReduced(block=1)).x
        np.testing.assert_array_equal(solve(problem, MagnitudeReduced(block=33)).x, whole)
        for covariance in ("monte-carlo", "resampling"):
            one, many = (
                solve(problem, LogBarrier(covariance=covariance, samples=200, block=b)).x for b in (1, 33)
            )
            np.testing.assert_array_equal(one, many)

    def test_the_metrics_of_steps_are_the_problems(self, problem):
        result = solve(problem, LogBarrier(block=7))
        at, curve = problem.curve(result.x, points=problem.episodes)
        np.testing.assert_array_equal(at, np.arange(1, 71))
        np.testing.assert_allclose(result.history["regret"], curve[6::7], atol=1e-9)
        assert result.metrics["regret"] == pytest.approx(result.history["regret"][-1], abs=1e-9)

    def test_an_episode_is_learned_from_as_the_paper_writes_it(self, problem):
        """Two episodes of both algorithms written down by the public parts."""
        for method, leader, reduced in (
            (MagnitudeReduced(beta=0.1), entropy_probabilities, True),
            (LogBarrier(beta=0.1), log_barrier_probabilities, False),
        ):
            learner, d = method.learner(problem.dynamics, problem.episodes), problem.dynamics
            known = learner.constants
            total = np.zeros((3, 6, 3))
            for losses in problem.losses[:2]:
                state, path = 0, []
                for h in range(3):
                    action = learner.act(state)
                    path.append((state, action, losses[h, state, action]))
                    learner.learn(path[-1][-1])
                    state = (state + action) % 6
                policy = leader(total, known.eta)
                np.testing.assert_allclose(learner.policy, policy, rtol=1e-9)
                local, chances = np.empty((3, 6, 3)), d.start
                for h in range(3):
                    rows, weights = d.features[h].reshape(-1, 3), (chances[:, None] * policy[h]).ravel()
                    S = inverse_covariance(rows, known.gamma, weights)
                    played, lost = path[h][0] * 3 + path[h][1], sum(p[-1] for p in path[h:])
                    if reduced:
                        mean = negative_mean(rows, S, weights)
                        found = reduced_estimates(rows, S, played, lost, 3 - h, mean)
                    else:
                        found = plain_estimates(rows, S, played, lost)
                    norms = np.einsum("id,de,ie->i", rows, S, rows).reshape(6, 3)
                    local[h] = known.beta * (norms + (policy[h] * norms).sum(1, keepdims=True))
                    total[h] += found.reshape(6, 3)
                    chances = weights @ d.transitions[h].reshape(-1, 6)
                total -= dilated_bonus(local, d.transitions, policy)
            np.testing.assert_allclose(learner.cumulative, total, rtol=1e-9, atol=1e-9)

    def test_unit_vectors_are_learned_from_as_any_features(self, table):
        """A rotation keeps all inner products, and hides that covariances are diagonal."""
        d = table.dynamics
        turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
        turned = AdversarialMDP(dynamics=Dynamics(d.features @ turn, d.transitions), losses=table.losses)
        assert d.is_tabular
        assert not turned.dynamics.is_tabular
        for method in (MagnitudeReduced(), LogBarrier()):
            np.testing.assert_allclose(solve(table, method).x, solve(turned, method).x, atol=1e-7)

    @by_name
    def test_one_action_has_no_regret(self, method):
        world = random_linear_mdp(5, 1, 3, 3)
        found = solve(AdversarialMDP(dynamics=world, losses=fixed_losses(world, 50)), method)
        np.testing.assert_array_equal(found.x, 1.0)
        assert found.metrics["regret"] == pytest.approx(0.0, abs=1e-9)

    def test_compare_takes_them(self, problem):
        found = compare(problem, {"ours": MagnitudeReduced(), "uniform": UniformPolicy()}, seeds=(0,))
        assert len(found.rows) == 2
        assert all(row["status"] == "converged" for row in found.rows)


class TestBandit:
    """One layer, one state, unit vectors: importance weighting by ``p + gamma``."""

    @pytest.mark.parametrize(
        ("method", "leader"),
        [(PlainEntropy(eta=0.3, gamma=1e-9, beta=0.0), entropy_probabilities),
         (LogBarrier(eta=0.3, gamma=1e-9, beta=0.0), log_barrier_probabilities)],
        ids=["EXP3", "log-barrier"],
    )  # fmt: skip
    def test_it_is_the_bandit_of_its_regulariser(self, method, leader):
        losses = np.random.default_rng(0).random((80, 1, 1, 3))
        bandit = AdversarialMDP(np.eye(3)[None], np.ones((1, 3, 1)), losses)
        found = solve(bandit, method, seed=4)
        cumulative, rng = np.zeros(3), generator(4)
        for k in range(80):
            p = leader(cumulative, 0.3)
            np.testing.assert_allclose(found.x[k, 0, 0], p, rtol=1e-6)
            arm = int(np.searchsorted(np.cumsum(p), rng.random() * np.cumsum(p)[-1], side="right"))
            cumulative[arm] += losses[k, 0, 0, arm] / (p[arm] + 1e-9)


class TestRegret:
    @pytest.mark.parametrize("method", [MagnitudeReduced(), LogBarrier()], ids=lambda m: type(m).__name__)
    def test_it_falls_well_below_the_uniform_policys(self, method):
        world = random_linear_mdp(seed=0)
        problem = AdversarialMDP(dynamics=world, losses=fixed_losses(world, 2000, seed=0))
        ours, uniform = (solve(problem, m).metrics["regret"] for m in (method, UniformPolicy()))
        assert ours < 0.4 * uniform

    @pytest.mark.parametrize(
        ("exact", "sampled"),
        [
            (LogBarrier(gamma=0.1), LogBarrier(gamma=0.1, covariance="monte-carlo")),
            (LogBarrier(gamma=0.1), LogBarrier(gamma=0.1, covariance="resampling", samples=500)),
            (MagnitudeReduced(), MagnitudeReduced(covariance="monte-carlo")),
        ],
        ids=["monte-carlo", "resampling", "mean of negatives"],
    )
    def test_samples_do_nearly_as_well_as_exact_expectations(self, exact, sampled):
        """Means over six runs, each of which varies by a fifth."""
        world = random_linear_mdp(seed=0)
        problem = AdversarialMDP(dynamics=world, losses=fixed_losses(world, 400, seed=0))
        one, other = (
            np.mean([solve(problem, m, seed=s).metrics["regret"] for s in range(6)]) for m in (exact, sampled)
        )
        assert other < 1.25 * one

    def test_reduced_estimates_are_never_as_low_as_plain_ones(self, problem):
        for gamma in (0.1, 1e-2, 1e-4):
            low = {}
            for method in (MagnitudeReduced(gamma=gamma), PlainEntropy(gamma=gamma)):
                learner = method.learner(problem.dynamics, problem.episodes)
                learner.run(problem.losses, generator(1), np.empty(problem.losses.shape))
                low[type(method).__name__] = learner.least
            assert low["MagnitudeReduced"] >= -3.0 / np.sqrt(gamma)
            assert low["PlainEntropy"] < low["MagnitudeReduced"]


class TestConstants:
    @given(
        episodes=st.integers(1, 10**9),
        actions=st.integers(1, 100),
        d=st.integers(1, 100),
        layers=st.integers(1, 50),
    )
    def test_theorys_conditions_hold(self, episodes, actions, d, layers):
        for schedule in (log_barrier_schedule("theory"), reduced_schedule("theory")):
            known = schedule(episodes, actions, d, layers)
            assert 8 * known.eta * layers**2 <= known.beta * (1 + 1e-9)
            assert 12 * known.eta * known.beta * layers**2 <= known.gamma * (1 + 1e-9)
        for which in ("theory", "practical"):
            luo = luo_schedule(which)(episodes, actions, d, layers)
            assert luo.gamma >= 2 * luo.eta * layers

    def test_gamma_of_luo_wei_and_lee_follows_eta(self, problem):
        known = LuoWeiLee(eta=0.5).learner(problem.dynamics, 70).constants
        assert (known.eta, known.gamma) == (0.5, 3.0)
        with pytest.raises(InvalidParameter, match="eta >= 0; got -1"):
            LuoWeiLee(eta=-1.0)

    def test_doubling_begins_anew_at_each_stage(self, problem):
        learner = MagnitudeReduced().learner(problem.dynamics)
        etas = []
        for k in range(200):
            if k in (63, 64, 191, 192):
                etas.append(learner.constants.eta)
            for _ in range(3):
                learner.act(0)
                learner.learn(0.5)
            if k == 64:
                assert np.abs(learner.cumulative).max() < 500
        np.testing.assert_allclose(np.divide(etas, etas[0]) ** -2, [1, 1, 2, 2])

    def test_doubling_resumes_and_blocks_agree(self, problem, tmp_path):
        whole = solve(problem, MagnitudeReduced(doubling=True, block=1)).x
        np.testing.assert_array_equal(solve(problem, MagnitudeReduced(doubling=True, block=50)).x, whole)
        np.testing.assert_array_equal(whole[64], 1 / 3)  # the second stage knows nothing
        assert np.ptp(whole[63]) > 0


class TestContract:
    def test_a_saved_learner_goes_on_in_the_middle_of_an_episode(self, problem, tmp_path):
        learner = MagnitudeReduced().learner(problem.dynamics, 70, seed=3)
        for _ in range(4):
            learner.learn(0.3 + 0.1 * learner.act(1))
        learner.act(2)
        save_tree(tmp_path / "learner", learner.state_dict())
        other = MagnitudeReduced().learner(problem.dynamics, 70, seed=9)
        other.load_state_dict(load_tree(tmp_path / "learner"))
        actions = []
        for each in (learner, other):
            each.learn(0.9)
            found = []
            for _ in range(30):
                found.append(each.act(0))
                each.learn(0.2 * found[-1])
            actions.append(found)
        assert actions[0] == actions[1]

    def test_a_state_of_another_learner_is_refused(self, problem):
        learner = MagnitudeReduced().learner(problem.dynamics, 70)
        with pytest.raises(CheckpointMismatch, match="another kind"):
            learner.load_state_dict(LogBarrier().learner(problem.dynamics, 70).state_dict())
        with pytest.raises(CheckpointMismatch, match="made for 71 episodes; expected 70"):
            learner.load_state_dict(MagnitudeReduced().learner(problem.dynamics, 71).state_dict())
        with pytest.raises(CheckpointMismatch, match=r"has \(eta, gamma, beta\) = "):
            learner.load_state_dict(MagnitudeReduced(gamma=0.3).learner(problem.dynamics, 70).state_dict())
        wider = MagnitudeReduced().learner(random_linear_mdp(7, 3, 3, 3), 70)
        with pytest.raises(CheckpointMismatch, match=r"shape \(3, 7, 3\); expected \(3, 6, 3\)"):
            learner.load_state_dict(wider.state_dict())

    def test_rounds_out_of_order_are_refused(self, problem):
        learner = MagnitudeReduced().learner(problem.dynamics, 70)
        with pytest.raises(InvalidParameter, match="draw an action first"):
            learner.learn(0.5)
        learner.act(0)
        with pytest.raises(InvalidParameter, match="tell the loss of the last action first"):
            learner.act(0)
        with pytest.raises(InvalidParameter, match="an episode is under way"):
            learner.run(problem.losses, generator(1), np.empty(problem.losses.shape))

    def test_bad_losses_and_states_are_refused(self, problem):
        learner = MagnitudeReduced().learner(problem.dynamics, 70)
        for state in (-1, 6, 1.5, True):
            with pytest.raises(InvalidParameter, match=r"A state is a number in 0 .. 5"):
                learner.act(state)
        learner.act(np.int64(3))
        with pytest.raises(NotFinite, match="The loss of layer 0 is nan"):
            learner.learn(np.nan)
        with pytest.raises(InvalidParameter, match=r"loss of layer 0 lies in \[0, 1\].*got 1.5"):
            learner.learn(1.5)
        learner.learn(np.float32(0.5))

    def test_bad_options_are_refused(self, problem):
        for make, words in (
            (lambda: MagnitudeReduced(gamma=0.0), "gamma >= 1e-12; got 0.0"),
            (lambda: LogBarrier(eta=-1.0), "eta >= 0; got -1.0"),
            (lambda: LogBarrier(beta=np.nan), "beta >= 0; got nan"),
            (lambda: LogBarrier(constants="best"), "constants is one of practical, theory; got 'best'"),
            (
                lambda: LogBarrier(covariance="svd"),
                "covariance is one of exact, monte-carlo, resampling; got 'svd'",
            ),
            (lambda: LogBarrier(samples=0), "samples is a whole number >= 1"),
            (lambda: LogBarrier(block=0), "block >= 1"),
            (lambda: LogBarrier().learner(problem.dynamics, 0), "episodes >= 1"),
        ):
            with pytest.raises(InvalidParameter, match=words):
                make()

    def test_estimates_beyond_all_numbers_end_the_run(self, problem):
        found = solve(problem, LogBarrier(beta=1e308))
        assert found.status.value == "diverged"
        assert "no longer finite" in found.message
