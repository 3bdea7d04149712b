"""The whole Lion step in one parallel pass over the tensors' own memory.

A step has to read g, m, x and write m, x: 20 bytes a parameter in float32. One pass moves that and no more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import carray, float32, float64, njit, prange
from torch import Tensor

from thalweg.numerics.parallel import alone
from thalweg.training._memory import addresses, is_flat, laid_out_alike, pointer, tasks

__all__ = ["lion_pass", "supported"]


def supported(triple: tuple[Tensor, Tensor, Tensor]) -> bool:
    """Whether the pass can take a parameter, its momentum and its gradient."""
    first = triple[0]
    return all(is_flat(t) and t.dtype == first.dtype for t in triple) and laid_out_alike(triple)


def _make_pass(dtype):
    @njit(parallel=True, cache=True)
    def lion_pass(starts_of, tensors, starts, stops, b1, c1, b2, c2, shrink, grow, rate):
        for task in prange(len(tensors)):
            t, start = tensors[task], starts[task]
            n = stops[task] - start
            offset = start * types_size
            x = carray(pointer(starts_of[0, t] + offset), n, dtype)
            m = carray(pointer(starts_of[1, t] + offset), n, dtype)
            g = carray(pointer(starts_of[2, t] + offset), n, dtype)
            for i in range(n):
                mi, gi = m[i], g[i]
                c = b1 * mi + c1 * gi
                direction = np.copysign(rate, c) if abs(c) > zero else zero  # zero where c is NaN
                x[i] = (shrink * x[i] - direction) * grow
                m[i] = b2 * mi + c2 * gi

    types_size = dtype.bitwidth // 8
    zero = np.dtype(dtype.name).type(0)
    return lion_pass


_PASSES = {"torch.float32": _make_pass(float32), "torch.float64": _make_pass(float64)}


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
    starts_of = np.stack([addresses(group) for group in (params, momenta, grads)])
    with alone():
        _PASSES[str(params[0].dtype)](starts_of, *tasks(tuple(p.numel() for p in params)), *numbers)
