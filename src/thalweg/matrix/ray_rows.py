"""Half-steps in processes of Ray, here or on other machines: each holds a block of rows, and one of columns."""

from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from thalweg.core.ray_engine import check_alive, first_ready, refuse_failures, start_ray
from thalweg.matrix._blocks import equal_blocks
from thalweg.matrix.half_steps import HalfStep, Rows, Vector, Work, fit_rows, rows_of
from thalweg.matrix.observations import Reals, Side
from thalweg.matrix.problem import Completion

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

#: Of each half-step the other side's design, the Gram matrix of what is seen everywhere, and what is predicted without.
Given = tuple[Reals, Reals, Reals]


class RayRows:
    """A problem's entries in blocks of equal work, by row and by column; each worker holds one of both.

    A worker whose process dies is replaced by another, which gets the blocks anew and redoes the half-step: the answer
    has the bits that it would have had. Nothing here keeps the problem alive; with these handles its workers end.

    Sent for a half-step: the other side's factors once to each machine, and its own rows' factors there and back.
    """

    def __init__(self, ray: ModuleType, problem: Completion, workers: int) -> None:
        self.ray, self.workers, self.address = ray, workers, _address(ray)
        self.blocks = [equal_blocks(side.starts, workers) for side in problem.sides()]
        # No core is reserved: a worker that waits for one that never comes free would wait for ever.
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        self.kind = ray.remote(**options)(Worker)
        count = max(map(len, self.blocks))
        self.actors = [self._hired(problem, worker) for worker in range(count)]
        self.fallen = [0] * count

    def _hired(self, problem: Completion, worker: int) -> ActorHandle:
        held = []
        for at, blocks in enumerate(self.blocks):
            first, last = blocks[worker] if worker < len(blocks) else (0, 0)
            held.append(rows_of(problem, problem.train, at).part(first, last))
        return self.kind.remote(*held)

    def fit(
        self,
        problem: Completion,
        at: int,
        fit: HalfStep,
        given: Given,
        X: Reals,
        slopes: Vector,
        rights: Vector,
    ) -> None:
        """A half-step of U (``at`` 0) or V (1), as `HalfStep` has it for all rows.

        Raises:
            InvalidProblem: a worker fails five times in a row.
            GivenUp, RayLost: nothing can be waited for.
        """
        held = self.ray.put(given)

        def sent(worker: int) -> ObjectRef:
            a, b = self.blocks[at][worker]
            return self.actors[worker].fit.remote(at, fit, held, X[a:b])

        waiting = {sent(worker): worker for worker in range(len(self.blocks[at]))}
        while waiting:
            ready = first_ready(self.ray, list(waiting), math.inf)
            if ready is None:
                continue
            worker = waiting.pop(ready)
            a, b = self.blocks[at][worker]
            try:
                X[a:b], slopes[a:b], rights[a:b] = self.ray.get(ready)
                self.fallen[worker] = 0
            except self.ray.exceptions.RayError as error:
                self.fallen[worker] += 1
                refuse_failures(worker, self.fallen[worker], error)
                check_alive(self.ray)
                self.ray.kill(self.actors[worker])
                self.actors[worker] = self._hired(problem, worker)
                waiting[sent(worker)] = worker


#: Workers by problem; they end with it.
_HELD: WeakKeyDictionary[Completion, RayRows] = WeakKeyDictionary()


def held_rows(problem: Completion, workers: int) -> RayRows:
    """The workers that hold a problem's entries: those there are, or new ones.

    Raises:
        MissingExtra: Ray is not installed.
    """
    ray, found = start_ray(), _HELD.get(problem)
    if found is None or found.workers != workers or found.address != _address(ray):
        found = _HELD[problem] = RayRows(ray, problem, workers)
    return found


def _address(ray: ModuleType) -> str:
    """By which one Ray is known from another, begun later."""
    return str(ray.get_runtime_context().gcs_address)


class Worker:
    """In a process of its own: rows of the matrix, and rows of its transpose."""

    def __init__(self, *held: Rows) -> None:
        self.held = [replace(rows, side=_own(rows.side)) for rows in held]

    def fit(self, at: int, fit: HalfStep, given: Given, X: Reals) -> tuple[Reals, Vector, Vector]:
        """The rows' factors anew, and what `HalfStep` tells of them."""
        rows = self.held[at]
        D, gram, offset = _read(given[0]), _written(given[1]), _written(given[2])
        new, slopes, rights = _written(X), np.zeros(len(X)), np.zeros(len(X))
        fit_rows(fit, Work(rows, D, gram, rows.targets(offset)), new, slopes, rights, threads=False)
        return new, slopes, rights


def _own(side: Side) -> Side:
    return Side(*(_written(values) for values in (side.starts, side.others, side.values, side.weights)))


def _read(values: Reals) -> Reals:
    """The same memory, said to be writable: kernels are compiled for that, and do not write a design.

    So all workers of a machine read one copy of what may be gigabytes.
    """
    kind = np.ctypeslib.as_ctypes_type(values.dtype)
    held = (kind * values.size).from_address(values.ctypes.data)
    return np.ctypeslib.as_array(held).reshape(values.shape)


def _written(values: Any) -> Any:  # noqa: ANN401 -- an array of any type
    """A copy: what Ray hands out may not be written, for which kernels would be compiled again."""
    return np.array(values, order="C")
