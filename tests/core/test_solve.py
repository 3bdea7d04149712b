"""The one loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from thalweg.core import (
    Checkpoint,
    CheckpointMismatch,
    InvalidParameter,
    InvalidProblem,
    Method,
    Problem,
    State,
    Status,
    Stop,
    UnknownName,
    UnreadableFile,
    recommended,
    solve,
)


@dataclass(frozen=True)
class Bowl(Problem):
    """Minimise |x|^2."""

    objective: ClassVar[str | None] = "loss"

    n: int = 3

    def metrics(self, x):
        return {"loss": float(x @ x)}


@dataclass(kw_only=True)
class NoisyState(State):
    rng: np.random.Generator


@dataclass(frozen=True)
class Descent(Method[Bowl, NoisyState]):
    rate: float
    noise: float = 0.0

    def init(self, problem, seed):
        x = np.ones(problem.n)
        return NoisyState(x=x, metrics=problem.metrics(x), rng=np.random.default_rng(seed))

    def step(self, problem, state):
        x = state.x - 2 * self.rate * state.x + self.noise * state.rng.standard_normal(problem.n)
        return NoisyState(x=x, metrics=problem.metrics(x), calls=state.calls + 1, rng=state.rng)


@recommended.register
def for_bowls(problem: Bowl) -> Descent:
    return Descent(0.1)


class InPlaceDescent(Descent):
    in_place = True

    def step(self, problem, state):
        state.x *= 1 - 2 * self.rate
        return NoisyState(x=state.x, metrics=problem.metrics(state.x), rng=state.rng)


class TestStopping:
    def test_accuracy_reached_is_converged(self):
        result = solve(Bowl(), Descent(0.25), stop=Stop(below={"loss": 1e-6}))
        assert result.status is Status.CONVERGED
        # x halves every step, so the loss falls to a quarter: 3 / 4^k <= 1e-6 from k = 11 on
        assert result.steps == 11
        assert result.metrics["loss"] <= 1e-6

    def test_an_answer_good_enough_at_the_start_takes_no_step(self):
        assert solve(Bowl(), stop=Stop(below={"loss": 3.0})).steps == 0

    def test_running_out_of_steps_is_a_status(self):
        result = solve(Bowl(), Descent(0.01), stop=Stop(below={"loss": 0.0}, steps=7))
        assert (result.status, result.steps, len(result.history)) == (Status.EXHAUSTED, 7, 7)

    def test_running_out_of_calls_is_a_status(self):
        result = solve(Bowl(), Descent(0.01), stop=Stop(calls=4))
        assert (result.status, result.calls) == (Status.EXHAUSTED, 4)

    def test_running_out_of_time_is_a_status(self):
        assert solve(Bowl(), Descent(0.01), stop=Stop(steps=None, seconds=0.01)).status is Status.EXHAUSTED

    def test_no_progress_is_stalled(self):
        result = solve(Bowl(), Descent(0.0), stop=Stop(patience=5))
        assert (result.status, result.steps) == (Status.STALLED, 5)

    @pytest.mark.parametrize("method", [Descent(2.0), InPlaceDescent(2.0)])
    def test_divergence_keeps_the_best_answer(self, method):
        result = solve(Bowl(), method)
        assert result.status is Status.DIVERGED
        np.testing.assert_array_equal(result.x, np.ones(3))

    def test_the_best_answer_is_kept_when_the_budget_ends_on_a_worse_one(self):
        result = solve(Bowl(), Descent(0.2, noise=0.3), stop=Stop(steps=200))
        assert result.metrics["loss"] == result.history["loss"].min()

    def test_a_callback_that_returns_true_ends_the_run(self):
        result = solve(Bowl(), callbacks=[lambda run: run.steps == 3])
        assert (result.status, result.steps) == (Status.INTERRUPTED, 3)

    def test_the_recommended_method_is_used_when_none_is_given(self):
        assert solve(Bowl(), stop=Stop(below={"loss": 1e-4})).converged

    def test_a_metric_the_method_does_not_report_is_refused(self):
        with pytest.raises(UnknownName, match="Did you mean 'loss'"):
            solve(Bowl(), stop=Stop(below={"los": 1.0}))

    @pytest.mark.parametrize("rule", [{"steps": -1}, {"seconds": -0.1}, {"below": {"loss": float("nan")}}])
    def test_a_senseless_rule_is_refused(self, rule):
        with pytest.raises(InvalidParameter):
            Stop(**rule)

    def test_an_error_in_mid_run_carries_the_best_answer(self):
        class Failing(Descent):
            def step(self, problem, state):
                if state.calls == 3:
                    raise InvalidProblem("no more")
                return super().step(problem, state)

        with pytest.raises(InvalidProblem) as caught:
            solve(Bowl(), Failing(0.25))
        assert caught.value.result.metrics["loss"] == pytest.approx(3 / 4**3)


class TestInterrupt:
    def test_ctrl_c_returns_the_best_answer_so_far(self):
        def interrupt(run):
            if run.steps == 5:
                os.kill(os.getpid(), signal.SIGINT)

        result = solve(Bowl(), Descent(0.1), callbacks=[interrupt])
        assert result.status is Status.INTERRUPTED
        assert result.metrics["loss"] == pytest.approx(3 * 0.8 ** (2 * result.steps))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_a_second_ctrl_c_raises(self):
        class Stubborn(Descent):
            def step(self, problem, state):
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                return super().step(problem, state)

        with pytest.raises(KeyboardInterrupt):
            solve(Bowl(), Stubborn(0.1))


class TestResume:
    def test_a_resumed_run_has_the_same_bits(self, tmp_path):
        method = Descent(0.1, noise=0.01)
        whole = solve(Bowl(), method, stop=Stop(steps=50))
        path = tmp_path / "run.ckpt"
        solve(Bowl(), method, stop=Stop(steps=20), callbacks=[Checkpoint(path, every=7)])
        resumed = solve(Bowl(), method, stop=Stop(steps=50), resume=path)
        np.testing.assert_array_equal(resumed.x, whole.x)
        np.testing.assert_array_equal(resumed.history["loss"], whole.history["loss"])
        assert resumed.steps == whole.steps

    def test_a_run_killed_half_way_and_resumed_ends_in_the_same_bits(self, tmp_path):
        """SIGKILL from within, at a step that is no multiple of the checkpoint's period."""
        script = textwrap.dedent(
            """
            import os, signal, sys
            import numpy as np
            from thalweg.core import Checkpoint, Stop, solve
            from thalweg.linear import SOR, LinearSystem
            from thalweg.numerics import FivePointStencil
            path, kill, resume, out = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "resume", sys.argv[4]
            system = LinearSystem(FivePointStencil(40, 40), np.sin(np.arange(1600.0)))
            def killer(run):
                if run.steps == kill:
                    os.kill(os.getpid(), signal.SIGKILL)
            result = solve(system, SOR(1.9), stop=Stop(below={"residual": 1e-10}),
                           callbacks=[Checkpoint(path, every=10), killer], resume=path if resume else None)
            np.savez(out, x=result.x, residual=result.history["residual"], steps=result.steps)
            """
        )

        def run(name, kill, resume):
            arguments = [str(tmp_path / name), str(kill), resume, str(tmp_path / f"{name}.npz")]
            return subprocess.run([sys.executable, "-c", script, *arguments], check=False).returncode

        assert run("whole", -1, "fresh") == 0
        assert run("killed", 57, "fresh") == -signal.SIGKILL
        assert run("killed", -1, "resume") == 0
        whole, resumed = np.load(tmp_path / "whole.npz"), np.load(tmp_path / "killed.npz")
        for name in ("x", "residual", "steps"):
            np.testing.assert_array_equal(resumed[name], whole[name])

    @pytest.mark.parametrize(
        ("problem", "method", "seed", "what"),
        [
            (Bowl(4), Descent(0.1), 0, "problem"),
            (Bowl(), Descent(0.2), 0, "method"),
            (Bowl(), Descent(0.1), 1, "seed"),
        ],
    )
    def test_a_checkpoint_of_another_run_is_refused(self, tmp_path, problem, method, seed, what):
        path = tmp_path / "run.ckpt"
        solve(Bowl(), Descent(0.1), stop=Stop(steps=3), callbacks=[Checkpoint(path)])
        with pytest.raises(CheckpointMismatch, match=f"another {what}"):
            solve(problem, method, seed=seed, resume=path)

    def test_a_file_that_is_no_checkpoint_is_refused(self, tmp_path):
        path = tmp_path / "run.ckpt"
        path.write_bytes(b"something else")
        with pytest.raises(UnreadableFile, match="damaged"):
            solve(Bowl(), resume=path)
        with pytest.raises(UnreadableFile, match="No file"):
            solve(Bowl(), resume=tmp_path / "absent")
