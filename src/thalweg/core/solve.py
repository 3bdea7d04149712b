"""The one loop: stopping, timing, history, callbacks, checkpoints, Ctrl-C."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from thalweg.core.callbacks import Callback, Checkpoint, Progress
from thalweg.core.errors import InvalidParameter, InvalidProblem, NotFinite, UnknownName
from thalweg.core.interrupts import interrupts, is_ours
from thalweg.core.method import Method
from thalweg.core.problem import Problem
from thalweg.core.recommended import recommended
from thalweg.core.result import History, Result
from thalweg.core.run import Run
from thalweg.core.stop import Status, Stop
from thalweg.core.validation import is_whole, require
from thalweg.core.waiting import GivenUp, run_ends

P = TypeVar("P", bound=Problem)
Watcher = Callback | Callable[[Run], object]

#: An objective this many times its first value has diverged. Relative to a first value under ``ROUNDING``, which may
#: be rounding itself, it counts from there; where the first value is zero, only NaN and infinity tell.
DIVERGENCE, ROUNDING = 1e10, 1e-8


def solve(
    problem: P,
    method: Method[P] | None = None,
    *,
    stop: Stop | None = None,
    callbacks: Sequence[Watcher] = (),
    seed: int = 0,
    progress: bool | None = None,
    resume: str | Path | None = None,
    history: int | None = 100_000,
) -> Result:
    """Run ``method`` on ``problem`` until ``stop`` says so.

    Args:
        problem: what is given.
        method: how to solve it; by default `recommended` for the problem.
        stop: when to end; by default the problem's own rule, ``problem.recommended_stop()`` (a residual of 1e-8, a
            training task's length), or when the method knows it has finished.
        callbacks: each is called with the `Run` after every step; one that returns a true value ends the run.
        seed: makes the run repeatable.
        progress: show a progress bar; by default only when standard error is a terminal.
        resume: a file written by `Checkpoint`, to go on from. The rest of the trajectory has the same bits
            as that of a run never stopped, on the same machine. (PyTorch's MKL rounds by where arrays lie in memory
            on some processors; there the environment needs MKL_CBWR=COMPATIBLE for that.)
        history: rows of the history at most, at least two: beyond them it is thinned, see `History`. None keeps all.

    A run is CONVERGED only if the problem's own judgement of the answer agrees with the rule, and the problem has no
    objection (a saddle is no minimum). A step that meets NaN
    ends it as DIVERGED. Ctrl-C ends the run after the step in progress with status INTERRUPTED and the best answer so
    far; a second Ctrl-C raises `KeyboardInterrupt` at once.

    Raises:
        ThalwegError: bad input, before any work; a rule on a metric or on calls that the method never reports, after
            its first step.
        Exception: whatever a step, a callback or the user's own function raises, with the best answer so far in
            ``error.result``.

    Cost: at most 3 microseconds a step beside the method's own.

    >>> import numpy as np
    >>> from thalweg.linear import SOR, LinearSystem
    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(np.array([[4.0, -1.0], [-1.0, 4.0]]), np.array([3.0, 3.0]))
    >>> solve(system, SOR(omega=1.1), stop=Stop(below={"residual": 1e-10})).status
    <Status.CONVERGED: 'converged'>
    """
    _check_kinds(problem, method, stop)
    callbacks = _watchers(callbacks)
    rule = problem.recommended_stop() if stop is None else stop
    if rule.steps == "auto":
        rule = rule.limited(problem.recommended_stop())
    if method is None:
        method = recommended(problem)
    if not isinstance(problem, method.solves()):
        kinds = " or ".join(f"a {kind.__name__}" for kind in method.solves())
        raise InvalidProblem(f"{type(method).__name__} solves {kinds}; got a {type(problem).__name__}.")
    if rule.patience is not None and problem.objective is None:
        raise InvalidProblem(f"Stop(patience=) needs an objective; {type(problem).__name__} has none.")
    require(
        history is None or (is_whole(history) and history >= 2),
        "solve needs history >= 2 or None",
        got=history,
    )
    run = Run(problem, method, rule, seed, method.init(problem, seed), history=History(limit=history))
    if resume is not None:
        Checkpoint.restore(run, resume)
    if sys.stderr.isatty() if progress is None else progress:
        callbacks = [Progress(), *callbacks]
    return _iterate(run, callbacks)


def _check_kinds(problem: object, method: object, stop: object) -> None:
    """Tell arguments in the wrong order, a class given for its instance, and a name for what it names."""
    expected: list[tuple[str, object, type]] = [("problem", problem, Problem)]
    expected += [("method", method, Method)] * (method is not None)
    expected += [("stop", stop, Stop)] * (stop is not None)
    for place, given, kind in expected:
        if isinstance(given, type) and issubclass(given, kind):
            raise InvalidParameter(
                f"solve takes a {kind.__name__} for {place}; got the class {given.__name__}. "
                f"Write {given.__name__}(...)."
            )
        if not isinstance(given, kind):
            raise InvalidParameter(
                f"solve takes a {kind.__name__} for {place}; got a value of type {type(given).__name__}."
            )


def _watchers(callbacks: object) -> list[Watcher]:
    """The callbacks as a list, since a generator could be gone through only once."""
    listed = isinstance(callbacks, Iterable) and not isinstance(callbacks, str)
    require(listed, "solve needs a list of callbacks, such as [watch]", got=callbacks)
    found: list[Watcher] = list(callbacks)  # type: ignore[call-overload]
    for watcher in found:
        require(callable(watcher), "solve needs callbacks that can be called with the run", got=watcher)
    return found


def _iterate(run: Run, callbacks: Sequence[Watcher]) -> Result:
    start = time.perf_counter() - run.seconds
    hooks = [c for c in callbacks if isinstance(c, Callback)]
    status: Status | None = None
    try:
        for hook in hooks:
            hook.start(run)
        with (
            interrupts() as interrupted,
            run_ends(lambda: bool(interrupted) or _seconds_left(run, start) <= 0),
        ):
            status, message = _loop(run, callbacks, interrupted, start)
    except KeyboardInterrupt:
        if is_ours():
            raise
        status, message = Status.INTERRUPTED, "Interrupted."
    except Exception as error:
        run.seconds = time.perf_counter() - start
        with suppress(AttributeError):  # an exception with slots of its own
            error.result = run.salvaged(Status.INTERRUPTED, f"{type(error).__name__}: {error}")  # type: ignore[attr-defined]
        raise
    finally:
        run.seconds = time.perf_counter() - start
        for hook in hooks:
            hook.finish(run, status)
    return run.salvaged(status, message) if status is Status.DIVERGED else run.result(status, message)


def _loop(
    run: Run, callbacks: Sequence[Watcher], interrupted: list[bool], start: float
) -> tuple[Status, str]:
    problem, step, stop, history = run.problem, run.method.step, run.stop, run.history
    in_place, objective, best = run.method.in_place, problem.objective, run.best
    clock, below = time.perf_counter, tuple(stop.below.items())
    max_steps = math.inf if stop.steps is None or stop.steps == "auto" else stop.steps
    max_seconds = math.inf if stop.seconds is None else stop.seconds
    max_calls = math.inf if stop.calls is None else stop.calls
    state, begun, look_again = run.state, run.steps, 0
    named = bool(state.metrics)
    if named and run.steps == 0:
        _check_names(run)
        if objective in state.metrics:
            run.first = state.metrics[objective]
            best.see(run.first, 0, state.x, in_place)
    while True:
        metrics, steps = state.metrics, run.steps
        if below and steps >= look_again:
            for name, bound in below:
                if not metrics.get(name, math.inf) <= bound:
                    break
            else:
                if not _disagreements(run, stop):
                    return _unless_objected(run, f"{name} <= {bound:g}.")
                look_again = steps + 1 + steps // 10
        if state.status is not None:
            return _agreed(run, state.status, state.message)
        if interrupted:
            return Status.INTERRUPTED, "Interrupted; this is the best answer so far."
        if steps >= max_steps:
            return Status.EXHAUSTED, f"{steps} steps done{_before(steps == begun > 0)}."
        if run.seconds >= max_seconds:
            return Status.EXHAUSTED, f"{run.seconds:.3g} seconds used{_before(steps == begun > 0)}."
        if state.calls >= max_calls:
            return Status.EXHAUSTED, f"{state.calls} evaluations used{_before(steps == begun > 0)}."
        try:
            state = run.state = step(problem, state)
        except GivenUp:
            run.torn, run.seconds = in_place, clock() - start
            if interrupted:
                return Status.INTERRUPTED, "Interrupted; this is the best answer so far."
            return Status.EXHAUSTED, f"{run.seconds:.3g} seconds used, the last of them waiting."
        except NotFinite as error:
            run.torn = in_place
            return Status.DIVERGED, str(error)
        except Exception:
            run.torn = in_place
            raise
        run.steps = steps = steps + 1
        run.seconds = seconds = clock() - start
        metrics = state.metrics
        history.record(steps, seconds, metrics)
        if steps == begun + 1:
            _check_rules(run, named)
        if objective is not None and objective in metrics:
            value = metrics[objective]
            if run.first is None:
                run.first = value
            if not value <= _ceiling(run.first):
                return Status.DIVERGED, f"{objective} is {value:g} after {steps} steps."
            if value < best.value:
                best.see(value, steps, state.x, in_place)
            elif stop.patience is not None and steps - best.step >= stop.patience:
                return Status.STALLED, f"No better {objective} in {stop.patience} steps."
        for callback in callbacks:
            if callback(run):
                name = getattr(callback, "__name__", type(callback).__name__)
                return Status.INTERRUPTED, f"Stopped by {name}."


def _seconds_left(run: Run, start: float) -> float:
    limit = run.stop.seconds
    return math.inf if limit is None else limit - (time.perf_counter() - start)


def _before(resumed: bool) -> str:
    """What is said where a run ends without a step: a budget counts the parts before it was resumed."""
    return ", all before this call: a resumed run's budget counts its earlier parts" if resumed else ""


def _ceiling(first: float) -> float:
    return DIVERGENCE * max(first, ROUNDING) if first > 0 else sys.float_info.max


def _disagreements(run: Run, stop: Stop) -> list[str]:
    """The rules that the method's numbers meet and the problem's judgement of the answer does not."""
    judged = run.judged()
    return [
        f"{n} is {judged[n]:.3g}" for n, bound in stop.below.items() if n in judged and not judged[n] <= bound
    ]


def _agreed(run: Run, status: Status, message: str) -> tuple[Status, str]:
    """What a method says of its end, corrected where it claims more than the problem agrees to."""
    if status is not Status.CONVERGED:
        return status, message
    rule = run.stop if run.stop.below else run.problem.recommended_stop()
    wrong = _disagreements(run, rule)
    if wrong:
        return Status.STALLED, f"The method has finished, but {', '.join(wrong)}."
    return _unless_objected(run, message)


def _unless_objected(run: Run, message: str) -> tuple[Status, str]:
    said = run.problem.objection(run.state.x)
    return (Status.STALLED, said) if said else (Status.CONVERGED, message)


def _check_names(run: Run) -> None:
    """Refuse a stopping rule on a metric that the method does not report."""
    known = run.state.metrics
    for name in run.stop.below:
        if name not in known:
            raise UnknownName("metric", name, known, see=f"{run.method.name} reports {', '.join(known)}.")


def _check_rules(run: Run, named: bool) -> None:
    """After the first step it is plain what a method reports: refuse the rules that it can never meet."""
    if run.state.status is not None:
        return
    if not named:
        _check_names(run)
    if run.stop.calls is not None and run.state.calls == 0:
        raise InvalidParameter(
            f"{run.method.name} counts no evaluations, so Stop(calls={run.stop.calls}) would never end it. "
            "Use Stop(steps=) or Stop(seconds=)."
        )
