"""``thalweg double-descent`` on tables of one's own."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from thalweg.cli import app


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((80, 5))
    y = X @ rng.standard_normal(5) + 0.5 * rng.standard_normal(80)
    path = tmp_path / "t.csv"
    np.savetxt(path, np.column_stack([X, y]), delimiter=",", header="a,b,c,d,e,y", comments="")
    return path


def told(*words):
    return CliRunner().invoke(app, ["double-descent", *map(str, words)])


def test_the_exact_solution_is_threatened_and_early_stopping_is_not(table, tmp_path):
    words = (table, "--target", "y", "--rows", 40, "--optimizer")
    exact = told(*words, "exact", "--json")
    assert exact.exit_code == 1, exact.output
    found = json.loads(exact.stdout)
    assert found["threatened"]
    assert found["peak_width"] == 40
    assert [row["width"] for row in found["widths"]][-1] == 320
    stopped = told(*words, "early-stopping", "--report", tmp_path / "p.html")
    assert stopped.exit_code == 0
    assert "No peak threatens" in stopped.stdout
    assert not stopped.stderr  # the widths under way are for a terminal
    assert "Error by width" in (tmp_path / "p.html").read_text()


def test_classes_that_are_text_become_targets(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["a,b,kind"] + [f"{a},{b},{'up' if a > b else 'down'}" for a, b in rng.standard_normal((40, 2))]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    found = told(path, "--target", "kind", "--widths", "5,20,100", "--steps", 50, "--json")
    assert [row["width"] for row in json.loads(found.stdout)["widths"]] == [5, 20, 100]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--rows", 80), "has 80 rows; --rows needs"),
        (("--widths", "10,x"), "--widths takes whole numbers"),
        (("--widths", "3"), "widths need one between"),
        (("--optimizer", "adam"), "No optimizer 'adam'"),
        (("--features", "tanh"), "No features 'tanh'"),
        (("--report", "page.txt"), "page.txt"),
    ],
)
def test_senseless_options_are_told_in_a_line(table, words, message):
    done = told(table, "--target", "y", *words)
    assert done.exit_code != 0
    assert message in str(done.exception) + done.output


def test_a_table_without_a_target_is_told(table):
    assert "--target" in str(told(table).exception)
