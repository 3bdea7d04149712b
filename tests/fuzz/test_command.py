"""Whatever stands on the command line, the command answers or says in one line of its own what is wrong."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
import warnings

import click
import numpy as np
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from running import thalweg
from thalweg.cli import app
from thalweg.cli.areas import AREAS
from thalweg.cli.methods import options
from thalweg.core.files import save_array
from thalweg.core.tree import save_tree
from thalweg.landscape.permutation import save_weights

LIMIT = 30  # seconds that no answer here may take

ODD = [
    "",
    " ",
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "3.0",
    "0.5",
    "-0.5",
    "1e-320",
    "1e308",
    "1e999",
    "nan",
    "inf",
    "-inf",
]
ODD += [
    "true",
    "None",
    "x",
    "é",
    "1,2",
    "1,,2",
    "[1]",
    "{}",
    "{x}",
    "0x10",
    "1_0",
    "1 2",
    "10000000000000000000000",
]
ODD += [
    "x1",
    "x1 - 1",
    "x1**9**9",
    "x1 = 1",
    "x1 <= 1",
    "__import__('os')",
    "x1.real",
    "(",
    "a:b=c",
    "=",
    ":",
    "-",
]
FILES = [
    "A.csv",
    "b.csv",
    "ratings.csv",
    "X.svm",
    "space.toml",
    "saved",
    "noise.npz",
    "noise.mtx",
    "folder",
    "absent.csv",
    "new.npy",
    "fuzz_program.py:score",
    "fuzz_program.py:absent",
]
#: What the other commands need to be quick; reproduce runs whole studies, and is left out.
FEW = {"--runs": "2", "--steps": "2", "--seconds": "2", "--trials": "2", "--rounds": "3"}
LEFT_OUT = ("reproduce",)


class Hangs(BaseException):
    """No answer within the limit."""


def _hangs(number, frame):
    raise Hangs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz")
    (path / "A.csv").write_text("4,1\n1,3\n")
    (path / "b.csv").write_text("1\n2\n")
    (path / "ratings.csv").write_text(
        "user,item,rating\n" + "".join(f"{i},{j},{1 + (i * j) % 5}\n" for i in range(5) for j in range(4))
    )
    (path / "sequences.csv").write_text("sequence,score\nACGT,1\nACGA,2\nTCGA,3\nTTGA,1.5\n")
    (path / "X.svm").write_text("1 1:1 2:2\n-1 1:3 2:4\n1 1:2 2:1\n")
    (path / "space.toml").write_text('[x]\ntype = "real"\nlow = 0.0\nhigh = 1.0\n')
    (path / "knapsack.json").write_text(
        '{"problem": "knapsack", "weight": [2, 3], "profit": [4, 5], "loss": [2, 3], "penalty": [5, 6], '
        '"repair": [1, 1], "capacity": 4, "gamma": 1}'
    )
    (path / "folder").mkdir()
    (path / "fuzz_factory.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))\n"
    )
    (path / "fuzz_program.py").write_text(
        "from thalweg.workflow import node\nx = node(2.0, trainable=True)\ndef score():\n    return (x - 1) ** 2\n"
    )
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.syspath_prepend(str(path))
    for name in ("a", "b"):
        network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        save_weights(path / f"{name}.pt", network.state_dict())
    for k, name in enumerate(("before", "after")):
        rows = np.random.default_rng(k).standard_normal((12, 2)) + k
        np.savetxt(path / f"{name}.csv", rows, delimiter=",", header="x,y", comments="")
    save_array(path / "sinogram.npy", np.random.default_rng(2).random((3, 8)))
    for k, name in enumerate(("source", "target")):
        rows = np.random.default_rng(k).standard_normal((24, 3)) + k
        np.savez(path / f"{name}.npz", X=rows, **({} if k else {"y": np.arange(24) % 2}))
    save_tree(path / "saved", {"steps": 1, "state": {"x": np.ones(2)}})
    save_array(path / "good.npz", np.eye(2))
    noise = bytearray((path / "good.npz").read_bytes())
    noise[40:44] = b"\xff\x00\xff\x00"
    (path / "noise.npz").write_bytes(noise)
    (path / "noise.mtx").write_bytes(b"%%MatrixMarket matrix array real general\n2 2\n1\n\xff\n")
    yield path
    monkeypatch.undo()


def checked(arguments, folder):
    """Run it, and hold it to what is promised of every command."""
    before, stdin = signal.signal(signal.SIGALRM, _hangs), sys.stdin
    sys.stdin = io.StringIO("x,y\n1,2\n3,0.5\n")
    signal.alarm(LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            done = thalweg(*arguments, cwd=folder)
    except Hangs:
        pytest.fail(f"no answer within {LIMIT} s: {arguments}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        sys.stdin = stdin
    said = (arguments, done)
    assert done.returncode in (0, 1, 2), said
    assert "Traceback" not in done.stderr, said
    assert "--debug ... shows" not in done.stderr, said  # an error that is not the library's own
    if done.returncode == 2:
        assert (done.stdout + done.stderr).strip(), said
    if "--json" in arguments and done.returncode < 2 and done.stdout.strip():
        json.loads(done.stdout, parse_constant=lambda word: pytest.fail(f"{word} is no JSON: {said}"))


def commands(group=None, path=()):
    """Every command below ``group`` with the words that name it."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif name not in LEFT_OUT:
            yield (*path, name), command


