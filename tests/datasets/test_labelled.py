"""Features with a target: what a label may be, and what is never guessed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import dump_svmlight_file

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName, UnreadableFile
from thalweg.datasets import Dataset, load


@pytest.fixture
def write(tmp_path):
    def made(text, name="t.csv"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return made


@pytest.fixture
def arrays(tmp_path):
    def made(**named):
        np.savez(tmp_path / "t.npz", **named)
        return tmp_path / "t.npz"

    return made


class TestMissingLabels:
    @pytest.mark.parametrize("y", [[0, 1, np.nan, 1], [0, 1, np.inf, np.nan]])
    def test_nan_is_no_class(self, arrays, y):
        with pytest.raises(
            NotFinite, match=r"y holds [12] .* \(first in row 2\). Rows and columns count from 0"
        ):
            load(arrays(X=np.ones((4, 2)), y=np.array(y)))

    @pytest.mark.parametrize("hole", ["", "NA", "nan", "?", "NULL"])
    @pytest.mark.parametrize(
        "labels", [("yes", "no", "no"), ("1", "2", "2"), ("1.5", "2", "7"), ("True", "False", "True")]
    )
    def test_a_hole_in_a_column_is_said_with_its_row_and_line(self, write, hole, labels):
        first, second, last = labels
        path = write(f"a,b,y\n1,2,{first}\n2,1,{second}\n3,1,{hole}\n4,5,{last}\n")
        with pytest.raises(NotFinite, match=r"y has no value in row 3 \(line 4\)"):
            load(path, target="y")

    @pytest.mark.parametrize("hole", ["", "nan"])
    def test_a_hole_in_words_of_an_array_is_said_with_its_row(self, arrays, hole):
        with pytest.raises(NotFinite, match="y has no value in row 1, counted from 0"):
            load(arrays(X=np.ones((2, 2)), y=np.array(["yes", hole])))

    def test_svmlight(self, write):
        with pytest.raises(NotFinite, match=r"y holds 1 NaN \(first in row 1\)"):
            load(write("1 1:2\nnan 1:3\n", "t.svm"))


class TestUse:
    def test_words_are_classes_and_no_numbers(self, write):
        data = load(write('y,a\n"1,234",3\n"2,000",4\n'), target="y")
        labels, values = data.classes()
        assert (labels.tolist(), values.tolist()) == ([0, 1], ["1,234", "2,000"])
        with pytest.raises(InvalidProblem, match=r"y holds words \('1,234'\); squares needs numbers"):
            data.numbers("squares")

    def test_the_first_word_is_named_among_numbers(self, write):
        with pytest.raises(InvalidProblem, match=r"y holds words \('low'\)"):
            load(write("a,y\n1,2\n2,low\n"), target="y").numbers("squares")

    @pytest.mark.parametrize(
        ("column", "dtype", "values"),
        [
            (["3", "1", "3"], np.int64, [1, 3]),
            (["True", "False", "True"], np.bool_, [False, True]),
            (["3.0", "1.0", "3.0"], np.float64, [1, 3]),
            (["0.5", "-0.5", "0.5"], np.float64, [-0.5, 0.5]),
            (["9007199254740993", "1", "9007199254740993"], np.int64, [1, 9007199254740993]),
        ],
    )
    def test_numbers_and_truth_values_are_classes_in_order(self, write, column, dtype, values):
        data = load(write("a,y\n" + "".join(f"1,{cell}\n" for cell in column)), target="y")
        assert data.y.dtype == dtype
        labels, known = data.classes()
        assert (labels.tolist(), known.tolist()) == ([1, 0, 1], values)

    def test_quantities_are_no_classes(self, write):
        data = load(write("a,y\n1,1\n1,2.5\n1,3\n"), target="y")
        with pytest.raises(InvalidProblem, match=r"y holds 2.5 \(row 1, counted from 0\), which is no class"):
            data.classes()
        assert data.numbers().tolist() == [1, 2.5, 3]

    def test_a_target_is_needed(self):
        for use in (Dataset("t", np.eye(2)).numbers, Dataset("t", np.eye(2)).classes):
            with pytest.raises(InvalidProblem, match=r"t holds no target\. Name a column"):
                use()

    def test_digits_that_a_float_would_lose_are_no_number(self, write, arrays):
        for data in (
            load(write("a,y\n1,9007199254740993\n"), target="y"),
            load(arrays(X=np.ones((1, 1)), y=np.array([2**53 + 1]))),
        ):
            with pytest.raises(InvalidProblem, match="9007199254740993 has more digits"):
                data.numbers()


class TestColumns:
    def test_the_target_may_stand_anywhere(self, write):
        data = load(write("y,a,b\n1,2,3\n4,5,6\n"), target="y")
        assert (data.X.tolist(), data.feature_names) == ([[2, 3], [5, 6]], ("a", "b"))

    @pytest.mark.parametrize("wanted", [" b ", "B", "bb"])
    def test_near_names_are_told(self, write, wanted):
        with pytest.raises(UnknownName, match=r"No column .*(Did you mean 'b'|Known: a, b, y)"):
            load(write("a,b,y\n1,2,3\n"), target=wanted)

    def test_names_are_read_without_the_space_around_them(self, write):
        assert load(write("a, b , y\n1,2,3\n"), target="b").y.tolist() == [2]

    def test_equal_names_are_features_but_no_target(self, write):
        path = write("a,a,y\n1,2,3\n")
        assert load(path, target="y").feature_names == ("a", "a")
        with pytest.raises(InvalidProblem, match="2 columns are called 'a'"):
            load(path, target="a")

    def test_truth_values_are_one_and_zero(self, write):
        data = load(write("a,b,y\nTrue,false,1\nFALSE,true,2\n"), target="y")
        assert data.X.tolist() == [[1, 0], [0, 1]]
        with pytest.raises(NotFinite, match=r"X holds 1 NaN .*line 3"):
            load(write("a,b\nTrue,1\n,2\n"))

    @pytest.mark.parametrize("hole", ["", "?", "NA", "NaN"])
    def test_holes_in_features_are_said_with_their_place(self, write, hole):
        with pytest.raises(
            NotFinite, match=r"X holds 1 NaN \(first in row 1, column 0\).* this one is line 3"
        ):
            load(write(f"y,a\n1,2\n1,{hole}\n"), target="y")

    def test_a_table_of_the_target_alone_is_refused(self, write):
        with pytest.raises(InvalidProblem, match="no column beside the target"):
            load(write("y\n1\n2\n"), target="y")


class TestSvmlight:
    TEXT = "1 1:3 2:1\n-1 1:1\n1 2:2\n"

    def test_columns_count_from_0_or_1_as_said(self, write):
        path = write(self.TEXT, "t.svm")
        assert load(path).X.toarray().tolist() == [[3, 1], [1, 0], [0, 2]]
        assert load(path, zero_based=False).X.shape == (3, 2)
        assert load(path, zero_based=True).X.toarray().tolist() == [[0, 3, 1], [0, 1, 0], [0, 0, 2]]

    def test_training_and_test_data_agree_on_columns_that_are_said(self, write):
        first, second = write(self.TEXT, "a.svm"), write("1 1:5\n", "b.svm")
        shapes = {load(path, zero_based=True, n_features=4).X.shape[1] for path in (first, second)}
        assert shapes == {4}

    def test_columns_that_do_not_fit_are_refused(self, write):
        path = write(self.TEXT, "t.svm")
        with pytest.raises(UnreadableFile, match="n_features was set to 2, but input file contains 3"):
            load(path, zero_based=True, n_features=2)
        with pytest.raises(UnreadableFile, match="Invalid index 0"):
            load(write("1 0:3\n", "z.svm"), zero_based=False)
        with pytest.raises(InvalidParameter, match="n_features is a whole number from 1"):
            load(path, n_features=0)

    def test_options_of_one_kind_are_refused_for_another(self, write, arrays):
        for path in (write("a,b\n1,2\n"), arrays(X=np.eye(2))):
            with pytest.raises(InvalidParameter, match="are for svmlight files"):
                load(path, zero_based=True)
        with pytest.raises(InvalidParameter, match="target names a column of a table"):
            load(write(self.TEXT, "t.svm"), target="y")
        with pytest.raises(InvalidParameter, match="takes no options of files"):
            load("digits", target="y")

    @pytest.mark.parametrize(
        "text",
        [
            "1 qid:3 1:2 3:4\n2 qid:3 2:1\n",
            "# made today\n1 1:2 3:4 # the first\n\n2 2:1\n",
            "1 1:2 3:4\r\n2 2:1\r\n",
        ],
    )
    def test_queries_comments_and_blank_lines_are_passed_over(self, write, text):
        data = load(write(text, "t.libsvm"))
        assert (data.X.toarray().tolist(), data.y.tolist()) == ([[2, 0, 4], [0, 1, 0]], [1, 2])

    @pytest.mark.parametrize("zero_based", [True, False])
    def test_rows_without_entries_stay(self, tmp_path, zero_based):
        X = sp.csr_matrix(np.array([[1.5, 0, 2], [0, 0, 0], [0, 3, 0]]))
        dump_svmlight_file(X, np.arange(3), str(tmp_path / "t.svm"), zero_based=zero_based)
        np.testing.assert_array_equal(load(tmp_path / "t.svm").X.toarray(), X.toarray())

    @pytest.mark.parametrize("line", ["1 2:1 1:1", "1 1:1 1:2", "1,2 1:1", "1 a:1", "1 1:x"])
    def test_faulty_lines_are_refused(self, write, line):
        with pytest.raises(UnreadableFile, match=r"t.svm could not be read"):
            load(write(line + "\n", "t.svm"))

    def test_values_are_looked_at(self, write):
        with pytest.raises(NotFinite, match=r"X holds 1 NaN \(first in row 1, column 1\)"):
            load(write("1 1:1\n1 2:nan\n", "t.svm"))
        with pytest.raises(InvalidProblem, match="line 2: 9007199254740993 has more digits"):
            load(write("1 1:1\n1 2:9007199254740993\n", "t.svm"))
        with pytest.raises(UnreadableFile, match="holds no rows"):
            load(write("# nothing\n", "t.svm"))


class TestArrays:
    def test_another_array_may_be_the_target(self, arrays):
        path = arrays(X=np.eye(2), y=np.array([1, 2]), price=np.array([3, 4]))
        assert load(path).y.tolist() == [1, 2]
        assert load(path, target="price").y.tolist() == [3, 4]
        with pytest.raises(UnknownName, match=r"No array 'prize'. Did you mean 'price'\?"):
            load(path, target="prize")

    @pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)])
    def test_the_target_is_a_vector(self, arrays, shape):
        assert load(arrays(X=np.eye(3), y=np.arange(3).reshape(shape))).y.tolist() == [0, 1, 2]

    @pytest.mark.parametrize(
        ("X", "y", "message"),
        [
            (np.ones((3, 2)), np.ones(2), r"y of shape \(2,\); expected \(3,\), one for each row of X"),
            (np.ones((3, 2)), np.ones((3, 2)), r"y of shape \(3, 2\)"),
            (
                np.ones((3, 2, 2)),
                np.ones(3),
                r"array of shape \(3, 2, 2\) for X; expected \(examples, features\)",
            ),
            (np.ones(3), np.ones(3), r"X of shape \(3,\)"),
            (np.array([["a"]]), np.ones(1), "X holds words"),
            (np.ones((1, 1)), np.array(["2020-01-01"], "M8[D]"), "y holds values of type datetime64"),
            (np.ones((2, 1)), np.array([1, None]), "holds Python objects"),
        ],
    )
    def test_other_shapes_and_types_are_refused(self, arrays, X, y, message):
        with pytest.raises(UnreadableFile, match=message):
            load(arrays(X=X, y=y))

    @pytest.mark.parametrize("name", ["X", "y"])
    def test_complex_numbers_are_refused(self, arrays, name):
        named = {"X": np.eye(2), "y": np.ones(2)}
        named[name] = named[name] * (1 + 1j)
        with pytest.raises(InvalidProblem, match=f"{name} is complex; only real systems are solved here"):
            load(arrays(**named))

    def test_bytes_are_words(self, arrays):
        assert load(arrays(X=np.eye(2), y=np.array([b"yes", b"no"]))).y.tolist() == ["yes", "no"]

    def test_a_file_without_features_is_refused(self, arrays):
        with pytest.raises(UnreadableFile, match="holds the arrays A, b; expected X"):
            load(arrays(A=np.eye(2), b=np.ones(2)))
