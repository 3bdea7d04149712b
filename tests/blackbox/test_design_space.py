"""Spaces of sequences and tables: what may be proposed, and what is refused."""

from __future__ import annotations

import warnings
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.blackbox.design import (
    LetterLandscape,
    SequenceSpace,
    SequenceTable,
    planted_landscape,
    six6,
    splice_sites,
)
from thalweg.blackbox.design.proposals import novelty
from thalweg.blackbox.design.space import distances, nearest
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName

SPACE = SequenceSpace("dna", 3)


class TestSpace:
    @given(texts=st.lists(st.text("ACGT", min_size=5, max_size=5), min_size=1))
    def test_decoding_undoes_encoding(self, texts):
        space = SequenceSpace("dna", 5)
        assert space.decode(space.encode(texts)) == texts

    def test_small_letters_are_taken_for_large_ones(self):
        np.testing.assert_array_equal(SPACE.encode(["acg"]), SPACE.encode(["ACG"]))

    @given(data=st.data())
    @settings(max_examples=50)
    def test_what_is_brought_into_a_space_lies_in_it_and_near_its_parent(self, data):
        edits = data.draw(st.integers(1, 6))
        space = SequenceSpace("dna", mask="..G...", allowed={4: "AT"}, edits=edits)
        rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
        parents = space.mended(rng.integers(4, size=(20, 6)))
        found = space.within(rng.integers(4, size=(20, 6)), parents)
        assert space.holds(found).all()
        assert ((found != parents).sum(1) <= edits).all()

    def test_size_counts_what_a_list_of_all_holds(self):
        space = SequenceSpace("dna", mask="..G.", allowed={0: "AC"})
        every = np.array(list(product(range(4), repeat=4)))
        assert space.size == space.holds(every).sum() == 2 * 4 * 1 * 4

    def test_distances_are_those_of_a_plain_count(self, rng):
        a, b = rng.integers(4, size=(7, 5)), rng.integers(4, size=(9, 5))
        wanted = np.array([[sum(x != y for x, y in zip(p, q, strict=True)) for q in b] for p in a])
        np.testing.assert_array_equal(distances(a, b), wanted)
        away, which = nearest(a, b)
        np.testing.assert_array_equal(away, wanted.min(1))
        np.testing.assert_array_equal(wanted[np.arange(7), which], away)

    def test_a_word_is_new_where_it_stands_and_not_elsewhere(self):
        space = SequenceSpace("dna", 4)
        table = space.encode(["AAAC", "CAAA"])
        assert novelty(space.encode(["AAAC"]), table).tolist() == [0.0]
        assert novelty(space.encode(["CAAC"]), table).tolist() == [0.0]  # CAA and AAC are there
        assert novelty(space.encode(["AACA"]), table).tolist() == [1.0]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"alphabet": "dna"}, "needs a length >= 1, or a mask"),
            ({"alphabet": "dna", "length": 0}, "needs a length >= 1"),
            (
                {"alphabet": "dna", "length": 3, "mask": "..G."},
                "the mask has 4 letters; expected the length; got 3",
            ),
            ({"alphabet": "AAC", "length": 3}, "two different letters or more; got 'AAC'"),
            ({"alphabet": "A", "length": 3}, "two different letters or more"),
            ({"alphabet": "dna", "mask": "..U"}, "letters that the alphabet ACGT has not; got 'U'"),
            ({"alphabet": "dna", "mask": "ACG"}, "leave nothing free"),
            (
                {"alphabet": "dna", "mask": "..G", "allowed": {2: "AC"}},
                "has 'G' at position 2, where only 'AC'",
            ),
            ({"alphabet": "dna", "length": 3, "allowed": {3: "A"}}, "position outside 0 ... 2; got 3"),
            ({"alphabet": "dna", "length": 3, "allowed": {1: ""}}, "no letter is allowed at position 1"),
            ({"alphabet": "dna", "length": 3, "edits": 0}, "edits >= 1"),
        ],
    )
    def test_a_space_that_cannot_be_is_refused(self, arguments, words):
        with pytest.raises(InvalidProblem, match=words):
            SequenceSpace(**arguments)

    def test_almost_the_name_of_an_alphabet_is_refused(self):
        with pytest.raises(UnknownName, match="Did you mean 'protein'"):
            SequenceSpace("protien", 3)

    def test_another_length_and_an_unknown_letter_are_refused(self):
        with pytest.raises(InvalidProblem, match="Sequence 1 has 2 letters; expected 3"):
            SPACE.encode(["ACG", "AC"])
        with pytest.raises(InvalidProblem, match="Sequence 1 has 'N' at position 2; the alphabet is ACGT"):
            SPACE.encode(["ACG", "ACN"])


