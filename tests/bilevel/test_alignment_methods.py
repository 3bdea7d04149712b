"""Methods of alignment: they align, repeat bit for bit, go on where they stopped, and refuse what they cannot do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from thalweg import Checkpoint, Stop, solve
from thalweg.bilevel.alignment import (
    APARL,
    PEBBLE,
    SURF,
    Aligned,
    Alternation,
    CallbackTeacher,
    Episodes,
    GaussianPolicy,
    LikelihoodIsNotReturn,
    LinearReward,
    NetworkReward,
    OneSidedLabels,
    PairStore,
    PreferenceTask,
    SampledAPARL,
    ScriptedTeacher,
    Segments,
    TableReward,
    gridworld,
    reward_shaping,
    stackelberg,
)
from thalweg.core import InvalidParameter, InvalidProblem, UnknownName, recommended


def task(teacher=ScriptedTeacher(beta=3.0), **options):  # noqa: B008 -- frozen
    return PreferenceTask(gridworld(4, traps=3), TableReward(16, 4), teacher, **options)


def lives(reward=None, **options):
    world = gridworld(3, traps=1, horizon=8)
    return PreferenceTask(world, reward or TableReward(9, 4), ScriptedTeacher(beta=3.0), **options)


SMALL = NetworkReward(9, 4, hidden=(8,), networks=2)
CASES = {
    "exact": (task, APARL(), 12),
    "enumerated": (
        lambda: PreferenceTask(gridworld(2, 0, horizon=3), TableReward(4, 4), ScriptedTeacher()),
        APARL(),
        6,
    ),
    "sampled pairs": (lambda: task(length=6), APARL(pairs=20), 8),
    "all sampled": (lives, SampledAPARL(inner_steps=2, episodes=8, pairs=8, step_size=0.05), 4),
    "pebble": (lambda: lives(SMALL, length=4), PEBBLE(pretraining=40, updates=5, reward_updates=3), 6),
    "surf": (lambda: lives(SMALL, length=4), SURF(pretraining=40, updates=5, reward_updates=3, crop=2), 6),
}


def flat(x):
    return np.concatenate(x) if isinstance(x, Aligned) else x


@pytest.mark.parametrize("name", CASES)
def test_seeds_repeat_and_a_resumed_run_has_the_same_bits(name, tmp_path):
    make, method, steps = CASES[name]
    whole = solve(make(), method, stop=Stop(steps=steps), seed=3)
    again = solve(make(), method, stop=Stop(steps=steps), seed=3)
    np.testing.assert_array_equal(flat(again.x), flat(whole.x))
    solve(
        make(), method, stop=Stop(steps=steps // 2), callbacks=[Checkpoint(tmp_path / "run", every=2)], seed=3
    )
    resumed = solve(make(), method, stop=Stop(steps=steps), resume=tmp_path / "run", seed=3)
    np.testing.assert_array_equal(flat(resumed.x), flat(whole.x))


@pytest.mark.parametrize("name", ["sampled pairs", "all sampled", "pebble", "surf"])
def test_other_seeds_give_other_runs(name):
    make, method, steps = CASES[name]
    a, b = (solve(make(), method, stop=Stop(steps=steps), seed=seed) for seed in (0, 1))
    assert (flat(a.x) != flat(b.x)).any()


class TestAlignment:
    def test_the_default_reaches_the_policy_of_the_true_reward(self):
        assert solve(task(), APARL(), stop=Stop(steps=60)).metrics["share"] >= 0.97

    def test_the_default_is_recommended_and_stops_by_itself(self):
        assert recommended(task()) == APARL()
        assert recommended(task(length=5)) == APARL(pairs=64)
        assert recommended(lives()) == SampledAPARL()
        assert recommended(reward_shaping(gridworld(3), np.ones(9))) == APARL("utility")
        assert solve(task()).steps == 150

    def test_the_likelihood_is_raised_by_the_term_and_the_return_falls(self):
        with pytest.warns(LikelihoodIsNotReturn, match="easy to tell apart"):
            literal = solve(task(), APARL("loglik"), stop=Stop(steps=100)).metrics
        usual = solve(task(), Alternation(), stop=Stop(steps=100)).metrics
        assert literal["loglik"] > usual["loglik"] + 0.01
        assert literal["return"] < 0.85 * usual["return"]

    def test_scores_move_the_reward_only_through_the_policy(self):
        shaped = reward_shaping(gridworld(4, 3), gridworld(4, 3).reward)
        with_term = solve(shaped, APARL("utility"), stop=Stop(steps=60))
        without = solve(shaped, APARL("utility", term="off"), stop=Stop(steps=60))
        assert with_term.metrics["share"] >= 0.97
        np.testing.assert_array_equal(without.x, 0.0)

    def test_a_leader_pays_where_it_gains_more(self):
        """One state, two actions, no discount: maximise pi(nu) - c nu^2, whose best nu a grid search knows."""
        from thalweg.bilevel.alignment import TabularMDP

        leader = stackelberg(
            TabularMDP(np.ones((1, 2, 1)), discount=0.0),
            [[1.0, 0.0]],
            [[[0.0], [1.0]]],
            [[0.0, 1.0]],
            entropy=0.5,
        )
        found = solve(leader, APARL("utility", penalty=0.05), stop=Stop(steps=800))
        nu = np.linspace(0, 4, 400_001)
        best = nu[np.argmax(1 / (1 + np.exp((1 - nu) / 0.5)) - 0.05 * nu**2)]
        assert found.x[0] == pytest.approx(best, abs=1e-3)

    def test_stored_labels_are_fitted_by_penalised_likelihood(self):
        """One pair of two single steps: the slope of both entries vanishes, with r = nu_1 = -nu_2."""
        pairs = PairStore(Segments([[3]], [[1]]), Segments([[2]], [[0]]), [1.0])
        found = solve(task(None, store=pairs), Alternation(penalty=0.1), stop=Stop(steps=1500))
        r = found.x[3 * 4 + 1]
        assert r == pytest.approx((1 / (1 + np.exp(2 * r))) / 0.2, abs=1e-4)
        assert found.x[2 * 4] == pytest.approx(-r, abs=1e-6)

    def test_everything_sampled_learns_too(self):
        method = SampledAPARL(step_size=0.05, policy_step=0.05, inner_steps=4, episodes=24, pairs=48)
        assert solve(lives(entropy=0.05), method, stop=Stop(steps=25)).metrics["share"] > 0.5

    @pytest.mark.parametrize("inverse", ["cg", "neumann", "dense"])
    def test_all_inverses_and_models_run(self, inverse):
        phi = np.random.default_rng(0).standard_normal((9, 4, 3))
        method = SampledAPARL("versus", inverse=inverse, term="on", inner_steps=1, episodes=16, pairs=8)
        found = solve(lives(LinearReward(phi)), method, stop=Stop(steps=2))
        assert {"term", "cosine", "noise", "damping", "clipped", "lower_gradient"} <= set(found.history.names)
        assert np.isfinite(found.x.reward).all()
        assert (found.x.reward != 0).any()

    def test_few_pairs_leave_a_noisy_term_out(self):
        found = solve(task(length=10), APARL(pairs=4), stop=Stop(steps=20)).history
        used, term, noise = (np.array(found[name]) for name in ("used", "term", "noise"))
        np.testing.assert_array_equal(used == 1, term**2 > 2 * noise**2)
        assert used.mean() < 0.6

    def test_teachers_who_skip_or_are_asked_are_counted(self):
        silent = CallbackTeacher(lambda a, b: [None] * len(a))
        found = solve(task(silent, length=3), APARL(pairs=5), stop=Stop(steps=3))
        assert found.calls == 15
        np.testing.assert_array_equal(found.x, 0.0)
        assert "answered none of the last step's 5 pairs" in found.message
        sampled = SampledAPARL(inner_steps=1, episodes=4, pairs=4)
        world = gridworld(2, 0, horizon=3)
        found = solve(PreferenceTask(world, TableReward(4, 4), silent), sampled, stop=Stop(steps=1))
        assert "answered none of the last step's 4 pairs" in found.message


class TestNetworks:
    def test_a_pole_is_balanced_by_preferences(self):
        world = Episodes("CartPole-v1", 40)
        model = LinearReward(lambda s, a: np.concatenate([np.ones_like(s[..., :1]), s**2], -1), size=5)
        balance = PreferenceTask(world, model, ScriptedTeacher(), length=20, entropy=0.01)
        method = SampledAPARL(step_size=0.05, policy_step=0.03, inner_steps=4, episodes=8, pairs=8)
        returns = solve(balance, method, stop=Stop(steps=8)).history["return"]
        assert returns[-1] > returns[0] + 5

    def test_a_pendulum_has_actions_that_are_vectors(self):
        world = Episodes("Pendulum-v1", 10)
        assert isinstance(world.policy(), GaussianPolicy)
        model = NetworkReward(3, 1, False, False, hidden=(8,), networks=2)
        swing = PreferenceTask(world, model, ScriptedTeacher(), length=5)
        method = SampledAPARL(inner_steps=1, episodes=4, pairs=4)
        assert np.isfinite(solve(swing, method, stop=Stop(steps=2)).metrics["return"])
        with pytest.raises(InvalidProblem, match="PEBBLE needs numbered actions"):
            solve(swing, PEBBLE(), stop=Stop(steps=1))

    def test_labels_are_bought_within_their_number_and_where_the_ensemble_doubts(self):
        seen = []

        def ask(first, second):
            seen.append(len(first))
            return [1.0] * len(first)

        buyer = PreferenceTask(gridworld(3, 1, horizon=8), SMALL, CallbackTeacher(ask), length=4)
        method = PEBBLE(queries=4, labels=10, pretraining=0, updates=2, reward_updates=2)
        found = solve(buyer, method, stop=Stop(steps=6))
        assert seen == [4, 4, 2]
        assert found.calls == 10

    def test_an_answer_of_episodes_is_a_pair(self):
        balance = PreferenceTask(Episodes("CartPole-v1", 20), NetworkReward(4, 2, False), ScriptedTeacher())
        with pytest.raises(InvalidProblem, match=r"is an Aligned\(reward, policy\)"):
            balance.metrics(balance.reward.start(0))


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "method", "message"),
        [
            (lambda: task(length=5), APARL(), r"compare single steps; length is 5\. Give pairs="),
            (lambda: task(CallbackTeacher(lambda a, b: a)), APARL(), "need a table and a ScriptedTeacher"),
            (lambda: task(ScriptedTeacher(skip=0.0)), APARL(), "no teacher who skips pairs"),
            (task, APARL("utility"), r"'utility' needs PreferenceTask\(scores=\)"),
            (lambda: task(entropy=0.0, ridge=0.1), APARL(), "solved with entropy > 0 and ridge = 0"),
            (lambda: lives(entropy=0.1), APARL(), "solved with ridge > 0 and entropy = 0"),
            (lives, APARL(), "more than 3000 trajectories"),
            (lives, APARL(pairs=4), "need a TabularMDP without horizon"),
            (task, SampledAPARL(), r"plays whole lives: give TabularMDP\(horizon=\)"),
            (task, PEBBLE(), "PEBBLE plays whole lives"),
            (
                lambda: PreferenceTask(
                    Episodes("CartPole-v1", 5), NetworkReward(4, 2, False), ScriptedTeacher()
                ),
                APARL(),
                "for Episodes take SampledAPARL",
            ),
        ],
    )
    def test_what_a_method_cannot_do_is_told(self, make, method, message):
        with pytest.raises(InvalidProblem, match=message):
            solve(make(), method, stop=Stop(steps=1))

    def test_stored_pairs_have_no_term(self):
        pairs = PairStore(Segments([[3]], [[1]]), Segments([[2]], [[0]]), [1.0])
        with pytest.raises(InvalidProblem, match="do not come from the policy"):
            solve(task(None, store=pairs), APARL(), stop=Stop(steps=1))

    def test_one_sided_labels_need_a_penalty(self):
        with pytest.warns(OneSidedLabels):
            pairs = PairStore(Segments([[3], [1]], [[1], [1]]), Segments([[2], [0]], [[0], [0]]), [1, 1])
        with pytest.raises(InvalidProblem, match="All 2 stored labels prefer the same side"):
            solve(task(None, store=pairs), Alternation(penalty=0.0), stop=Stop(steps=1))

    def test_an_unfinished_lower_level_is_told(self):
        found = solve(task(), APARL(inner_steps=1, step_size=3.0), stop=Stop(steps=3))
        assert "The lower level is left at a gap of" in found.message
        assert found.history["lower_gap"][-1] > 1e-6

    @pytest.mark.parametrize(
        ("kind", "options", "error", "message"),
        [
            (APARL, {"objective": "likelihood"}, UnknownName, "No objective 'likelihood'"),
            (APARL, {"term": "maybe"}, UnknownName, "No term 'maybe'"),
            (APARL, {"pairs": 0}, InvalidParameter, "pairs >= 1"),
            (APARL, {"step_size": 0.0}, InvalidParameter, "step_size > 0"),
            (Alternation, {"penalty": -1.0}, InvalidParameter, "Alternation needs penalty >= 0"),
            (SampledAPARL, {"inverse": "lu"}, UnknownName, "No inverse 'lu'"),
            (SampledAPARL, {"episodes": 1}, InvalidParameter, "episodes >= 2"),
            (PEBBLE, {"queries": 0}, InvalidParameter, "queries >= 1"),
            (SURF, {"confidence": 1.0}, InvalidParameter, "confidence in"),
        ],
    )
    def test_options_out_of_range(self, kind, options, error, message):
        with pytest.raises(error, match=message):
            kind(**options)

    def test_a_store_beside_a_teacher_counts(self):
        pairs = PairStore(Segments([[15]], [[1]]), Segments([[0]], [[0]]), [1.0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = solve(task(store=pairs), APARL(), stop=Stop(steps=2))
        alone = solve(task(), APARL(), stop=Stop(steps=2))
        assert (found.x != alone.x).any()
