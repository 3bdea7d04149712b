"""Ray, imported where it is wanted: a Ray that is started here serves this machine alone."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from thalweg.core.errors import InvalidProblem, MissingExtra, ThalwegError
from thalweg.core.waiting import check_wait

if TYPE_CHECKING:
    from ray import ObjectRef

#: Seconds between two looks at whether a wait still makes sense.
LOOK = 0.5
#: Failures of a worker in a row, after which it is the work that is wrong.
RESTARTS = 5


def prepare_ray() -> None:
    """Have a Ray that is imported later listen on the loopback and send no statistics; its switches are read then."""
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def start_ray(**options: object) -> ModuleType:
    """Ray, begun with ``options`` unless it runs already.

    Raises:
        MissingExtra: Ray is not installed.
    """
    prepare_ray()
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray") from error
    if not ray.is_initialized():
        ray.init(**{"include_dashboard": False, "log_to_driver": False, **options})
    found: ModuleType = ray
    return found


class RayLost(ThalwegError):
    """No node of the Ray cluster is alive any more: whatever is asked of it would never come."""


def check_alive(ray: ModuleType) -> None:
    """Raise `RayLost` where no node is alive, as far as Ray knows: it takes some fifteen seconds to notice."""
    if not any(node["Alive"] for node in ray.nodes()):
        raise RayLost(
            "No node of the Ray cluster is alive any more. Start Ray again; a run that kept a checkpoint goes on from "
            "there."
        )


def refuse_failures(worker: int, times: int, error: Exception) -> None:
    """Raise `InvalidProblem` where a worker has failed more often in a row than another process can mend."""
    if times > RESTARTS:
        raise InvalidProblem(f"Worker {worker} has failed {RESTARTS} times in a row: {error}") from error


def first_ready(ray: ModuleType, futures: Sequence[ObjectRef], until: float) -> ObjectRef | None:
    """The first of some futures that is ready, None where none is by the time ``until`` of ``time.perf_counter``.

    Raises:
        GivenUp: the run that waits is over.
        RayLost: nothing can come any more.
    """
    while True:
        left = until - time.perf_counter()
        ready, _ = ray.wait(list(futures), num_returns=1, timeout=min(max(left, 0.0), LOOK))
        if ready:
            return ready[0]
        if left <= LOOK:
            return None
        check_wait()
        check_alive(ray)
