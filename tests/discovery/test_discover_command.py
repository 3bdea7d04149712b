"""``thalweg discover``: what it prints and writes, a proxy of one's own, bad input."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from thalweg.cli import app
from thalweg.core import UnknownName, UnreadableFile
from thalweg.discovery import check, parse, read_program

PROXY = """
import numpy as np

def quadratic(rule):
    w, m, v = np.array([3.0, -2.0]), np.zeros(2), np.zeros(2)
    for step in range(20):
        update, m, v = rule(w, w, m, v, 1.0 - step / 20)
        w = np.clip(w - update, -1e6, 1e6)
    return float(w @ w)
"""


@pytest.fixture
def proxy(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(PROXY)
    return f"{path}:quadratic"


def invoke(*words):
    return CliRunner().invoke(app, ["discover", *map(str, words)], catch_exceptions=True)


def test_a_program_is_found_written_and_told(proxy, tmp_path):
    out = tmp_path / "found.py"
    found = invoke(proxy, "--evaluations", 40, "--population", 10, "--out", out, "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert told["loss"] < told["start"]
    assert check(parse(told["program"])) is None
    assert read_program(out).source == told["program"]
    again = invoke(proxy, "--evaluations", 5, "--population", 10, "--start", out, "--no-simplify", "--json")
    assert json.loads(again.stdout)["start"] == told["loss"]


def test_a_search_goes_on_from_its_file_whatever_the_workers(proxy, tmp_path):
    path = tmp_path / "run"
    common = (proxy, "--population", 10, "--no-simplify", "--json")
    whole = json.loads(invoke(*common, "--evaluations", 30).stdout)
    invoke(*common, "--evaluations", 10, "--checkpoint", path)
    resumed = json.loads(invoke(*common, "--evaluations", 30, "--resume", path, "--workers", 2).stdout)
    assert resumed["program"] == whole["program"]
    assert resumed["search"] == whole["search"]


def test_the_table_of_a_running_search_shows_the_best_program(proxy):
    found = invoke(proxy, "--evaluations", 10, "--population", 10, "--progress", "--no-simplify")
    assert found.exit_code == 0
    assert "def train" in found.stderr
    assert "Loss" in found.stdout


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("digits", UnknownName, "Did you mean 'digits-mlp'"),
        ("nowhere.py:f", UnreadableFile, "No file nowhere.py"),
    ],
)
def test_an_unknown_proxy_is_told(word, kind, message):
    found = invoke(word)
    assert isinstance(found.exception, kind)
    assert message in str(found.exception)


def test_a_function_that_is_not_there_is_told(proxy):
    found = invoke(proxy.replace("quadratic", "quadratc"))
    assert isinstance(found.exception, UnknownName)
    assert "Did you mean 'quadratic'" in str(found.exception)
    assert "a module; expected a function" in str(invoke(proxy.replace("quadratic", "np")).exception)


def test_children_of_a_step_can_be_set(proxy):
    common = (proxy, "--evaluations", 1, "--population", 10, "--no-simplify", "--json")
    one_step = json.loads(invoke(*common, "--children", 40).stdout)["search"]
    assert one_step["generated"] >= 40 > json.loads(invoke(*common).stdout)["search"]["generated"]