COMMANDS = dict(commands())


def _value(parameter):
    if isinstance(parameter.type, click.Path) or "Path" in repr(parameter.type):
        return st.sampled_from(FILES) | st.sampled_from(ODD)
    return st.sampled_from(ODD) | st.sampled_from(FILES)


@st.composite
def lines(draw):
    """A command with some of its options, and values that may fit."""
    words, command = draw(st.sampled_from(sorted(COMMANDS.items())))
    given_, arguments = [*words], []
    for parameter in command.params:
        flag = f"{parameter.opts[0]}"
        if isinstance(parameter, click.Argument):
            arguments += [draw(_value(parameter)) for _ in range(draw(st.integers(0, 2)) or 1)]
        elif flag == "--help":
            continue
        elif parameter.is_flag:
            given_ += [flag] * draw(st.sampled_from([0, 0, 1]))
        elif flag in FEW:
            given_ += [f"{flag}={draw(st.sampled_from([FEW[flag], FEW[flag], *ODD[:10]]))}"]
        elif draw(st.integers(0, 3)) == 0:
            given_ += [f"{flag}={draw(_value(parameter))}"]
    given_ = [word for word in given_ if not re.match(r"--open|--debug|--follow", word)]
    return [*given_, "--", *arguments]


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(arguments=lines())
def test_any_options_give_an_answer_or_one_line(folder, arguments):
    checked(arguments, folder)


#: What each area solves where only the method is odd.
PROBLEMS = {
    "linear": ["A.csv"],
    "convex": ["X.svm"],
    "constrained": ["x1**2 + x2**2", "--subject-to", "x1 + x2 - 1", "--start", "2,0"],
    "equilibrium": ["A.csv"],
    "matrix": ["ratings.csv"],
    "online": ["b.csv"],
    "landscape": ["a.pt", "b.pt", "--module", "fuzz_factory:make"],
    "transport": ["before.csv", "after.csv"],
    "robust": ["knapsack.json"],
    "inverse": ["sinogram.npy", "--operator", "radon:views=3"],
    "adaptation": ["source.npz", "target.npz"],
    "design": ["sequences.csv", "--propose", "2"],
}


METHODS = {
    (area.name, name): tuple(options(maker))
    for area in AREAS
    if area.name in PROBLEMS
    for name, maker in area.methods().items()
}


@st.composite
def methods(draw):
    """One of an area's methods with odd values for some of its options."""
    (area, name), known = draw(st.sampled_from(sorted(METHODS.items())))
    odd = [f"{option}={draw(st.sampled_from(ODD))}" for option in known if draw(st.booleans())]
    return area, f"{name}:{','.join(odd)}" if odd else name


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(drawn=methods(), verb=st.sampled_from(["solve", "solve", "compare"]))
def test_any_option_of_a_method_gives_an_answer_or_one_line(folder, drawn, verb):
    area, method = drawn
    checked([verb, area, *PROBLEMS[area], "--method", method, "--steps", "2", "--seconds", "2"], folder)


def test_every_area_of_the_command_is_tried():
    assert {area.name for area in AREAS if area.solve is None} == set(PROBLEMS)


@given(
    words=st.lists(
        st.sampled_from([*ODD, "solve", "list", "show", "linear", "--method", "--json"]), max_size=5
    )
)
def test_any_words_give_an_answer_or_one_line(folder, words):
    checked(words, folder)
