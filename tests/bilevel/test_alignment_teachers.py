"""Teachers answer by their law, stores hold what people said, and bad input is told in a line."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import chisquare

from thalweg.bilevel.alignment import (
    CallbackTeacher,
    Episodes,
    GaussianPolicy,
    InconsistentTeacher,
    LinearReward,
    NetworkPolicy,
    NetworkReward,
    OneSidedLabels,
    PairStore,
    PreferenceTask,
    ScriptedTeacher,
    Segments,
    TablePolicy,
    TableReward,
    TabularMDP,
    gridworld,
    load_preferences,
    reward_shaping,
    save_preferences,
    stackelberg,
    tabular_gymnasium,
)
from thalweg.bilevel.alignment.segments import joined
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName, UnreadableFile

N = 20_000


def answers(teacher, ahead=0.4, n=N, seed=0):
    """To n pairs of single steps, the first better by ``ahead``."""
    first = np.full((n, 1), 1.0 + ahead)
    return teacher.answers(first, np.ones((n, 1)), np.random.default_rng(seed))


class TestScripted:
    @pytest.mark.parametrize(("beta", "mistakes"), [(1.0, 0.0), (5.0, 0.0), (5.0, 0.2)])
    def test_frequencies_are_those_of_bradley_and_terry_with_mistakes(self, beta, mistakes):
        teacher = ScriptedTeacher(beta=beta, mistakes=mistakes)
        first = float((answers(teacher) == 1.0).sum())
        p = (1 - 2 * mistakes) * expit(0.4 * beta) + mistakes
        assert teacher.probability(np.array(1.4), np.array(1.0)) == pytest.approx(p)
        assert chisquare([first, N - first], [N * p, N * (1 - p)]).pvalue > 1e-3

    def test_a_rational_teacher_is_always_right_and_ties_are_ties(self):
        teacher = ScriptedTeacher(beta=0)
        assert (answers(teacher, 1e-9) == 1.0).all()
        assert (answers(teacher, -1e-9) == 0.0).all()
        assert (answers(teacher, 0.0) == 0.5).all()

    def test_the_discount_weighs_the_end_of_a_segment(self):
        early, late = np.array([[1.0, 0.0]]), np.array([[0.0, 0.9]])
        assert ScriptedTeacher(beta=0).answers(early, late, np.random.default_rng(0)) == 1.0
        assert ScriptedTeacher(beta=0, discount=0.5).answers(early, late, np.random.default_rng(0)) == 0.0

    def test_thresholds_skip_and_level(self):
        assert np.isnan(answers(ScriptedTeacher(skip=2.0))).all()
        assert not np.isnan(answers(ScriptedTeacher(skip=1.2))).any()
        assert (answers(ScriptedTeacher(equal=0.5)) == 0.5).all()

    def test_rewards_that_are_nan_are_refused(self):
        with pytest.raises(NotFinite, match="NaN or infinity; the teacher cannot compare"):
            ScriptedTeacher().answers(np.array([[np.nan]]), np.ones((1, 1)), np.random.default_rng(0))

    @pytest.mark.parametrize(
        ("option", "value"),
        [("beta", np.nan), ("discount", 0.0), ("mistakes", 0.6), ("equal", -1.0), ("skip", np.nan)],
    )
    def test_options_out_of_range(self, option, value):
        with pytest.raises(InvalidParameter, match=option):
            ScriptedTeacher(**{option: value})


class TestCallback:
    pairs = (
        Segments(np.arange(50)[:, None], np.zeros((50, 1), dtype=int)),
        Segments(np.arange(50)[::-1][:, None], np.zeros((50, 1), dtype=int)),
    )

    def test_answers_come_through(self):
        said = [1, 0, 0.5, None] * 12 + [1, 1]
        found = CallbackTeacher(lambda a, b: said).label(*self.pairs, None, np.random.default_rng(0))
        np.testing.assert_array_equal(found[:3], [1.0, 0.0, 0.5])
        assert np.isnan(found[3])

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ([1.0], "gave 1 answers to 50 pairs"),
            ([2.0] * 50, "answered 2 to pair 0; expected 1"),
            (np.ones((50, 2)), "gave 0 answers"),
        ],
    )
    def test_answers_that_are_none_are_refused(self, said, message):
        with pytest.raises(InvalidProblem, match=message):
            CallbackTeacher(lambda a, b: said).label(*self.pairs, None, np.random.default_rng(0))

    def test_one_who_always_says_the_first_contradicts_himself(self):
        always = CallbackTeacher(lambda a, b: [1] * len(a), checked=1.0, mistakes=0.1)
        with pytest.warns(
            InconsistentTeacher, match=r"contradicts itself on 50 of 50 pairs; mistakes=0.1 explains 9"
        ):
            always.label(*self.pairs, None, np.random.default_rng(0))

    def test_one_within_the_declared_mistakes_is_left_alone(self):
        rng = np.random.default_rng(0)

        def ask(a, b):
            right = (a.observations > b.observations)[:, 0]
            return np.where(right ^ (rng.random(len(a)) < 0.1), 1.0, 0.0)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CallbackTeacher(ask, mistakes=0.1, checked=1.0).label(*self.pairs, None, np.random.default_rng(0))
        with pytest.warns(InconsistentTeacher):
            CallbackTeacher(ask, mistakes=0.0, checked=1.0).label(*self.pairs, None, np.random.default_rng(0))


def segments(rows):
    return Segments(np.array(rows), np.zeros_like(rows))


class TestStore:
    @pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv", "pairs.npz"])
    def test_what_is_written_is_read(self, name, tmp_path):
        first, second = segments([[0, 1], [2, 3], [4, 4], [1, 1]]), segments([[5, 5], [0, 0], [1, 2], [3, 3]])
        save_preferences(tmp_path / name, first, second, [1, 0, 0.5, None])
        found = load_preferences(tmp_path / name)
        np.testing.assert_array_equal(found.targets, [1.0, 0.0, 0.5])
        np.testing.assert_array_equal(found.first.observations, first.observations[:3])
        np.testing.assert_array_equal(found.second.actions, second.actions[:3])

    def test_a_table_filled_in_by_hand_with_semicolons_and_capitals(self, tmp_path):
        (tmp_path / "hand.csv").write_text(
            "preferred;first;second\r\nFirst;0:1 2:0;1:1 3:0\r\nEQUAL;0:0 0:0;1:0 1:0\r\n"
        )
        found = load_preferences(tmp_path / "hand.csv")
        np.testing.assert_array_equal(found.targets, [1.0, 0.5])
        np.testing.assert_array_equal(found.first.observations[0], [0, 2])

    @pytest.mark.parametrize(
        ("text", "kind", "message"),
        [
            (
                "first,second,preferred\n0:1,1:1,left\n",
                InvalidProblem,
                "row 1 prefers 'left'; expected first, second",
            ),
            (
                "first,second,preferred\n0-1,1:1,first\n",
                InvalidProblem,
                "row 1, column 'first': '0-1'; expected steps",
            ),
            (
                "first,second,preferred\n0:1 1:1,1:1,first\n",
                InvalidProblem,
                "row 1 has segments of 2 and 1 steps",
            ),
            (
                "first,second,preferred\n0:1,1:1,first\n0:1 1:1,1:1 1:1,second\n",
                InvalidProblem,
                "row 2 has segments of 2 and 2 steps, the first row 1",
            ),
            ("first,other,preferred\n0:1,1:1,first\n", UnreadableFile, "no column 'second'"),
            ("first,second,better\n0:1,1:1,first\n", UnknownName, "preferred"),
            ("first,second,preferred\n", UnreadableFile, "no rows"),
            ("first,second,preferred\n0:1,1:1,skip\n", InvalidProblem, "no pair has an answer"),
            ("first,second,preferred\n0:1,1:1,equal\n", InvalidProblem, "all 1 answers are ties"),
        ],
    )
    def test_files_that_cannot_be_used_say_why(self, text, kind, message, tmp_path):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(kind, match=message):
            load_preferences(tmp_path / "bad.csv")

    def test_arrays_that_are_missing_are_named(self, tmp_path):
        np.savez(tmp_path / "bad.npz", first_observations=np.zeros((1, 1), dtype=int))
        with pytest.raises(UnreadableFile, match="lacks first_actions"):
            load_preferences(tmp_path / "bad.npz")

    def test_vectors_do_not_go_into_a_table(self, tmp_path):
        vectors = Segments(np.zeros((1, 2, 3)), np.zeros((1, 2), dtype=int))
        with pytest.raises(InvalidProblem, match=r"go into \.npz"):
            save_preferences(tmp_path / "a.csv", vectors, vectors)

    def test_one_sided_labels_are_told(self):
        with pytest.warns(OneSidedLabels, match="All 2 decided pairs prefer the first"):
            PairStore(segments([[0], [1]]), segments([[1], [2]]), [1, 1])

    def test_repeated_pairs_that_contradict_are_told(self):
        first, second = segments([[0]] * 12), segments([[1]] * 12)
        with pytest.warns(InconsistentTeacher, match="contradicts itself on 6 of 11 pairs"):
            PairStore(first, second, [1, 0] * 6)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            PairStore(first, second, [1, 0] * 6, mistakes=0.4)

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            (["1", "0"], "answered '1' to pair 0; expected a number"),
            (["first", "second"], "answered 'first' to pair 0; expected a number"),
            ([1j, 0], "answered 1j to pair 0; expected a number"),
            ([2, 0], "answered 2 to pair 0"),
        ],
    )
    def test_labels_that_are_no_numbers_are_refused(self, targets, message):
        with pytest.raises(InvalidProblem, match=message):
            PairStore(segments([[0], [1]]), segments([[1], [0]]), targets)

    def test_truth_values_say_whether_the_first_is_better(self):
        pairs = PairStore(segments([[0], [1]]), segments([[1], [0]]), [True, False])
        np.testing.assert_array_equal(pairs.targets, [1.0, 0.0])

    def test_pairs_of_a_segment_with_itself_say_nothing(self):
        with pytest.raises(InvalidProblem, match="both segments are the same in all 1 pairs"):
            PairStore(segments([[0]]), segments([[0]]), [1])

    @pytest.mark.parametrize("mistakes", [2, -0.1, np.nan, "x", 0.5])
    def test_mistakes_that_are_no_share_are_refused(self, mistakes):
        with pytest.raises(InvalidParameter, match=r"PairStore needs mistakes in \[0, 0.5\)"):
            PairStore(segments([[0]]), segments([[1]]), [1], mistakes)

    def test_numbers_and_vectors_do_not_make_a_pair(self):
        with pytest.raises(InvalidProblem, match="of the first segments have shapes"):
            PairStore(segments([[0]]), Segments([[[0.0, 1.0]]], [[0]]), [1])

    def test_segments_that_are_none(self):
        with pytest.raises(InvalidProblem, match="end at 2147483647"):
            Segments(np.array([[2**63]], dtype=np.uint64), [[0]])
        with pytest.raises(InvalidProblem, match="rows of unequal length"):
            Segments([[0, 1], [0]], [[0, 0], [0]])
        with pytest.raises(InvalidProblem, match="Segments of unequal length, 1 and 2 steps"):
            joined([segments([[0]]), segments([[0, 1]])])
        with pytest.raises(InvalidProblem, match="are numbers of states or actions; got float64"):
            Segments(np.array([[0.5]]), np.array([[0]]))
        with pytest.raises(InvalidProblem, match="hold -1"):
            segments([[-1]])
        with pytest.raises(NotFinite, match="1 NaN"):
            Segments(np.full((1, 1, 1), np.nan), np.array([[0]]))


WORLD = gridworld(3, traps=1)
TEACHER = ScriptedTeacher()


class TestTask:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"teacher": "x"}, "teacher is a str; expected a teacher, with label"),
            ({"teacher": TEACHER, "store": []}, "store is a list; expected a PairStore"),
            ({"teacher": TEACHER, "reward": np.zeros(36)}, "reward is a ndarray; expected a RewardModel"),
            ({"teacher": TEACHER, "world": "grid"}, "world is a str; expected a TabularMDP or Episodes"),
            ({}, "needs a teacher, a store of labelled pairs, or scores"),
            ({"teacher": TEACHER, "entropy": 0.0}, "entropy and ridge are both 0"),
            ({"teacher": TEACHER, "entropy": -1.0}, "entropy >= 0"),
            ({"teacher": TEACHER, "length": 0}, "1 <= length"),
            ({"teacher": TEACHER, "reward": TableReward(4, 4)}, "does not fit the world"),
            ({"teacher": TEACHER, "world": TabularMDP(WORLD.transitions)}, "needs the world's true reward"),
            ({"scores": np.ones(5)}, r"scores has shape \(5,\)"),
            ({"scores": np.full(9, np.inf)}, "scores holds 36 non-finite"),
        ],
    )
    def test_parts_that_do_not_fit(self, options, message):
        given = {"world": WORLD, "reward": TableReward(9, 4), **options}
        with pytest.raises(InvalidProblem, match=message):
            PreferenceTask(given.pop("world"), given.pop("reward"), **given)

    def test_a_store_of_another_world_is_refused(self):
        pairs = PairStore(segments([[9]]), segments([[0]]), [1.0])
        with pytest.raises(InvalidProblem, match="the largest state is 9; the world has 9, numbered 0 to 8"):
            PreferenceTask(WORLD, TableReward(9, 4), store=pairs)

    def test_the_judge_knows_uniform_and_best(self):
        task = PreferenceTask(WORLD, TableReward(9, 4), TEACHER)
        assert task.metrics(np.zeros(36))["share"] == pytest.approx(0.0, abs=1e-9)
        assert task.metrics(WORLD.reward.ravel())["share"] == pytest.approx(1.0)

    def test_where_all_policies_are_alike_there_is_no_share(self):
        alike = TabularMDP(WORLD.transitions, reward=np.ones(9))
        found = PreferenceTask(alike, TableReward(9, 4), TEACHER).metrics(np.zeros(36))
        assert "share" not in found
        assert found["return"] == pytest.approx(10.0)

    def test_agreement_counts_stored_pairs_in_order(self):
        pairs = PairStore(segments([[8], [8], [0]]), segments([[0], [1], [1]]), [1.0, 0.0, 0.5])
        task = PreferenceTask(WORLD, TableReward(9, 4), store=pairs)
        assert task.metrics(WORLD.reward.ravel())["agreement"] == 0.5

    def test_the_incentive_of_a_leader_needs_its_shape(self):
        with pytest.raises(InvalidProblem, match=r"incentives have shape \(9, 4\); expected \(9, 4, m\)"):
            stackelberg(WORLD, np.zeros(9), np.ones((9, 4)), np.zeros(9))
        with pytest.raises(InvalidProblem, match="a base needs features"):
            reward_shaping(WORLD, np.zeros(9), base=np.zeros(9))


class TestModels:
    def test_tables_pull_what_their_steps_give(self, rng):
        """The vector-Jacobian product of each model against differences of its table."""
        phi = rng.standard_normal((3, 2, 5))
        for model in (
            TableReward(3, 2),
            LinearReward(phi, base=rng.standard_normal((3, 2))),
            NetworkReward(3, 2, hidden=(4,), networks=2),
        ):
            nu, g = model.start(0) + 0.1, rng.standard_normal((2, 3, 2))
            slope = np.array(
                [
                    (model.table(nu + 1e-6 * e, 3, 2) - model.table(nu - 1e-6 * e, 3, 2)) / 2e-6
                    for e in np.eye(model.size)
                ]
            )
            np.testing.assert_allclose(model.pull(nu, g), np.einsum("ksa,msa->km", g, slope), atol=1e-7)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: NetworkReward(4, 2, hidden=(2.5,)),
            lambda: TablePolicy(0, 2),
            lambda: NetworkPolicy(4, 0),
            lambda: GaussianPolicy(3, 1, hidden=(0,)),
            lambda: GaussianPolicy(3, 1, scale=-1.0),
            lambda: LinearReward(lambda s, a: s, size=2.5),
            lambda: LinearReward(np.eye(3), actions=-2),
            lambda: gridworld(3, traps=[0.5]),
            lambda: gridworld(3, traps=[8]),
            lambda: Episodes(3, 5),
            lambda: CallbackTeacher("first"),
            lambda: ScriptedTeacher(equal=np.inf),
            lambda: ScriptedTeacher(discount="1"),
        ],
    )
    def test_sizes_and_shares_that_are_none(self, make):
        with pytest.raises(InvalidParameter, match=r"needs|traps are states"):
            make()

    def test_bad_features(self):
        with pytest.raises(InvalidProblem, match=r"features has shape \(3, 2\); expected \(S, A, m\)"):
            LinearReward(np.ones((3, 2)))
        with pytest.raises(NotFinite, match="features holds 1 NaN"):
            LinearReward(np.array([[[np.nan]]]))


class Space:
    """A Box, or anything else."""

    def __init__(self, **what):
        vars(self).update(what)


class Still:
    """One observation for ever; a reward that may be NaN."""

    def __init__(self, observation=None, action=None, reward=0.0):
        self.observation_space = observation or Space(low=0, shape=(2,))
        self.action_space = action or Space(n=2, shape=())
        self.reward = reward

    def reset(self, *, seed=None):
        return np.zeros(2), {}

    def step(self, action):
        return np.zeros(2), self.reward, False, False, {}


class TestEpisodes:
    @pytest.mark.parametrize(
        ("spaces", "message"),
        [
            ({"observation": Space(low=0, shape=(2, 2))}, "observation_space is .* expected Discrete"),
            ({"action": Space(nvec=[2, 2], shape=(2,))}, "action_space is .* expected Discrete"),
            ({"action": Space(low=[-np.inf], high=[1.0], shape=(1,))}, "expected bounded actions"),
        ],
    )
    def test_spaces_that_are_not_supported(self, spaces, message):
        with pytest.raises(InvalidProblem, match=message):
            Episodes(lambda: Still(**spaces), 5)

    def test_rewards_that_are_nan(self):
        world = Episodes(lambda: Still(reward=np.nan), 5)
        with pytest.raises(NotFinite, match="rewards or observations that are NaN"):
            world.rollouts(lambda seen, rng: np.zeros(len(seen), dtype=int), 2, np.random.default_rng(0))

    def test_steps_after_the_end_are_not_lived(self):
        world = Episodes("CartPole-v1", 60)
        lives, rewards = world.rollouts(
            lambda seen, rng: np.ones(len(seen), dtype=int), 3, np.random.default_rng(0)
        )
        np.testing.assert_array_equal(lives.lived, rewards > 0)
        assert (lives.lived.sum(1) < 15).all()

    def test_toy_texts_become_tables(self):
        world = tabular_gymnasium("FrozenLake-v1", horizon=5)
        assert (world.states, world.actions) == (17, 4)
        assert world.reward[14].max() == pytest.approx(1 / 3)
        with pytest.raises(InvalidProblem, match="observation_space"):
            tabular_gymnasium("CartPole-v1")
