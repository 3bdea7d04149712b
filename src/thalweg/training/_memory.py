"""Numba passes over the memory of many tensors at once: addresses, and tasks of even size."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

#: Elements a task works through: large enough to hide the scheduling, small enough to share evenly.
CHUNK = 1 << 16

# Some of Numba's threading layers end the process when two threads enter a parallel loop at once.
LOCK = threading.Lock()


@intrinsic
def pointer(typing_context, address):
    """An address as a pointer that `numba.carray` takes."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


def supported(tensors: Sequence[Tensor]) -> bool:
    """Whether a pass can work on these tensors: dense, contiguous, float32 or float64, in main memory."""
    first = str(tensors[0].dtype)
    return first in ("torch.float32", "torch.float64") and all(
        t.device.type == "cpu" and str(t.dtype) == first and t.is_contiguous() and type(t.data) is Tensor
        for t in tensors
    )


@functools.lru_cache(maxsize=64)
def tasks(sizes: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    """For tensors of these sizes: which tensor each task is about, its first element and the one after its last."""
    rows = [
        (t, start, min(start + CHUNK, size))
        for t, size in enumerate(sizes)
        for start in range(0, size, CHUNK)
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return tuple(np.ascontiguousarray(table[:, i]) for i in range(3))


def addresses(tensors: Sequence[Tensor]) -> NDArray[np.int64]:
    """Where each tensor's elements begin."""
    return np.array([t.data_ptr() for t in tensors], dtype=np.int64)
