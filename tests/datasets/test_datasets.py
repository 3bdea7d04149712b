"""Loading: packaged sets, files of every kind, downloads without a network."""

from __future__ import annotations

import numpy as np
import pooch
import pytest
import scipy.io
import scipy.sparse as sp
from sklearn import datasets as sk

from thalweg.core import InvalidProblem, NotFinite, UnknownName, UnreadableFile
from thalweg.datasets import load, load_matrix, load_series, load_text, load_vector
from thalweg.datasets.points import load_points


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "diabetes", "wine"])
def test_packaged_sets_are_those_of_scikit_learn(name):
    data, bunch = load(name), getattr(sk, f"load_{name}")()
    np.testing.assert_array_equal(data.X, bunch.data)
    np.testing.assert_array_equal(data.y, bunch.target)
    assert len(data.feature_names) == data.X.shape[1]


def test_the_sample_images_are_there():
    assert load("images").X.shape == (2, 427, 640, 3)


@pytest.fixture
def matrix():
    return sp.random_array((6, 4), density=0.5, rng=np.random.default_rng(0)).tocsr()


def test_a_matrix_comes_back_from_every_format(matrix, tmp_path):
    scipy.io.mmwrite(tmp_path / "a.mtx", matrix)
    sp.save_npz(tmp_path / "a.npz", sp.csr_matrix(matrix))
    np.save(tmp_path / "a.npy", matrix.toarray())
    np.savetxt(tmp_path / "a.csv", matrix.toarray(), delimiter=",")
    np.savez(tmp_path / "dense.npz", matrix.toarray())
    for name in ("a.mtx", "a.npz", "a.npy", "a.csv", "dense.npz"):
        np.testing.assert_allclose(load_matrix(tmp_path / name).toarray(), matrix.toarray())
    np.testing.assert_allclose(load(tmp_path / "a.mtx").X.toarray(), matrix.toarray())
    np.testing.assert_allclose(load(tmp_path / "a.npz").X.toarray(), matrix.toarray())


def test_a_vector_comes_back_from_every_format(tmp_path):
    v = np.array([1.5, -2.0, 3.0])
    scipy.io.mmwrite(tmp_path / "v.mtx", v[:, None])
    np.save(tmp_path / "v.npy", v)
    np.savez(tmp_path / "v.npz", v)
    np.savetxt(tmp_path / "v.csv", v[None], delimiter=",")
    np.savetxt(tmp_path / "v.txt", v)
    for name in ("v.mtx", "v.npy", "v.npz", "v.csv", "v.txt"):
        np.testing.assert_allclose(load_vector(tmp_path / name), v)


def test_tables_come_back_with_their_target(tmp_path, matrix):
    (tmp_path / "t.csv").write_text("a,b,kind\n1,2,x\n3,4,y\n")
    data = load(tmp_path / "t.csv", target="kind")
    np.testing.assert_array_equal(data.X, [[1, 2], [3, 4]])
    assert data.y.tolist() == ["x", "y"]
    assert data.feature_names == ("a", "b")
    y = np.arange(6.0)
    sk.dump_svmlight_file(sp.csr_matrix(matrix), y, str(tmp_path / "t.svm"))
    np.testing.assert_allclose(load(tmp_path / "t.svm").y, y)
    np.savez(tmp_path / "t.npz", X=matrix.toarray(), y=y)
    np.testing.assert_allclose(load(tmp_path / "t.npz").X, matrix.toarray())


def test_the_text_is_cut_into_overlapping_windows():
    corpus = load_text(characters=1000)
    windows = corpus.windows(32)
    assert windows.shape == (31, 33)
    np.testing.assert_array_equal(windows[0, -1], windows[1, 0])
    assert corpus.codes.max() < len(corpus.alphabet)


class TestDownloads:
    def test_without_a_network_the_error_names_the_file_and_the_place(self, tmp_path, monkeypatch):
        def no_network(*args, **kwargs):
            raise OSError("no route to host")

        monkeypatch.setattr(pooch, "retrieve", no_network)
        monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
        with pytest.raises(UnreadableFile, match=r"Place the file from https.*cal_housing.tgz"):
            load("california_housing")

    def test_a_file_with_another_checksum_is_not_taken(self, tmp_path, monkeypatch):
        monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
        (tmp_path / "covtype.data.gz").write_bytes(b"something else")
        monkeypatch.setattr(pooch.core, "stream_download", _refuse)
        with pytest.raises(UnreadableFile, match="SHA-256"):
            load("covertype")

    def test_a_file_in_the_folder_is_taken_without_a_network(self, tmp_path, monkeypatch):
        import dataclasses
        import gzip
        import hashlib

        from thalweg.datasets import load as _  # noqa: F401
        from thalweg.datasets.download import COVERTYPE

        content = gzip.compress(b"1,2,3\n4,5,6\n")
        (tmp_path / "covtype.data.gz").write_bytes(content)
        small = dataclasses.replace(COVERTYPE, sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
        monkeypatch.setitem(load.__globals__, "COVERTYPE", small)
        monkeypatch.setattr(pooch.core, "stream_download", _refuse)
        np.testing.assert_array_equal(load("covertype").y, [3, 6])


def _refuse(*args, **kwargs):
    raise OSError("the network is not to be used")


class TestBadInput:
    def test_an_unknown_name_is_refused_with_the_nearest(self):
        with pytest.raises(UnknownName, match="Did you mean 'digits'"):
            load("digit")
        with pytest.raises(UnknownName, match="No text 'novel'"):
            load_text("novel")

    @pytest.mark.parametrize("reader", [load, load_matrix, load_vector])
    def test_an_absent_file_is_refused(self, reader, tmp_path):
        with pytest.raises(UnreadableFile, match="No file"):
            reader(tmp_path / "absent.mtx")

    @pytest.mark.parametrize("name", ["x.mtx", "x.npz", "x.svm", "x.npy"])
    def test_a_damaged_file_is_refused(self, name, tmp_path):
        (tmp_path / name).write_text("what is this")
        with pytest.raises(UnreadableFile, match=name):
            (load if name != "x.npy" else load_matrix)(tmp_path / name)

    @pytest.mark.parametrize("cut", [3, 7, 100, -3])
    @pytest.mark.parametrize("write", [np.save, np.savez, np.savez_compressed])
    def test_a_file_cut_short_is_refused(self, write, cut, tmp_path):
        path = tmp_path / ("x.npy" if write is np.save else "x.npz")
        write(path, np.random.default_rng(0).random((20, 3)))
        path.write_bytes(path.read_bytes()[:cut])
        for reader in (load_points, load_series):
            with pytest.raises(UnreadableFile, match=rf"{path.name} is (damaged or cut short|no \.np)"):
                reader(path)

    def test_words_and_missing_values_are_refused(self, tmp_path):
        (tmp_path / "words.csv").write_text("a,b\n1,red\n")
        with pytest.raises(InvalidProblem, match="column 'b' holds no numbers"):
            load(tmp_path / "words.csv")
        (tmp_path / "gap.csv").write_text("a,b\n1,\n")
        with pytest.raises(NotFinite, match="1 NaN"):
            load(tmp_path / "gap.csv")
        with pytest.raises(UnknownName, match="No column 'c'"):
            load(tmp_path / "gap.csv", target="c")

    def test_a_matrix_where_a_vector_is_needed_is_refused(self, tmp_path):
        np.save(tmp_path / "a.npy", np.eye(3))
        with pytest.raises(UnreadableFile, match=r"shape \(3, 3\)"):
            load_vector(tmp_path / "a.npy")
