"""Tables of text in every dialect: separators, decimals, headers, and the cell that could not be taken."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidProblem, NotFinite, UnknownName, UnreadableFile
from thalweg.datasets import load, load_frame, load_matrix, load_named_matrix, load_series, load_vector


@pytest.fixture
def write(tmp_path):
    def made(text, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return made


class TestNumberOfCells:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("l2\n1,5\n1,25\n0,9\n", r"row 1 has 2 cells, the header 1 \(line 2\).*decimal comma"),
            ("l2\n1\n1,25\n", r"row 2 has 2 cells, the header 1 \(line 3\)"),
            ("x,y\n1,5,3,0\n2,5,5,0\n", r"row 1 has 4 cells, the header 2 \(line 2\).*decimal comma"),
            ("a,b,y\n1,0,3,9\n2,1,5,9\n", r"row 1 has 4 cells, the header 3 \(line 2\)"),
            ("a,b,y\n1,0\n", r"row 1 has 2 cells, the header 3 \(line 2\)"),
            ("a,b\n1,2,\n3,4,\n", r"row 1 has 3 cells, the header 2 \(line 2\). The line ends with ','"),
            ("1,2\n\n3\n", r"row 2 has 1 cell, the first row 2 \(line 3\)"),
            ("a b\n1 2\n3 4 5\n", r"row 2 has 3 cells, the header 2 \(line 3\)"),
        ],
    )
    @pytest.mark.parametrize("reader", [load, load_matrix, load_series])
    def test_a_row_longer_or_shorter_than_the_first_is_refused_with_its_line(
        self, write, reader, text, message
    ):
        with pytest.raises(UnreadableFile, match=message):
            reader(write(text))

    def test_the_first_column_never_becomes_an_index(self, write):
        data = load(write("a,b,y\n1,0,3\n2,1,5\n"), target="y")
        assert (data.X.tolist(), data.y.tolist()) == ([[1, 0], [2, 1]], [3, 5])

    def test_a_separator_at_the_end_of_all_lines_ends_them(self, write):
        table = load_named_matrix(write("a,b,\n1,2,\n3,4,\n"))
        assert (table.values.tolist(), table.names) == ([[1, 2], [3, 4]], ("a", "b"))
        assert load_matrix(write("1;2;\n3;4;\n")).toarray().tolist() == [[1, 2], [3, 4]]

    def test_a_named_last_column_without_values_is_missing_not_dropped(self, write):
        with pytest.raises(NotFinite, match="2 NaN"):
            load_matrix(write("a,b\n1,\n2,\n"))

    def test_cells_between_bars_are_told_and_not_taken_for_one_column(self, write):
        for text in ("a|b|y\n1|2|3\n4|5|6\n", "| a | b |\n| 1 | 2 |\n", "1|2\n3|4\n"):
            with pytest.raises(UnreadableFile, match=r"separates its cells by '\|', which is not read"):
                load_frame(write(text))
        assert load_frame(write("kinds\ndrama|crime\ncrime|war\n")).kinds.tolist() == [
            "drama|crime",
            "crime|war",
        ]

    def test_the_line_counts_the_lines_inside_quotations(self, write):
        with pytest.raises(UnreadableFile, match=r"row 2 has 1 cell.*\(line 5\)"):
            load(write('"a\nb",c\n"1",2\n\n3\n'))


class TestShape:
    @pytest.mark.parametrize("name", ["t.csv", "t.txt", "t.tsv"])
    def test_one_column_is_a_column_and_one_row_a_row(self, write, name):
        assert load_matrix(write("1\n2\n5\n", name)).shape == (3, 1)
        assert load_matrix(write("1\n", name)).shape == (1, 1)
        separator = {"t.csv": ",", "t.txt": " ", "t.tsv": "\t"}[name]
        assert load_matrix(write(separator.join("125") + "\n", name)).shape == (1, 3)

    def test_a_column_with_a_header_is_a_column(self, write):
        table = load_named_matrix(write("seconds\n1\n2\n"))
        assert (table.values.tolist(), table.names) == ([[1], [2]], ("seconds",))

    def test_a_vector_is_a_row_or_a_column_of_any_dialect(self, write):
        for text in ("1.5\n2\n", "b\n1.5\n2\n", "1.5,2\n", "x;y\n1,5;2\n", "1.5 2"):
            assert load_vector(write(text)).tolist() == [1.5, 2]


class TestDialects:
    @pytest.mark.parametrize(
        "text",
        [
            "1.5,2.5\n2.5,-1\n",
            "1.5, 2.5\n2.5, -1\n",
            "1,5;2,5\n2,5;-1\n",
            "1.5;2.5\n2.5;-1\n",
            "1,5\t2,5\n2,5\t-1\n",
            "1,5 2,5\n2,5   -1\n",
            "  1.5 2.5\n\t2.5 -1\n",
            '"1.5","2.5"\n"2.5","-1"\n',
            'a,b\n"1.5","2.5"\n"2.5","-1"\n',
            "sep=;\na;b\n1,5;2,5\n2,5;-1\n",
            "sep=;\n1,5;2,5\n2,5;-1\n",
            "\ufeffa,b\r\n1.5,2.5\r\n2.5,-1\r\n",
            "1.5,2.5\r2.5,-1\r",
            "\n1.5,2.5\n\n2.5,-1\n\n",
            "# a b\n1.5 2.5\n2.5 -1\n",
            "# made today\n# by hand, twice, or more\n1.5,2.5  # the first\n# a pause\n2.5,-1\n",
            "1.5E0;+2.5\n25e-1;-1.0\n",
        ],
    )
    def test_what_programs_write_is_read_as_they_mean_it(self, write, text):
        assert load_matrix(write(text)).toarray().tolist() == [[1.5, 2.5], [2.5, -1]]

    def test_words_may_hold_separators_in_quotations(self, write):
        data = load(write('a;"b;c";kind\n1,5;2;"x;y"\n2;3;"say ""z"""\n'), target="kind")
        assert data.feature_names == ("a", "b;c")
        assert data.X.tolist() == [[1.5, 2], [2, 3]]
        assert data.y.tolist() == ["x;y", 'say "z"']

    def test_white_space_in_words_separates_nothing_where_commas_do(self, write):
        data = load(write("city,pop\nNew York,5\nOslo,6\n"), target="city")
        assert data.y.tolist() == ["New York", "Oslo"]
        assert load_series(write("grad norm\n1\n2\n")).tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('a,b\n"1,234",3\n', r"column 'a' holds no numbers: line 2: '1,234' has thousands separators"),
            ("a;b\n1.234,5;3\n", r"line 2: '1.234,5' has thousands separators"),
            ("a;b\n1,5;3\n2,5;1.234\n", r"column 'b'.*line 3: '1.234' has thousands separators"),
            ("a;b\n1,5;3\n2,5;1.25\n", r"column 'b'.*line 3: '1.25' has a point, where other cells have"),
            ("a;b\n1.5;3\n2,5;1\n", r"column 'a'.*line 3: '2,5' has a decimal comma"),
            ("a,b\n1 000,3\n", r"'1 000' has thousands separators"),
            ("a,b\n1,red\n", r"column 'b' holds no numbers: line 2: 'red' is no number"),
            ("a,b\n1,5%\n", r"'5%' is no number"),
            ("a,b\n1,1_000\n", r"'1_000' is no number"),
            ("a,b\n1,\u0661\n", r"is no number"),
            ("a,b\n1,0x10\n", r"'0x10' is no number"),
            ("a,b\n1,2+1j\n", r"is no number"),
        ],
    )
    @pytest.mark.parametrize("reader", [load, load_matrix])
    def test_a_cell_that_is_no_number_is_said_with_its_line(self, write, reader, text, message):
        with pytest.raises(InvalidProblem, match=message):
            reader(write(text))

    def test_a_quotation_without_end_is_refused(self, write):
        with pytest.raises(UnreadableFile, match="line 3 has a faulty quotation"):
            load(write('a,b\n1,2\n"3,4\n'))

    @pytest.mark.parametrize(
        ("text", "row"), [("a,b\n1,2\n3,NA\n", 1), ("1,?\n3,2\n", 0), ("1,inf\n3,2\n", 0)]
    )
    def test_a_missing_cell_of_a_matrix_is_said_with_its_place(self, write, text, row):
        with pytest.raises(
            NotFinite, match=rf"first in row {row}, column 1\). Rows and columns count from 0"
        ):
            load_matrix(write(text))


