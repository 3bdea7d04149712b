"""Ctrl-C, noted and looked at between steps: raised in the midst of another library, it may be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def is_ours() -> bool:
    """Whether Ctrl-C comes to this thread, by Python's own handler."""
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextmanager
def interrupts() -> Iterator[list[bool]]:
    """A list that the first Ctrl-C fills; the second raises. Only Python's own handler is replaced."""
    seen: list[bool] = []
    if not is_ours():
        yield seen
        return

    def note(number: int, frame: FrameType | None) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(True)

    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
