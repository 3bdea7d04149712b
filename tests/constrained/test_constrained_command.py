"""`thalweg solve constrained`: the user's slips in one line, status 2."""

from __future__ import annotations

import json
import sys

import pytest

from thalweg.cli import main


@pytest.fixture
def thalweg(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["thalweg", "solve", "constrained", *words])
        with pytest.raises(SystemExit) as done:
            main()
        told = capsys.readouterr()
        return done.value.code, told.out, told.err

    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["(1-x1)**2+100*(x2-x1**2)**2", "--start=-1.2,1"], "There are no constraints"),
        (["abs(x1)+x2", "--subject-to", "x1+x2-1", "--start=1,1"], "not twice differentiable: abs(x1)"),
        (["x1**2", "--subject-to", "x1+x2 <= 1", "--start=1,1"], "--at-most-zero"),
        (["x1**2+x2**2", "--subject-to", "x1+x2=1", "--start=1,1"], "write x1+x2-1 for x1+x2=1"),
        (["__import__('os').getpid()*x1", "--subject-to", "x1", "--start=1"], "no place in a formula"),
        (["x1", "--subject-to", "x1-1", "--at-most-zero", "9**9**9", "--start=1"], "power beyond 1000"),
        (["-log(x1)-log(x2)", "--subject-to", "x1+x2-1", "--start=0.9,0.1"], "put -- before it"),
        (["x1", "--subject-to", "x1", "--start=nan"], "x0 holds 1 NaN"),
        (["x1", "--subject-to", "x1", "--start=1", "--method", "inexact-sqp:nu=1"], "nu > 1"),
    ],
)
def test_slips_are_told_in_a_line(thalweg, words, message):
    code, out, err = thalweg(*words)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not out


def test_a_formula_that_begins_with_a_minus_goes_after_two_dashes(thalweg):
    code, out, _ = thalweg("--subject-to", "x1+x2-1", "--start=0.9,0.1", "--json", "--", "-log(x1)-log(x2)")
    assert code == 0
    assert json.loads(out)["x"] == pytest.approx([0.5, 0.5], abs=1e-6)
