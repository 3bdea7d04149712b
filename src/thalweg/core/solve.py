"""The one loop: stopping, timing, history, callbacks, checkpoints, Ctrl-C."""

from __future__ import annotations

import copy
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thalweg.core.callbacks import Callback, Checkpoint, Progress
from thalweg.core.errors import InvalidProblem, ThalwegError, UnknownName
from thalweg.core.method import Method, State
from thalweg.core.problem import Problem
from thalweg.core.result import History, Result
from thalweg.core.stop import Status, Stop

#: An objective this many times its first value has diverged.
DIVERGENCE = 1e10


@dataclass
class Run:
    """A run in progress, as callbacks see it."""

    problem: Problem
    method: Method[Any, Any]
    stop: Stop
    seed: int
    state: State
    steps: int = 0
    seconds: float = 0.0
    history: History = field(default_factory=History)
    best: _Best = field(default_factory=lambda: _Best())


@dataclass
class _Best:
    """The answer with the smallest objective so far.

    Answers that the method overwrites are copied only when the objective has halved since the last copy,
    so that keeping them costs a handful of copies a run.
    """

    value: float = math.inf
    step: int = 0
    x: Any = None
    saved: float = math.inf

    def see(self, value: float, step: int, x: Any, in_place: bool) -> None:
        if value < self.value:
            self.value, self.step = value, step
            if not in_place:
                self.x, self.saved = x, value
            elif value < 0.5 * self.saved:
                self.x, self.saved = copy.deepcopy(x), value


def solve(
    problem: Problem,
    method: Method[Any, Any] | None = None,
    *,
    stop: Stop | None = None,
    callbacks: Sequence[Callback | Callable[[Run], Any]] = (),
    seed: int = 0,
    progress: bool | None = None,
    resume: str | Path | None = None,
) -> Result[Any]:
    """Run ``method`` on ``problem`` until ``stop`` says so.

    Args:
        problem: what is given.
        method: how to solve it; by default ``problem.recommended()``.
        stop: when to end; by default after 10 000 steps, or when the method knows it has finished.
        callbacks: each is called with the `Run` after every step; one that returns ``True`` ends the run.
        seed: makes the run repeatable.
        progress: show a progress bar; by default only when standard error is a terminal.
        resume: a file written by `Checkpoint`, to go on from. The rest of the trajectory has the same bits
            as that of a run never stopped, on the same machine. (PyTorch's MKL rounds by where arrays lie in memory
            on some processors; there the environment needs MKL_CBWR=COMPATIBLE for that.)

    Ctrl-C ends the run after the step in progress with status INTERRUPTED and the best answer so far; a
    second Ctrl-C raises `KeyboardInterrupt` at once.

    Raises:
        ThalwegError: bad input, before any work. One raised in mid-run has the best answer so far in
            ``error.result``.

    Cost: at most 3 microseconds a step beside the method's own.

    >>> import numpy as np
    >>> from thalweg.linear import SOR, LinearSystem
    >>> from thalweg import Stop, solve
    >>> system = LinearSystem(np.array([[4.0, -1.0], [-1.0, 4.0]]), np.array([3.0, 3.0]))
    >>> solve(system, SOR(omega=1.1), stop=Stop(below={"residual": 1e-10})).status
    <Status.CONVERGED: 'converged'>
    """
    stop = Stop() if stop is None else stop
    if method is None:
        recommended: Method[Any, Any] = problem.recommended()
        method = recommended
    run = Run(problem, method, stop, seed, method.init(problem, seed))
    if resume is not None:
        Checkpoint.restore(run, resume)
    if sys.stderr.isatty() if progress is None else progress:
        callbacks = [Progress(), *callbacks]
    return _iterate(run, callbacks)


def _iterate(run: Run, callbacks: Sequence[Callback | Callable[[Run], Any]]) -> Result[Any]:
    start = time.perf_counter() - run.seconds
    hooks = [c for c in callbacks if isinstance(c, Callback)]
    status: Status | None = None
    message = ""
    try:
        for hook in hooks:
            hook.start(run)
        with _interrupts() as interrupted:
            status, message = _loop(run, callbacks, interrupted, start)
    except KeyboardInterrupt:
        if threading.current_thread() is threading.main_thread() and _handled_here():
            raise
        status, message = Status.INTERRUPTED, "Interrupted."
    except ThalwegError as error:
        error.result = _result(run, Status.DIVERGED, str(error))
        raise
    finally:
        run.seconds = time.perf_counter() - start
        for hook in hooks:
            hook.finish(run, status)
    return _result(run, status, message)


