"""Gradient norms of a run, recorded as it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from thalweg.core import CheckpointMismatch, InvalidProblem
from thalweg.core.files import atomic_write
from thalweg.training import _norm_pass
from thalweg.training._memory import is_flat

Norm = Literal["l1", "l2"]
#: Steps whose norms stay on the device before they are fetched together.
FETCH = 256


class GradientNormRecorder:
    """Record the l1 and l2 norm of the gradient at every ``optimizer.step()``; the loop stays as it is.

    With `torch.amp.GradScaler` the norms are of the unscaled gradient, and steps that the scaler leaves out because
    of an overflow are not there; a gradient that is not finite at a step that was taken is left out and counted in
    `skipped`. Under DistributedDataParallel the gradient at a step is the mean over the workers, so each records
    the same; of sharded gradients, too, each records the norm of the whole. Sparse gradients count with rows that came
    twice added up. Gradient clipping before the step is seen; record before clipping by a hook of your own if that
    matters.

    Args:
        optimizer: any; ``detach()`` ends the recording.
        attach: False leaves it to you to call `record` when the gradient is there: where ``optimizer.step(closure)``
            computes it, that is at the closure's end.

    Cost per step: one pass over the gradient; on a GPU nothing waits for it but every 256th step.

    Source: Defazio, Cutkosky, Mehta and Mishchenko (2023), section 3.

    >>> w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> optimizer = torch.optim.SGD([w], lr=0.5)
    >>> recorder = GradientNormRecorder(optimizer)
    >>> for _ in range(2):
    ...     optimizer.zero_grad(); w.square().sum().div(2).backward(); optimizer.step()
    >>> recorder.norms("l2"), recorder.norms("l1")
    (array([5. , 2.5]), array([7. , 3.5]))
    """

    def __init__(self, optimizer: Optimizer, *, attach: bool = True) -> None:
        self._done: list[NDArray[np.float64]] = []
        self._waiting: list[Tensor] = []
        self.skipped = 0
        self.optimizer = optimizer
        self._handle = optimizer.register_step_pre_hook(lambda *_: self.record()) if attach else None

    def __len__(self) -> int:
        self._fetch()
        return sum(len(block) for block in self._done)

    def norms(self, norm: Norm) -> NDArray[np.float64]:
        """The norms of the steps so far, shape (steps,)."""
        self._fetch()
        blocks = np.concatenate(self._done) if self._done else np.empty((0, 2))
        return np.ascontiguousarray(blocks[:, ("l1", "l2").index(norm)])

    def detach(self) -> None:
        """Record no more."""
        if self._handle is not None:
            self._handle.remove()

    def save(self, path: str | Path) -> None:
        """Write ``.npz`` (arrays ``l1``, ``l2``) or ``.csv`` (columns ``step``, ``l1``, ``l2``), atomically."""
        path = Path(path)
        columns = {norm: self.norms(norm) for norm in ("l1", "l2")}
        if path.suffix == ".npz":
            with atomic_write(path) as file:
                np.savez(file, l1=columns["l1"], l2=columns["l2"])
        elif path.suffix == ".csv":
            steps = np.arange(len(columns["l1"]))
            with atomic_write(path) as file:
                table = np.column_stack([steps, columns["l1"], columns["l2"]])
                np.savetxt(
                    file, table, fmt=("%d", "%.9g", "%.9g"), delimiter=",", header="step,l1,l2", comments=""
                )
        else:
            raise InvalidProblem(f"Norms are saved as .npz or .csv; got {path.name}.")

    def state_dict(self) -> dict[str, Any]:
        """What has been recorded, for a checkpoint."""
        return {"l1": self.norms("l1"), "l2": self.norms("l2"), "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after a `state_dict`; `CheckpointMismatch` for the state of anything else."""
        if not {"l1", "l2", "skipped"} <= set(state):
            raise CheckpointMismatch(
                f"This is no record of norms: it holds {', '.join(sorted(map(str, state)))}."
            )
        self._done = [np.column_stack([state["l1"], state["l2"]])]
        self._waiting, self.skipped = [], state["skipped"]

    @torch.no_grad()
    def record(self) -> None:
        """Take the norms of the gradient as it is now."""
        optimizer = self.optimizer
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        if not gradients:
            return
        both = _both_norms(gradients)
        scale, overflow = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
        if scale is not None:  # a fused optimizer unscales in its own step
            both = both / scale.to(both.device)
        if overflow is not None:
            both = torch.where(overflow.to(both.device) > 0, torch.nan, both)
        self._waiting.append(both)
        if len(self._waiting) >= FETCH:
            self._fetch()

    def _fetch(self) -> None:
        if self._waiting:
            block = torch.stack(self._waiting).double().cpu().numpy()
            finite = np.isfinite(block).all(1)
            self.skipped += int((~finite).sum())
            self._done.append(block[finite])
            self._waiting = []


def _both_norms(gradients: list[Tensor]) -> Tensor:
    """l1 and l2 norm of all elements together, shape (2,), whatever the gradients' layouts and devices."""
    kinds: dict[str, list[Tensor]] = {}
    for g in gradients:
        kinds.setdefault(_kind(g), []).append(_values(g))
    found: list[Tensor] = []
    for kind, some in kinds.items():
        if kind == "flat":
            found.append(torch.tensor(_norm_pass.norms(some), dtype=torch.float64))
        elif kind == "main memory":
            found.append(torch.tensor(_norm_pass.careful_norms(some), dtype=torch.float64))
        elif kind == "sharded":
            found += [torch.stack([_whole(torch.linalg.vector_norm(g, p)) for p in (1, 2)]) for g in some]
        else:
            found.append(torch.stack([_norm(some, p) for p in (1, 2)]))
    if len(found) == 1:
        return found[0]
    parts = torch.stack([both.to(found[0].device, torch.float64) for both in found])
    return torch.stack([parts[:, 0].sum(), torch.linalg.vector_norm(parts[:, 1])])


def _kind(g: Tensor) -> str:
    if hasattr(g, "full_tensor"):
        return "sharded"
    if g.device.type != "cpu":
        return "device"
    return "flat" if is_flat(g) else "main memory"


def _values(g: Tensor) -> Tensor:
    """What is stored of a gradient."""
    if g.layout == torch.sparse_coo:
        return g.coalesce().values()
    return g if g.layout == torch.strided else g.values()


def _whole(norm: Tensor) -> Tensor:
    """The norm of a sharded tensor, from its parts on all workers."""
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole.double()


def _norm(tensors: list[Tensor], p: int) -> Tensor:
    """The p-norm of all elements together, over devices and kinds of numbers, as float32 or finer."""
    wide = [t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in tensors]
    parts = torch._foreach_norm(wide, p)
    device = parts[0].device
    norm: Tensor = torch.linalg.vector_norm(torch.stack([part.to(device).double() for part in parts]), p)
    return norm
