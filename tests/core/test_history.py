"""Histories that stay small: which rows are kept, and that a run goes on with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import Checkpoint, History, InvalidParameter, Stop, solve
from thalweg.linear import SOR, LinearSystem
from thalweg.numerics import FivePointStencil


def written(count, limit, start=1):
    history = History(limit=limit)
    for step in range(start, start + count):
        history.record(step, step / 8, {"loss": 1.0 / (1 + step)})
    return history


@given(st.integers(1, 400), st.integers(2, 30), st.integers(0, 5))
def test_it_keeps_every_kth_step_with_the_first_and_the_last(count, limit, start):
    history = written(count, limit, start)
    assert len(history) <= limit
    assert len(history) >= min(count, limit // 2 + 1)
    gaps = np.diff(history.steps[:-1] if len(history) > 2 else history.steps)
    assert set(gaps) <= ({history.every} if len(history) > 2 else {*range(1, 400)})
    assert (history.steps[0], history.steps[-1]) == (start, start + count - 1)
    assert history.seconds == [step / 8 for step in history.steps]


def test_without_a_limit_all_is_kept():
    assert written(1000, None).steps == list(range(1, 1001))


def test_it_is_read_back_and_goes_on_as_if_never_stopped():
    whole = written(100, 16)
    again = History.from_tree(written(57, 16).tree(), 16)
    for step in range(58, 101):
        again.record(step, step / 8, {"loss": 1.0 / (1 + step)})
    assert again == whole


def test_a_run_keeps_what_it_is_told_to_and_resumes_so(tmp_path):
    system = LinearSystem(FivePointStencil(20, 20).to_csr(), np.ones(400))
    kept = tmp_path / "kept"

    def run(steps, **options):
        stop = Stop(below={"residual": 1e-14}, steps=steps)
        return solve(
            system, SOR(1.0), stop=stop, callbacks=[Checkpoint(kept, every=7)], history=10, **options
        )

    whole = run(300)
    assert len(whole.history) <= 10
    assert whole.history.steps[-1] == 300
    run(123)
    resumed = run(300, resume=kept)
    assert resumed.history.steps == whole.history.steps
    assert resumed.history.metrics == whole.history.metrics
    size = kept.stat().st_size
    run(2000, resume=kept)
    assert kept.stat().st_size < 1.2 * size


@pytest.mark.parametrize("rows", [1, 0, -3, 2.5, True, "all"])
def test_a_bound_that_is_none_is_refused(rows):
    system = LinearSystem(np.eye(2), np.ones(2))
    with pytest.raises(InvalidParameter, match="solve needs history >= 2 or None"):
        solve(system, history=rows)
