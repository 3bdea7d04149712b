"""Trials evaluated in parallel by programs, from Python and from the shell."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from running import thalweg
from thalweg.blackbox import Categorical, EvaluationFailed, Real, Space, Study
from thalweg.blackbox.evaluation import settle
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
            (python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"), "signal 9"),
        ],
    )
    def test_what_goes_wrong_is_told(self, words, message):
        with pytest.raises(EvaluationFailed, match=message):
            Command(words)({"x": 1.0})

    def test_a_program_that_is_not_there_is_no_failed_trial(self, tmp_path):
        plain = tmp_path / "plain.sh"
        plain.write_text("echo 1\n")
        for program in ("/no/such/program", "no-such-program-at-all", str(plain), f"{plain}/in"):
            with pytest.raises(InvalidParameter, match="cannot be started: no such program is there"):
                Command([program, "{x}"]).check(Space(LINE))
            with pytest.raises(InvalidParameter, match="could not be started"):
                Command([program, "{x}"])({"x": 1.0})
        plain.write_text("#!/no/such/shell\necho 1\n")
        plain.chmod(0o755)
        command = Command([str(plain), "{x}"])
        command.check(Space(LINE))  # only the system knows
        with pytest.raises(InvalidParameter, match="could not be started"):
            evaluate(Study(LINE), command, 3)

    def test_a_nul_is_a_failed_trial(self):
        with pytest.raises(EvaluationFailed, match="could not be started"):
            Command(["echo", "{x}"])({"x": "\0"})

    def test_what_hangs_is_ended_with_what_it_started(self, tmp_path):
        marker = tmp_path / "pid"
        code = f"sleep 600 & echo $! > {marker}; wait"
        with pytest.raises(EvaluationFailed, match=r"no answer in 3 s"):
            Command(["sh", "-c", code, "{x}"], timeout=3.0)({"x": 1.0})
        child = int(marker.read_text())
        for _ in range(200):  # the kernel takes a moment to bury it
            state = subprocess.run(
                ["ps", "-o", "stat=", "-p", str(child)], capture_output=True, text=True
            ).stdout
            if state.strip()[:1] in ("", "Z"):
                break
        assert state.strip()[:1] in ("", "Z")

    def test_placeholders_must_be_the_spaces(self):
        with pytest.raises(
            InvalidParameter, match=r"placeholder \{y\}, which is no parameter; the space has x"
        ):
            Command(["echo", "{x}", "{y}"]).check(Study(LINE).space)
        with pytest.raises(InvalidParameter, match=r"x is not in the command: write \{x\}"):
            Command(["echo", "1"]).check(Study(LINE).space)

    def test_a_name_that_begins_another_is_not_in_the_command(self):
        space = Space({"x": Real(0.0, 1.0), "x1": Real(0.0, 1.0), "x12": Real(0.0, 1.0)})
        with pytest.raises(InvalidParameter, match=r"x, x1 are not in the command: write \{x\}"):
            Command(["echo", "{x12}"]).check(space)

    @pytest.mark.parametrize("word", ['{"x": {x}}', "{}", "{x", "x}", "{x.real}", "awk '{print $1}'"])
    def test_braces_of_its_own_are_doubled(self, word):
        with pytest.raises(InvalidParameter, match=r"write \{\{ and \}\}"):
            Command(["echo", word]).check(Space(LINE))

    @pytest.mark.parametrize(
        ("word", "told"),
        [("{x:.3f}", 0.123), ("{x:08.2e}", 0.123), ("{x!r:>30}", 0.12345), ("{x:+.1%}", None)],
    )
    def test_formats_are_pythons(self, word, told):
        command = Command(["printf", "%s\n", word])
        command.check(Space(LINE))
        if told is None:  # a percentage is no number
            with pytest.raises(EvaluationFailed, match=r"'\+12.3%' is no number"):
                command({"x": 0.12345})
        else:
            assert command({"x": 0.12345}) == told

    def test_doubled_braces_and_any_name_reach_the_program(self):
        command = Command([sys.executable, "-c", "import json, sys; print(json.loads(sys.argv[1])['x'])"])
        command.words = [*command.words, '{{"x": {a.b:.2f}}}']
        command.check(Space({"a.b": Real(0.0, 1.0)}))
        assert command({"a.b": 0.125}) == 0.12

    @pytest.mark.parametrize(
        ("space", "word"),
        [
            ({"x": Categorical([1, "a"])}, "{x:d}"),
            ({"x": Real(0.0, 1.0)}, "{x:d}"),
            ({"x": Real(0.0, 1.0)}, "{x!z}"),
        ],
    )
    def test_formats_that_a_value_does_not_take_are_refused_beforehand(self, space, word):
        with pytest.raises(InvalidParameter, match="cannot be filled with"):
            Command(["echo", word]).check(Space(space))

    def test_a_format_of_what_does_not_matter_is_empty(self):
        space = Space({"k": Categorical(["a", "b"]), "x": Real(0.0, 1.0, when={"k": "a"})})
        command = Command(["sh", "-c", "test -z '{x:.3f}' && echo 1 || echo 2", "{k:>3}"])
        command.check(space)
        assert command({"k": "b"}) == 1.0

    @pytest.mark.parametrize(
        ("code", "message"),
        [("import os; os.write(1, b'\\xff\\xfe')", "is no number"), ("print('nan')", "the value is nan")],
    )
    def test_output_that_is_no_text_or_no_number_is_a_failed_trial(self, code, message):
        study = Study(LINE)
        told, why = settle(study, study.ask(), lambda: Command([sys.executable, "-c", code])({"x": 1.0}))
        assert told.status == "failed"
        assert message in why

    def test_a_nul_in_a_word_is_a_failed_trial(self):
        with pytest.raises(EvaluationFailed, match="could not be started: embedded null byte"):
            Command(["echo", "{x}"])({"x": "a\0b"})

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


def test_a_ctrl_c_that_a_library_loses_ends_the_run(tmp_path):
    """Compilation loses an exception that is raised in one of its callbacks."""

    class Losing(Study):
        def ask(self, q=None):
            if len(self.trials) == 3:
                with contextlib.suppress(KeyboardInterrupt):
                    os.kill(os.getpid(), signal.SIGINT)
            return super().ask(q)

    study = Losing(LINE)
    assert not evaluate(study, lambda point: point["x"] ** 2, 9, path=tmp_path / "study")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    kept = Study(LINE)
    kept.load(tmp_path / "study")
    assert [t.status for t in kept.trials] == ["done", "done", "done", "pending"]
    assert evaluate(kept, lambda point: point["x"] ** 2, 5)


class TestShell:
    def run(self, folder, *options, command=PARABOLA, space=SPACE, apart=False):
        """The command in this process, or in one of its own."""
        if space is not None:
            (folder / "space.toml").write_text(space)
        words = ["solve", "blackbox", "--space", "space.toml", *options, "--", *command]
        if not apart:
            return thalweg(*words, cwd=folder)
        words = [sys.executable, "-m", "thalweg", *words]
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)

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

    @pytest.mark.parametrize("size", ["1e-20", "1e300"])
    def test_values_of_any_size_give_strict_json_and_a_file(self, tmp_path, size):
        command = python(f"import sys; print({size} * (float(sys.argv[1]) - 0.3) ** 2)")
        done = self.run(tmp_path, "--trials", "10", "--exact", "--json", "--out", "o.json", command=command)
        told = json.loads(done.stdout, parse_constant=lambda word: pytest.fail(word))
        assert told["point"]["x"] == pytest.approx(0.3, abs=0.02)
        assert told == json.loads((tmp_path / "o.json").read_text())
        refused = self.run(tmp_path, "--out", "o.txt")
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)

    def test_names_are_utf8_in_any_locale(self, tmp_path, monkeypatch):
        for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
            monkeypatch.setenv(name, value)
        (tmp_path / "space.toml").write_text(SPACE.replace("[x]", '["größe"]'), encoding="utf-8")
        done = self.run(
            tmp_path, "--trials", "2", "--json", command=["echo", "{größe}"], space=None, apart=True
        )
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)["point"]) == {"größe"}

    def test_failing_commands_end_with_status_1_and_a_hint(self, tmp_path):
        done = self.run(tmp_path, "--trials", "3", command=["false", "{x}"])
        assert done.returncode == 1
        assert "failed: exit 1" in done.stderr
        assert "Run the command by hand" in done.stdout

    def test_a_senseless_command_is_told_in_one_line(self, tmp_path):
        done = self.run(tmp_path, command=["echo", "{y}"])
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "Error: The command's word '{y}' has a placeholder {y}, which is no parameter" in done.stderr

    def test_a_kept_study_is_gone_on_with_in_another_order_and_refused_in_another_direction(self, tmp_path):
        second = SPACE.replace("[x]", "[y]")
        spaces = {"one": SPACE + second, "two": second + SPACE}
        command = [*python("import sys; print(float(sys.argv[1]) ** 2 + float(sys.argv[2]))"), "{y}"]
        points = {}
        for k, text in enumerate(spaces.values()):
            (tmp_path / "space.toml").write_text(text)
            done = self.run(tmp_path, "--trials", str(6 + k), "--json", command=command, space=None)
            points[k] = json.loads(done.stdout)["best"]
        assert points[0] == points[1] or points[1]["value"] < points[0]["value"]
        assert points[1]["value"] == pytest.approx(points[1]["point"]["x"] ** 2 + points[1]["point"]["y"])
        done = self.run(tmp_path, "--trials", "8", "--maximize", command=command, space=None)
        assert done.returncode == 2
        assert "direction='minimize', and this one direction='maximize'" in done.stderr

    def test_a_kept_study_is_refused_to_another_program(self, tmp_path):
        assert self.run(tmp_path, "--trials", "3", command=["echo", "{x}"]).returncode == 0
        kept = (tmp_path / "blackbox.study").read_bytes()
        done = self.run(tmp_path, "--trials", "4", command=["printf", "{x}"])
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "blackbox.study was kept for another command: echo '{x}'. Use it, or another" in done.stderr
        assert (tmp_path / "blackbox.study").read_bytes() == kept
        assert self.run(tmp_path, "--trials", "4", command=["echo", "{x}"]).returncode == 0

    def test_a_study_made_in_python_or_without_an_answer_is_any_programs(self, tmp_path):
        study = Study(LINE)
        evaluate(study, lambda p: p["x"] ** 2, 12)
        study.ask(2)
        study.save(tmp_path / "blackbox.study")
        done = self.run(tmp_path, "--trials", "14", command=["echo", "{x}"])
        assert (done.returncode, done.stderr.splitlines()[0]) == (
            0,
            "Going on with blackbox.study: 12 trials done, 2 in progress.",
        )
        begun = Study(LINE)
        begun.command = "./quad.sh '{x}'"
        begun.ask()
        begun.save(tmp_path / "blackbox.study")
        assert self.run(tmp_path, "--trials", "2", command=["echo", "{x}"]).returncode == 0
        begun.load(tmp_path / "blackbox.study")
        assert begun.command == "echo '{x}'"

    def test_a_program_that_is_not_there_is_told_once_and_nothing_is_kept(self, tmp_path):
        done = self.run(tmp_path, "--trials", "3", command=["./nothere", "{x}"])
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "Error: ./nothere cannot be started: no such program is there" in done.stderr
        assert not (tmp_path / "blackbox.study").exists()

    def test_ctrl_c_and_sigkill_lose_only_what_was_running(self, tmp_path):
        slow = python("import sys; print(float(sys.argv[1]) ** 2)")
        (tmp_path / "space.toml").write_text(SPACE)
        words = [
            sys.executable,
            "-m",
            "thalweg",
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
            said = process.stderr.read()
            status = process.wait(timeout=60)
            assert status == (1 if kill == signal.SIGINT else -signal.SIGKILL), said
            study = Study(LINE)
            study.load(tmp_path / "blackbox.study")
            pending = [t for t in study.trials if t.status == "pending"]
            assert len(pending) <= 2
            assert len(study.done) >= 4  # the last answer may not have been written yet
        left = len(study.trials)
        finished = self.run(tmp_path, "--trials", str(left + 2), "--json", command=slow)
        assert json.loads(finished.stdout)["trials"] == left + 2
        assert json.loads(finished.stdout)["failed"] == 0
