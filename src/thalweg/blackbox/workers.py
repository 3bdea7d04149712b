"""Evaluate the trials of a study in parallel: a Python function, or a command of the shell."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import string
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from thalweg.blackbox.evaluation import EvaluationFailed, settle
from thalweg.blackbox.parameters import Categorical, Point
from thalweg.blackbox.space import Space
from thalweg.blackbox.study import Study
from thalweg.blackbox.trial import Trial
from thalweg.core import InvalidParameter
from thalweg.core.interrupts import interrupts
from thalweg.core.validation import is_real, require

#: Seconds between two looks at whether Ctrl-C was pressed.
LOOK = 0.1
#: Seconds that no evaluation takes: 30 years, as far as the system's clocks are asked.
LONGEST = 1e9


@dataclass
class Command:
    """A program whose last line of output is the value.

    Args:
        words: the program and its arguments; ``{x}`` stands for the parameter x, ``{x:.3f}`` for it in a format of
            Python's, and ``{{`` and ``}}`` for braces. One that does not matter in a point is left empty.
        timeout: seconds after which it, and whatever it has started, is ended and the trial failed.

    >>> Command(["echo", "{x}"])({"x": 2.5})
    2.5
    """

    words: Sequence[str]
    timeout: float | None = None
    _running: set[int] = field(default_factory=set, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _closed: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        fits = self.timeout is None or (is_real(self.timeout) and 0 < self.timeout < LONGEST)
        require(fits, f"Command needs 0 < timeout < {LONGEST:g} seconds, or None", got=self.timeout)

    def check(self, space: Space) -> None:
        """Refuse placeholders that are no parameters or do not take their values, and parameters that are nowhere.

        Raises:
            InvalidParameter: names the word and the placeholder, or the parameters that are not in the command; the
                program is not there, or may not be run.
        """
        mentioned = self.check_words(tuple(space.parameters), _samples(space), "parameter; the space has")
        missing = [name for name in space.parameters if name not in mentioned]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            raise InvalidParameter(
                f"{', '.join(missing)} {verb} not in the command: write {{{missing[0]}}} where the value goes."
            )

    def check_words(self, names: Sequence[str], points: Sequence[Point], what: str) -> set[str]:
        """Refuse placeholders that are none of ``names`` or do not take the values of ``points``; returns those used.

        Args:
            what: the words of the refusal between "which is no" and the names.
        """
        mentioned: set[str] = set()
        for word in self.words:
            for name in _placeholders(word):
                if name not in names:
                    raise InvalidParameter(
                        f"The command's word {word!r} has a placeholder {{{name}}}, which is no {what} "
                        f"{', '.join(names)}. For braces of its own write {{{{ and }}}}."
                    )
                mentioned.add(name)
            for point in points:
                try:
                    _FILLER.vformat(word, (), point)
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    raise InvalidParameter(
                        f"The command's word {word!r} cannot be filled with {point}: {error}."
                    ) from None
        if self.words and not _placeholders(self.words[0]):
            program = _FILLER.vformat(self.words[0], (), {})
            if shutil.which(_encoded(program)) is None:
                raise InvalidParameter(
                    f"{program} cannot be started: no such program is there that may be run. Name it by its path, such "
                    "as ./run.sh, and make it executable."
                )
        return mentioned

    def __call__(self, point: Point) -> float:
        """Run it at a point.

        Raises:
            EvaluationFailed: it timed out, ended with an error, or printed no number.
            InvalidParameter: it is not there, or may not be run: so it would be at any point.
        """
        words = [_FILLER.vformat(word, (), point) for word in self.words]
        encoded = [_encoded(word) for word in words]
        try:
            # A session of its own: what it starts can be ended with it, and a Ctrl-C is ours to handle.
            process = subprocess.Popen(  # noqa: S603 -- the user's program, without a shell
                encoded, stdout=subprocess.PIPE, encoding="utf-8", errors="replace", start_new_session=True
            )
        except (OSError, ValueError) as error:  # ValueError: a NUL in a word
            why = error.strerror if isinstance(error, OSError) else error
            kind = InvalidParameter if getattr(error, "errno", None) in _NO_PROGRAM else EvaluationFailed
            raise kind(f"{words[0]} could not be started: {why}") from None
        with self._lock:
            self._running.add(process.pid)
            if self._closed:
                _end(process.pid)
        try:
            output, _ = process.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            _end(process.pid)
            process.communicate()
            raise EvaluationFailed(f"no answer in {self.timeout:g} s") from None
        finally:
            with self._lock:
                self._running.discard(process.pid)
        if process.returncode:
            what = f"signal {-process.returncode}" if process.returncode < 0 else f"exit {process.returncode}"
            raise EvaluationFailed(what)
        lines = output.split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            return float(last)
        except ValueError:
            raise EvaluationFailed(f"last line {last[:40]!r} is no number") from None

    def close(self) -> None:
        """End every run, and each one to come."""
        with self._lock:
            self._closed = True
            for pid in self._running:
                _end(pid)


class _Filler(string.Formatter):
    """Fills ``{name}`` and ``{name:.3f}``; the whole text before a colon is a name, and what is absent is empty."""

    def get_field(
        self, field_name: str, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> tuple[object, str]:
        return kwargs.get(field_name), field_name

    def convert_field(self, value: object, conversion: str | None) -> object:
        return value if value is None else super().convert_field(value, conversion)

    def format_field(self, value: object, format_spec: str) -> str:
        return "" if value is None else str(super().format_field(value, format_spec))


_FILLER = _Filler()
#: Not there, not executable, no program: not a matter of the point.
_NO_PROGRAM = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENOEXEC)


def _encoded(word: str) -> bytes:
    """As the system takes it, whatever the machine's locale."""
    return word.encode("utf-8", "surrogateescape")


