"""The examples run, and show what they say they show."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_simulation_learns_to_need_fewer_iterations():
    learned, plain = example("simulation_that_learns").main(steps=300)
    assert learned < 0.6 * plain


def test_weights_stay_in_their_bound():
    accuracy, largest = example("bounded_weights").main(steps=600)
    assert largest <= 0.25 * (1 + 1e-5)
    assert accuracy > 0.9


def test_optimizers_are_compared_on_ones_own_network(tmp_path):
    found = example("compare_optimizers").main(str(tmp_path / "page.html"), steps=30)
    assert len(found.rows) == 4 * 3
    assert "Lion, REX" in (tmp_path / "page.html").read_text()


def test_an_equilibrium_layer_learns_and_keeps_no_iterations():
    accuracy, kept = example("deep_equilibrium").main(steps=80)
    assert accuracy > 0.8
    assert kept < 64 * 32 * 8  # some tensors of the batch's size, not sixty


def test_a_schedule_is_refined_from_a_run_and_raced():
    found = example("refine_a_schedule").main(steps=30, seeds=(0,))
    assert len(found.rows) == 3


def test_every_example_is_tested_here():
    tested = Path(__file__).read_text()
    missing = [path.stem for path in EXAMPLES.glob("*.py") if f'example("{path.stem}")' not in tested]
    assert missing == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_an_example_says_how_to_run_it(path):
    assert f"python examples/{path.name}" in path.read_text()
