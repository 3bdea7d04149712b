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


def test_one_column_is_one_choice_of_the_column_player(solved):
    told = solved("1\n2\n5\n", "--json")
    assert (told["x"], told["y"]) == ([1.0, 0.0, 0.0], [1.0])
