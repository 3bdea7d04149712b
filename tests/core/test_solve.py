"""The one loop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from thalweg.core import (
    Checkpoint,
    CheckpointMismatch,
    InvalidParameter,
    InvalidProblem,
    Method,
    NotFinite,
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

    @pytest.mark.parametrize(
        "rule",
        [
            *({"steps": -1}, {"seconds": -0.1}, {"below": {"loss": float("nan")}}),
            # True is a bound of 1, at which a run may be converged before its first step
            *({"below": {"loss": bound}} for bound in (True, "1e-8", None, 1j, np.ones(2))),
            *({"below": given} for given in (["loss"], "loss", None, {1: 1e-8})),
        ],
    )
    def test_a_senseless_rule_is_refused(self, rule):
        with pytest.raises(InvalidParameter):
            Stop(**rule)

    @pytest.mark.parametrize(
        ("problem", "method", "options", "told"),
        [
            (Descent(0.1), Bowl(), {}, "a Problem for problem; got a value of type Descent"),
            ([1.0], None, {}, "a Problem for problem; got a value of type list"),
            (Bowl, None, {}, r"got the class Bowl. Write Bowl\(...\)"),
            (Bowl(), Descent, {}, r"got the class Descent. Write Descent\(...\)"),
            (Bowl(), "descent", {}, "a Method for method; got a value of type str"),
            (Bowl(), Descent(0.1), {"stop": 5}, "a Stop for stop; got a value of type int"),
            (Bowl(), Descent(0.1), {"stop": {"steps": 5}}, "a Stop for stop; got a value of type dict"),
            (Bowl(), Descent(0.1), {"callbacks": print}, "a list of callbacks"),
            (Bowl(), Descent(0.1), {"callbacks": None}, "a list of callbacks"),
            (Bowl(), Descent(0.1), {"callbacks": [3]}, "callbacks that can be called"),
        ],
    )
    def test_what_is_no_problem_method_rule_or_callback_is_told(self, problem, method, options, told):
        with pytest.raises(InvalidParameter, match=told):
            solve(problem, method, **options)

    def test_an_error_in_mid_run_carries_the_best_answer(self):
        class Failing(Descent):
            def step(self, problem, state):
                if state.calls == 3:
                    raise InvalidProblem("no more")
                return super().step(problem, state)

        with pytest.raises(InvalidProblem) as caught:
            solve(Bowl(), Failing(0.25))
        assert caught.value.result.metrics["loss"] == pytest.approx(3 / 4**3)


@dataclass(frozen=True)
class Told(Method[Bowl, State]):
    """Reports each of ``losses`` in turn, and nothing before the first step."""

    losses: tuple[float, ...]
    counts: bool = False
    first: float | None = None

    def init(self, problem, seed):
        return State(x=np.zeros(1), metrics={} if self.first is None else {"loss": self.first})

    def step(self, problem, state):
        k = int(state.x[0])
        return State(x=state.x + 1.0, metrics={"loss": self.losses[k]}, calls=k + 1 if self.counts else 0)


class TestRulesThatCannotBeMet:
    def test_a_misspelt_metric_is_refused_after_the_first_step_that_reports_any(self):
        with pytest.raises(UnknownName, match="Did you mean 'loss'"):
            solve(Bowl(1), Told((1.0,) * 60), stop=Stop(below={"lss": 1e-3}, steps=50))

    def test_a_metric_of_the_problem_that_the_method_never_reports_is_refused(self):
        @dataclass(frozen=True)
        class Silent(Told):
            def step(self, problem, state):
                return State(x=state.x + 1.0, metrics={"other": 1.0})

        with pytest.raises(UnknownName, match="No metric 'loss'"):
            solve(Bowl(1), Silent((1.0,)), stop=Stop(below={"loss": 1e-3}, steps=None))

    def test_a_metric_reported_at_the_start_may_be_reported_now_and_then(self):
        @dataclass(frozen=True)
        class NowAndThen(Told):
            def step(self, problem, state):
                k = int(state.x[0]) + 1
                return State(x=state.x + 1.0, metrics={"loss": 0.0} if k == 5 else {})

        ended = solve(Bowl(1), NowAndThen((), first=1.0), stop=Stop(below={"loss": 30.0}, steps=9))
        assert ended.steps in (0, 5)

    @pytest.mark.parametrize("steps", [400, None])
    def test_calls_of_a_method_that_counts_none_are_refused(self, steps):
        with pytest.raises(InvalidParameter, match=r"Told.* counts no evaluations"):
            solve(Bowl(1), Told((1.0,) * 500), stop=Stop(calls=10, steps=steps))

    def test_calls_of_a_method_that_counts_end_the_run(self):
        result = solve(Bowl(1), Told((1.0,) * 60, counts=True), stop=Stop(calls=10, steps=None))
        assert (result.status, result.calls) == (Status.EXHAUSTED, 10)

    def test_patience_without_an_objective_is_refused(self):
        @dataclass(frozen=True)
        class Aimless(Bowl):
            objective = None

        with pytest.raises(InvalidProblem, match="Aimless has none"):
            solve(Aimless(), Descent(0.1), stop=Stop(patience=3))


class TestDivergence:
    def test_rounding_after_an_exact_start_is_none(self):
        assert solve(Bowl(1), Told((1e-12,) * 3, first=0.0), stop=Stop(steps=3)).status is Status.EXHAUSTED

    def test_an_objective_that_begins_at_zero_may_grow(self):
        regret = tuple(float(k) ** 3 * 1e-9 for k in range(1, 200))
        assert solve(Bowl(1), Told(regret, first=0.0), stop=Stop(steps=199)).status is Status.EXHAUSTED

    def test_a_start_that_is_solved_to_rounding_may_lose_digits(self):
        assert solve(Bowl(1), Told((1e-5,) * 3, first=1e-17), stop=Stop(steps=3)).status is Status.EXHAUSTED

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e11])
    def test_blowing_up_is_divergence(self, value):
        assert solve(Bowl(1), Told((1.0, value, 1.0)), stop=Stop(steps=3)).status is Status.DIVERGED

    def test_nan_is_divergence_after_an_exact_start_too(self):
        assert solve(Bowl(1), Told((float("nan"),), first=0.0), stop=Stop(steps=1)).status is Status.DIVERGED

    def test_a_step_that_meets_nan_ends_the_run_with_its_message_and_the_best_answer(self):
        class Failing(Descent):
            def step(self, problem, state):
                if state.calls == 3:
                    raise NotFinite("The gradient holds NaN.")
                return super().step(problem, state)

        result = solve(Bowl(), Failing(0.25))
        assert (result.status, result.message, result.steps) == (
            Status.DIVERGED,
            "The gradient holds NaN.",
            3,
        )
        assert result.metrics["loss"] == pytest.approx(3 / 4**3)

    def test_a_step_torn_in_the_middle_does_not_spoil_the_answer(self):
        class Torn(InPlaceDescent):
            def step(self, problem, state):
                state = super().step(problem, state)
                if state.metrics["loss"] < 0.1:
                    state.x[:] = np.nan
                    raise NotFinite("overflow")
                return state

        result = solve(Bowl(), Torn(0.25))
        assert result.status is Status.DIVERGED
        assert np.isfinite(result.metrics["loss"])


class TestAgreement:
    """CONVERGED is said only where the problem says so, too."""

    @dataclass(frozen=True)
    class Flattering(Descent):
        """Reports a hundredth of the loss."""

        finished: bool = False

        def step(self, problem, state):
            state = super().step(problem, state)
            state.metrics = {"loss": state.metrics["loss"] / 100}
            if self.finished:
                state.status, state.message = Status.CONVERGED, "Done."
            return state

    def test_an_estimate_below_the_bound_is_not_enough(self):
        result = solve(Bowl(), self.Flattering(0.25), stop=Stop(below={"loss": 1e-6}))
        assert result.converged
        assert result.metrics["loss"] <= 1e-6

    def test_an_estimate_that_the_problem_never_confirms_ends_with_the_budget(self):
        result = solve(Bowl(), self.Flattering(0.0), stop=Stop(below={"loss": 1.0}, steps=40))
        assert result.status is Status.EXHAUSTED

    def test_a_method_that_claims_to_have_finished_is_looked_at(self):
        result = solve(Bowl(), self.Flattering(0.01, finished=True), stop=Stop(below={"loss": 1e-6}))
        assert result.status is Status.STALLED
        assert "The method has finished, but loss is 2.88" in result.message

    def test_it_is_looked_at_without_a_rule_by_the_problems_own(self):
        class Judged(Bowl):
            def recommended_stop(self):
                return Stop(below={"loss": 1e-6})

        assert (
            solve(Judged(), self.Flattering(0.01, finished=True), stop=Stop(steps=9)).status is Status.STALLED
        )
        assert solve(Judged(), self.Flattering(0.5, finished=True), stop=Stop(steps=9)).converged


class TestTheProblemsOwnStop:
    def test_without_a_rule_the_problem_says_when_it_is_solved(self):
        class Judged(Bowl):
            def recommended_stop(self):
                return Stop(below={"loss": 1e-6})

        assert solve(Judged(), Descent(0.25)).steps == 11

    @pytest.mark.parametrize("stop", [None, Stop(), Stop(seconds=1000.0)])
    def test_no_default_cuts_a_problem_that_states_its_length(self, stop):
        class Long(Bowl):
            def recommended_stop(self):
                return Stop(steps=10_500)

        assert solve(Long(), Descent(0.0), stop=stop).steps == 10_500

    def test_a_rule_of_the_users_own_goes_first(self):
        class Long(Bowl):
            def recommended_stop(self):
                return Stop(steps=500)

        assert solve(Long(), Descent(0.0), stop=Stop(steps=3)).steps == 3


class TestCallbacks:
    def test_callbacks_from_a_generator_are_called_at_every_step(self):
        seen = []
        watchers = (watch for watch in [lambda run: seen.append(run.steps)])
        solve(Bowl(), Descent(0.1), stop=Stop(steps=3), callbacks=watchers)
        assert seen == [1, 2, 3]

    @pytest.mark.parametrize(
        "true", [True, np.True_, np.array(True), torch.tensor(True), 1, np.float64(1.0)], ids=repr
    )
    def test_any_true_value_stops(self, true):
        result = solve(Bowl(), Descent(0.1), callbacks=[lambda run: true if run.steps == 4 else None])
        assert (result.status, result.steps) == (Status.INTERRUPTED, 4)

    def test_a_comparison_of_numpys_numbers_stops(self):
        result = solve(
            Bowl(), Descent(0.1), callbacks=[lambda run: np.float64(run.state.metrics["loss"]) < 1.0]
        )
        assert result.status is Status.INTERRUPTED

    @pytest.mark.parametrize("false", [False, None, np.False_, torch.tensor(False), 0])
    def test_any_false_value_does_not(self, false):
        assert solve(Bowl(), Descent(0.1), stop=Stop(steps=5), callbacks=[lambda run: false]).steps == 5

    @pytest.mark.parametrize(
        "error",
        [ValueError, np.linalg.LinAlgError, ZeroDivisionError, RuntimeError, KeyError, NotImplementedError],
    )
    def test_any_exception_leaves_with_the_best_answer(self, error):
        def fail(run):
            if run.steps == 5:
                raise error("the user's own")

        with pytest.raises(error) as caught:
            solve(Bowl(), Descent(0.25), callbacks=[fail])
        assert caught.value.result.metrics["loss"] == pytest.approx(3 / 4**5)
        assert caught.value.result.steps == 5

    def test_it_does_so_when_the_judge_itself_is_what_failed(self):
        class Moody(Bowl):
            def metrics(self, x):
                if float(x @ x) < 0.1:
                    raise FloatingPointError("underflow")
                return super().metrics(x)

        with pytest.raises(FloatingPointError) as caught:
            solve(Moody(), Descent(0.25))
        assert caught.value.result.metrics["loss"] > 0.1


class TestNames:
    @dataclass(frozen=True)
    class Options(Descent):
        rate: float = 0.1
        basis: Any = None
        faults: Descent = field(default_factory=lambda: Descent(0.5))
        kinds: tuple[int, ...] = ()

    def test_options_at_their_defaults_are_not_shown_nor_those_of_a_factory(self):
        assert self.Options().name == "Options()"

    def test_arrays_and_nested_options_are_short(self):
        method = self.Options(basis=np.ones((4, 2)), faults=Descent(0.25, noise=0.5), kinds=(1, 2, 3, 4))
        assert method.name == (
            "Options(basis=ndarray(4, 2), faults=Descent(rate=0.25, noise=0.5), kinds=[1, 2, 3, ...])"
        )

    def test_a_tensor_is_short_too(self):
        assert self.Options(basis=torch.zeros(3)).name == "Options(basis=Tensor(3,))"


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

    def test_a_budget_that_earlier_parts_have_used_is_told(self, tmp_path):
        path = tmp_path / "run.ckpt"
        solve(Bowl(), Descent(0.1), stop=Stop(steps=20), callbacks=[Checkpoint(path, every=20)])
        for stop in (Stop(steps=20), Stop(seconds=0.0)):
            resumed = solve(Bowl(), Descent(0.1), stop=stop, resume=path)
            assert (resumed.status, resumed.steps) == (Status.EXHAUSTED, 20)
            assert "all before this call: a resumed run's budget counts its earlier parts" in resumed.message
        assert "before" not in solve(Bowl(), Descent(0.1), stop=Stop(steps=0)).message

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
