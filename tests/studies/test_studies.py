"""Every study runs at smoke scale and brings back whole evidence."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
from sklearn.datasets import dump_svmlight_file

from thalweg.catalogue import with_study
from thalweg.studies import learning_to_relax


@pytest.mark.parametrize("system", with_study(), ids=lambda s: s.slug)
def test_a_study_brings_back_verdicts_a_table_and_figures(system):
    told = []
    evidence = importlib.import_module(f"thalweg.studies.{system.study}").run(
        "smoke", lambda share, what: told.append(share)
    )
    assert evidence.verdicts
    assert evidence.table
    assert evidence.figures
    assert all(0 <= share <= 1 for share in told)
    json.dumps(evidence.to_dict(), allow_nan=False)
    for figure in evidence.figures:
        assert all(len(s.x) == len(s.y) for s in figure.series)


def test_learning_to_relax_reaches_its_heat_equation_claims_on_a_small_grid():
    size = learning_to_relax.Size(0, 0, heat=600, nx=25, seeds=3)
    heat, plain = learning_to_relax._heat(size)
    assert heat.ratio("Tsallis-INF") <= 1.25
    assert heat.ratio("ChebCB") <= 1.10
    assert heat.total("ChebCB") < 0.6 * plain.sum()


def test_refinement_takes_the_users_own_problems_and_recorded_norms(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    dump_svmlight_file(X, (X[:, 0] + rng.standard_normal(60) > 0).astype(int), str(tmp_path / "mine.svm"))
    (tmp_path / "norms").mkdir()
    course = 1.0 + 10.0 * np.exp(-np.arange(500) / 100.0)
    np.savetxt(tmp_path / "norms" / "gpt_l1.csv", course, header="norm", comments="")
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path))
    evidence = importlib.import_module("thalweg.studies.schedule_refinement").run("smoke")
    assert any(row["task"] == "logistic regression, mine" for row in evidence.table)
    assert any("gpt_l1: warm-up found, less the stated 28%" in v.claim for v in evidence.verdicts)
