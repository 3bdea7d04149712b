"""Waits inside a step, for another process or machine, that end when their run is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from thalweg.core.errors import ThalwegError


class GivenUp(ThalwegError):
    """A wait inside a step was given up: the run's time is over, or Ctrl-C was pressed. `solve` ends the run by it."""


_is_over: ContextVar[Callable[[], bool] | None] = ContextVar("_is_over", default=None)


@contextmanager
def run_ends(when: Callable[[], bool]) -> Iterator[None]:
    """Tell the waits inside the block when their run is over; a run inside another is over with it, too."""
    outer = _is_over.get()
    token = _is_over.set(lambda: when() or (outer is not None and outer()))
    try:
        yield
    finally:
        _is_over.reset(token)


def check_wait() -> None:
    """To be called now and then by a step that waits.

    Raises:
        GivenUp: the run that this thread is in is over.

    >>> check_wait()
    >>> with run_ends(lambda: True):
    ...     check_wait()
    Traceback (most recent call last):
    ...
    thalweg.core.waiting.GivenUp: The wait was given up: the run is over.
    """
    is_over = _is_over.get()
    if is_over is not None and is_over():
        raise GivenUp("The wait was given up: the run is over.")
