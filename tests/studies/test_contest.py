"""The race, on hand-made scores: who is tuned on what, what counts as failed, and what follows from the scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import (
    InvalidParameter,
    InvalidProblem,
    Method,
    NotFinite,
    Problem,
    State,
    Stop,
    UnknownName,
)
from thalweg.studies import Breakdown, Standings, contest, together
from thalweg.workbench import performance_profile
from thalweg.workbench.plots import plotly_json

INF = math.inf


def scored(*values):
    """A contestant that scores what is listed for seeds 1, 2, ...; the first stands for seed 0."""
    return lambda problem, seed: values[seed]


def flat(value):
    return lambda problem, seed: value


def race(grids, **more):
    options = {"ours": next(iter(grids)), "what": "steps", **more}
    return contest({"p": lambda seed: seed}, {n: {"only": c} for n, c in grids.items()}, **options)


def standings(**scores):
    return Standings("steps", next(iter(scores)), {"p": {n: np.array(v, float) for n, v in scores.items()}})


class TestTuning:
    def test_the_setting_that_is_best_on_the_tuning_seeds_is_judged_on_the_others(self):
        # "early" is best on seed 0 only, and so it is chosen although "late" would be judged better.
        early, late = scored(1, 9, 9, 9, 9, 9), scored(2, 1, 1, 1, 1, 1)
        grids = {"a": {"early": early, "late": late}, "b": {"x": flat(5.0), "y": flat(5.0)}}
        found = contest({"p": lambda seed: seed}, grids, ours="a", what="steps")
        assert found.settings["p"] == {"a": "early", "b": "x"}
        assert found.scores["p"]["a"].tolist() == [9.0] * 5

    def test_no_data_is_tuned_on_and_judged_on(self):
        made, seen = [], []

        def problem(seed):
            made.append(seed)
            return seed

        def play(problem, seed):
            seen.append((problem, seed))
            return 1.0

        grids = {"a": {"x": play, "y": flat(2.0)}, "b": {"x": flat(3.0), "y": flat(4.0)}}
        contest({"p": problem}, grids, ours="a", what="s", tuning_seeds=(7, 8), judging_seeds=(1, 2))
        assert made == [7, 8, 1, 2]
        assert seen == [(7, 7), (8, 8), (1, 1), (2, 2)]

    def test_problems_set_apart_for_tuning_are_used_for_nothing_else(self):
        grids = {
            "a": {"x": lambda p, s: 1.0 if p == "apart" else 9.0, "y": flat(2.0)},
            "b": {"x": flat(3.0), "y": flat(4.0)},
        }
        judged, apart = {"p": lambda seed: "judged"}, {"p": lambda seed: "apart"}
        found = contest(judged, grids, ours="a", what="s", tuning_problems=apart)
        assert found.settings["p"]["a"] == "x"
        assert found.scores["p"]["a"].tolist() == [9.0] * 5

    def test_a_setting_that_breaks_down_while_tuning_is_not_chosen(self):
        def broken(problem, seed):
            raise KeyError("omega")

        grids = {"a": {"x": broken, "y": flat(2.0)}, "b": {"x": flat(3.0), "y": flat(4.0)}}
        found = contest({"p": lambda seed: seed}, grids, ours="a", what="s")
        assert found.settings["p"]["a"] == "y"
        assert found.breakdowns == []

    def test_the_first_or_the_last_of_a_grid_is_told(self):
        grids = {
            n: {str(k): flat(float(abs(k - best))) for k in range(3)} for n, best in (("a", 2), ("b", 1))
        }
        found = contest({"p": lambda seed: seed}, grids, ours="a", what="s")
        assert found.settings["p"] == {"a": "2 (end of grid)", "b": "1"}
        assert found.notes() == "1 of 2 settings chosen are the first or the last of their grid."

    def test_one_setting_each_needs_no_tuning(self):
        found = race({"a": scored(None, 1, 2, 3, 4, 5), "b": flat(9.0)}, tuning_seeds=())
        assert found.scores["p"]["a"].tolist() == [1, 2, 3, 4, 5]


class TestFailures:
    @pytest.mark.parametrize("bad", [math.nan, INF, -INF])
    def test_a_score_that_is_none_is_infinite(self, bad):
        found = race({"a": scored(0, 1, bad, 1, 1, 1), "b": flat(2.0)})
        assert found.scores["p"]["a"].tolist() == [1, INF, 1, 1, 1]
        assert found.breakdowns == [Breakdown("p", "a", 2, f"its score is {bad}")]

    @pytest.mark.parametrize(
        "error", [KeyError("omega"), ZeroDivisionError("by zero"), NotFinite("b holds NaN")]
    )
    def test_any_exception_is_a_lost_run_and_the_others_go_on(self, error):
        def broken(problem, seed):
            if seed == 3:
                raise error
            return 1.0

        found = race({"a": flat(2.0), "b": broken})
        assert found.scores["p"]["b"].tolist() == [1, 1, INF, 1, 1]
        assert found.breakdowns == [Breakdown("p", "b", 3, f"{type(error).__name__}: {error}")]
        assert "b failed in 1 of 5 runs" in found.notes()

    def test_ctrl_c_ends_the_race(self):
        def interrupted(problem, seed):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            race({"a": interrupted, "b": flat(1.0)})

    def test_what_a_problem_raises_is_an_error_of_the_study(self):
        def broken(seed):
            raise ZeroDivisionError("no data")

        with pytest.raises(ZeroDivisionError, match="no data"):
            contest({"p": broken}, {"a": {"": flat(1.0)}, "b": {"": flat(1.0)}}, ours="a", what="s")


@dataclass(frozen=True, eq=False)
class Halving(Problem):
    """Bring a number to zero."""

    objective = "size"

    def metrics(self, x):
        return {"size": float(abs(x))}


@dataclass(frozen=True)
class Shrink(Method[Halving, State]):
    """Multiply by a factor."""

    factor: float = 0.5

    def init(self, problem, seed):
        return State(x=1.0, metrics={"size": 1.0})

    def step(self, problem, state):
        if self.factor > 10:
            raise NotFinite("it grew")
        x = state.x * self.factor
        return State(x=x, metrics={"size": abs(x)})


class TestMethods:
    def race(self, **more):
        return contest(
            {"p": lambda seed: Halving()},
            {
                "fast": [Shrink(0.5)],
                "slow": [Shrink(0.99)],
                "wild": [Shrink(11.0)],
                "growing": [Shrink(9.0)],  # past the size at which solve() says DIVERGED
            },
            lambda result: result.steps,
            ours="fast",
            what="steps",
            stop=Stop(below={"size": 1e-3}, steps=20),
            **more,
        )

    def test_a_run_that_did_not_converge_scores_infinity(self):
        found = self.race()
        assert {n: v.tolist() for n, v in found.scores["p"].items()} == {
            "fast": [10.0] * 5,
            "slow": [INF] * 5,
            "wild": [INF] * 5,
            "growing": [INF] * 5,
        }
        assert (
            found.settings["p"]["fast"] == "Shrink(factor=0.5)"
            or "0.5" in str(found.settings["p"]["fast"])
            or 1
        )

    def test_unless_the_score_needs_no_convergence_but_a_broken_run_is_lost_all_the_same(self):
        scores = self.race(needs_convergence=False).scores["p"]
        assert scores["slow"].tolist() == [20.0] * 5
        assert scores["wild"].tolist() == scores["growing"].tolist() == [INF] * 5

    def test_where_nothing_is_random_there_is_one_seed_and_no_interval(self):
        (verdict,) = self.race(random=False, judging_seeds=(1,)).beats()
        assert (verdict.measured, verdict.interval, verdict.outcome) == (0.0, None, "holds")

    def test_a_method_needs_a_problem_and_a_score(self):
        entries = {"a": [Shrink()], "b": [Shrink(0.4)]}
        with pytest.raises(InvalidProblem, match="contest needs `score`"):
            contest({"p": lambda seed: Halving()}, entries, ours="a", what="s")
        with pytest.raises(InvalidProblem, match="problems that are a Problem"):
            contest({"p": lambda seed: 3}, entries, lambda r: r.steps, ours="a", what="s")


class TestBeats:
    def test_the_best_of_all_others_counts_and_none_is_left_out(self):
        (verdict,) = standings(ours=[4] * 5, good=[1] * 5, bad=[9] * 5).beats(1.0)
        assert (verdict.measured, verdict.outcome) == (4.0, "fails")
        (verdict,) = standings(ours=[4] * 5, worse=[8] * 5, bad=[9] * 5).beats(1.0)
        assert (verdict.measured, verdict.outcome) == (0.5, "holds")

    def test_its_words_say_what_was_computed(self):
        (verdict,) = standings(ours=[1] * 5, b=[2] * 5, c=[2] * 5).beats(0.7)
        assert verdict.claim == "p: steps, ours / best of the other 2"
        assert (verdict.relation, verdict.required) == ("<=", 0.7)
        (verdict,) = standings(ours=[1] * 5, b=[2] * 5).beats(0.0, by="difference")
        assert (verdict.claim, verdict.measured) == ("p: steps, ours - best of the other 1", -1.0)

    def test_seeds_are_paired(self):
        # Half of the rival's on every seed, although the scores of the seeds differ a hundredfold.
        (verdict,) = standings(ours=[1, 5, 10, 50, 100], b=[2, 10, 20, 100, 200]).beats(0.6)
        assert (verdict.measured, verdict.interval) == (0.5, (0.5, 0.5))

    def test_the_interval_is_the_range_of_five_and_decides(self):
        scores = {"ours": [1.0, 1.1, 0.8, 0.9, 0.95], "b": [1.0] * 5}
        (verdict,) = standings(**scores).beats(1.0)
        assert (verdict.measured, verdict.interval, verdict.outcome) == (0.95, (0.8, 1.1), "open")

    def test_fewer_than_five_seeds_leave_it_open_however_clear(self):
        (verdict,) = standings(ours=[1] * 4, b=[100] * 4).beats(1.0)
        assert (verdict.interval, verdict.outcome) == ((0.0, INF), "open")
        (verdict,) = standings(ours=[1], b=[100]).beats(1.0)
        assert verdict.outcome == "open"

    def test_ties_hold_at_one_and_fail_below(self):
        tied = standings(ours=[0, 1, 2, 3, 4], b=[0, 1, 2, 3, 4])
        assert tied.beats(1.0)[0].outcome == "holds"
        assert tied.beats(0.99)[0].outcome == "fails"

    def test_a_rival_that_failed_is_beaten_and_ours_that_failed_is_not(self):
        assert standings(ours=[1] * 5, b=[INF] * 5).beats(1.0)[0].outcome == "holds"
        for rival in ([1] * 5, [INF] * 5):
            (verdict,) = standings(ours=[INF] * 5, b=rival).beats(1.0)
            assert (verdict.measured, verdict.outcome) == (INF, "fails")

    def test_one_failed_seed_of_ours_keeps_it_from_holding(self):
        (verdict,) = standings(ours=[1, 1, 1, 1, INF], b=[9] * 5).beats(1.0)
        assert (verdict.measured, verdict.interval, verdict.outcome) == (1 / 9, (1 / 9, INF), "open")

    scores = st.lists(st.one_of(st.floats(0.01, 100), st.just(INF)), min_size=5, max_size=5)

    @given(st.lists(scores, min_size=2, max_size=4), st.sampled_from([0.125, 4.0, 1024.0]))
    def test_scaling_all_scores_changes_no_ratio(self, table, scale):
        names = [chr(ord("a") + i) for i in range(len(table))]
        before = standings(**dict(zip(names, table))).beats(0.9)
        after = standings(**{n: scale * np.array(v) for n, v in zip(names, table)}).beats(0.9)
        assert before == after

    @given(
        st.lists(scores, min_size=2, max_size=4),
        st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5),
        st.sampled_from(["ratio", "difference"]),
        st.floats(-1.0, 2.0),
    )
    def test_making_a_rival_better_never_helps_ours(self, table, factors, by, required):
        names = [chr(ord("a") + i) for i in range(len(table))]
        (before,) = standings(**dict(zip(names, table))).beats(required, by)
        better = [100 * f if math.isinf(v) else f * v for f, v in zip(factors, table[1])]
        (after,) = standings(**{**dict(zip(names, table)), "b": better}).beats(required, by)
        order = ["fails", "open", "holds"]
        assert order.index(after.outcome) <= order.index(before.outcome)
        assert after.measured >= before.measured

    @given(st.lists(scores, min_size=2, max_size=4))
    def test_a_further_rival_never_helps_ours(self, table):
        names = [chr(ord("a") + i) for i in range(len(table))]
        (before,) = standings(**dict(zip(names, table))).beats()
        (after,) = standings(**dict(zip(names, table)), z=np.full(5, 1.0)).beats()
        assert after.measured >= before.measured


class TestCompared:
    def test_two_by_name_with_their_relation(self):
        found = standings(ours=[1] * 5, b=[3] * 5, c=[2] * 5)
        (verdict,) = found.compared("b", "ours", 2.0, ">=", by="difference")
        assert (verdict.claim, verdict.measured, verdict.outcome) == ("p: steps, b - ours", 2.0, "holds")
        assert found.compared("b", "ours", 2.0, "<=", by="difference")[0].outcome == "holds"
        assert found.compared("b", "ours", 2.5, ">=", by="difference")[0].outcome == "fails"
        assert found.compared("ours", "c", (0.4, 0.6), "within")[0].outcome == "holds"

    @pytest.mark.parametrize("by", ["ratio", "difference"])
    @pytest.mark.parametrize(("relation", "required"), [("<=", 1.0), (">=", 1.0), ("within", (0.5, 2.0))])
    def test_where_both_failed_nothing_is_shown_of_either(self, by, relation, required):
        found = standings(a=[INF] * 5, b=[INF] * 5)
        assert found.compared("a", "b", required, relation, by)[0].outcome == "fails"

    def test_unknown_names_are_refused(self):
        with pytest.raises(UnknownName, match="Did you mean 'ours'"):
            standings(ours=[1.0], b=[1.0]).compared("ourz", "b", 1.0)


class TestRanks:
    found = Standings(
        "error",
        "a",
        {
            "p": {"a": np.array([1.0, 1, 1, 1, 3]), "b": np.array([2.0] * 5), "c": np.array([INF] * 5)},
            "q": {"a": np.array([2.0] * 5), "b": np.array([2.0] * 5), "c": np.array([1.0] * 5)},
        },
    )

    def test_they_are_counted_by_hand(self):
        scores = self.found.ranks(name="both").scores["both"]
        assert scores["a"].tolist() == [1.75, 1.75, 1.75, 1.75, 2.25]
        assert scores["b"].tolist() == [2.25, 2.25, 2.25, 2.25, 1.75]
        assert scores["c"].tolist() == [2.0] * 5

    def test_a_choice_of_problems_is_ranked_alone(self):
        assert self.found.ranks(["q"]).scores["all problems"]["c"].tolist() == [1.0] * 5
        with pytest.raises(UnknownName, match="No problem 'r'"):
            self.found.ranks(["r"])

    def test_equal_scores_share_the_worse_place(self):
        p, q = self.found.place(2.0)
        assert (p.claim, p.measured, p.interval, p.outcome) == (
            "p: place of a by error among 3",
            1.0,
            (1.0, 2.0),
            "holds",
        )
        assert (q.measured, q.outcome) == (3.0, "fails")


SIZES = {"n = 1": 1.0, "n = 10": 10.0, "n = 100": 100.0}


class TestSlope:
    def found(self, power, failed=()):
        noise = np.random.default_rng(0).uniform(0.99, 1.01, (3, 5))
        table = {
            name: {"a": noise[i] * n**power, "b": np.ones(5)} for i, (name, n) in enumerate(SIZES.items())
        }
        for seed in failed:
            table["n = 10"]["a"][seed] = INF
        return Standings("calls", "a", table)

    @pytest.mark.parametrize(
        ("power", "outcome"), [(3.0, "holds"), (0.04, "fails"), (3.7, "fails"), (-3.0, "fails")]
    )
    def test_a_law_that_is_absent_fails_on_either_side_of_the_band(self, power, outcome):
        verdict = self.found(power).slope(SIZES, (2.4, 3.6))
        assert verdict.outcome == outcome
        assert verdict.measured == pytest.approx(power, abs=0.01)
        assert verdict.claim == "calls of a: power of the size, 1 to 100"

    def test_a_power_at_the_bands_end_is_open(self):
        assert self.found(2.4).slope(SIZES, (2.4, 3.6)).outcome == "open"

    def test_a_run_that_failed_leaves_no_slope(self):
        verdict = self.found(3.0, failed=(2,)).slope(SIZES, (2.4, 3.6))
        assert math.isnan(verdict.measured)
        assert verdict.outcome == "fails"

    def test_a_rival_has_one_too(self):
        assert self.found(3.0).slope(SIZES, (-0.1, 0.1), "b").holds


class TestShown:
    found = Standings(
        "steps",
        "a",
        {
            "p": {"a": np.array([1.0, 2, 3, 4, 5]), "b": np.array([INF, INF, INF, 1.0, 2.0])},
            "q": {"a": np.zeros(5), "b": np.full(5, 7.0)},
        },
        {"p": {"a": "rate 1", "b": "rate 2"}},
    )

    def test_the_table_has_every_contestant_and_its_failed_runs(self):
        rows = self.found.table()
        assert [(r["problem"], r["contestant"]) for r in rows] == [
            ("p", "a (ours)"),
            ("p", "b"),
            ("q", "a (ours)"),
            ("q", "b"),
        ]
        assert (
            rows[0] | {"steps": 3.0, "least": 1.0, "most": 5.0, "failed": 0, "setting": "rate 1"} == rows[0]
        )
        assert rows[1] | {"steps": INF, "failed": 3} == rows[1]

    def test_costs_make_a_performance_profile(self):
        costs = self.found.costs()
        assert costs == {"problems": ["p", "q"], "methods": {"a": [3.0, 1e-12], "b": [INF, 7.0]}}
        a, b = performance_profile(costs["methods"])
        assert a.y[-1] == 1.0
        assert b.y[-1] == 0.5

    def test_figures_can_be_drawn_with_failed_runs_in_them(self):
        curves = self.found.curves({"p": 1.0, "q": 2.0}, "Steps", "size", log_y=False)
        a, b = curves.series
        assert (a.y, a.low, a.high) == ([3.0, 0.0], [1.0, 0.0], [5.0, 0.0])
        assert (b.y, b.low) == ([INF, 7.0], None)
        bars = self.found.bars("Steps")
        assert (bars.kind, bars.categories) == ("bars", ["p", "q"])
        assert all("Infinity" not in plotly_json(f) for f in (curves, bars))

    def test_several_contests_are_told_as_one(self):
        p, q = ({name: self.found.scores[name]} for name in "pq")
        both = together([Standings("steps", "a", p), Standings("seconds", "a", q)], "score")
        assert list(both.scores) == ["p", "q"]
        with pytest.raises(InvalidParameter, match="needs `what`"):
            together([Standings("steps", "a", p), Standings("seconds", "a", q)])
        with pytest.raises(InvalidProblem, match="different problems"):
            together([self.found, self.found])
        with pytest.raises(InvalidProblem, match="same contestants, ours and seeds"):
            together([Standings("steps", "a", p), Standings("steps", "b", q)])


class TestBadInput:
    def contest(self, grids=None, **more):
        two = {"a": {"x": flat(1.0)}, "b": {"x": flat(2.0)}}
        return contest({"p": lambda seed: seed}, grids or two, **{"ours": "a", "what": "s", **more})

    def test_unequal_grids_are_refused(self):
        grids = {"a": {"x": flat(1.0), "y": flat(2.0)}, "b": {"x": flat(3.0)}}
        with pytest.raises(
            InvalidParameter, match=r"grid of the same size, at least 1; got \{'a': 2, 'b': 1\}"
        ):
            self.contest(grids)
        with pytest.raises(InvalidParameter, match="at least 1"):
            self.contest({"a": {}, "b": {}})

    def test_a_grid_that_is_padded_with_one_setting_is_refused(self):
        one = flat(1.0)
        grids = {"a": {"x": flat(1.0), "y": flat(2.0)}, "b": {"x": one, "y": one}}
        with pytest.raises(InvalidParameter, match="a setting of 'b' is given twice"):
            self.contest(grids)
        with pytest.raises(InvalidParameter, match="two settings of 'b' have one name"):
            self.contest({"a": [Shrink(0.1), Shrink(0.2)], "b": [Shrink(0.5), Shrink(0.5)]})

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"tuning_seeds": (0, 3)}, r"tuned on and judged on; got \[3\]"),
            ({"judging_seeds": ()}, "at least one judging seed"),
            ({"judging_seeds": (1, 1)}, "judging seeds must differ"),
            ({"tuning_seeds": (0, 0)}, "tuning seeds must differ"),
            ({"random": False}, "one judging seed; got 5"),
            ({"tuning_problems": {"q": lambda seed: seed}}, "the names of problems"),
            ({"grids": {"a": {"x": flat(1.0)}}}, "at least two contestants"),
        ],
    )
    def test_a_race_that_would_not_be_fair_is_refused(self, more, message):
        with pytest.raises(InvalidParameter, match=message):
            self.contest(**more)

    def test_grids_need_a_tuning_seed(self):
        grids = {n: {"x": flat(1.0), "y": flat(2.0)} for n in "ab"}
        with pytest.raises(InvalidParameter, match="at least one tuning seed"):
            self.contest(grids, tuning_seeds=())

    def test_ours_is_one_of_them(self):
        with pytest.raises(UnknownName, match="No contestant 'c'"):
            self.contest(ours="c")

    def test_scores_that_are_no_table_are_refused(self):
        with pytest.raises(
            InvalidParameter, match=r"NaN scores; a run that failed scores infinity; got \['b'\]"
        ):
            standings(a=[1.0], b=[math.nan])
        with pytest.raises(InvalidProblem, match="one for each of 2 seeds"):
            standings(a=[1.0, 2.0], b=[1.0])
        with pytest.raises(InvalidParameter, match="without randomness there is one seed"):
            Standings("s", "a", {"p": {"a": np.ones(2)}}, random=False)
        with pytest.raises(InvalidProblem, match="Nobody to beat"):
            standings(a=[1.0]).beats()
