"""Sequences from FASTA and tables, in the dialects that programs write."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName, UnreadableFile
from thalweg.datasets.sequences import load_sequences, save_sequences


class TestFasta:
    def test_letters_over_several_lines_scores_in_titles_comments_and_a_stop(self, tmp_path):
        path = tmp_path / "a.fasta"
        path.write_bytes(
            b"\xef\xbb\xbf;made by hand\r\n>first score=1.5\r\nACG\r\nT ac\r\n>second|score=-2e3|x\r\nAAAAAA*\r\n"
        )
        found = load_sequences(path)
        assert found.letters == ("ACGTac", "AAAAAA")
        assert found.names == ("first score=1.5", "second|score=-2e3|x")
        np.testing.assert_array_equal(found.scores, [1.5, -2000.0])

    def test_a_packed_file_without_scores(self, tmp_path):
        path = tmp_path / "a.fa.gz"
        path.write_bytes(gzip.compress(b">x\nACG\n"))
        assert load_sequences(path).scores is None

    def test_another_field_may_be_the_score(self, tmp_path):
        path = tmp_path / "a.fasta"
        path.write_text(">x score=1 doubt=0.5\nACG\n")
        assert load_sequences(path, score="doubt").scores.tolist() == [0.5]
        assert load_sequences(path, score=None).scores is None

    @pytest.mark.parametrize(
        ("text", "error", "words"),
        [
            ("ACG\n>x\nACG\n", UnreadableFile, "line 1 stands before the first title"),
            ("ACG\n", UnreadableFile, "before the first title"),
            (">x\n>y\nACG\n", UnreadableFile, "'>x' has no letters"),
            (">x score=1\nA\n>y\nC\n", InvalidProblem, "'>y' lacks score=NUMBER"),
            (">x score=one\nA\n", InvalidProblem, "score=one is no number"),
            (">x score=nan\nA\n", NotFinite, "score=nan is not finite"),
            ("", UnreadableFile, "is empty"),
        ],
    )
    def test_bad_files_are_refused(self, tmp_path, text, error, words):
        path = tmp_path / "bad.fasta"
        path.write_text(text)
        with pytest.raises(error, match=words):
            load_sequences(path)

    def test_a_field_that_no_title_has_is_refused(self, tmp_path):
        path = tmp_path / "a.fasta"
        path.write_text(">x\nACG\n")
        with pytest.raises(UnknownName, match="No field 'score'"):
            load_sequences(path, score="score")
        with pytest.raises(UnreadableFile, match="No file"):
            load_sequences(tmp_path / "no.fasta")


class TestTables:
    def test_columns_are_found_by_what_they_hold(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("8-mer;E\nACG;0,5\nAAA;1,5\n")
        found = load_sequences(path)
        assert found.letters == ("ACG", "AAA")
        np.testing.assert_array_equal(found.scores, [0.5, 1.5])

    def test_named_columns_go_before(self, tmp_path):
        path = tmp_path / "a.tsv"
        path.write_text("sequence\tname\tscore\tother\nACG\tx\t1\t7\nAAA\ty\t2\t8\n")
        assert load_sequences(path).scores.tolist() == [1.0, 2.0]
        assert load_sequences(path, sequence="name", score="other").scores.tolist() == [7.0, 8.0]

    @pytest.mark.parametrize(
        ("text", "options", "error", "words"),
        [
            ("a,b,s\nAC,CC,1\nAA,CA,2\n", {}, InvalidProblem, "columns of words: a, b; expected one"),
            ("a,s,t\nAC,1,1\nAA,2,1\n", {}, InvalidProblem, "columns of numbers: s, t; expected one"),
            ("a,s\nAC,1\nAA,2\n", {"score": "z"}, UnknownName, "No column 'z'"),
            ("a,s\nAC,1\nAA,2\n", {"score": "a"}, InvalidProblem, "'a' holds words; a score is a number"),
            ("a,s\nAC,1\nAA,inf\n", {}, NotFinite, "non-finite entries .* line 3"),
            ("a,s\nAC,1\nAA,\n", {}, NotFinite, "1 NaN .* line 3"),
        ],
    )
    def test_bad_tables_are_refused(self, tmp_path, text, options, error, words):
        path = tmp_path / "bad.csv"
        path.write_text(text)
        with pytest.raises(error, match=words):
            load_sequences(path, **options)


@pytest.mark.parametrize("ending", [".csv", ".fasta"])
def test_what_is_written_can_be_read_again(tmp_path, ending):
    frame = pd.DataFrame({"sequence": ["ACG", "AAA"], "score": [0.25, -1.0], "distance": [1, 2]})
    path = tmp_path / f"a{ending}"
    save_sequences(path, frame)
    found = load_sequences(path, sequence="sequence" if ending == ".csv" else "", score="score")
    assert found.letters == ("ACG", "AAA")
    np.testing.assert_array_equal(found.scores, [0.25, -1.0])


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(InvalidParameter, match="unknown ending"):
        save_sequences(tmp_path / "a.xlsx", pd.DataFrame({"sequence": ["A"]}))
