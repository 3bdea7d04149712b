"""`thalweg solve online --reward`, `compare online --reward` and `thalweg search`."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from running import thalweg
from thalweg.core.tree import save_tree

#: A program that counts its runs in a file beside it, and prints a reward.
PROGRAM = """
import sys
open({log!r}, "a").write(sys.argv[1] + "\\n")
print("measuring")
print(0.8 * float(sys.argv[2]) - 0.5 * float(sys.argv[3]))
"""


@pytest.fixture
def folder(tmp_path, rng, monkeypatch):
    monkeypatch.chdir(tmp_path)
    F = rng.standard_normal((120, 5))
    F /= np.linalg.norm(F, axis=1, keepdims=True)
    rewards = 0.8 * F[:, 1] - 0.5 * F[:, 3]
    rows = [f"alloy{i}," + ",".join(f"{v:.9f}" for v in row) for i, row in enumerate(F)]
    names = "name," + ",".join(f"x{j}" for j in range(5))
    (tmp_path / "alloys.csv").write_text("\n".join([names, *rows]) + "\n")
    known = [f"{row},{reward:.9f}" for row, reward in zip(rows, rewards, strict=True)]
    (tmp_path / "known.csv").write_text("\n".join([f"{names},y", *known]) + "\n")
    (tmp_path / "measure.py").write_text(PROGRAM.format(log=str(tmp_path / "log")))
    return tmp_path, rewards


def search(*options, words=("measure.py", "{row}", "{x1}", "{x3}")):
    return thalweg("search", "alloys.csv", *options, "--", sys.executable, *words)


class TestTable:
    def test_a_table_of_actions_is_searched(self, folder):
        _, rewards = folder
        done = thalweg("solve", "online", "known.csv", "--reward", "y", "--json", "--out", "x.npz")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert rewards.max() - rewards[told["action"]] == pytest.approx(told["metrics"]["gap"], abs=1e-8)
        assert told["queries"] < 40
        assert "no action is better by more than" in told["message"]
        assert np.load("x.npz")["action"].tolist() == [told["action"]]

    @pytest.mark.parametrize(
        "method", ["net-elimination:eps=0.1", "sparse-design:eps=0.1", "g-optimal:eps=0.1"]
    )
    def test_its_methods_are_named_with_their_options(self, folder, method):
        done = thalweg("solve", "online", "known.csv", "--reward", "y", "--method", method)
        assert done.returncode == 0, done.stderr
        assert "If rewards are within 0.1 of linear" in done.stdout
        assert "counted from 0" in done.stdout

    def test_searches_are_compared_by_their_gap(self, folder):
        done = thalweg("compare", "online", "known.csv", "--reward", "y")
        assert done.returncode == 0, done.stderr
        for name in ("lazy-elimination", "net-elimination", "lin-ucb", "g-optimal", "random-actions", "gap"):
            assert name in done.stdout
        assert "tsallis" not in done.stdout

    def test_a_run_goes_on_from_its_checkpoint(self, folder):
        line = ["solve", "online", "known.csv", "--reward", "y", "--noise", "0.1", "--json"]
        line += ["--method", "lazy-elimination:eps=0.1"]
        whole = json.loads(thalweg(*line).stdout)
        thalweg(*line, "--steps", "30", "--checkpoint", "run")
        again = json.loads(thalweg(*line, "--resume", "run").stdout)
        assert {**again, "seconds": 0} == {**whole, "seconds": 0}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--noise", "0.1"], "are for actions with a --reward"),
            (["--reward", "y", "--target", "x1"], "--reward is for tables of actions"),
            (["--reward", "name"], "holds words; expected rewards"),
            (["--reward", "z"], "No column 'z'"),
            (["--reward", "y", "--method", "fixed"], "actions a search"),
            (["--reward", "y", "--method", "lazy-elimination:sparsity=9"], "from 0 to d = 5"),
            (["--reward", "y", "--method", "one-for-all"], "solves a GroupedStream"),
        ],
    )
    def test_what_does_not_fit_is_one_line(self, folder, options, message):
        done = thalweg("solve", "online", "known.csv", *options)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


class TestSearch:
    def test_a_program_is_run_on_few_rows_and_its_best_is_found(self, folder):
        path, rewards = folder
        done = search("--eps", "0.05", "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        runs = (path / "log").read_text().split()
        assert len(runs) == told["queries"] == told["draws"] < 20
        assert rewards.max() - rewards[told["row"]] <= told["certificate"]["gap"] + 1e-9 <= 0.1 + 1e-8
        assert told["action"]["name"] == f"alloy{told['row']}"
        assert told["reward"] == pytest.approx(rewards[told["row"]], abs=1e-8)

    def test_what_was_measured_is_not_measured_again(self, folder):
        path, _ = folder
        first = json.loads(search("--eps", "0.05", "--json").stdout)
        runs = (path / "log").read_text()
        again = search("--eps", "0.05", "--json")
        assert json.loads(again.stdout) == first
        assert (path / "log").read_text() == runs
        assert f"holds {first['draws']} rewards" in again.stderr
        other = search("--method", "net-elimination:eps=0.05")
        assert other.returncode == 0
        rows = (path / "log").read_text().split()
        assert len(set(rows)) == len(rows)

    def test_the_outcome_is_told_in_words(self, folder):
        done = search("--eps", "0.05", "--standardize", "--radius", "5")
        assert done.returncode == 0, done.stderr
        assert "Use row" in done.stdout
        assert "name=alloy" in done.stdout
        assert "of 120 rows measured" in done.stdout
        assert "no action is better by more than" in done.stdout

    def test_without_a_certificate_the_status_is_one(self, folder):
        done = search("--method", "random-actions:rounds=3")
        assert done.returncode == 1
        assert "no certificate" in done.stdout

    def test_noise_is_averaged_by_running_again(self, folder, monkeypatch):
        from thalweg.blackbox.workers import Command

        monkeypatch.setattr(Command, "__call__", lambda self, point: 0.8 * point["x1"] - 0.5 * point["x3"])
        done = search("--eps", "0.2", "--noise", "0.05", "--json")
        told = json.loads(done.stdout)
        assert told["draws"] == told["queries"] * np.ceil(2 * 0.05**2 * np.log(2 * 120 / 0.05) / 0.2**2)
        unknown = search("--noise", "0.05", "--json", "--keep", "other")
        assert unknown.returncode == 0, unknown.stderr

    def test_a_program_that_fails_leaves_what_it_had(self, folder):
        assert search("--method", "random-actions:rounds=2").returncode == 1
        program = folder[0] / "measure.py"
        right = program.read_text()
        program.write_text("raise SystemExit(3)")
        done = search("--method", "random-actions:rounds=4")
        assert done.returncode == 1
        assert "The program failed in row" in done.stderr
        assert "exit 3" in done.stderr
        assert "2 of 120 rows measured" in done.stdout
        program.write_text(right)  # mended: it goes on
        assert "4 of 120 rows measured" in search("--method", "random-actions:rounds=4").stdout
        nothing = search("--keep", "new", words=("-c", "print('{name}')"))
        assert "Nothing was measured" in nothing.stdout
        assert "is no number" in nothing.stderr

    def test_ctrl_c_keeps_the_best_so_far(self, folder, monkeypatch):
        from thalweg.blackbox.workers import Command

        runs = []

        def interrupted(self, point):
            if len(runs) == 2:
                raise KeyboardInterrupt
            runs.append(point["row"])
            return 0.1 * len(runs)

        monkeypatch.setattr(Command, "__call__", interrupted)
        done = search("--eps", "0.05")
        assert done.returncode == 1
        assert "Interrupted." in done.stderr
        assert f"Use row {runs[1]}" in done.stdout

    @pytest.mark.parametrize(
        ("options", "words", "message"),
        [
            ([], ("measure.py",), "The command has no placeholder: write {row}"),
            ([], ("measure.py", "{zinc}"), "{zinc}, which is no column; the table has row, name, x0"),
            ([], ("measure.py", "{name:.3f}"), "cannot be filled with"),
            (["--method", "cg"], ("{row}",), "No search 'cg'"),
            (["--method", "lin-ucb:x=1"], ("{row}",), "No option of lin-ucb 'x'"),
            (["--sparsity", "9"], ("{row}",), "from 0 to d = 5"),
            (["--radius", "0"], ("{row}",), "radius > 0"),
            (["--keep", "alloys.csv"], ("{row}",), "alloys.csv is read here, and would be overwritten"),
            (["--eps", "0.01", "--keep", "x"], ("-c", "print(1000 + {row})"), "Give a larger radius"),
        ],
    )
    def test_what_does_not_fit_is_one_line(self, folder, options, words, message):
        done = search(*options, words=words)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr

    def test_rewards_of_another_table_are_refused(self, folder):
        assert search("--eps", "0.05").returncode == 0
        done = thalweg("search", "known.csv", "--", "echo", "{y}")
        assert done.returncode == 2
        assert "holds rewards of another table" in done.stderr
        other = search("--eps", "0.05", words=("-c", "print({row})"))
        assert other.returncode == 2
        assert "holds rewards of another program" in other.stderr
        save_tree("odd", {"table": 3})
        assert "odd is not a file of rewards" in search("--keep", "odd").stderr

    def test_a_table_without_numbers_or_with_a_column_row_is_refused(self, folder):
        path, _ = folder
        (path / "words.csv").write_text("name,kind\na,x\nb,y\n")
        (path / "rows.csv").write_text("row,x\n1,2\n3,4\n")
        assert "no column of numbers" in thalweg("search", "words.csv", "--", "echo", "{row}").stderr
        assert "a column is called 'row'" in thalweg("search", "rows.csv", "--", "echo", "{row}").stderr
