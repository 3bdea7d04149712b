"""Workers as Ray actors: processes here, or machines of a Ray cluster."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thalweg.core.ray_engine import check_alive, first_ready, refuse_failures, start_ray
from thalweg.core.validation import require_positive
from thalweg.distributed.coding.schemes import Scheme, WorkItem
from thalweg.distributed.coding.stragglers import DelayProfile
from thalweg.distributed.coding.training import Arrival, Cluster, DataParallel, Vector, Worker

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle


@dataclass(init=False, eq=False)
class RayCluster(Cluster):
    """One actor for each worker; Ray carries and schedules.

    A worker whose process dies has no results in that round; another takes its place, and gets the round's work only
    where the code cannot do without. A worker that is late answers later; that answer is not used. A run's time limit
    and Ctrl-C end a wait for results, too.

    Args:
        delays: seconds to sleep besides computing, to try a scheme out; none by default.
        cpus: cores that Ray reserves for each actor; 0 shares what there is.
        options: for `ray.init`, where Ray is not running yet: it then listens on the loopback alone. To use a Ray
            cluster, connect to it first, with `ray.init(address=...)`.

    Raises:
        MissingExtra: Ray is not installed.
        InvalidProblem: a worker fails five times in a row, with its last error.
        RayLost: the last node of Ray's cluster has died; some fifteen seconds after it has.
    """

    delays: DelayProfile | None
    cpus: float
    options: dict[str, object]

    def __init__(self, delays: DelayProfile | None = None, *, cpus: float = 0.0, **options: object) -> None:
        self.delays, self.cpus, self.options = delays, cpus, options
        require_positive(self, "cpus", zero=True)
        self.actors: list[ActorHandle] = []
        self.pending: dict[ObjectRef, int] = {}
        self.fallen: list[int] = []

    def begin(self, problem: DataParallel, scheme: Scheme) -> None:
        ray = start_ray(**self.options)
        self.end()
        self.ray, held, shares = ray, ray.put(problem), scheme.shares.tolist()
        actor = ray.remote(num_cpus=self.cpus, max_restarts=0, max_task_retries=0)(_Actor)
        self.hire = lambda: actor.remote(held, shares)
        self.actors, self.fallen = [self.hire() for _ in range(scheme.n)], [0] * scheme.n
        waiting = [a.ready.remote() for a in self.actors]
        while waiting:
            ready = first_ready(ray, waiting, math.inf)
            waiting.remove(ready)
            ray.get(ready)

    def send(
        self, round: int, work: Mapping[int, Sequence[WorkItem]], parameters: Mapping[int, Vector]
    ) -> None:
        self.round, self.work, self.parameters = round, work, self.ray.put(dict(parameters))
        self.started, self.pending = time.perf_counter(), {}
        for worker in work:
            self._submit(worker)

    def _submit(self, worker: int) -> None:
        pause = 0.0
        if self.delays is not None:
            pause = float(self.delays.seconds[self.round % len(self.delays.seconds), worker])
        future = self.actors[worker].compute.remote(list(self.work[worker]), self.parameters, pause)
        self.pending[future] = worker

    def wait(self, until: float) -> Arrival | None:
        left = until - (time.perf_counter() - self.started)
        if not self.pending or left < 0:
            return None
        ready = first_ready(self.ray, list(self.pending), self.started + until)
        if ready is None:
            return None
        worker = self.pending.pop(ready)
        seconds = time.perf_counter() - self.started
        try:
            results = self.ray.get(ready)
        except self.ray.exceptions.RayError as error:
            self._replace(worker, error)
            if math.isinf(until):  # the code cannot do without
                self._submit(worker)
            return Arrival(worker, seconds, None)
        self.fallen[worker] = 0
        return Arrival(worker, seconds, results)

    def _replace(self, worker: int, error: Exception) -> None:
        """Another process in the place of one that has fallen; not without end."""
        self.fallen[worker] += 1
        refuse_failures(worker, self.fallen[worker], error)
        check_alive(self.ray)
        self.ray.kill(self.actors[worker])
        self.actors[worker] = self.hire()

    def end(self) -> None:
        for actor in self.actors:
            self.ray.kill(actor)
        self.actors = []


class _Actor:
    """In a process of its own."""

    def __init__(self, problem: DataParallel, shares: Sequence[float]) -> None:
        import torch

        torch.set_num_threads(1)
        self.worker = Worker(problem, shares)

    def ready(self) -> int:
        """The process, once there."""
        return os.getpid()

    def compute(
        self, tasks: Sequence[WorkItem], parameters: Mapping[int, Vector], pause: float
    ) -> list[Vector]:
        """The worker's results, after a pause."""
        time.sleep(pause)
        return self.worker.compute(tasks, {job: v.copy() for job, v in parameters.items()})
