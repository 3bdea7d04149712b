"""The benchmarks' harness keeps to its documented format."""

from __future__ import annotations

import importlib
import json

import pytest
from benchmarks.race import Row, race


def test_a_row_is_the_documented_eight():
    row = Row("02", "a sweep", 0.5, "peer", 2.0, accuracy_ours=1e-8).to_dict()
    assert list(row) == [
        "system",
        "workload",
        "ours_s",
        "peer",
        "peer_s",
        "ratio",
        "accuracy_ours",
        "accuracy_peer",
    ]
    assert row["ratio"] == 0.25
    assert json.loads(json.dumps(row)) == row


def test_contestants_run_in_turns_and_bring_back_their_last_result():
    order = []
    (_, a), (_, b) = race(lambda: order.append("a") or "A", lambda: order.append("b") or "B", rounds=3)
    assert (a, b) == ("A", "B")
    assert order == ["a", "b"] * 4


@pytest.mark.parametrize(
    "area",
    [
        "adaptation",
        "linear",
        "training",
        "blackbox",
        "bilevel",
        "convex",
        "constrained",
        "discovery",
        "distributed",
        "equilibrium",
        "online",
        "matrix",
        "landscape",
        "robust",
        "transport",
        "inverse",
        "workflow",
    ],
)
def test_an_area_has_rows(area):
    module = importlib.import_module(f"benchmarks.{area}")
    assert callable(module.rows)
