"""What workers of `torch.distributed` do together; alone, nothing."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor


def size() -> int:
    """Number of workers."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean(values: Tensor) -> Tensor:
    """The mean of every worker's values."""
    if size() > 1:
        values = values.to(_device())
        dist.all_reduce(values)
        values = values / size()
    return values


def decided(number: float) -> float:
    """Rank 0's number."""
    if size() == 1:
        return number
    told = torch.tensor(number, dtype=torch.float64, device=_device())
    dist.broadcast(told, src=0)
    return float(told)


def own(path: Path) -> Path:
    """A path of this worker alone."""
    return path if size() == 1 else path.with_name(f"{path.name}.rank{dist.get_rank()}")


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
