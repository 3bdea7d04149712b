"""Series from the files that runs leave behind."""

import sys

import numpy as np
import pytest

from thalweg.core import MissingExtra, UnknownName, UnreadableFile
from thalweg.datasets import load_series

VALUES = np.array([3.0, 2.0, 1.5])


def test_csv_with_and_without_header(tmp_path) -> None:
    (tmp_path / "named.csv").write_text("Step,run - grad_norm,name\n0,3.0,a\n1,2.0,b\n2,1.5,c\n")
    (tmp_path / "bare.csv").write_text("3.0\n2.0\n1.5\n")
    np.testing.assert_array_equal(load_series(tmp_path / "named.csv"), VALUES)
    np.testing.assert_array_equal(load_series(tmp_path / "named.csv", "run - grad_norm"), VALUES)
    np.testing.assert_array_equal(load_series(tmp_path / "bare.csv"), VALUES)


def test_arrays(tmp_path) -> None:
    np.savez(tmp_path / "both.npz", l1=2 * VALUES, l2=VALUES)
    np.save(tmp_path / "one.npy", VALUES)
    np.testing.assert_array_equal(load_series(tmp_path / "both.npz", "l2"), VALUES)
    np.testing.assert_array_equal(load_series(tmp_path / "one.npy"), VALUES)


def test_tensorboard_events(tmp_path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "run") as writer:
        for step, value in enumerate(VALUES):
            writer.add_scalar("grad_norm", value, step)
    np.testing.assert_allclose(load_series(tmp_path / "run"), VALUES)
    np.testing.assert_allclose(load_series(next((tmp_path / "run").iterdir()), "grad_norm"), VALUES)
    with pytest.raises(UnknownName, match="grad_norm"):
        load_series(tmp_path / "run", "grad_nor")


def test_bad_input(tmp_path, monkeypatch) -> None:
    with pytest.raises(UnreadableFile, match="No file"):
        load_series(tmp_path / "none.csv")
    with pytest.raises(UnreadableFile, match="No TensorBoard events"):
        load_series(tmp_path)
    np.savez(tmp_path / "both.npz", l1=VALUES, l2=VALUES)
    with pytest.raises(UnreadableFile, match="columns l1, l2"):
        load_series(tmp_path / "both.npz")
    with pytest.raises(UnknownName, match="l2"):
        load_series(tmp_path / "both.npz", "l3")
    np.save(tmp_path / "matrix.npy", np.ones((2, 2)))
    with pytest.raises(UnreadableFile, match="shape"):
        load_series(tmp_path / "matrix.npy")
    (tmp_path / "words.csv").write_text("a,b\nx,y\n")
    with pytest.raises(UnreadableFile, match="none with numbers"):
        load_series(tmp_path / "words.csv")
    (tmp_path / "run.log").write_text("1")
    with pytest.raises(UnreadableFile, match="unknown ending"):
        load_series(tmp_path / "run.log")
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing.event_accumulator", None)
    with pytest.raises(MissingExtra, match="track"):
        load_series(tmp_path)
