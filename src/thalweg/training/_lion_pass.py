"""The whole Lion step in one parallel pass over the tensors' own memory.

A step has to read g, m, x and write m, x: 20 bytes a parameter in float32. One pass moves that and no more.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray, float32, float64, njit, prange, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

#: Elements a task works through: large enough to hide the scheduling, small enough to share evenly.
CHUNK = 1 << 16

# Some of Numba's threading layers end the process when two threads enter a parallel loop at once.
_LOCK = threading.Lock()


@intrinsic
def _pointer(typing_context, address):
    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


def _make_pass(dtype):
    @njit(parallel=True, cache=True)
    def lion_pass(addresses, tensors, starts, stops, b1, c1, b2, c2, shrink, grow, rate):
        for task in prange(len(tensors)):
            t, start = tensors[task], starts[task]
            n = stops[task] - start
            offset = start * types_size
            x = carray(_pointer(addresses[0, t] + offset), n, dtype)
            m = carray(_pointer(addresses[1, t] + offset), n, dtype)
            g = carray(_pointer(addresses[2, t] + offset), n, dtype)
            for i in range(n):
                mi, gi = m[i], g[i]
                c = b1 * mi + c1 * gi
                direction = np.copysign(rate, c) if c != zero else zero
                x[i] = (shrink * x[i] - direction) * grow
                m[i] = b2 * mi + c2 * gi

    types_size = dtype.bitwidth // 8
    zero = np.dtype(dtype.name).type(0)
    return lion_pass


_PASSES = {"torch.float32": _make_pass(float32), "torch.float64": _make_pass(float64)}


def supported(tensors: Sequence[Tensor]) -> bool:
    """Whether the pass can work on these tensors: dense, contiguous, float32 or float64, in main memory."""
    first = str(tensors[0].dtype)
    return first in _PASSES and all(
        t.device.type == "cpu" and str(t.dtype) == first and t.is_contiguous() and type(t.data) is Tensor
        for t in tensors
    )


@functools.lru_cache(maxsize=64)
def _tasks(sizes: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], ...]:
    rows = [
        (t, start, min(start + CHUNK, size))
        for t, size in enumerate(sizes)
        for start in range(0, size, CHUNK)
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return tuple(np.ascontiguousarray(table[:, i]) for i in range(3))


def lion_pass(
    params: Sequence[Tensor],
    momenta: Sequence[Tensor],
    grads: Sequence[Tensor],
    *,
    betas: tuple[float, float],
    lr: float,
    weight_decay: float,
    implicit: bool,
) -> None:
    """One Lion step in place; all tensors `supported` and of one dtype."""
    number = np.float32 if str(params[0].dtype) == "torch.float32" else np.float64
    b1, b2 = betas
    shrink = 1.0 if implicit else 1.0 - lr * weight_decay
    grow = 1.0 / (1.0 + lr * weight_decay) if implicit else 1.0
    numbers = [number(v) for v in (b1, 1.0 - b1, b2, 1.0 - b2, shrink, grow, lr)]
    addresses = np.array(
        [[t.data_ptr() for t in group] for group in (params, momenta, grads)], dtype=np.int64
    )
    with _LOCK:
        _PASSES[str(params[0].dtype)](addresses, *_tasks(tuple(p.numel() for p in params)), *numbers)
