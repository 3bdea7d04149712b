"""Numba's parallel loops beside other threads and beside torch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Some of Numba's threading layers end the process when two threads enter a parallel loop at once.
_LOCK = threading.Lock()


@contextmanager
def alone() -> Iterator[None]:
    """One parallel loop at a time; torch keeps its number of threads, which Numba's first loop would set to its own.

    >>> with alone():
    ...     pass  # call the loop here
    """
    torch = sys.modules.get("torch")
    with _LOCK:
        threads = 0 if torch is None else torch.get_num_threads()
        try:
            yield
        finally:
            if torch is not None and torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
