"""Tables that grow while they are read."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem, UnknownName, UnreadableFile
from thalweg.datasets import GrowingTable


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.csv"

    def make(content, **options):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path, GrowingTable(path, **{"follow": True} | options)

    return make


def add(path, text):
    with path.open("ab") as file:
        file.write(text.encode())


def rows(reader):
    return reader.read().values.tolist()


class TestRows:
    def test_a_line_without_its_end_waits(self, table):
        path, reader = table("a,b\n1,2\n3,4")
        assert rows(reader) == [[1.0, 2.0]]
        add(path, "5\n")
        assert rows(reader) == [[3.0, 45.0]]

    def test_a_last_line_needs_no_end_where_nobody_writes(self, table):
        _, reader = table("1,2\n3,4", follow=False)
        found = reader.read()
        assert found.values.tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert found.at_end

    def test_a_header_alone_waits_for_its_first_row(self, table):
        path, reader = table("a;b\n")
        assert reader.read().values.size == 0
        add(path, "1,5;2\n")
        assert rows(reader) == [[1.5, 2.0]]
        assert reader.names == ("a", "b")

    @pytest.mark.parametrize(
        "text",
        [
            "1.5,2\n3,4\n",
            "x,y\r\n1.5,2\r\n3,4\r\n",
            "\ufeffx;y\n1,5;2\n3;4\n",
            "1.5\t2\n\n3\t4\n",
            "# x y\n1.5 2\n# word\n3 4\n",
            'sep=;\n"1,5";"2"\n"3";"4"\n',
            "1.5,2,\n3,4,\n",
            "x,y\n 1.5 , 2\n3,4\n",
        ],
    )
    def test_dialects_are_those_of_all_tables(self, table, text):
        assert rows(table(text)[1]) == [[1.5, 2.0], [3.0, 4.0]]

    def test_missing_cells_are_nan_and_truth_values_numbers(self, table):
        found = rows(table("a,b\n1,True\n,false\nNA,2\n")[1])
        np.testing.assert_array_equal(found, [[1, 1], [np.nan, 0], [np.nan, 2]])

    def test_columns_are_chosen_by_name_and_others_may_hold_words(self, table):
        _, reader = table("time,a,b\n2024-01-01,1,2\n2024-01-02,3,4\n", columns=["b", "a"])
        assert rows(reader) == [[2.0, 1.0], [4.0, 3.0]]

    def test_columns_without_a_header_have_numbers(self, table):
        assert rows(table("w,1,2\nw,3,4\n", columns=["column 3"], header=False)[1]) == [[2.0], [4.0]]

    def test_compressed_files_are_read(self, tmp_path):
        path = tmp_path / "t.csv.gz"
        path.write_bytes(gzip.compress(b"1,2\n3,4\n"))
        assert rows(GrowingTable(path)) == [[1.0, 2.0], [3.0, 4.0]]

    def test_a_file_longer_than_a_reading_comes_in_parts(self, table, monkeypatch):
        monkeypatch.setattr("thalweg.datasets.growing.CHUNK", 64)
        expected = [[float(i), i + 0.5] for i in range(100)]
        _, reader = table("".join(f"{int(a)},{b}\n" for a, b in expected), header=False)
        found, ends = [], False
        while not ends:
            new = reader.read()
            found, ends = found + new.values.tolist(), new.at_end
        assert found == expected

    @given(
        cut=st.lists(st.integers(0, 60), max_size=6), text=st.just("a,b\n1,2\n\n3,x\n4,5\n#c\n6,7\n-8,9e1\n")
    )
    def test_rows_are_the_same_however_the_file_grows(self, tmp_path_factory, cut, text):
        path = tmp_path_factory.mktemp("grow") / "t.csv"
        path.write_bytes(b"")
        reader = GrowingTable(path, follow=True)
        found, bad, start = [], [], 0
        for end in [*sorted(min(c, len(text)) for c in cut), len(text)]:
            add(path, text[start:end])
            new = reader.read()
            found, bad, start = found + new.values.tolist(), [*bad, *(b.line for b in new.bad)], end
        assert found == [[1, 2], [4, 5], [6, 7], [-8, 90]]
        assert bad == [4]


class TestBadLines:
    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("3", "has 1 cell, expected 2"),
            ("3,4,5", "has 3 cells, expected 2"),
            ("3,four", "column 'b': 'four' is no number"),
            ("3,9007199254740993", "more digits than a float64 holds"),
            ("3,inf", "column 'b' is infinite"),
            ('3,"4', "faulty quotation"),
            ("3,\0", "no text in UTF-8"),
        ],
    )
    def test_a_bad_line_is_told_with_its_number_and_left_out(self, table, line, why):
        found = table(f"a,b\n1,2\n{line}\n5,6\n")[1].read()
        assert found.values.tolist() == [[1.0, 2.0], [5.0, 6.0]]
        assert [bad.line for bad in found.bad] == [3]
        assert why in found.bad[0].why

    def test_bytes_that_are_no_utf8_make_a_line_bad(self, table):
        found = table(b"a,b\n1,2\n\xff,3\n5,6\n")[1].read()
        assert [bad.line for bad in found.bad] == [3]
        assert len(found.values) == 2

    def test_a_point_in_a_file_of_decimal_commas_is_bad(self, table):
        path, reader = table("a;b\n1,5;2\n")
        reader.read()
        add(path, "2.5;3\n")
        assert "has a point" in reader.read().bad[0].why

    def test_a_comma_in_a_file_of_decimal_points_is_bad(self, table):
        path, reader = table("a;b\n1.5;2\n")
        reader.read()
        add(path, "2,5;3\n")
        assert "decimal comma" in reader.read().bad[0].why


class TestChanges:
    def test_a_file_that_was_cut_is_told_and_read_from_its_beginning(self, table):
        path, reader = table("a,b\n1,2\n3,4\n")
        reader.read()
        path.write_text("a,b\n5,6\n")
        found = reader.read()
        assert found.values.tolist() == [[5.0, 6.0]]
        assert "was cut or written anew after line 3" in found.events[0]

    def test_a_file_that_was_written_anew_and_longer_is_told(self, table):
        path, reader = table("a,b\n1,2\n")
        reader.read()
        path.write_text("a,b\n5,6\n7,8\n9,10\n")
        found = reader.read()
        assert found.values.tolist() == [[5.0, 6.0], [7.0, 8.0], [9.0, 10.0]]
        assert len(found.events) == 1

    def test_a_log_that_rotates_is_read_to_its_end_and_then_the_new_one(self, table, tmp_path):
        path, reader = table("a,b\n1,2\n")
        reader.read()
        add(path, "3,4\n")
        path.rename(tmp_path / "t.csv.1")
        path.write_text("a,b\n5,6\n7,")
        assert rows(reader) == [[3.0, 4.0]]
        found = reader.read()
        assert "was replaced by another file" in found.events[0]
        assert rows(reader) == [[5.0, 6.0]]

    def test_another_header_after_the_change_is_refused(self, table):
        path, reader = table("a,b\n1,2\n3,4\n")
        reader.read()
        path.write_text("b,a\n5,6\n")
        with pytest.raises(InvalidProblem, match="has another header now: b, a; it was a, b"):
            reader.read()

    def test_a_file_that_is_gone_for_a_moment_is_waited_for(self, table, tmp_path):
        path, reader = table("1,2\n3,4\n")
        reader.read()
        path.rename(tmp_path / "away")
        assert reader.read().values.size == 0

    def test_reading_goes_on_from_a_saved_place(self, table):
        path, reader = table("a,b\n1,2\n3,4")
        reader.read()
        other = GrowingTable(path, follow=True)
        other.load_state_dict(reader.state_dict())
        add(path, "\n5,6\n")
        assert rows(other) == [[3.0, 4.0], [5.0, 6.0]]
        assert other.names == ("a", "b")

    def test_a_pass_can_be_made_again(self, table):
        _, reader = table("a,b\n1,2\n3,4\n", follow=False)
        first = rows(reader)
        reader.restart()
        assert rows(reader) == first


class TestRefusals:
    def test_an_absent_file(self, tmp_path):
        with pytest.raises(UnreadableFile, match="No file"):
            GrowingTable(tmp_path / "t.csv")

    def test_an_unknown_ending(self, tmp_path):
        (tmp_path / "t.bin").write_bytes(b"1")
        with pytest.raises(UnreadableFile, match="unknown ending"):
            GrowingTable(tmp_path / "t.bin")

    def test_a_compressed_file_that_is_to_be_followed(self, tmp_path):
        (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"1\n"))
        with pytest.raises(InvalidParameter, match="can be read, but not followed"):
            GrowingTable(tmp_path / "t.csv.gz", follow=True)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "holds no rows"),
            ("t,a\nx,1\ny,2\n", "column 't' holds no numbers, but 'x'"),
            (",a\n0,1\n1,2\n", "first column has no name"),
            ("0,1,2\n3,4,5\n", "are these names, or a row"),
            (b"\xff\xfe1\x00", "UTF-16"),
        ],
    )
    def test_tables_that_nobody_can_take(self, table, text, message):
        with pytest.raises((InvalidProblem, UnreadableFile), match=message):
            table(text, follow=False)[1].read()

    def test_an_unknown_column(self, table):
        with pytest.raises(UnknownName, match="No column 'c'"):
            table("a,b\n1,2\n", columns=["c"])[1].read()

    def test_a_line_without_end(self, table, monkeypatch):
        monkeypatch.setattr("thalweg.datasets.growing.CHUNK", 8)
        monkeypatch.setattr("thalweg.datasets.growing.LONGEST", 1 << 20)
        with pytest.raises(UnreadableFile, match="line 1 is longer than 1 MiB"):
            table("1" * (1 << 21))[1].read()
