"""Sums of magnitudes and of squares of many tensors, read once, in parallel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import carray, float32, float64, njit, prange
from torch import Tensor

from thalweg.numerics.parallel import alone
from thalweg.training._memory import addresses, pointer, tasks

#: Elements summed in their own precision before the sum is added to one in float64.
BLOCK = 512


def _make_pass(dtype):
    # The terms of a block may be added in any order: only then are they added several at a time.
    @njit(parallel=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
    def norm_pass(starts_of, tensors, starts, stops):
        sums = np.zeros((len(tensors), 2))
        for task in prange(len(tensors)):
            t, start = tensors[task], starts[task]
            n = stops[task] - start
            g = carray(pointer(starts_of[t] + start * types_size), n, dtype)
            magnitudes, squares = 0.0, 0.0
            for low in range(0, n, BLOCK):
                a, b = zero, zero
                block = g[low : low + BLOCK]
                for i in range(len(block)):
                    a += abs(block[i])
                    b += block[i] * block[i]
                magnitudes += a
                squares += b
            sums[task, 0], sums[task, 1] = magnitudes, squares
        return sums

    types_size = dtype.bitwidth // 8
    zero = np.dtype(dtype.name).type(0)
    return norm_pass


_PASSES = {"torch.float32": _make_pass(float32), "torch.float64": _make_pass(float64)}


#: Mean magnitudes below which squares leave the range of their type.
TINY = {"torch.float32": 1e-15, "torch.float64": 1e-140}


def norms(tensors: Sequence[Tensor]) -> tuple[float, float]:
    """l1 and l2 norm of all elements together; the tensors have to be `thalweg.training._memory.is_flat`."""
    magnitudes = squares = 0.0
    for dtype in {str(t.dtype) for t in tensors}:
        some = [t for t in tensors if str(t.dtype) == dtype]
        sizes = tuple(t.numel() for t in some)
        with alone():
            sums = _PASSES[dtype](addresses(some), *tasks(sizes))
        l1, l2 = map(float, sums.sum(0))
        if l1 and not (l1 > TINY[dtype] * sum(sizes) and math.isfinite(l2)):
            return careful_norms(tensors)
        magnitudes, squares = magnitudes + l1, squares + l2
    return magnitudes, math.sqrt(squares)


def careful_norms(tensors: Sequence[Tensor]) -> tuple[float, float]:
    """The same for any tensors in main memory, in float64, by way of the largest element: nothing leaves the range."""
    wide = [t.abs().double().flatten() for t in tensors if t.numel()]
    magnitudes, largest = sum(float(t.sum()) for t in wide), max((float(t.max()) for t in wide), default=0.0)
    if not 0 < largest < math.inf:
        return magnitudes, largest
    return magnitudes, largest * math.sqrt(sum(float((t / largest).square().sum()) for t in wide))
