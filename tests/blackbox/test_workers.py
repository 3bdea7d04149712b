"""Trials evaluated in parallel by programs, from Python and from the shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from thalweg.blackbox import Categorical, EvaluationFailed, Real, Study
from thalweg.blackbox.workers import Command, evaluate
from thalweg.core import InvalidParameter

LINE = {"x": Real(-2.0, 2.0)}
SPACE = '[x]\ntype = "real"\nlow = -2.0\nhigh = 2.0\n'


def python(code):
    return [sys.executable, "-c", code, "{x}"]


PARABOLA = python("import sys; print('working'); print((float(sys.argv[1]) - 0.7) ** 2)")


class TestCommand:
    def test_the_last_line_is_the_value(self):
        assert Command(PARABOLA)({"x": 1.7}) == pytest.approx(1.0)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["false", "{x}"], "exit 1"),
            (["echo", "no number {x} at all"], "no number"),
            (["/no/such/program", "{x}"], "could not be started"),
            (python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), "signal 9"),
        ],
    )
    def test_what_goes_wrong_is_told(self, words, message):
        with pytest.raises(EvaluationFailed, match=message):
            Command(words)({"x": 1.0})

    def test_what_hangs_is_ended_with_what_it_started(self, tmp_path):
        marker = tmp_path / "pid"
        code = f"sleep 600 & echo $! > {marker}; wait"
        with pytest.raises(EvaluationFailed, match=r"no answer in 0\.5 s"):
            Command(["sh", "-c", code, "{x}"], timeout=0.5)({"x": 1.0})
        child = int(marker.read_text())
        for _ in range(200):  # the kernel takes a moment to bury it
            state = subprocess.run(
                ["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True
            ).stdout
            if state.strip()[:1] in ("", "Z"):
                break
        assert state.strip()[:1] in ("", "Z")

    def test_placeholders_must_be_the_spaces(self):
        with pytest.raises(InvalidParameter, match="KeyError: 'y'"):
            Command(["echo", "{x}", "{y}"]).check(Study(LINE).space)
        with pytest.raises(InvalidParameter, match="does not mention every parameter"):
            Command(["echo", "1"]).check(Study(LINE).space)

    def test_parameters_that_do_not_matter_are_empty(self):
        space = {"k": Categorical(["a", "b"]), "x": Real(0.0, 1.0, when={"k": "a"})}
        command = Command(["sh", "-c", "test -z '{x}' && echo 1 || echo 2", "{k}"])
        command.check(Study(space).space)
        assert command({"k": "b"}) == 1.0
        assert command({"k": "a", "x": 0.5}) == 2.0


class TestEvaluate:
    def test_four_at_once_find_the_bottom(self, tmp_path):
        study = Study(LINE, noise="none")
        assert evaluate(study, lambda p: (p["x"] - 0.7) ** 2, 20, parallel=4, path=tmp_path / "study")
        assert len(study.done) == 20
        assert abs(study.best["x"] - 0.7) < 0.05

    def test_failures_are_told_and_the_rest_goes_on(self):
        failed = []

        def f(p):
            if p["x"] < -1:
                raise EvaluationFailed("too low")
            return p["x"] ** 2 if p["x"] < 1.5 else float("nan")

        study = Study(LINE)
        evaluate(study, f, 12, watch=lambda trial, message: failed.append(message) if message else None)
        assert len(study.trials) == 12
        assert {"too low", "the value is nan"} & set(failed)
        assert len(failed) == sum(t.status == "failed" for t in study.trials)

    def test_trials_left_pending_are_evaluated_first(self):
        study = Study(LINE)
        lost = [study.ask(), study.ask()]
        evaluate(study, lambda p: p["x"] ** 2, 5)
        assert [study.trials[t.number].status for t in lost] == ["done", "done"]
        assert len(study.trials) == 5

    def test_any_other_error_is_the_users(self):
        with pytest.raises(KeyError):
            evaluate(Study(LINE), lambda p: p["y"], 3)


class TestShell:
    def run(self, folder, *options, command=PARABOLA):
        (folder / "space.toml").write_text(SPACE)
        words = [sys.executable, "-m", "thalweg.cli", "solve", "blackbox", "--space", "space.toml", *options]
        return subprocess.run(
            [*words, "--", *command], cwd=folder, capture_output=True, text=True, timeout=300
        )

    def test_it_optimises_a_program_and_goes_on_by_the_same_command(self, tmp_path):
        first = self.run(tmp_path, "--trials", "6", "--exact", "--json")
        assert first.returncode == 0, first.stderr
        assert json.loads(first.stdout)["trials"] == 6
        again = self.run(
            tmp_path, "--trials", "14", "--exact", "--parallel", "2", "--json", "--report", "page.html"
        )
        told = json.loads(again.stdout)
        assert "Going on" in again.stderr
        assert told["trials"] == 14
        assert told["point"]["x"] == pytest.approx(0.7, abs=0.1)
        assert "Slice: x" in (tmp_path / "page.html").read_text()

    def test_failing_commands_end_with_status_1_and_a_hint(self, tmp_path):
        done = self.run(tmp_path, "--trials", "3", command=["false", "{x}"])
        assert done.returncode == 1
        assert "failed: exit 1" in done.stderr
        assert "Run the command by hand" in done.stdout

    def test_a_senseless_command_is_told_in_one_line(self, tmp_path):
        done = self.run(tmp_path, command=["echo", "{y}"])
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "Error: The command has '{y}'" in done.stderr

    def test_ctrl_c_and_sigkill_lose_only_what_was_running(self, tmp_path):
        slow = python("import sys; print(float(sys.argv[1]) ** 2)")
        (tmp_path / "space.toml").write_text(SPACE)
        words = [
            sys.executable,
            "-m",
            "thalweg.cli",
            "solve",
            "blackbox",
            "--space",
            "space.toml",
            "--trials",
            "400",
        ]
        for kill in (signal.SIGINT, signal.SIGKILL):
            process = subprocess.Popen(
                [*words, "--parallel", "2", "--", *slow], cwd=tmp_path, stderr=subprocess.PIPE, text=True
            )
            told = 0
            for line in process.stderr:
                told += "/400" in line
                if told == 5:
                    os.kill(process.pid, kill)
                    break
            process.stderr.read()
            status = process.wait(timeout=60)
            assert status == (1 if kill == signal.SIGINT else -signal.SIGKILL)
            study = Study(LINE)
            study.load(tmp_path / "blackbox.study")
            pending = [t for t in study.trials if t.status == "pending"]
            assert len(pending) <= 2
            assert len(study.done) >= 4  # the last answer may not have been written yet
        left = len(study.trials)
        finished = self.run(tmp_path, "--trials", str(left + 2), "--json", command=slow)
        assert json.loads(finished.stdout)["trials"] == left + 2
        assert json.loads(finished.stdout)["failed"] == 0
