"""`thalweg solve equilibrium`: what its tolerance is relative to, and games where nothing is at stake."""

from __future__ import annotations

import json
import sys

import pytest

from thalweg.cli import main


@pytest.fixture
def solved(monkeypatch, capsys, tmp_path):
    def run(payoffs, *words):
        (tmp_path / "game.csv").write_text(payoffs)
        monkeypatch.setattr(
            sys, "argv", ["thalweg", "solve", "equilibrium", str(tmp_path / "game.csv"), *words]
        )
        with pytest.raises(SystemExit) as done:
            main()
        assert done.value.code == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.mark.parametrize("method", ["extragradient", "pdhg"])
def test_a_game_in_small_units_is_not_solved_at_the_start(solved, method):
    told = solved("1e-9,-1e-9\n-1e-9,3e-9\n", "--method", method, "--json")
    assert told["x"] == pytest.approx([2 / 3, 1 / 3], abs=1e-5)
    assert told["metrics"]["value"] == pytest.approx(1e-9 / 3, rel=1e-5)


def test_a_file_of_zeros_has_the_value_zero(solved):
    assert solved("0,0,0\n0,0,0\n", "--method", "pdhg", "--json")["metrics"]["gap"] == 0.0


def test_a_large_constant_costs_nothing(solved):
    told = solved("1000002,999999\n999999,1000001\n", "--json")
    assert told["x"] == pytest.approx([0.4, 0.6], abs=1e-4)
    assert told["metrics"]["value"] == pytest.approx(1000000.2, abs=1e-5)


def test_the_command_says_whether_sampling_pays(monkeypatch, capsys, tmp_path):
    (tmp_path / "game.csv").write_text("2,-1\n-1,1\n")
    monkeypatch.setattr(sys, "argv", ["thalweg", "solve", "equilibrium", str(tmp_path / "game.csv")])
    with pytest.raises(SystemExit):
        main()
    assert "stable rank 1, predicted gain 0.18: sampling does not pay" in capsys.readouterr().out


def test_a_table_says_whose_strategy_it_is(solved, tmp_path):
    told = solved("1,2\n3,0\n0,1\n", "--json", "--out", str(tmp_path / "s.csv"))
    head, *lines = (tmp_path / "s.csv").read_text().splitlines()
    assert head == "player,strategy,probability"
    cells = [line.split(",") for line in lines]
    assert [cell[:2] for cell in cells] == [["rows", str(i)] for i in range(3)] + [
        ["columns", str(i)] for i in range(2)
    ]
    assert [float(cell[2]) for cell in cells] == [*told["x"], *told["y"]]
    assert told["x"] == pytest.approx([0, 0.25, 0.75], abs=1e-5)


def test_a_file_for_one_array_is_refused(monkeypatch, capsys, tmp_path):
    (tmp_path / "game.csv").write_text("1,2\n3,0\n")
    words = ["thalweg", "solve", "equilibrium", str(tmp_path / "game.csv"), "--out", str(tmp_path / "s.npy")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 2
    assert "expected .npz or .csv" in capsys.readouterr().err


def test_one_column_is_one_choice_of_the_column_player(solved):
    told = solved("1\n2\n5\n", "--json")
    assert (told["x"], told["y"]) == ([1.0, 0.0, 0.0], [1.0])
