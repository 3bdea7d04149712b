"""Workers of a Ray cluster find what one process finds."""

from __future__ import annotations

import pytest

from thalweg import Stop, solve
from thalweg.discovery import DigitsMLP, ProgramSearch, RegularizedEvolution

TINY = DigitsMLP(steps=12, seeds=(0,), width=8)


@pytest.mark.usefixtures("ray_engine")
def test_ray_gives_what_one_process_gives():
    task = ProgramSearch(TINY)
    options = {"population": 12, "children": 4}
    stop = Stop(steps=4)
    plain = solve(task, RegularizedEvolution(**options), stop=stop)
    there = solve(task, RegularizedEvolution(**options, workers=2, engine="ray"), stop=stop)
    assert there.x == plain.x
    assert there.history.metrics == plain.history.metrics
