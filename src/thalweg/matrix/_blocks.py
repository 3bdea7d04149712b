"""Rows in blocks of equal work, one thread each: kernels here let go of Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numba
import numpy as np
from numpy.typing import NDArray

#: Entries below which threads cost more than they bring.
FEW = 20_000


def equal_blocks(starts: NDArray[np.int64], count: int) -> list[tuple[int, int]]:
    """Ranges of rows with about equally many entries, at most ``count``, none empty.

    >>> equal_blocks(np.array([0, 5, 5, 9, 10]), 2)
    [(0, 1), (1, 4)]
    """
    rows = len(starts) - 1
    wanted = np.linspace(0.0, float(starts[-1]), count + 1)[1:-1]
    cuts = np.searchsorted(starts, wanted)
    edges = np.unique(np.concatenate([[0], np.clip(cuts, 0, rows), [rows]]))
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def over_rows(starts: NDArray[np.int64], task: Callable[[int, int], None]) -> None:
    """``task(first, last)`` for all rows, in Numba's number of threads; no row may depend on its block."""
    threads = numba.get_num_threads() if starts[-1] >= FEW else 1
    blocks = equal_blocks(starts, 4 * threads if threads > 1 else 1)
    if threads == 1:
        for first, last in blocks:
            task(first, last)
        return
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(task, first, last) for first, last in blocks]:
            done.result()
