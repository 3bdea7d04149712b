"""What watches a run."""

from __future__ import annotations

import contextlib
import io
import sys

import numpy as np
import pytest

from thalweg.core import (
    Callback,
    InvalidParameter,
    MissingExtra,
    MLflow,
    Progress,
    Status,
    Stop,
    TensorBoard,
    solve,
)
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


class Tracker:
    """What of MLflow's module is used, writing down its calls."""

    def __init__(self, active=None):
        self.active, self.calls, self.metrics = active, [], {}

    def active_run(self):
        return self.active

    def log_metrics(self, metrics, step):
        self.metrics[step] = metrics

    def __getattr__(self, name):
        return lambda *words, **named: self.calls.append((name, words, named))


class TestMLflow:
    def test_a_run_of_its_own_is_begun_and_ended(self, system, monkeypatch):
        tracker = Tracker()
        monkeypatch.setitem(sys.modules, "mlflow", tracker)
        result = solve(system, SOR(1.4), stop=Stop(steps=5), callbacks=[MLflow(every=2)], seed=3)
        assert sorted(tracker.metrics) == [2, 4, 5]
        assert tracker.metrics[4]["residual"] == result.history["residual"][3]
        assert tracker.calls == [
            ("start_run", (), {"run_name": "SOR(omega=1.4)"}),
            ("log_params", ({"method": "SOR(omega=1.4)", "problem": "LinearSystem", "seed": 3},), {}),
            ("set_tag", ("status", "exhausted"), {}),
            ("end_run", ("FINISHED",), {}),
        ]

    def test_a_run_of_the_users_is_left_open(self, system, monkeypatch):
        tracker = Tracker(active="mine")
        monkeypatch.setitem(sys.modules, "mlflow", tracker)
        solve(system, SOR(1.4), stop=Stop(steps=3), callbacks=[MLflow()])
        assert sorted(tracker.metrics) == [1, 2, 3]
        assert tracker.calls == []

    def test_a_run_that_breaks_has_failed(self, system, monkeypatch):
        def fail(run):
            raise RuntimeError

        tracker = Tracker()
        monkeypatch.setitem(sys.modules, "mlflow", tracker)
        with pytest.raises(RuntimeError):
            solve(system, SOR(), callbacks=[MLflow(), fail])
        assert tracker.calls[-2:] == [("set_tag", ("status", "error"), {}), ("end_run", ("FAILED",), {})]

    def test_mlflow_takes_what_is_logged(self, system, tmp_path):
        mlflow = pytest.importorskip("mlflow")
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
        result = solve(system, SOR(1.4), stop=Stop(steps=5), callbacks=[MLflow("mine")])
        (run,) = mlflow.search_runs(output_format="list")
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "residual")
        assert [entry.value for entry in history] == list(result.history["residual"])

    def test_without_the_package_the_error_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mlflow", None)
        with pytest.raises(MissingExtra, match=r'pip install "thalweg\[track\]"'):
            MLflow()
        with pytest.raises(InvalidParameter, match="every >= 1"):
            MLflow(every=0)


def test_callbacks_are_told_of_start_and_finish_once(system):
    told = []

    class Listener(Callback):
        def start(self, run):
            told.append(("start", run.steps))

        def finish(self, run, status):
            told.append(("finish", run.steps, status))

    solve(system, SOR(), stop=Stop(steps=4), callbacks=[Listener()])
    assert told == [("start", 0), ("finish", 4, Status.EXHAUSTED)]
