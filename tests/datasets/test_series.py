"""Series from the files that runs leave behind."""

import sys

import numpy as np
import pytest

from thalweg.core import InvalidProblem, MissingExtra, UnknownName, UnreadableFile
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


def test_any_dialect_and_ending_of_a_table(tmp_path) -> None:
    for name, text in (
        ("a.csv", "step;l2\n0;3,0\n1;2,0\n2;1,5\n"),
        ("b.tsv", "Wall time\tStep\tValue\n1e9\t0\t3.0\n1e9\t1\t2.0\n1e9\t2\t1.5\n"),
        ("c.TXT", "# l2\n3.0\n2.0\n1.5\n"),
        ("d.csv", "\ufeffl2\r\n3.0\r\n2.0\r\n1.5\r\n"),
        ("f.csv", ",l2\n0,3.0\n1,2.0\n2,1.5\n"),
        ("e.csv", '"step","l2"\n"0","3.0"\n"1","2.0"\n"2","1.5"\n'),
    ):
        (tmp_path / name).write_bytes(text.encode())
        np.testing.assert_array_equal(load_series(tmp_path / name), VALUES)


def test_steps_without_a_value_stay_as_nan(tmp_path) -> None:
    (tmp_path / "gap.csv").write_text("step,l2\n0,3\n1,\n2,nan\n3,inf\n4,1\n")
    np.testing.assert_array_equal(load_series(tmp_path / "gap.csv"), [3, np.nan, np.nan, np.inf, 1])


def test_a_word_among_the_numbers_is_refused_with_its_line_and_no_other_column_is_taken(tmp_path) -> None:
    (tmp_path / "word.csv").write_text("step,l2\n0,3\n1,failed\n2,1\n")
    for column in (None, "l2"):
        with pytest.raises(
            InvalidProblem, match=r"column 'l2' holds no numbers: line 3: 'failed' is no number"
        ):
            load_series(tmp_path / "word.csv", column)
    (tmp_path / "two.csv").write_text("l2,loss\n3,1\nfailed,2\n")
    with pytest.raises(UnreadableFile, match="has the columns l2, loss; say which one"):
        load_series(tmp_path / "two.csv")


def test_equal_names_are_refused_when_asked_for(tmp_path) -> None:
    (tmp_path / "twice.csv").write_text("l2,l2,l1\n1,2,3\n")
    with pytest.raises(InvalidProblem, match="2 columns are called 'l2'"):
        load_series(tmp_path / "twice.csv", "l2")
    assert load_series(tmp_path / "twice.csv", "l1").tolist() == [3]


def test_arrays_that_are_no_real_numbers_are_refused(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", l1=np.array([1 + 1j]), l2=np.array(["1"]), l3=np.array([2**53 + 1]))
    with pytest.raises(InvalidProblem, match="l1 is complex"):
        load_series(tmp_path / "a.npz", "l1")
    with pytest.raises(UnreadableFile, match="l2 holds words"):
        load_series(tmp_path / "a.npz", "l2")
    with pytest.raises(InvalidProblem, match="more digits"):
        load_series(tmp_path / "a.npz", "l3")


def test_damaged_events_hold_no_series(tmp_path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(b"what is this")
    with pytest.raises(UnreadableFile, match="none with numbers"):
        load_series(tmp_path / "events.out.tfevents.1")