class TestTable:
    def test_a_repeated_sequence_counts_once_with_its_mean_and_it_is_said(self):
        with pytest.warns(UserWarning, match="1 sequences have several rows with different scores"):
            table = SequenceTable(SPACE, ["AAA", "AAC", "AAA"], [1.0, 5.0, 3.0])
        assert table.rows == 2
        assert sorted(table.values) == [2.0, 5.0]

    def test_a_repeated_row_is_not_worth_a_warning(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = SequenceTable(SPACE, ["AAA", "AAC", "AAA"], [1.0, 5.0, 1.0])
        assert table.merged == 1

    def test_starts_are_the_best_rows_and_all_of_them_where_there_are_fewer(self):
        table = SequenceTable(SPACE, ["AAA", "AAC", "AAG"], [1.0, 3.0, 2.0], n=5)
        assert SPACE.decode(table.starts()) == ["AAC", "AAG", "AAA", "AAC", "AAG"]

    def test_starts_are_brought_into_the_space(self):
        space = SequenceSpace("dna", mask="T..")
        assert space.decode(SequenceTable(space, ["AAA", "AAC"], [1.0, 3.0], n=1).starts()) == ["TAC"]

    def test_metrics_count_what_they_say(self):
        table = SequenceTable(SPACE, ["AAA", "CCC"], [0.0, 1.0], n=4)
        found = table.metrics(SPACE.encode(["AAA", "AAC", "AAC", "CCG"]))
        assert (found["distance"], found["known"], found["repeated"], found["outside"]) == (
            0.75,
            0.25,
            0.25,
            0.0,
        )

    def test_the_judge_tells_a_sum_over_letters(self, rng):
        space = SequenceSpace("dna", 6)
        codes, weights = rng.integers(4, size=(400, 6)), rng.standard_normal((6, 4))
        scores = weights[np.arange(6), codes].sum(1)
        table = SequenceTable(space, space.decode(codes), scores)
        other = rng.integers(4, size=(200, 6))
        truth = weights[np.arange(6), other].sum(1)
        assert np.corrcoef(table.judge()(other), truth)[0, 1] > 0.99

    @pytest.mark.parametrize(
        ("texts", "scores", "error", "words"),
        [
            (["AAA", "AAC"], [1.0, 1.0], InvalidProblem, "All scores are alike"),
            (["AAA", "AAA"], [1.0, 1.0], InvalidProblem, "1 different sequences; expected two or more"),
            (["AAA"], [1.0], InvalidProblem, "expected two or more"),
            ([], [], InvalidProblem, "expected two or more"),
            (["AAA", "AAC"], [1e200, 2e200], InvalidProblem, "another unit"),
            (["AAA", "AAC"], [1e-200, 2e-200], InvalidProblem, "another unit"),
            (["AAA", "AAC"], [1.0, np.nan], NotFinite, "scores holds 1 NaN"),
            (["AAA", "AAC"], [1.0, np.inf], NotFinite, "non-finite"),
            (["AAA", "AAC"], [1.0, 1j], InvalidProblem, "complex"),
            (["AAA", "AAC"], [[1.0], [2.0]], InvalidProblem, r"expected \(2,\)"),
            (["AAA", "AAC"], ["a", "b"], InvalidProblem, "scores"),
        ],
    )
    def test_bad_tables_are_refused(self, texts, scores, error, words):
        with pytest.raises(error, match=words):
            SequenceTable(SPACE, texts, scores)

    def test_no_proposals_are_refused(self):
        with pytest.raises(InvalidParameter, match="n >= 1; got 0"):
            SequenceTable(SPACE, ["AAA", "AAC"], [1.0, 2.0], n=0)

    def test_an_answer_of_another_shape_is_refused(self):
        with pytest.raises(InvalidProblem, match="expected \\(proposals, 3\\)"):
            SequenceTable(SPACE, ["AAA", "AAC"], [1.0, 2.0]).metrics(np.zeros((2, 4), int))


class TestLandscapes:
    def test_both_strands_bind_alike(self):
        truth, codes = six6(), six6().codes[::97]
        np.testing.assert_array_equal(truth(codes), truth(3 - codes[:, ::-1]))
        assert (truth.scores.min(), truth.scores.max()) == (0.0, 1.0)
        assert len(truth.scores) == 4**8

    def test_the_best_site_of_six6_has_the_motif_of_its_family(self):
        best = six6().space.decode(six6().codes[six6().scores.argsort()[-20:]])
        # TGATAC, or GTATCA on the other strand: the core of the SIX family's sites.
        assert sum("GATA" in text or "TATC" in text for text in best) >= 16

    def test_the_commonest_splice_site_is_the_complement_of_u1(self):
        truth = splice_sites()
        assert truth.space.decode(truth.codes[[truth.scores.argmax()]]) == ["CAGGUGAGU"]
        assert truth(truth.space.encode(["CAGGUAAGU"]))[0] > 0.9
        assert (truth.scores > 0).sum() == 10227

    def test_the_planted_score_is_what_its_sites_give(self):
        one, other = planted_landscape(1), planted_landscape(2)
        assert one.scores.shape == (4**8,)
        assert np.abs(one.scores - other.scores).max() > 0.1
        # two sites: the table of first by second site is a product plus a sum, so of rank 2 after scaling at most 3
        assert np.linalg.matrix_rank(one.scores.reshape(256, 256), tol=1e-9) <= 3

    @given(seed=st.integers(0, 100))
    @settings(max_examples=10)
    def test_a_table_shows_nothing_above_its_share(self, seed):
        truth = planted_landscape(0)
        table = truth.offline(100, 8, seed, lowest=0.3)
        assert table.rows == 100
        assert table.values.max() <= np.quantile(truth.scores, 0.3)
        np.testing.assert_array_equal(truth(table.codes), table.values)

    def test_sequences_outside_and_tables_of_another_size_are_refused(self):
        with pytest.raises(InvalidProblem, match="not in the space"):
            splice_sites()(np.zeros((1, 9), int))
        with pytest.raises(InvalidProblem, match=r"expected \(64,\)"):
            LetterLandscape(SPACE, np.zeros(3))
        with pytest.raises(InvalidParameter, match="2 <= rows <= 32768"):
            six6().offline(40_000)