def _loop(
    run: Run,
    callbacks: Sequence[Callback | Callable[[Run], Any]],
    interrupted: list[bool],
    start: float,
) -> tuple[Status, str]:
    problem, step, stop, history = run.problem, run.method.step, run.stop, run.history
    in_place, objective, best = run.method.in_place, problem.objective, run.best
    clock, below = time.perf_counter, tuple(stop.below.items())
    max_steps = math.inf if stop.steps is None else stop.steps
    max_seconds = math.inf if stop.seconds is None else stop.seconds
    state = run.state
    first = history.metrics[0].get(objective) if objective and history.metrics else None
    if run.steps == 0:
        _check_names(run)
        if objective in state.metrics:
            first = state.metrics[objective]
            best.see(first, 0, state.x, in_place)
    while True:
        if state.status is not None:
            return state.status, state.message
        metrics = state.metrics
        if below:
            for name, bound in below:
                if not metrics.get(name, math.inf) <= bound:
                    break
            else:
                return Status.CONVERGED, f"{name} <= {bound:g}."
        if interrupted:
            return Status.INTERRUPTED, "Interrupted; this is the best answer so far."
        if run.steps >= max_steps:
            return Status.EXHAUSTED, f"{run.steps} steps done."
        if run.seconds >= max_seconds:
            return Status.EXHAUSTED, f"{run.seconds:.3g} seconds used."
        if stop.calls is not None and state.calls >= stop.calls:
            return Status.EXHAUSTED, f"{state.calls} evaluations used."
        state = run.state = step(problem, state)
        run.steps = steps = run.steps + 1
        run.seconds = seconds = clock() - start
        metrics = state.metrics
        history.record(steps, seconds, metrics)
        if objective is not None and objective in metrics:
            value = metrics[objective]
            if first is None:
                first = value
            if not value <= DIVERGENCE * max(first, 1e-300):
                return Status.DIVERGED, f"{objective} is {value:g} after {steps} steps."
            if value < best.value:
                best.see(value, steps, state.x, in_place)
            elif stop.patience is not None and steps - best.step >= stop.patience:
                return Status.STALLED, f"No better {objective} in {stop.patience} steps."
        for callback in callbacks:
            if callback(run) is True:
                return (
                    Status.INTERRUPTED,
                    f"Stopped by {getattr(callback, '__name__', type(callback).__name__)}.",
                )


def _check_names(run: Run) -> None:
    """Refuse a stopping rule on a metric that the method never reports; the step after init tells."""
    known = run.state.metrics
    for name in run.stop.below:
        if known and name not in known:
            raise UnknownName("metric", name, known, see=f"{run.method.name} reports {', '.join(known)}.")
    if run.stop.patience is not None and run.problem.objective is None:
        raise InvalidProblem(f"Stop(patience=) needs an objective; {type(run.problem).__name__} has none.")


def _result(run: Run, status: Status | None, message: str) -> Result[Any]:
    state, best = run.state, run.best
    x = state.x
    now = state.metrics.get(run.problem.objective or "", None)
    if status is not Status.CONVERGED and now is not None and best.saved < math.inf and not now <= best.saved:
        x = best.x
    return Result(
        x=x,
        status=status or Status.INTERRUPTED,
        metrics=run.problem.metrics(x),
        steps=run.steps,
        seconds=run.seconds,
        calls=state.calls,
        history=run.history,
        message=message,
    )


def _handled_here() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextmanager
def _interrupts() -> Iterator[list[bool]]:
    """A list that the first Ctrl-C fills; the second raises. Only Python's own handler is replaced."""
    seen: list[bool] = []
    main = threading.current_thread() is threading.main_thread()
    if not (main and _handled_here()):
        yield seen
        return

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(True)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
