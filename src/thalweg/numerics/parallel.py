"""Numba's parallel loops beside other threads and beside torch; products that are not to be shared among threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

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


class _OneThread:
    """Whether BLAS is held to one thread: the first block that wants it begins that, the last one ends it."""

    def __init__(self) -> None:
        from threadpoolctl import ThreadpoolController

        self.controller = ThreadpoolController()
        self.lock, self.blocks, self.held = threading.Lock(), 0, ExitStack()

    def enter(self) -> None:
        with self.lock:
            self.blocks += 1
            if self.blocks == 1:
                self.held.enter_context(self.controller.limit(limits=1, user_api="blas"))

    def leave(self) -> None:
        with self.lock:
            self.blocks -= 1
            if not self.blocks:
                self.held.close()


_one_thread = cache(_OneThread)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS in one thread, of the whole process, until the last such block ends.

    For many small products, which threads of our own share already, and whose last bits would hang on BLAS' threads.

    >>> with one_blas_thread():
    ...     pass  # multiply here
    """
    _one_thread().enter()
    try:
        yield
    finally:
        _one_thread().leave()
