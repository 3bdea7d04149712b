"""Workers that end with the process that asked for them, however that ended."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: Seconds between two looks at whether the parent is still there.
LOOK = 0.5
_WATCHED: set[int] = set()


def beside(parent: int, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do work in a worker of the process ``parent``, and end the worker as soon as that is gone.

    A pool's workers wait for more work long after a parent that was killed, with all the memory they hold, and do what
    already stands in their queue.

    >>> beside(os.getpid(), sum, [1, 2])
    3
    """
    end_with(parent)
    return work(*args, **kwargs)


def end_with(parent: int) -> None:
    """End this process, a child of ``parent``, when that is gone: now, if it is. Nothing, in ``parent`` itself."""
    if parent == os.getpid():
        return
    if os.getppid() != parent:
        os._exit(1)
    if parent not in _WATCHED:
        _WATCHED.add(parent)
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


def is_alive(process: int) -> bool:
    """Whether a process of this number is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
