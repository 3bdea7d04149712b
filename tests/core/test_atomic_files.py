"""Files appear whole or not at all, with the mode that they should have."""

from __future__ import annotations

import os
import stat

import numpy as np
import pytest

from thalweg.core import InvalidParameter
from thalweg.core.files import atomic_write, check_target, save_array, write_text
from thalweg.core.tree import save_tree


@pytest.fixture
def private_umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_failed_write_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("private_umask")
def test_a_new_file_has_what_the_umask_leaves(tmp_path):
    save_tree(tmp_path / "c.ckpt", {"a": 1})
    write_text(tmp_path / "page.html", "x")
    save_array(tmp_path / "x.npy", np.ones(3))
    assert {mode(path) for path in tmp_path.iterdir()} == {0o600}


def test_a_new_file_is_readable_by_all_under_the_usual_umask(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "f", "x")
    finally:
        os.umask(before)
    assert mode(tmp_path / "f") == 0o644


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o755])
def test_an_overwritten_file_keeps_its_mode(tmp_path, kept):
    path = tmp_path / "secret"
    path.write_text("x")
    path.chmod(kept)
    write_text(path, "y")
    assert (mode(path), path.read_text()) == (kept, "y")


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed_and_stays(tmp_path, exists):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "target", tmp_path / "link"
    if exists:
        target.write_text("old")
    link.symlink_to(target)
    write_text(link, "z")
    assert link.is_symlink()
    assert target.read_text() == "z"


def test_what_is_no_file_is_written_to_as_it_stands(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    write_text(os.devnull, "gone")
    assert not os.path.isfile(os.devnull)


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ("n" * 255)
    write_text(path, "x")
    assert path.read_text() == "x"


def test_a_folder_and_a_file_for_a_folder_are_refused(tmp_path):
    with pytest.raises(InvalidParameter, match=r"is a folder; name a file in it"):
        write_text(tmp_path, "x")
    (tmp_path / "f").write_text("x")
    with pytest.raises(InvalidParameter, match="is a file, not a folder"):
        check_target(tmp_path / "f" / "g" / "h.npy")


def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(InvalidParameter, match=r"expected \.npz, \.npy or \.csv"):
        save_array(tmp_path / "x.mat", np.ones(2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv", ".CSV"])
def test_an_array_comes_back_with_every_bit(tmp_path, rng, ending):
    values, path = rng.standard_normal((4, 3)) * 1e-200, tmp_path / f"x{ending}"
    save_array(path, values)
    if ending == ".npz":
        back = np.load(path)["values"]
    else:
        back = np.load(path) if ending == ".npy" else np.loadtxt(path, delimiter=",")
    np.testing.assert_array_equal(back, values)


def test_a_csv_of_complex_numbers_is_refused(tmp_path):
    with pytest.raises(InvalidParameter, match="real numbers"):
        save_array(tmp_path / "x.csv", np.array([1.0 + 1.0j]))
