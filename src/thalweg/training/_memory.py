"""Numba passes over the memory of many tensors at once: addresses, and tasks of even size."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

#: Elements a task works through: large enough to hide the scheduling, small enough to share evenly.
CHUNK = 1 << 16


@intrinsic
def pointer(typing_context, address):
    """An address as a pointer that `numba.carray` takes."""

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(address), codegen


def is_flat(tensor: Tensor) -> bool:
    """Whether a pass can go over a tensor's memory: float32 or float64, in main memory, without gaps."""
    return (
        tensor.device.type == "cpu"
        and str(tensor.dtype) in ("torch.float32", "torch.float64")
        and type(tensor.data) is Tensor
        and tensor.layout == torch.strided
        and (tensor.is_contiguous() or _is_dense(tensor))
    )


def laid_out_alike(tensors: Sequence[Tensor]) -> bool:
    """Whether elements at one place of these tensors' memory, all without gaps, are elements at one index."""
    if all(t.is_contiguous() for t in tensors):
        return True
    return len({_strides(t) for t in tensors}) == 1


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements lie side by side in some order, as in channels_last or transposed tensors."""
    expected = 1
    for stride, size in sorted(_strides(tensor)):
        if stride != expected:
            return False
        expected *= size
    return True


def _strides(tensor: Tensor) -> tuple[tuple[int, int], ...]:
    """Stride and size of each axis longer than one."""
    return tuple((st, n) for st, n in zip(tensor.stride(), tensor.shape, strict=True) if n > 1)


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
