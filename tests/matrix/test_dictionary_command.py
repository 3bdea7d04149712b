"""``thalweg dictionary``, on files that are whole, and on files that grow while it runs."""

from __future__ import annotations

import json
import signal
import threading

import numpy as np
import pytest

from running import thalweg
from thalweg.cli import dictionary
from thalweg.core.tree import save_tree
from thalweg.matrix import OnlineDictionary, SparseStream, recovery_error

STREAM = SparseStream(6, 0.25, seed=1)
ROWS = next(STREAM.batches(2000))


def text(rows, header="a,b,c,d,e,f\n"):
    return header + "".join(",".join(f"{v:.6f}" for v in row) + "\n" for row in rows)


@pytest.fixture
def readings(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_text(text(ROWS + 20.0))
    return path


def told(*words):
    done = thalweg("dictionary", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def on_waiting(monkeypatch):
    """Do these things, one at each look at a file that has nothing new; the last one presses Ctrl-C."""

    def install(*things):
        queue = [*things, lambda: signal.raise_signal(signal.SIGINT)]

        def wait(event, timeout=None):
            queue.pop(0)()
            return event.is_set()

        class Event(threading.Event):
            pass

        Event.wait = wait
        monkeypatch.setattr(dictionary.threading, "Event", Event)

    return install


def add(path, more):
    with path.open("a") as file:
        file.write(more)


class TestWholeFiles:
    def test_the_basis_of_a_table_is_written_with_mean_and_names(self, readings, tmp_path):
        found = told(readings, "--out", tmp_path / "basis.npz", "--passes", 5)
        kept = np.load(tmp_path / "basis.npz")
        assert recovery_error(kept["components"].T, STREAM.basis) < 0.01
        np.testing.assert_allclose(kept["mean"], 20.0, atol=0.1)
        assert kept["names"].tolist() == list("abcdef")
        assert (found["status"], found["samples"], found["passes"]) == ("finished", 10_000, 5)

    def test_it_is_what_the_estimator_learns(self, readings, tmp_path):
        told(readings, "--out", tmp_path / "basis.csv", "--seed", 3)
        rows = np.loadtxt(readings, delimiter=",", skiprows=1)
        model = OnlineDictionary(center=True, missing="skip", random_state=3).partial_fit(rows)
        np.testing.assert_allclose(
            np.loadtxt(tmp_path / "basis.csv", delimiter=","), model.components_, atol=1e-12
        )

    def test_bad_lines_are_told_with_their_numbers_and_counted(self, readings):
        lines = readings.read_text().split("\n")
        lines[5] = "x" + lines[5]
        lines[9] += ",1"
        readings.write_text("\n".join(lines))
        done = thalweg("dictionary", readings)
        assert done.returncode == 0
        assert "line 6 column 'a'" in done.stderr
        assert "line 10 has 7 cells, expected 6" in done.stderr
        assert "2 bad lines" in done.stdout
        assert told(readings, "--passes", 2)["bad_lines"] == 2

    def test_after_ten_bad_lines_the_others_are_counted_only(self, readings):
        add(readings, "x\n" * 30)
        done = thalweg("dictionary", readings, "--json")
        assert done.stderr.count("left out") == 10
        assert json.loads(done.stdout)["bad_lines"] == 30

    def test_missing_cells_are_skipped_filled_or_refused(self, readings):
        add(readings, "1,,3,4,5,6\n" * 4)
        assert told(readings)["incomplete"] == 4
        assert told(readings, "--missing", "fill")["samples"] == 2004
        done = thalweg("dictionary", readings, "--missing", "refuse")
        assert (done.returncode, "NaN" in done.stderr) == (2, True)

    def test_windows_of_one_column_are_samples(self, tmp_path):
        path = tmp_path / "one.csv"
        path.write_text("\n".join(f"{v:.6f}" for v in ROWS.ravel()))
        found = told(path, "--window", 6, "--out", tmp_path / "basis.npy", "--passes", 3, "--no-center")
        assert recovery_error(np.load(tmp_path / "basis.npy").T, STREAM.basis) < 0.02
        assert found["samples"] + found["zero"] == 6000
        assert "--window 32" in thalweg("dictionary", path).stdout

    def test_columns_decimal_commas_and_times_are_read(self, tmp_path):
        path = tmp_path / "german.csv"
        rows = "".join(f"01.02.2024;{a:.4f};{b:.4f}\n".replace("01.02", "01_02") for a, b in ROWS[:100, :2])
        path.write_text("Zeit;links;rechts\n" + rows.replace(".", ","))
        assert told(path, "--columns", "rechts,links")["n"] == 2
        assert "Name the columns" in thalweg("dictionary", path).stderr

    def test_a_number_of_samples_is_kept_to(self, readings):
        found = told(readings, "--samples", 100)
        assert (found["samples"], found["status"]) == (100, "budget used")

    def test_options_of_the_learner_arrive(self, readings):
        for words in (["--loss", "l4"], ["--whiten"], ["--drift"], ["--clip", 0.9], ["--batch", 4]):
            assert told(readings, *words, "--samples", 64)["samples"] == 64


class TestGrowingFiles:
    def test_lines_are_learned_as_they_come_and_ctrl_c_keeps_the_basis(self, tmp_path, on_waiting):
        path = tmp_path / "log.csv"
        path.write_text(text(ROWS[:100]) + "1,2")
        rest = text(ROWS[100:], header="")
        on_waiting(lambda: add(path, ",3,4,5,6\n" + rest), lambda: None)
        found = told(path, "--follow", "--out", tmp_path / "basis.npy")
        assert (found["status"], found["rows"], found["samples"]) == ("interrupted", 2001, 2001)
        assert recovery_error(np.load(tmp_path / "basis.npy").T, STREAM.basis) < 0.05

    def test_a_half_written_last_line_waits(self, tmp_path, on_waiting):
        path = tmp_path / "log.csv"
        path.write_text(text(ROWS[:100]) + "1,2,3,4,5,6")
        on_waiting()
        assert told(path, "--follow")["rows"] == 100

    def test_a_file_that_is_cut_is_told_and_read_on(self, tmp_path, on_waiting):
        path = tmp_path / "log.csv"
        path.write_text(text(ROWS[:100]))
        on_waiting(lambda: path.write_text(text(ROWS[100:150])))
        done = thalweg("dictionary", path, "--follow")
        assert done.returncode == 0
        assert "was cut or written anew after line 101" in done.stderr
        assert "150 samples" in done.stdout

    def test_a_time_limit_ends_a_run(self, readings):
        assert told(readings, "--follow", "--seconds", 0)["status"] == "budget used"

    def test_a_run_goes_on_from_its_checkpoint_with_the_same_bits(self, tmp_path, on_waiting):
        path, kept = tmp_path / "log.csv", tmp_path / "run.ckpt"
        path.write_text(text(ROWS[:90]) + "1,2,3")  # not a whole number of minibatches
        on_waiting()
        told(path, "--follow", "--seconds", 0, "--checkpoint", kept)
        add(path, ",4,5,6\n" + text(ROWS[90:], header=""))
        told(path, "--resume", kept, "--out", tmp_path / "a.npy", "--follow", "--seconds", 0)
        told(path, "--out", tmp_path / "b.npy", "--follow", "--seconds", 0)
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))

    def test_a_first_ctrl_c_in_the_middle_of_a_file_keeps_what_was_learned(
        self, readings, tmp_path, monkeypatch
    ):
        learn = OnlineDictionary.partial_fit

        def interrupted(self, X):
            learn(self, X)
            signal.raise_signal(signal.SIGINT)
            return self

        monkeypatch.setattr(OnlineDictionary, "partial_fit", interrupted)
        done = thalweg("dictionary", readings, "--out", tmp_path / "basis.npy", "--json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["status"] == "interrupted"
        assert np.load(tmp_path / "basis.npy").shape == (6, 6)


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--bad", "keep"], "--bad is skip or refuse; got 'keep'"),
            (["--missing", "drop"], "--missing is skip or fill or refuse"),
            (["--follow", "--passes", 2], "does not go with --follow"),
            (["--loss", "l5"], "loss"),
            (["--out", "basis.txt"], "expected .npz, .npy or .csv"),
            (["--columns", "a,z"], "No column 'z'"),
            (["--window", 5000], "nothing was learned from 2000 rows of 6 columns"),
        ],
    )
    def test_what_cannot_be_done_is_told_in_one_line(self, readings, words, message):
        done = thalweg("dictionary", readings, *words)
        assert done.returncode == 2
        assert message in done.stderr
        assert len(done.stderr.strip().split("\n")) == 1

    def test_a_bad_line_is_refused_where_that_is_asked_for(self, readings):
        add(readings, "1,2\n")
        done = thalweg("dictionary", readings, "--bad", "refuse")
        assert (done.returncode, "line 2002 has 2 cells, expected 6" in done.stderr) == (2, True)

    def test_checkpoints_of_other_settings_are_refused(self, readings, tmp_path):
        kept = tmp_path / "run.ckpt"
        told(readings, "--checkpoint", kept)
        for words, message in (
            (["--loss", "l4"], "loss='l3'"),
            (["--window", 2], "--window 1, not 2"),
            (["--columns", "a,b"], "of the columns a, b, c"),
        ):
            done = thalweg("dictionary", readings, "--resume", kept, *words)
            assert (done.returncode, message in done.stderr) == (2, True)
        save_tree(kept, {"window": 1})
        assert "is not a checkpoint" in thalweg("dictionary", readings, "--resume", kept).stderr
