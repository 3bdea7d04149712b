"""What a verdict says of hand-made numbers, and that a file gives it back."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.studies import Verdict

INF, NAN = math.inf, math.nan


class TestOutcome:
    @pytest.mark.parametrize(
        ("measured", "relation", "required", "outcome"),
        [
            (0.9, "<=", 1.0, "holds"),
            (1.0, "<=", 1.0, "holds"),
            (1.1, "<=", 1.0, "fails"),
            (1.1, ">=", 1.0, "holds"),
            (1.0, ">=", 1.0, "holds"),
            (0.9, ">=", 1.0, "fails"),
            (2.3, "within", (2.4, 3.6), "fails"),
            (2.4, "within", (2.4, 3.6), "holds"),
            (3.6, "within", (2.4, 3.6), "holds"),
            (3.7, "within", (2.4, 3.6), "fails"),
        ],
    )
    def test_a_number_without_an_interval_is_on_one_side(self, measured, relation, required, outcome):
        assert Verdict("c", measured, required, relation).outcome == outcome

    @pytest.mark.parametrize(
        ("interval", "relation", "required", "outcome"),
        [
            ((0.8, 1.0), "<=", 1.0, "holds"),
            ((0.8, 1.1), "<=", 1.0, "open"),
            ((0.8, 1.1), ">=", 1.0, "open"),
            ((0.9, 1.1), "<=", 0.8, "fails"),
            ((0.9, 1.1), ">=", 0.9, "holds"),
            ((0.9, 1.1), ">=", 1.2, "fails"),
            ((0.8, 1.1), "within", (0.7, 1.2), "holds"),
            ((0.8, 1.1), "within", (0.9, 1.2), "open"),  # across the lower end
            ((0.8, 1.1), "within", (0.7, 1.05), "open"),  # across the upper end
            ((0.8, 1.1), "within", (0.9, 1.05), "open"),  # around the band
            ((0.8, 1.1), "within", (1.2, 1.3), "fails"),
            ((0.8, 1.1), "within", (0.1, 0.7), "fails"),
            ((0.8, INF), "<=", 1.0, "open"),
            ((1.0, 1.0), "<=", 1.0, "holds"),
            ((-INF, INF), "<=", 1.0, "open"),
        ],
    )
    def test_it_is_open_while_the_interval_has_the_required_number_inside(
        self, interval, relation, required, outcome
    ):
        verdict = Verdict("c", 1.0, required, relation, interval)
        assert verdict.outcome == outcome
        assert verdict.holds == (outcome == "holds")

    @pytest.mark.parametrize("relation", ["<=", ">=", "within"])
    @pytest.mark.parametrize("interval", [None, (-INF, INF), (0.0, 1.0), (NAN, NAN)])
    def test_nan_never_holds(self, relation, interval):
        required = (0.0, 2.0) if relation == "within" else 1.0
        assert Verdict("c", NAN, required, relation, interval).outcome == "fails"

    def test_an_infinity_on_the_wrong_side_fails_whatever_the_interval(self):
        assert Verdict("c", INF, 1.0, "<=", (0.5, INF)).outcome == "fails"
        assert Verdict("c", INF, (0.5, 1.0), "within", (0.5, INF)).outcome == "fails"
        assert Verdict("c", -INF, 1.0, ">=", (-INF, 2.0)).outcome == "fails"
        assert Verdict("c", INF, 1.0, ">=").outcome == "holds"

    @given(
        st.floats(-10, 10),
        st.floats(0, 5),
        st.floats(0, 5),
        st.floats(-10, 10),
        st.sampled_from(["<=", ">="]),
    )
    def test_turning_every_sign_and_the_relation_changes_nothing(
        self, measured, below, above, required, relation
    ):
        low, high = measured - below, measured + above
        turned = {"<=": ">=", ">=": "<="}[relation]
        straight = Verdict("c", measured, required, relation, (low, high))
        assert Verdict("c", -measured, -required, turned, (-high, -low)).outcome == straight.outcome
        if low < required < high:
            assert straight.outcome == "open"
        else:
            assert straight.outcome != "open" or required in (low, high)

    @given(st.floats(-10, 10), st.floats(0, 5), st.floats(-10, 10))
    def test_it_never_holds_both_ways_unless_all_is_equal(self, measured, width, required):
        interval = (measured - width, measured + width)
        both = [Verdict("c", measured, required, relation, interval) for relation in ("<=", ">=")]
        assert not all(v.holds for v in both) or interval == (required, required)
        assert not all(v.outcome == "fails" for v in both)


class TestRow:
    @pytest.mark.parametrize(
        "verdict",
        [
            Verdict("a <b> & c", 0.1 + 0.2, 1 / 3),
            Verdict("c", INF, 1.0),
            Verdict("c", 1.0, (0.5, 2.0), "within", (0.9, INF)),
            Verdict("c", -2.0, -1.0, ">=", (-INF, 0.0)),
            Verdict("c", NAN, 1.0, interval=(NAN, NAN)),
        ],
    )
    def test_it_reads_back_exactly_from_strict_json(self, verdict):
        text = json.dumps(verdict.to_dict(), allow_nan=False)
        back = Verdict.from_dict(json.loads(text))
        assert back.to_dict() == verdict.to_dict()
        assert back == verdict or math.isnan(verdict.measured)

    def test_it_is_the_documented_seven(self):
        row = Verdict("c", INF, (1, 2), "within", (1.5, INF)).to_dict()
        assert row == {
            "claim": "c",
            "measured": "inf",
            "required": [1.0, 2.0],
            "relation": "within",
            "interval": [1.5, "inf"],
            "outcome": "fails",
            "holds": False,
        }
        assert Verdict("c", NAN, 1.0).to_dict()["measured"] is None

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"outcome": "holds", "holds": True}, "said to be 'holds', its numbers say 'fails'"),
            ({"measured": [1]}, r"holds \[1\] where a number"),
            ({"measured": True}, "holds True where a number"),
            ({"interval": [1.0]}, "where two numbers"),
        ],
    )
    def test_a_row_that_was_tampered_with_is_refused(self, change, message):
        with pytest.raises(InvalidProblem, match=message):
            Verdict.from_dict({**Verdict("c", 2.0, 1.0).to_dict(), **change})

    def test_a_row_of_another_time_is_refused_by_what_it_lacks(self):
        with pytest.raises(InvalidProblem, match="lacks relation, interval, outcome"):
            Verdict.from_dict({"claim": "c", "measured": 1.0, "required": 2.0, "holds": True})


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((1.0, 1.0, "<"), "relation is <=, >= or within"),
            ((1.0, 1.0, "within"), r"`within` needs a band \(low, high\)"),
            ((1.0, (2.0, 1.0), "within"), "a band has low < high"),
            ((1.0, (1.0, 1.0), "within"), "a band has low < high"),
            ((1.0, (0.0, INF), "within"), "a band has low < high"),
            ((1.0, (0.0, NAN), "within"), "a band has low < high"),
            ((1.0, (0.0, 1.0), "<="), "`<=` needs one finite required number"),
            ((1.0, INF, "<="), "one finite required number"),
            ((1.0, NAN, ">="), "one finite required number"),
            ((1.0, 1.0, "<=", (1.1, 1.2)), "the interval holds the measured number 1"),
            ((1.0, 1.0, "<=", (NAN, 2.0)), "the interval holds the measured number 1"),
        ],
    )
    def test_what_is_no_claim_is_refused(self, arguments, message):
        with pytest.raises(InvalidParameter, match=message):
            Verdict("c", *arguments)