class TestHeader:
    def test_names_are_taken_as_they_stand(self, write):
        table = load_named_matrix(write("w0,w0,größe\n1,2,3\n2,1,3\n"))
        assert (table.names, table.values.shape) == (("w0", "w0", "größe"), (2, 3))
        assert load_named_matrix(write("1,2\n2,1\n")).names == ()

    def test_a_first_line_of_equal_numbers_is_data(self, write):
        path = write("1.5,1.5\n1.2,1.1\n1,1\n")
        assert load_series(path, "column 2").tolist() == [1.5, 1.1, 1]
        assert load(path, target="column 1").y.tolist() == [1.5, 1.2, 1]
        assert load_matrix(path).shape == (3, 2)

    def test_a_first_line_of_numbers_is_data_of_a_labelled_table_too(self, write):
        data = load(write("1.5,2,1\n2.5,3,0\n"), target="column 3")
        assert (data.X.tolist(), data.y.tolist()) == ([[1.5, 2], [2.5, 3]], [1, 0])

    def test_numbers_that_count_are_names_when_one_of_them_is_asked_for(self, write):
        assert load(write("0,1,2\n5,6,7\n"), target="2").y.tolist() == [7]
        assert load_series(write("2019,2020\n5.5,6.5\n"), "2020").tolist() == [6.5]
        assert load(write("0,1,2,label\n5,6,7,8\n")).X.tolist() == [[5, 6, 7, 8]]

    def test_numbers_that_count_are_refused_when_they_may_be_names(self, write):
        path = write("0,1,2\n5,6,7\n")
        with pytest.raises(InvalidProblem, match=r"are these names, or a row\? Say header=True"):
            load(path)
        assert load(path, header=True).X.tolist() == [[5, 6, 7]]
        assert load(path, header=False).X.tolist() == [[0, 1, 2], [5, 6, 7]]
        assert load_matrix(path).shape == (2, 3)
        with pytest.raises(InvalidProblem, match="are these names"):
            load_matrix(write("0,1\n0.5,1.5\n"))
        assert load_matrix(write("0,1\n1.5,0\n")).shape == (2, 2)

    def test_a_lone_line_of_words_says_how_to_read_it_as_a_row(self, write):
        path = write("u0;i2\n")
        with pytest.raises(
            UnreadableFile, match=r"header, but no rows. If its line is a row, say header=False \(--no-header"
        ):
            load_named_matrix(path)
        with pytest.raises(UnreadableFile, match=r"header, but no rows\.$"):
            load_named_matrix(path, header=True)

    def test_messages_name_the_options_of_the_shell(self, write):
        with pytest.raises(InvalidProblem, match=r"\(--header, --no-header\), or in the file"):
            load(write("0,1,2\n5,6,7\n"))
        with pytest.raises(InvalidProblem, match=r"\(--header, --no-header\), or write a line"):
            load(write("5.1,3.5,setosa\n4.9,3,virginica\n"))
        with pytest.raises(UnknownName, match=r"header=True \(--header\) makes it names"):
            load_series(write("1.5,1.5\n1.2,1.1\n"), "price")

    def test_words_beside_numbers_are_refused_when_they_may_be_a_row(self, write):
        path = write("5.1,3.5,setosa\n4.9,3,virginica\n")
        with pytest.raises(InvalidProblem, match="first line holds words and numbers"):
            load(path)
        assert load(path, target="column 3").y.tolist() == ["setosa", "virginica"]
        assert load(write("5,b,y\n1,2,3\n"), target="y").feature_names == ("5", "b")

    @pytest.mark.parametrize("reader", [load, load_matrix])
    def test_numbers_of_rows_without_a_name_are_refused(self, write, reader):
        for text in (",a,b\n0,1.5,2\n1,2.5,3\n", ",0,1\n0,1.5,2\n1,2.5,3\n", '"","a"\n"1",2\n'):
            with pytest.raises(InvalidProblem, match="the first column has no name"):
                reader(write(text))

    def test_a_header_alone_holds_no_rows(self, write):
        for text in ("a,b\n", "# a,b\n", "# nothing\n"):
            with pytest.raises(UnreadableFile, match="no rows"):
                load_matrix(write(text))

    def test_the_last_comment_is_a_header_if_it_has_as_many_cells(self, write):
        assert load_named_matrix(write("# two numbers, or none\n#a,b\n1,2\n")).names == ("a", "b")
        assert load_named_matrix(write("# two, or, none\n1,2\n")).names == ()

    def test_a_header_is_no_option_of_other_files(self, tmp_path):
        np.save(tmp_path / "a.npy", np.eye(2))
        with pytest.raises(ValueError, match="header is for tables"):
            load_matrix(tmp_path / "a.npy", header=True)


