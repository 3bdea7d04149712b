"""How growth is measured, fitted and drawn."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from benchmarks.growth.measure import Point, _too_large, powers
from benchmarks.growth.workloads import WORKLOADS

import thalweg

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def hook():
    path = ROOT / "docs" / "_hooks" / "growth.py"
    spec = importlib.util.spec_from_file_location("growth", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_area_has_a_workload_whose_smallest_size_can_be_made():
    areas = {p.parent.name for p in Path(thalweg.__file__).parent.glob("*/recommended.py")}
    named = [growth.area for growth in WORKLOADS]
    assert len(set(named)) == len(named)
    assert areas - {"core"} <= set(named)
    for growth in WORKLOADS:
        assert list(growth.sizes) == sorted(set(growth.sizes))
        assert callable(growth.prepare(growth.sizes[0]))


def test_powers_are_those_of_the_curve():
    points = [Point(n, 1e-7 + 1e-9 * n**1.5, 2**20 + 8 * n**2) for n in (100, 1000, 10_000, 100_000, 300_000)]
    seconds, memory = powers(points)
    assert seconds == pytest.approx(1.5, abs=0.05)
    assert memory == pytest.approx(2.0, abs=0.01)
    assert math.isnan(powers([Point(n, 1.0, 100) for n in (1, 10, 100)])[1])


def test_sizes_that_would_take_too_long_or_too_much_are_left_out():
    assert not _too_large([Point(10, 1.0, 0), Point(20, 2.0, 0)], 40)
    assert _too_large([Point(10, 1.0, 0), Point(20, 8.0, 0)], 40)  # the power is three
    assert _too_large([Point(10, 1.0, 2**32), Point(20, 1.0, 2**34)], 40)
    assert _too_large([Point(10, 29.0, 0)], 100)


def test_memory_is_what_a_size_took():
    """In a process of its own: the most that a process ever had is no measure of what comes later in it."""
    script = (
        "import numpy as np\n"
        "from benchmarks.growth.measure import Growth, measured_here\n"
        "kept = []\n"
        "def prepare(n):\n"
        "    kept.append(np.ones(n))\n"
        "    return lambda: kept.append(np.ones(n))\n"
        "given = Growth('x', 'two arrays', 'numbers', (10,), 1, 1, prepare)\n"
        "print(measured_here(given, 20_000_000).bytes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 2 * 160e6 * 0.9 < int(done.stdout) < 2 * 160e6 * 1.3


def test_the_page_shows_every_area_that_was_measured(hook):
    kept = json.loads(hook.KEPT.read_text("utf-8"))
    assert sorted(kept) == sorted(growth.area for growth in WORKLOADS)
    drawn = ET.fromstring(hook.on_page_markdown(hook.PLACE).replace("<br>", ""))
    cards = drawn.findall("div")
    assert len(cards) == len(kept)
    for card, told in zip(cards, kept.values(), strict=True):
        has_memory = sum(p["bytes"] > hook.LEAST_BYTES for p in told["points"]) > 1
        assert len(card.findall("{http://www.w3.org/2000/svg}svg")) == 1 + has_memory
        for path in card.iter("{http://www.w3.org/2000/svg}path"):
            assert "nan" not in path.get("d")
