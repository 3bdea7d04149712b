"""What holds for every kind of file: compression, encodings, endings, empty files, folders, settings."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import ThalwegError, UnreadableFile
from thalweg.core.files import save_array
from thalweg.datasets import load, load_matrix, load_named_matrix, load_series, load_toml, load_vector

TABLE = "a,b\n1,2\n3,4\n"
SVM = "1 1:1 2:2\n3 1:3 2:4\n"
MARKET = "%%MatrixMarket matrix array real general\n2 2\n1\n3\n2\n4\n"
READERS = [load, load_matrix, load_named_matrix, load_vector, load_series, load_toml]
ENDINGS = (".csv", ".tsv", ".txt", ".svm", ".mtx", ".npy", ".npz", ".toml", ".tfevents")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(("ending", "text"), [("csv", TABLE), ("svm", SVM), ("mtx", MARKET), ("txt", TABLE)])
def test_every_text_is_read_compressed(tmp_path, pack, ending, text):
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    path = tmp_path / f"DATA.{ending.upper()}.{suffix.upper()}"
    path.write_bytes(pack(text.encode()))
    data = load(path)
    X = data.X if isinstance(data.X, np.ndarray) else data.X.toarray()
    assert (data.name, X.tolist()) == ("DATA", [[1, 2], [3, 4]])


@pytest.mark.parametrize(("ending", "text"), [("csv", TABLE), ("svm", SVM), ("mtx", MARKET), ("txt", TABLE)])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_text_may_begin_with_a_mark_and_end_its_lines_as_it_likes(tmp_path, ending, text, end):
    path = tmp_path / f"t.{ending}"
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", end).encode())
    X = load(path).X
    assert (X if isinstance(X, np.ndarray) else X.toarray()).tolist() == [[1, 2], [3, 4]]


def test_endings_are_read_without_regard_to_case(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(2))
    (tmp_path / "a.npy").rename(tmp_path / "A.NPY")
    (tmp_path / "T.CSV").write_text(TABLE)
    assert load_matrix(tmp_path / "A.NPY").toarray().tolist() == [[1, 0], [0, 1]]
    assert load_series(tmp_path / "T.CSV", "b").tolist() == [2, 4]


class TestRefused:
    @pytest.mark.parametrize("reader", READERS)
    @pytest.mark.parametrize("ending", [e for e in ENDINGS if e != ".tfevents"])
    def test_an_absent_file_a_folder_and_an_empty_one(self, tmp_path, reader, ending):
        with pytest.raises(UnreadableFile, match="No file"):
            reader(tmp_path / f"absent{ending}")
        (tmp_path / f"folder{ending}").mkdir()
        with pytest.raises(UnreadableFile, match=r"is a folder|No TensorBoard events"):
            reader(tmp_path / f"folder{ending}")
        (tmp_path / f"e{ending}").touch()
        with warnings.catch_warnings(), pytest.raises(UnreadableFile, match=r"is empty|unknown ending"):
            warnings.simplefilter("error")
            reader(tmp_path / f"e{ending}")

    @pytest.mark.parametrize("content", ["\ufeff", "\n\n", " \r\n"])
    def test_white_space_is_no_table(self, tmp_path, content):
        (tmp_path / "e.csv").write_bytes(content.encode())
        with pytest.raises(UnreadableFile, match=r"e.csv is empty\.$"):
            load_matrix(tmp_path / "e.csv")

    @pytest.mark.parametrize(
        ("ending", "text"), [("csv", TABLE), ("svm", SVM), ("mtx", MARKET), ("toml", TABLE)]
    )
    def test_other_encodings_are_named_with_the_line(self, tmp_path, ending, text):
        reader = load_toml if ending == "toml" else load
        path = tmp_path / f"t.{ending}"
        path.write_bytes(text.encode() + "# Länge".encode("latin-1"))
        with pytest.raises(UnreadableFile, match=r"not UTF-8 \(byte 0xe4 in line \d\); save it as UTF-8"):
            reader(path)
        path.write_bytes(text.encode("utf-16"))
        with pytest.raises(UnreadableFile, match="UTF-16; save it as UTF-8"):
            reader(path)
        path.write_bytes(text.encode() + b"\0\0")
        with pytest.raises(UnreadableFile, match=r"line \d holds a zero byte"):
            reader(path)

    def test_a_compressed_file_under_another_name(self, tmp_path):
        (tmp_path / "t.csv").write_bytes(gzip.compress(TABLE.encode()))
        with pytest.raises(UnreadableFile, match=r"is compressed; its name must end in \.gz"):
            load(tmp_path / "t.csv")
        (tmp_path / "t.csv.gz").write_text(TABLE)
        with pytest.raises(UnreadableFile, match="could not be read"):
            load(tmp_path / "t.csv.gz")
        (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(TABLE.encode() * 99)[:-20])
        with pytest.raises(UnreadableFile, match="could not be read"):
            load(tmp_path / "cut.csv.gz")

    def test_packed_arrays_and_unknown_endings(self, tmp_path):
        for name in ("a.npy.gz", "a.npz.xz", "a.xlsx", "a.parquet.gz"):
            (tmp_path / name).write_bytes(b"x")
            for reader in (load, load_matrix, load_vector, load_series):
                with pytest.raises(UnreadableFile, match="unknown ending; expected"):
                    reader(tmp_path / name)


class TestSettings:
    def test_toml_is_utf_8_whatever_the_machine_says(self, tmp_path):
        (tmp_path / "space.toml").write_bytes('["größe"]\ntype = "real"\nlow = 0.0\nhigh = 1.0\n'.encode())
        code = (
            "import sys; from thalweg.datasets import load_toml; from thalweg.blackbox import Space; "
            "assert list(load_toml(sys.argv[1])) == list(Space.from_toml(sys.argv[1]).parameters) == ['gr\\xf6\\xdfe']"
        )
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "space.toml"],
            env=os.environ | plain,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_the_types_of_values_are_those_of_toml(self, tmp_path):
        (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbfa = 1\r\n[t]\r\nb = [1.5, true, 'x']\r\n")
        assert load_toml(tmp_path / "s.toml") == {"a": 1, "t": {"b": [1.5, True, "x"]}}

    def test_what_is_no_toml_is_refused_with_its_line(self, tmp_path):
        (tmp_path / "s.toml").write_text("a = 1\nb = = 2\n")
        with pytest.raises(UnreadableFile, match=r"s.toml is no TOML file: .*line 2"):
            load_toml(tmp_path / "s.toml")


@pytest.mark.parametrize("ending", ["npz", "npy", "csv"])
@pytest.mark.parametrize("shape", [(3,), (1,), (2, 3), (3, 1), (1, 3)])
def test_what_the_writer_writes_is_read_back(tmp_path, ending, shape):
    values = np.random.default_rng(0).standard_normal(shape)
    save_array(tmp_path / f"a.{ending}", values)
    read = load_matrix(tmp_path / f"a.{ending}").toarray()
    # A vector is a column of text, and a row as an array.
    expected = values if values.ndim == 2 else values[:, None] if ending == "csv" else values[None]
    np.testing.assert_array_equal(read, expected)
    if 1 in expected.shape:
        np.testing.assert_array_equal(load_vector(tmp_path / f"a.{ending}"), values.ravel())
    if len(shape) == 1:
        np.testing.assert_array_equal(load_series(tmp_path / f"a.{ending}"), values)


def _array(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _archive(**arrays):
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _market():
    stream = io.BytesIO()
    scipy.io.mmwrite(stream, scipy.sparse.eye_array(3))
    return stream.getvalue()


GOOD = [TABLE.encode(), SVM.encode(), MARKET.encode(), b'"a";b\n1,5;"x"\n', b"[a]\nb = 1\n"]
GOOD += [_array(np.eye(2)), _archive(X=np.eye(2), y=np.ones(2)), _market(), gzip.compress(TABLE.encode())]
PIECES = [
    b'"',
    b"#",
    b"\n",
    b",",
    b";",
    b"nan",
    b"1e999",
    b"%",
    b":",
    b"qid:",
    b"-",
    b"\t",
    b"0" * 20,
    b"9" * 20,
]


@st.composite
def damaged(draw):
    content = bytearray(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)))
        content[at : at + draw(st.integers(0, 4))] = piece
    return bytes(content)


@given(
    content=st.one_of(
        st.binary(max_size=60), damaged(), st.text(alphabet="01,;. \t\n\"#-ea:%'x").map(str.encode)
    )
)
def test_any_bytes_give_an_answer_or_an_error_of_ours(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("any")
    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ending in (*ENDINGS[:-1], ".csv.gz"):
            path = folder / f"t{ending}"
            path.write_bytes(content)
            for reader in READERS:
                try:
                    reader(path)
                except ThalwegError as error:
                    said.append((path, str(error)))
    assert [message for path, message in said if "\n" in message or str(path) not in message] == []