class TestLargeIntegers:
    @pytest.mark.parametrize("number", ["9007199254740993", "-9007199254740993", "123456789012345678901"])
    @pytest.mark.parametrize("dialect", ["a,b\n1,{}\n", "a;b\n1,5;{}\n", 'a,b\n1,"{}"\n'])
    def test_digits_that_a_float_would_lose_are_refused(self, write, number, dialect):
        for reader in (load, load_matrix, lambda path: load_series(path, "b")):
            with pytest.raises(InvalidProblem, match=rf"line 2, column 'b': {number} has more digits"):
                reader(write(dialect.format(number)))

    @pytest.mark.parametrize(
        "number", ["9007199254740992", "9007199254740994", "12345678901234567000", "1e300"]
    )
    def test_digits_that_a_float_keeps_are_taken(self, write, number):
        assert load_matrix(write(f"1.5,{number}\n")).toarray()[0, 1] == float(number)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw):
    separator = draw(st.sampled_from([",", ";", "\t", " "]))
    comma = separator != "," and draw(st.booleans())
    # A single column with decimal commas is a table of two columns to every reader.
    columns = draw(st.integers(2 if comma else 1, 4))
    rows = draw(st.lists(st.lists(FLOATS, min_size=columns, max_size=columns), min_size=1, max_size=5))
    return separator, comma, rows


