"""Matrices and vectors: Matrix Market, NumPy's and SciPy's files, and what a cast would lose."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidProblem, NotFinite, UnreadableFile
from thalweg.datasets import load, load_matrix, load_named_matrix, load_series, load_vector


@pytest.fixture
def market(tmp_path):
    """Write a Matrix Market file: the words of its header, and its lines."""

    def made(words, *lines, layout="coordinate"):
        path = tmp_path / "a.mtx"
        path.write_text("\n".join([f"%%MatrixMarket matrix {layout} {words}", *lines, ""]))
        return path

    return made


class TestSymmetricMatrixMarket:
    @pytest.mark.parametrize(
        ("words", "entries", "matrix"),
        [
            ("real symmetric", ["1 1 2", "2 1 -1", "2 2 2"], [[2, -1], [-1, 2]]),
            ("real symmetric", ["1 1 2", "1 2 -1", "2 2 2"], [[2, -1], [-1, 2]]),
            ("integer symmetric", ["2 1 3", "2 1 4"], [[0, 7], [7, 0]]),
            ("pattern symmetric", ["2 1", "2 2"], [[0, 1], [1, 1]]),
            ("real skew-symmetric", ["2 1 3"], [[0, -3], [3, 0]]),
            ("real skew-symmetric", ["1 2 3", "1 1 0"], [[0, 3], [-3, 0]]),
        ],
    )
    def test_one_triangle_stands_for_both(self, market, words, entries, matrix):
        path = market(words, f"2 2 {len(entries)}", *entries)
        assert load_matrix(path).toarray().tolist() == matrix

    @pytest.mark.parametrize(
        ("words", "entries"),
        [
            ("real symmetric", ["1 1 2", "2 1 -1", "1 2 -1", "2 2 2"]),
            ("pattern symmetric", ["1 2", "2 1"]),
            ("real skew-symmetric", ["2 1 3", "1 2 -3"]),
            ("integer symmetric", ["1 2 0", "2 1 5"]),
        ],
    )
    def test_both_triangles_are_refused_by_name(self, market, words, entries):
        path = market(words, f"2 2 {len(entries)}", *entries)
        kind = words.split()[1]
        for reader in (load_matrix, load_named_matrix, load):
            with pytest.raises(
                InvalidProblem, match=rf"called {kind} and stores both entries \(1, 2\) and \(2, 1\)"
            ):
                reader(path)

    def test_a_diagonal_that_is_not_skew_is_refused(self, market):
        with pytest.raises(InvalidProblem, match=r"skew-symmetric but its entry \(2, 2\)"):
            load_matrix(market("real skew-symmetric", "2 2 1", "2 2 1.5"))

    def test_a_symmetric_matrix_is_square(self, market):
        with pytest.raises(InvalidProblem, match="called symmetric but is 2 x 3"):
            load_matrix(market("real symmetric", "2 3 1", "1 1 1"))

    @given(seed=st.integers(0, 2**16), skew=st.booleans(), upper=st.booleans(), n=st.integers(1, 6))
    def test_every_triangle_is_read_as_scipy_reads_it(self, tmp_path_factory, seed, skew, upper, n):
        A = np.random.default_rng(seed).integers(-3, 4, (n, n))
        A = np.tril(A, -1 if skew else 0)
        stored = sp.coo_array(A.T if upper else A)
        text = io.BytesIO()
        scipy.io.mmwrite(text, stored, symmetry="general")
        content = text.getvalue().replace(b"general", b"skew-symmetric" if skew else b"symmetric")
        path = tmp_path_factory.mktemp("triangle") / "a.mtx"
        path.write_bytes(content)
        np.testing.assert_array_equal(
            load_matrix(path).toarray(), scipy.io.mmread(io.BytesIO(content)).toarray()
        )


class TestMatrixMarket:
    @pytest.mark.parametrize(
        ("words", "lines", "matrix"),
        [
            ("pattern general", ["2 2 1", "1 2"], [[0, 1], [0, 0]]),
            ("integer general", ["2 2 1", "1 2 -7"], [[0, -7], [0, 0]]),
            ("unsigned-integer general", ["1 1 1", "1 1 7"], [[7]]),
            ("double general", ["1 1 1", "1 1 7.5"], [[7.5]]),
            ("real general", ["2 2 2", "1 2 3", "1 2 4"], [[0, 7], [0, 0]]),
            ("real general", ["1 2 2", "1 1 1.5D+01", "1 2 25d-1"], [[15, 2.5]]),
            ("real general", ["% by hand", "", "2 1 1", "", "  2\t1   1.5 "], [[0], [1.5]]),
            ("REAL General", ["1 1 1", "1 1 .5"], [[0.5]]),
            ("real general", ["2 2 0"], [[0, 0], [0, 0]]),
        ],
    )
    def test_what_the_format_allows_is_read(self, market, words, lines, matrix):
        assert load_matrix(market(words, *lines)).toarray().tolist() == matrix

    @pytest.mark.parametrize(
        ("symmetry", "values", "matrix"),
        [
            ("general", ["1", "3", "2", "4"], [[1, 2], [3, 4]]),
            ("symmetric", ["1", "3", "4"], [[1, 3], [3, 4]]),
            ("skew-symmetric", ["3"], [[0, -3], [3, 0]]),
        ],
    )
    def test_arrays_are_read(self, market, symmetry, values, matrix):
        path = market(f"real {symmetry}", "2 2", *values, layout="array")
        assert load_matrix(path).toarray().tolist() == matrix

    @pytest.mark.parametrize(
        ("words", "lines", "message"),
        [
            ("real general", ["1 1 1", "0 1 2"], "Line 3: Row index out of bounds"),
            ("real general", ["1 1 1", "1 2 2"], "Line 3: Column index out of bounds"),
            ("real general", ["1 1 2", "1 1 2"], "Truncated file"),
            ("real general", ["1 1 1", "1 1 2", "1 1 3"], "too long"),
            ("real general", ["1 1 1", "1 1 1,5"], "line 3 is '1 1 1,5'; expected row, column and value"),
            ("real general", ["1 1 1", "1 1 1 5"], "line 3 is '1 1 1 5'"),
            ("integer general", ["1 1 1", "1 1 1x"], "line 3 is '1 1 1x'"),
            ("pattern general", ["1 1 1", "1 1 1"], "line 3 is '1 1 1'; expected row, column"),
            ("real general", ["1e6 1 1", "1 1 1"], "could not be read"),
            ("real general", [], "no line with the sizes"),
            ("real general", ["0 0 0"], "holds no numbers"),
            ("real general", ["9999999999 1 1", "1 1 1"], "9999999999 rows for 1 entries"),
            ("real diagonal", ["1 1 1", "1 1 1"], "'diagonal' in its first line is none of general"),
            ("quaternion general", ["1 1 1", "1 1 1"], "'quaternion'"),
        ],
    )
    def test_a_line_that_is_not_as_the_header_says_is_refused(self, market, words, lines, message):
        with pytest.raises(UnreadableFile, match=message):
            load_matrix(market(words, *lines))

    def test_an_array_with_a_value_of_another_kind_is_refused(self, market):
        with pytest.raises(UnreadableFile, match="line 4 is '2,5'; expected value"):
            load_matrix(market("real general", "2 1", "1", "2,5", layout="array"))

    def test_the_place_of_the_first_nan_is_that_of_the_matrix(self, market):
        path = market("real general", "3 3 3", "3 1 nan", "1 3 nan", "2 2 1")
        with pytest.raises(NotFinite, match=r"A holds 2 NaN \(first in row 0, column 2\)"):
            load_matrix(path)


class TestComplex:
    @pytest.mark.parametrize("reader", [load_matrix, load_vector, load_series])
    @pytest.mark.parametrize("array", [np.array([1 + 1j, 2]), np.array([1 + 0j, 2])])
    def test_arrays(self, tmp_path, reader, array):
        np.save(tmp_path / "a.npy", array)
        np.savez(tmp_path / "a.npz", array)
        for name in ("a.npy", "a.npz"):
            with pytest.raises(InvalidProblem, match="is complex; only real systems are solved here"):
                reader(tmp_path / name)

    def test_sparse_matrices(self, tmp_path):
        sp.save_npz(tmp_path / "a.npz", sp.csr_matrix(np.array([[1j, 0], [0, 2]])))
        with pytest.raises(InvalidProblem, match="A is complex; only real systems are solved here"):
            load_matrix(tmp_path / "a.npz")

    @pytest.mark.parametrize("words", ["complex general", "complex hermitian", "complex symmetric"])
    @pytest.mark.parametrize("layout", ["coordinate", "array"])
    def test_matrix_market(self, market, words, layout):
        path = market(words, "1 1 1" if layout == "coordinate" else "1 1", "1 1 1 0", layout=layout)
        for reader, name in ((load_matrix, "A"), (load_vector, "b"), (load, "X")):
            with pytest.raises(InvalidProblem, match=f"{name} is complex; only real systems are solved here"):
                reader(path)


class TestArrays:
    @pytest.mark.parametrize(
        "array",
        [
            np.array([[0.5, -2], [3, 4]]),
            np.array([[0.5, -2], [3, 4]], np.float32),
            np.array([[0.5, -2], [3, 4]], ">f8"),
            np.asfortranarray([[0.5, -2], [3, 4]]),
            np.array([[4, 3], [-2, 0.5]])[::-1, ::-1],
        ],
    )
    def test_types_and_orders_give_the_same_matrix(self, tmp_path, array):
        np.save(tmp_path / "a.npy", array)
        np.savez_compressed(tmp_path / "a.npz", array)
        for name in ("a.npy", "a.npz"):
            found = load_named_matrix(tmp_path / name).values
            assert (found.dtype, found.tolist()) == (np.float64, [[0.5, -2], [3, 4]])

    def test_truth_values_are_one_and_zero(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([[True, False]]))
        assert load_matrix(tmp_path / "a.npy").toarray().tolist() == [[1, 0]]

    def test_a_single_row_of_an_array_is_a_row(self, tmp_path):
        np.save(tmp_path / "a.npy", np.arange(3.0))
        assert load_matrix(tmp_path / "a.npy").shape == (1, 3)

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((2, 2, 2)), r"array of shape \(2, 2, 2\)"),
            (np.zeros(2, [("a", float)]), r"fields \(a structured array\)"),
            (np.array(["1", "2"]), "holds words"),
            (np.array(["2020-01-01"], "M8[D]"), "type datetime64"),
            (np.zeros((0, 2)), r"shape \(0, 2\): it holds no numbers"),
        ],
    )
    @pytest.mark.parametrize("reader", [load_matrix, load_vector])
    def test_what_is_no_matrix_of_numbers_is_refused(self, tmp_path, reader, array, message):
        np.save(tmp_path / "a.npy", array)
        np.savez(tmp_path / "a.npz", array)
        for name in ("a.npy", "a.npz"):
            with pytest.raises(UnreadableFile, match=message):
                reader(tmp_path / name)

    def test_python_objects_are_refused_unopened(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([1, None]), allow_pickle=True)
        np.savez(tmp_path / "a.npz", np.array([1, None]))
        for name in ("a.npy", "a.npz"):
            for reader in (load_matrix, load_series):
                with pytest.raises(UnreadableFile, match=f"{name} holds Python objects; expected numbers"):
                    reader(tmp_path / name)

    @pytest.mark.parametrize("dtype", [np.int64, np.uint64])
    def test_digits_that_a_float_would_lose_are_refused(self, tmp_path, dtype):
        np.save(tmp_path / "a.npy", np.array([[1, 2**53 + 1]], dtype))
        np.save(tmp_path / "even.npy", np.array([[1, 2**53 + 2]], dtype))
        sp.save_npz(tmp_path / "a.npz", sp.csr_matrix(np.array([[1, 2**53 + 1]], dtype)))
        for name in ("a.npy", "a.npz"):
            with pytest.raises(InvalidProblem, match="9007199254740993 has more digits than a float64 holds"):
                load_matrix(tmp_path / name)
        assert load_matrix(tmp_path / "even.npy").toarray()[0, 1] == 2**53 + 2

    @pytest.mark.parametrize("words", ["integer general", "real general", "integer symmetric"])
    def test_digits_are_looked_at_in_matrix_market_too(self, market, words):
        with pytest.raises(InvalidProblem, match="9007199254740993 has more digits"):
            load_matrix(market(words, "2 2 1", "2 1 9007199254740993"))

    def test_a_file_written_by_python_2_is_read_without_a_word(self, tmp_path):
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1L, 2L), }".ljust(117) + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        (tmp_path / "a.npy").write_bytes(content + np.array([1.5, 2]).tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_matrix(tmp_path / "a.npy").toarray().tolist() == [[1.5, 2]]

    def test_two_arrays_in_one_file_are_refused(self, tmp_path):
        with (tmp_path / "a.npy").open("wb") as file:
            np.save(file, np.eye(2))
            np.save(file, np.eye(2))
        np.savez(tmp_path / "a.npz", a=np.eye(2), b=np.eye(2))
        with pytest.raises(UnreadableFile, match="more than one array"):
            load_matrix(tmp_path / "a.npy")
        with pytest.raises(UnreadableFile, match="holds the arrays a, b; expected one"):
            load_matrix(tmp_path / "a.npz")

    @pytest.mark.parametrize("values", [[1, np.nan], [1, np.inf]])
    def test_nan_and_infinity_are_refused_with_their_place(self, tmp_path, values):
        np.save(tmp_path / "a.npy", np.array([[0, 0], values]))
        np.save(tmp_path / "b.npy", np.array(values))
        with pytest.raises(
            NotFinite, match=r"A holds 1 .* \(first in row 1, column 1\). Rows and columns count from 0"
        ):
            load_matrix(tmp_path / "a.npy")
        with pytest.raises(NotFinite, match="b holds 1 "):
            load_vector(tmp_path / "b.npy")

    def test_a_sparse_file_whose_indices_lie_outside_is_refused(self, tmp_path):
        parts = {"data": np.ones(1), "indices": np.array([10**6]), "indptr": np.array([0, 1])}
        np.savez(tmp_path / "a.npz", format=b"csr", shape=np.array([1, 2]), **parts)
        with pytest.raises(UnreadableFile, match="could not be read"):
            load_matrix(tmp_path / "a.npz")

    @pytest.mark.parametrize("layout", ["csr", "csc", "coo", "bsr", "dia"])
    def test_every_layout_of_scipy_is_read(self, tmp_path, layout):
        matrix = sp.csr_matrix(np.array([[0, 2.5], [1, 0]])).asformat(layout)
        sp.save_npz(tmp_path / "a.npz", matrix)
        assert load_matrix(tmp_path / "a.npz").toarray().tolist() == [[0, 2.5], [1, 0]]


class TestVectors:
    def test_sparse_rows_and_columns_of_matrix_market(self, market):
        assert load_vector(market("real general", "3 1 1", "2 1 4")).tolist() == [0, 4, 0]
        assert load_vector(market("real general", "1 3 1", "1 2 4")).tolist() == [0, 4, 0]

    def test_a_matrix_is_refused_before_it_is_made_dense(self, market):
        with pytest.raises(UnreadableFile, match=r"shape \(10000000, 10000000\); expected a vector"):
            load_vector(market("real general", "10000000 10000000 1", "1 1 1"))
