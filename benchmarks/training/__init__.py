"""27: a Lion step against AdamW and against the memory it has to move; 11: a schedule's rates; the controllers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from lion_pytorch import Lion as PeerLion
from numba import njit, prange

from benchmarks.race import Row, race
from benchmarks.training import controllers
from thalweg.training import REX, Lion

PARAMETERS = 30_000_000
RULE = {"lr": 1e-4, "weight_decay": 0.1}


def rows() -> Iterator[Row]:
    """All rows."""
    yield from lion_step(_one_tensor, f"{PARAMETERS:.0e} parameters in one tensor")
    yield from lion_step(_many_tensors, f"{PARAMETERS:.0e} parameters in 300 tensors")
    yield schedule()
    yield from controllers.rows()


def _one_tensor() -> list[torch.nn.Parameter]:
    return _filled([(PARAMETERS,)])


def _many_tensors() -> list[torch.nn.Parameter]:
    return _filled([(PARAMETERS // 300 // 100, 100)] * 300)


def _filled(shapes: list[tuple[int, ...]]) -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in params:
        p.grad = torch.randn_like(p)
    return params


@njit(parallel=True)
def _triad(a, b, c):
    for i in prange(len(a)):
        a[i] = b[i] + np.float32(3.0) * c[i]


def lion_step(make: Callable[[], list[torch.nn.Parameter]], workload: str) -> Iterator[Row]:
    """One step of each on the same gradients; the triad moves the 20 bytes a parameter that Lion has to move.

    A triad writes one array and reads two, 12 bytes an element, so it runs over 5/3 as many elements.
    """
    optimizers: dict[str, Any] = {
        "ours": Lion(make(), **RULE),
        "AdamW(fused=True)": torch.optim.AdamW(make(), **RULE, fused=True),
        "lion-pytorch": PeerLion(make(), **RULE),
    }
    count = sum(p.numel() for p in optimizers["ours"].param_groups[0]["params"])
    arrays = [np.ones(count * 5 // 3, dtype=np.float32) for _ in range(3)]
    contestants = [*(o.step for o in optimizers.values()), lambda: _triad(*arrays)]
    (ours, _), (adamw, _), (peer, _), (triad, _) = race(*contestants, rounds=9)
    mine, theirs = (optimizers[k].param_groups[0]["params"][0].detach() for k in ("ours", "lion-pytorch"))
    gap = float((mine - theirs).abs().max())
    yield Row("27", f"Lion step, {workload}", ours, "torch AdamW(fused=True)", adamw)
    yield Row("27", f"Lion step, {workload}", ours, "triad over the same bytes", triad)
    yield Row(
        "27", f"Lion step, {workload}", ours, "lion-pytorch (accuracy: largest difference)", peer, gap, gap
    )


def schedule() -> Row:
    """All rates of a schedule of 10 000 steps: in closed form, and by stepping torch's linear one."""
    steps = 10_000

    def optimizer() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)

    def stepped() -> float:
        made = optimizer()
        peer = torch.optim.lr_scheduler.LinearLR(made, 1.0, 0.0, total_iters=steps)
        for _ in range(steps):
            made.step()
            peer.step()
        return abs(peer.get_last_lr()[0])

    (ours, rates), (peer, last) = race(
        lambda: REX(optimizer(), steps, beta=0.0).rates(np.arange(steps + 1)), stepped
    )
    return Row(
        "11",
        f"all {steps} rates of a schedule",
        ours,
        "torch LinearLR, stepped",
        peer,
        float(rates[-1, 0]),
        last,
    )