@given(
    table=tables(),
    header=st.booleans(),
    bom=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
    packed=st.booleans(),
    quoted=st.booleans(),
)
def test_every_table_of_floats_is_read_back_exactly(
    tmp_path_factory, table, header, bom, end, last, packed, quoted
):
    separator, comma, rows = table
    mark = '"' if quoted else ""
    names = [f"name{i}" for i in range(len(rows[0]))]
    cells = [[repr(value).replace(".", "," if comma else ".") for value in row] for row in rows]
    lines = [separator.join(f"{mark}{cell}{mark}" for cell in row) for row in [names] * header + cells]
    text = ("\ufeff" * bom + end.join(lines) + end * last).encode()
    path = tmp_path_factory.mktemp("table") / ("t.csv.gz" if packed else "t.csv")
    path.write_bytes(gzip.compress(text) if packed else text)
    read = load_named_matrix(path)
    assert read.names == (tuple(names) if header else ())
    np.testing.assert_array_equal(read.values, np.array(rows))
    np.testing.assert_array_equal(np.signbit(read.values), np.signbit(np.array(rows)))
    np.testing.assert_array_equal(load(path).X, np.array(rows))
    np.testing.assert_array_equal(
        load_series(path, read.names[-1] if header else f"column {len(names)}"), read.values[:, -1]
    )


class TestStrayWords:
    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            ("foo", "'foo' is no number"),
            ("1+2j", r"'1\+2j' is no number"),
            ("0.5O", "'0.5O' is no number"),
            ('"0,5"', "'0,5' has a decimal comma"),
            ('"1,234.5"', "'1,234.5' has thousands separators"),
            ("True", "'True' is no number"),
        ],
    )
    def test_a_few_words_among_numbers_are_faults_and_no_categories(self, write, cell, said):
        rows = "".join(f"a,{i}.5\n" for i in range(30))
        with pytest.raises(
            InvalidProblem, match=rf"column 'x' holds 30 numbers and 1 word \(line 32: {said}"
        ):
            load_frame(write(f"g,x\n{rows}a,{cell}\n"))

    def test_numbers_in_another_spelling_are_no_categories_either(self, write):
        with pytest.raises(
            InvalidProblem, match=r"0 numbers and 2 words \(line 2: '0,5' has a decimal comma"
        ):
            load_frame(write('g,x\na,"0,5"\nb,"1,5"\n'))
        with pytest.raises(
            InvalidProblem, match=r"'1\.5' has a point, where other cells have a decimal comma"
        ):
            load_frame(write("g;x\na;0,5\nb;1,25\nc;1.5\n"))

    @given(st.lists(st.booleans(), min_size=1, max_size=12))
    def test_words_stay_categories_where_they_are_half_of_the_cells(self, tmp_path_factory, worded):
        path = tmp_path_factory.mktemp("words") / "t.csv"
        path.write_text("x,y\n" + "".join(f"{'w' if word else i},1\n" for i, word in enumerate(worded)))
        if any(worded) and 2 * sum(worded) < len(worded):
            with pytest.raises(InvalidProblem, match="column 'x' holds"):
                load_frame(path)
        else:
            assert (load_frame(path)["x"].dtype.kind == "f") is not any(worded)
