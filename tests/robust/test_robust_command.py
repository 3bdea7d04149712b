"""The command and the readers: instances in three formats, and files that are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from thalweg.cli import app
from thalweg.core import InvalidProblem, UnknownName, UnreadableFile
from thalweg.robust import CapitalBudgeting, FacilityLocation, RobustKnapsack, load_instance, save_instance


def text_of(*rows):
    return "\n".join(" ".join(map(repr, np.asarray(row, dtype=float).tolist())) for row in rows) + "\n"


@pytest.fixture
def files(tmp_path):
    knapsack = RobustKnapsack.random(6, 0, budget=0.3)
    save_instance(knapsack, tmp_path / "small.json")
    parts = (knapsack.profit, knapsack.loss, knapsack.repair, knapsack.weight, knapsack.penalty)
    items = np.column_stack([np.arange(6), *parts])
    (tmp_path / "RKP_UN_n6_R1000_H100_h40_dev0.3_d0.5").write_text(text_of([6, knapsack.capacity], *items))
    budget = CapitalBudgeting.random(3, 0, factors=2, loans=True)
    head = [7, 3, 2, budget.budget, budget.most_loan]
    rows = (head, budget.cost, budget.revenue, *np.asarray(budget.phi), *np.asarray(budget.psi))
    (tmp_path / "CB_n3_xi2_s7").write_text(text_of(*rows))
    return tmp_path


def test_a_decision_is_told_with_its_proof(files):
    out, page = files / "x.csv", files / "page.html"
    found = CliRunner().invoke(
        app,
        [
            "solve",
            "robust",
            str(files / "small.json"),
            "--problem",
            "knapsack",
            "--out",
            str(out),
            "--report",
            str(page),
        ],
    )
    assert found.exit_code == 0, found.output
    assert "Worst case: cost" in found.stdout
    assert "no decision is below" in found.stdout
    assert set(np.loadtxt(out, delimiter=",")) <= {0.0, 1.0}
    assert "Worst scenario" in page.read_text()


def test_json_holds_decision_bound_and_scenario_alone(files):
    found = CliRunner().invoke(app, ["solve", "robust", str(files / "small.json"), "--json"])
    told = json.loads(found.stdout)
    assert told["bound"] <= told["cost"]
    assert len(told["decision"]) == len(told["worst_scenario"]) == 6
    assert told["scenarios"] >= 1
    assert "-0.0" not in found.stdout.split('"decision"')[1].split("]")[0]


def test_methods_are_compared(files):
    found = CliRunner().invoke(
        app,
        [
            "compare",
            "robust",
            str(files / "small.json"),
            "--method",
            "static",
            "--method",
            "nominal",
            "--json",
        ],
    )
    rows = json.loads(found.stdout)
    assert {row["method"] for row in rows} == {"static", "nominal"}


def test_published_files_are_the_problems_they_were_written_from(files):
    mine, theirs = (
        load_instance(files / "small.json"),
        load_instance(files / "RKP_UN_n6_R1000_H100_h40_dev0.3_d0.5"),
    )
    for name in ("weight", "profit", "loss", "penalty", "repair", "capacity", "gamma"):
        np.testing.assert_allclose(getattr(theirs, name), getattr(mine, name), rtol=1e-12)
    plain, lent = (load_instance(files / "CB_n3_xi2_s7", loans=loans) for loans in (False, True))
    assert plain.n == 3
    assert lent.n == 4
    np.testing.assert_array_equal(plain.phi, CapitalBudgeting.random(3, 0, factors=2).phi)


def test_facilities_come_back_from_json(tmp_path):
    problem = FacilityLocation.random(2, 3, seed=1)
    save_instance(problem, tmp_path / "f.json")
    again = load_instance(tmp_path / "f.json", gamma=1)
    np.testing.assert_array_equal(again.shipping, problem.shipping)
    assert again.gamma == 1


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.json", '{"problem": "knapsack", "weight": [1]}', InvalidProblem, "lacks profit, loss"),
        ("a.json", '{"problem": "knapsac"}', InvalidProblem, "names no problem"),
        ("a.json", '{"problem": "knapsack", "wait": [1]}', UnknownName, "Did you mean 'weight'"),
        ("a.json", "{", UnreadableFile, "is no JSON"),
        (
            "a.json",
            '{"problem": "knapsack", "gamma": 1, "gamma": 2}',
            UnreadableFile,
            "the key 'gamma' stands twice",
        ),
        ("a.txt", "1 2 3", UnreadableFile, "is no instance: expected JSON"),
        ("RKP_a_dev0.1_", "2 10\n1 2 3 4 5\n", UnreadableFile, "line 2: 5 numbers; expected 6"),
        ("RKP_a_dev0.1_", "2 10\n0 1 2 3 4 5\n", UnreadableFile, "has 1 items; its first line says 2"),
        ("RKP_a", "1 10\n0 1 2 3 4 5\n", InvalidProblem, "does not say gamma"),
        ("RKP_a_dev0.1_", "1 10\n0 1 x 3 4 5\n", UnreadableFile, "line 2: could not convert"),
        ("RKP_a_dev0.1_", "", UnreadableFile, "is empty"),
        ("CB_n1", "1 1 1 5 5\n1\n1\n", UnreadableFile, "ends before phi of project 0"),
    ],
)
def test_files_that_are_none_say_where(tmp_path, name, content, error, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        load_instance(tmp_path / name)


def test_a_file_of_another_problem_is_refused(files):
    with pytest.raises(InvalidProblem, match="holds a knapsack problem; facility was asked for"):
        load_instance(files / "small.json", "facility")
    with pytest.raises(UnreadableFile, match="No file"):
        load_instance(files / "none.json")
