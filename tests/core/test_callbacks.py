"""What watches a run."""

from __future__ import annotations

import contextlib
import io
import sys

import numpy as np
import pytest

from thalweg.core import Callback, MissingExtra, Progress, Status, Stop, TensorBoard, solve
from thalweg.linear import SOR, LinearSystem
from thalweg.numerics import FivePointStencil


@pytest.fixture
def system():
    return LinearSystem(FivePointStencil(8, 8), np.ones(64))


class Screen(io.StringIO):
    """Standard error as a terminal that can be read afterwards."""

    def isatty(self):
        return True


class TestProgress:
    def test_in_a_terminal_the_method_its_step_and_its_metrics_are_shown(self, system, monkeypatch):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        with contextlib.redirect_stderr(Screen()) as screen:
            solve(system, SOR(omega=1.4), stop=Stop(steps=17))
        assert "SOR(omega=1.4)" in screen.getvalue()
        assert "step 17" in screen.getvalue()
        assert "residual" in screen.getvalue()

    def test_elsewhere_nothing_is_shown(self, system, capsys):
        solve(system, SOR(), stop=Stop(steps=3))
        assert capsys.readouterr() == ("", "")

    def test_it_is_closed_when_the_run_breaks_down(self, system):
        def fail(run):
            raise RuntimeError

        bar = Progress()
        with contextlib.redirect_stderr(Screen()), pytest.raises(RuntimeError):
            solve(system, SOR(), callbacks=[bar, fail])
        assert not bar._bar.live.is_started


class TestTensorBoard:
    def test_every_metric_of_every_step_is_written(self, system, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        result = solve(system, SOR(1.4), stop=Stop(steps=12), callbacks=[TensorBoard(tmp_path)])
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        scalars = events.Scalars("residual")
        assert [event.step for event in scalars] == list(range(1, 13))
        # event files hold float32
        np.testing.assert_allclose([event.value for event in scalars], result.history["residual"], rtol=1e-6)

    def test_without_the_package_the_error_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        with pytest.raises(MissingExtra, match=r'pip install "thalweg\[track\]"'):
            TensorBoard(tmp_path)


def test_callbacks_are_told_of_start_and_finish_once(system):
    told = []

    class Listener(Callback):
        def start(self, run):
            told.append(("start", run.steps))

        def finish(self, run, status):
            told.append(("finish", run.steps, status))

    solve(system, SOR(), stop=Stop(steps=4), callbacks=[Listener()])
    assert told == [("start", 0), ("finish", 4, Status.EXHAUSTED)]
