"""A program improved in one call, and from the shell."""

from __future__ import annotations

import json

import pytest
from fake_server import reply
from typer.testing import CliRunner

from thalweg.cli import app
from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, UnknownName, UnreadableFile
from thalweg.workflow import Bounds, ExecutionError, Feedback, bundle, node
from thalweg.workflow.improving import improve
from thalweg.workflow.optimizers import OptoPrime, PatternSearch, TraceDescent

PROGRAM = '''
from thalweg.workflow import Bounds, Choices, Feedback, Module, bundle, node

x = node(4.0, trainable=True, constraint=Bounds(-5, 5))
y = node(4.0, trainable=True)

def valley():
    return (x - 1) ** 2 + 10 * (y - x) ** 2

class Line(Module):
    def __init__(self, slope=4.0):
        self.slope = node(slope, trainable=True)
    def __call__(self):
        return (self.slope - 3) ** 2

class Word(Module):
    def __init__(self):
        self.word = node("a", trainable=True, constraint=Choices(("a", "b", "c")))
    def __call__(self):
        return self.word + "!"

free = Word()
free.text = node("free", trainable=True)

@bundle(trainable=True)
def law(t):
    """What the position at t should be."""
    return 1.0 * t

def fall():
    return sum([(law(t) - 5.0 * t) ** 2 for t in (1.0, 2.0)])

def worth(value):
    return Feedback({"a!": 0.2, "b!": 0.9, "c!": 0.4}[value], "a word")

def words(value):
    return "bad"

def worthless():
    return node(1.0) + 1

def needs(argument):
    return argument
'''


@bundle()
def root(v):
    return v**0.5


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    return lambda name: f"{path}:{name}"


def invoke(*words):
    return CliRunner().invoke(app, ["improve", *map(str, words)], catch_exceptions=True)


class TestImprove:
    def test_the_parameters_end_at_the_best_run_and_hold_what_was_said_of_it(self):
        x = node(4.0, trainable=True, name="x")
        found = improve(lambda: (x - 1) ** 2, PatternSearch([x]), runs=25)
        scores = [row["score"] for row in found.course]
        assert found.first == scores[0] == 9.0
        assert found.score == min(scores) == (x.data - 1) ** 2 == found.output.data
        assert [row["best"] for row in found.course] == [min(scores[: k + 1]) for k in range(25)]
        (graph,) = x.feedback
        assert graph.feedback[found.output] == (Feedback(found.score),)

    def test_a_run_that_fails_is_the_worst_so_far_and_the_first_one_is_told(self):
        x = node(1.0, trainable=True, constraint=Bounds(-3.0, 3.0))

        def program():
            return root(x) if x > 0.2 else 1 / (x - x)

        found = improve(program, PatternSearch([x]), runs=20)
        failed = [row for row in found.course if row["failed"]]
        assert failed
        assert "ZeroDivisionError" in failed[0]["failed"]
        assert found.score == pytest.approx(x.data**0.5)
        assert x.data > 0.2
        x.set(-1.0)
        with pytest.raises(ExecutionError):
            improve(program, PatternSearch([x]), runs=2)

    def test_a_score_that_is_no_number_on_the_way_is_the_worst_so_far(self):
        x = node(1.0, trainable=True, constraint=Bounds(0.0, 3.0))
        found = improve(lambda: x * 1, PatternSearch([x]), 12, guide=lambda v: float("nan") if v < 0.8 else v)
        assert any("finite" in row["failed"] for row in found.course)
        assert found.score == x.data >= 0.8

    def test_a_model_hears_words_and_scores(self):
        class Says:
            def __init__(self):
                self.asked = []

            def complete(self, messages, *options, **named):
                self.asked.append(messages[-1]["content"])
                return '{"suggestion": {"x0": 1.0}}'

        x, model = node(4.0, trainable=True, name="x"), Says()
        found = improve(
            lambda: (x - 1) ** 2, OptoPrime([x], model), 2, guide=lambda v: Feedback(v, "too far right")
        )
        assert found.score == 0.0
        assert "too far right" in model.asked[0]

    def test_ctrl_c_leaves_the_best_values(self):
        x, count = node(4.0, trainable=True), []

        def program():
            count.append(1)
            if len(count) == 7:
                raise KeyboardInterrupt
            return (x - 1) ** 2

        found = improve(program, PatternSearch([x]), runs=50)
        assert not found.complete
        assert len(found.course) == 6
        assert (x.data - 1) ** 2 == found.score

    def test_bad_input_is_refused(self):
        x = node(4.0, trainable=True)
        with pytest.raises(InvalidProblem, match="gives a float, and its trace is lost"):
            improve(lambda: x.data, PatternSearch([x]), runs=2)
        with pytest.raises(InvalidProblem, match="says words alone"):
            improve(lambda: x + 1, PatternSearch([x]), 2, guide=lambda v: "bad")
        with pytest.raises(InvalidProblem, match="first run has no score"):
            improve(lambda: x + 1, PatternSearch([x]), 2, guide=lambda v: None)
        for optimizer in (PatternSearch([x]), TraceDescent([x])):
            with pytest.raises(InvalidParameter, match="direction is 'minimize'"):
                improve(lambda: x + 1, optimizer, 2, maximize=True)