def _placeholders(word: str) -> list[str]:
    """The names in a word's braces."""
    try:
        return [name for _, name, _, _ in _FILLER.parse(word) if name is not None]
    except ValueError as error:
        raise InvalidParameter(
            f"The command's word {word!r}: {str(error).lower()}. For braces of its own write {{{{ and }}}}."
        ) from None


def _samples(space: Space) -> list[Point]:
    """Points that between them have a value of every kind: each choice of a category, and a middle number."""
    parameters = space.parameters
    most = max(len(p.choices) if isinstance(p, Categorical) else 1 for p in parameters.values())
    return [
        {
            name: p.choices[k % len(p.choices)] if isinstance(p, Categorical) else p.decode([0.5])
            for name, p in parameters.items()
        }
        for k in range(most)
    ]


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


Watch = Callable[[Trial, str], None]


def evaluate(
    study: Study,
    function: Callable[[Point], float],
    trials: int,
    *,
    parallel: int = 1,
    path: str | Path | None = None,
    watch: Watch = lambda trial, message: None,
) -> bool:
    """Evaluate until the study has ``trials`` of them; returns whether it got there.

    Trials that an earlier run left pending are evaluated first. What counts as a failure
    says `settle`. Ctrl-C ends the running ones, after a suggestion under way, and returns False; they are pending then.
    A second one waits for nothing.

    Args:
        parallel: how many at once, each in a thread: for functions that wait for a process or for another machine.
        path: where the study is kept, after every answer.
        watch: called with each finished trial and a message where it failed.
    """
    require(trials >= 1 and parallel >= 1, "evaluate needs trials, parallel >= 1", got=(trials, parallel))
    waiting = [t for t in study.trials if t.status == "pending"]
    running: dict[Future[float], Trial] = {}
    with interrupts() as interrupted, ThreadPoolExecutor(parallel) as pool:
        try:
            while not interrupted:
                while not interrupted and len(running) < parallel and (waiting or len(study.trials) < trials):
                    trial = waiting.pop(0) if waiting else study.ask()
                    running[pool.submit(function, trial.point)] = trial
                if path is not None:
                    study.save(path)
                if not running:
                    return not waiting and len(study.trials) >= trials
                for future in _finished(running, interrupted):
                    trial = running.pop(future)
                    watch(*settle(study, trial, future.result))
        except KeyboardInterrupt:  # the second, or where Ctrl-C is handled by others
            pass
        if isinstance(function, Command):
            function.close()
        for future in running:
            future.cancel()
        if path is not None:
            study.save(path)
        return False


def _finished(running: Iterable[Future[float]], interrupted: Sequence[bool]) -> set[Future[float]]:
    """Those that have ended, as soon as one has; none where Ctrl-C comes before."""
    done: set[Future[float]] = set()
    while not done and not interrupted:
        done = wait(running, LOOK, FIRST_COMPLETED).done
    return done