class TestCommand:
    def test_numbers_are_found_written_and_taken_up_again(self, program, tmp_path):
        out, page = tmp_path / "best.json", tmp_path / "run.html"
        words = (program("valley"), "--runs", 60, "--out", out, "--report", page, "--json")
        told = json.loads(invoke(*words).stdout)
        assert told["search"] == "pattern"
        assert told["first"] == 9.0
        x, y = told["values"]["x"], told["values"]["y"]
        assert told["score"] == (x - 1) ** 2 + 10 * (y - x) ** 2 < 0.1
        again = json.loads(invoke(program("valley"), "--runs", 1, "--start", out, "--json").stdout)
        assert again["first"] == told["score"]
        shown = page.read_text(encoding="utf-8")
        assert "<svg" in shown
        assert f"score {told['score']!r}" in shown

    @pytest.mark.parametrize(
        ("name", "options", "search", "best"),
        [
            ("Line", ("--runs", 30), "pattern", ("slope", 3.0)),
            ("Word", ("--guide", "worth", "--maximize", "--runs", 8), "bayes", ("word", "b")),
            (
                "Word",
                ("--guide", "worth", "--maximize", "--runs", 40, "--search", "choices"),
                "choices",
                ("word", "b"),
            ),
            ("Line", ("--runs", 60, "--search", "descent"), "descent", ("slope", 3.0)),
        ],
    )
    def test_modules_are_improved_by_what_suits_them(self, program, name, options, search, best):
        done = invoke(program(name), *options, "--json")
        told = json.loads(done.stdout)
        assert told["search"] == search
        path, value = best
        found = told["values"][path]
        assert found == value if isinstance(value, str) else found == pytest.approx(value, abs=0.2)

    def test_code_is_edited_and_what_a_program_does_not_read_is_left_out(self, program):
        told = json.loads(invoke(program("fall"), "--runs", 40, "--json").stdout)
        assert told["search"] == "edits"
        assert list(told["values"]) == ["law"]
        assert told["score"] < told["first"]
        assert "def law(t):" in told["values"]["law"]

    def test_a_model_is_asked_at_its_endpoint(self, program, serve):
        model, server, _ = serve((200, {}, reply('{"suggestion": {"parameter0": 3.0}}')))
        done = invoke(
            program("Line"), "--runs", 2, "--search", "model", "--model", "m", "--base-url", model.base_url
        )
        assert done.exit_code == 0, done.output
        assert "slope = 3.0" in done.stdout
        assert len(server.asked) == 1

    @pytest.mark.parametrize(
        ("name", "options", "kind", "message"),
        [
            ("valey", (), UnknownName, "Did you mean 'valley'"),
            ("valley", ("--search", "patern"), UnknownName, "Did you mean 'pattern'"),
            ("Word", ("--guide", "wort"), UnknownName, "Did you mean 'worth'"),
            ("Word", ("--guide", "words"), InvalidProblem, "says words alone"),
            ("x", (), InvalidParameter, "is a ParameterNode; expected a function or a Module"),
            ("needs", (), InvalidParameter, "needs arguments"),
            ("law", (), InvalidParameter, "needs arguments"),
            ("worthless", (), InvalidParameter, "has nothing to change"),
            ("free", ("--guide", "worth"), InvalidParameter, "Give text Bounds or Choices"),
            ("Line", ("--search", "model"), InvalidParameter, "go together"),
            ("Line", ("--search", "descent", "--maximize"), InvalidParameter, "goes down"),
            ("Word", ("--search", "edits"), InvalidParameter, "is no code"),
        ],
    )
    def test_what_cannot_be_done_is_told(self, program, name, options, kind, message):
        done = invoke(program(name), *options)
        assert isinstance(done.exception, kind)
        assert message in str(done.exception)

    def test_files_that_do_not_fit_are_told(self, program, tmp_path):
        assert isinstance(invoke("nowhere.py:f").exception, UnreadableFile)
        assert "names nothing in a file" in str(invoke("program.py").exception)
        other = tmp_path / "values.json"
        other.write_text('{"values": {"z": 1.0}}', encoding="utf-8")
        done = invoke(program("valley"), "--start", other)
        assert isinstance(done.exception, CheckpointMismatch)


def test_what_raises_outside_of_the_program_leaves_the_best_values():
    x = node(4.0, trainable=True)
    seen = []

    def watch(row):
        seen.append((row["score"], x.data))
        if row["score"] > row["best"]:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        improve(lambda: (x - 1) ** 2, PatternSearch([x]), runs=20, watch=watch)
    assert x.data == min(seen)[1] != seen[-1][1]
