"""From children to losses: known ones are looked up, the others run, side by side where there are workers."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from thalweg.core import InvalidProblem, State
from thalweg.core.processes import beside
from thalweg.core.ray_engine import first_ready, start_ray
from thalweg.discovery.abstract import structural_hash
from thalweg.discovery.cache import LossCache
from thalweg.discovery.probing import behaviour
from thalweg.discovery.problem import ProgramSearch, is_above
from thalweg.discovery.program import Program

if TYPE_CHECKING:
    from joblib.externals.loky import ProcessPoolExecutor

Engine = Literal["loky", "ray"]
#: Finished runs before the median stops others; finished runs that it is taken of.
WARM, REMEMBERED = 8, 256
#: Of the losses known so far, the best share whose members are run and not joined by behaviour.
CONFIRMED = 0.01


@dataclass(kw_only=True)
class SearchState(State):
    """Where a search is."""

    x: str  # source of the best program that was run to its end
    best: float  # its loss
    draw: np.random.Generator
    place: str  # the problem, as the cache names it
    length: int  # losses that a whole run gives
    population: list[str] = field(default_factory=list)  # sources, oldest first
    losses: list[float] = field(default_factory=list)  # of the population
    known: dict[str, list[float]] = field(
        default_factory=dict
    )  # by structural hash, and by "~" and behaviour
    finished: list[list[float]] = field(default_factory=list)  # losses before the last one, of whole runs
    counts: dict[str, int] = field(default_factory=dict)
    archive: list[list[object]] = field(default_factory=list)  # of each time slice: children, source, loss
    since: int = 0  # children since the best one

    def told(self) -> dict[str, float]:
        """The metrics: shares are of the children generated."""
        c = self.counts
        made = max(c["generated"], 1)
        told = {"loss": self.best, "evaluated": float(c["evaluated"]), "generated": float(c["generated"])}
        if self.losses:
            told["median"] = float(np.median(self.losses))
        hits = c["same structure"] + c["same behaviour"]
        shares = {"rejected": c["rejected"] / made, "hits": hits / made}
        return told | shares | {"saved": shares["rejected"] + shares["hits"]}


COUNTS = ("generated", "rejected", "same structure", "same behaviour", "evaluated", "stopped", "restarts")


@dataclass(frozen=True)
class Trial:
    """How candidates are judged.

    Args:
        workers: processes that run candidates; 1 runs all here. What is found does not hang on it.
        engine: ``loky``: processes of this machine; ``ray``: tasks of a Ray cluster.
        early_stop: end a run whose loss at a third or two thirds is above the median of the runs before.
        join: take the loss of a program that behaves alike on fixed numbers, but for the best hundredth.
        cache: a file that keeps losses between searches. A search that is to be repeated to the bit has one of its
            own, or none: by another's losses programs are joined that it would have run.
    """

    workers: int = 1
    engine: Engine = "loky"
    early_stop: bool = True
    join: bool = True
    cache: str | Path | None = None

    def __call__(
        self, problem: ProgramSearch, state: SearchState, programs: Sequence[Program]
    ) -> list[float]:
        """Losses of the programs; the state's best, counts and memory are brought up to date."""
        bounds = self._bounds(state)
        keys = [structural_hash(program) for program in programs]
        prints = [self._print(program) for program in programs]
        todo: dict[str, int] = {}
        for k, key in enumerate(keys):
            if self._found(state, key, bounds) or key in todo:
                state.counts["same structure"] += 1
            elif self._joined(state, key, prints[k], bounds):
                state.counts["same behaviour"] += 1
            else:
                todo[key] = k
        if todo:
            self._run(problem, state, [(key, programs[k], prints[k]) for key, k in todo.items()], bounds)
        return [_cut(state.known[key], bounds)[-1] for key in keys]

    def _print(self, program: Program) -> str | None:
        found = behaviour(program) if self.join else None
        return None if found is None else "~" + found

    def _bounds(self, state: SearchState) -> list[float]:
        if not self.early_stop or len(state.finished) < WARM:
            return []
        return [float(value) for value in np.median(np.array(state.finished), axis=0)]

    def _found(self, state: SearchState, name: str, bounds: Sequence[float]) -> bool:
        """Whether the losses under a name are known as far as they are needed."""
        losses = state.known.get(name)
        return losses is not None and _is_whole(_cut(losses, bounds), state.length, bounds)

    def _kept(self, state: SearchState, name: str, bounds: Sequence[float]) -> list[float] | None:
        """The losses that the file has under a name, as a run under these bounds would give them."""
        if self.cache is None:
            return None
        losses = LossCache(Path(self.cache)).get(state.place, name)
        cut = None if losses is None else _cut(losses, bounds)
        return cut if cut is not None and _is_whole(cut, state.length, bounds) else None

    def _joined(self, state: SearchState, key: str, name: str | None, bounds: Sequence[float]) -> bool:
        if name is None:
            return False
        if name not in state.known:
            kept = self._kept(state, name, bounds)
            if kept is not None:
                state.known[name] = kept
        if not self._found(state, name, bounds):
            return False
        losses = state.known[name]
        if len(losses) == state.length and losses[-1] <= _top(state):
            return False
        state.known[key] = losses
        return True

    def _run(
        self,
        problem: ProgramSearch,
        state: SearchState,
        todo: Sequence[tuple[str, Program, str | None]],
        bounds: Sequence[float],
    ) -> None:
        kept = {key: self._kept(state, key, bounds) for key, _, _ in todo}
        run = [(key, program) for key, program, _ in todo if kept[key] is None]
        found = self._side_by_side(problem, [program for _, program in run], list(bounds))
        fresh: dict[str, list[float]] = {key: losses for (key, _), losses in zip(run, found, strict=True)}
        for key, program, name in todo:
            before = kept[key]
            state.counts["evaluated" if before is None else "same structure"] += 1
            losses = state.known[key] = fresh[key] if before is None else before
            if name is not None and len(losses) > len(state.known.get(name, ())):
                fresh[name] = state.known[name] = losses
            if len(losses) == state.length and losses[-1] < math.inf:
                state.finished = [*state.finished[1 - REMEMBERED :], losses[:-1]]
                if losses[-1] < state.best:
                    state.x, state.best, state.since = program.source, losses[-1], 0
            elif losses[-1] < math.inf:
                state.counts["stopped"] += 1
        if self.cache is not None:
            LossCache(Path(self.cache)).put(state.place, fresh)

    def _side_by_side(
        self, problem: ProgramSearch, programs: Sequence[Program], bounds: list[float]
    ) -> list[list[float]]:
        if self.workers == 1 or len(programs) < 2:
            return [problem.losses(program, bounds) for program in programs]
        if self.engine == "ray":
            return _by_ray(problem, programs, bounds, self.workers)
        return _by_loky(problem, programs, bounds, self.workers)


def _by_loky(
    problem: ProgramSearch, programs: Sequence[Program], bounds: list[float], workers: int
) -> list[list[float]]:
    """A program for each process that is free: runs that are stopped early leave their process to the next.

    joblib's own loop looks for answers every 10 ms, which is long beside runs of 25 ms; a pool's futures tell at once.
    """
    import cloudpickle
    from joblib.externals.loky import BrokenProcessPool

    pool, packed = _pool(workers), cloudpickle.dumps(problem)
    try:
        runs = [pool.submit(beside, os.getpid(), _unpacked, packed, program, bounds) for program in programs]
        return [run.result() for run in runs]
    except BrokenProcessPool as error:
        _POOLS.pop(workers).shutdown(wait=False, kill_workers=True)
        raise InvalidProblem(
            "A worker's process ended while it ran the proxy: it ended itself, or ran out of memory. Run it with "
            "workers=1 to see why, or take fewer."
        ) from error
    except BaseException:
        _POOLS.pop(workers).shutdown(wait=False, kill_workers=True)
        raise


#: Pools of processes by their number; their processes end after five idle minutes.
_POOLS: dict[int, ProcessPoolExecutor] = {}


def _pool(workers: int) -> ProcessPoolExecutor:
    """The pool. It is none of joblib's reusable ones, which others would find in another state."""
    from joblib import cpu_count
    from joblib.externals.loky import ProcessPoolExecutor

    if workers not in _POOLS:
        threads = str(max(1, cpu_count() // workers))
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        limits = {name: os.environ.get(name, threads) for name in names}
        _POOLS[workers] = ProcessPoolExecutor(max_workers=workers, timeout=300, env=limits)
    return _POOLS[workers]


_PROBLEMS: dict[bytes, ProgramSearch] = {}


def _unpacked(packed: bytes, program: Program, bounds: list[float]) -> list[float]:
    """The losses of one program; a process unpacks equal problems once."""
    if packed not in _PROBLEMS:
        _PROBLEMS.clear()
        _PROBLEMS[packed] = pickle.loads(packed)  # noqa: S301  made by the process that started this one
    return _PROBLEMS[packed].losses(program, bounds)


def _one(problem: ProgramSearch, program: Program, bounds: list[float]) -> list[float]:
    return problem.losses(program, bounds)


def _by_ray(
    problem: ProgramSearch, programs: Sequence[Program], bounds: list[float], workers: int
) -> list[list[float]]:
    ray = start_ray(num_cpus=workers)
    task, shared = ray.remote(_one), ray.put(problem)
    futures = [task.remote(shared, program, bounds) for program in programs]
    waiting = list(futures)
    while waiting:
        ready = first_ready(ray, waiting, math.inf)
        waiting = [future for future in waiting if future is not ready]
    found: list[list[float]] = ray.get(futures)
    return found


def _cut(losses: list[float], bounds: Sequence[float]) -> list[float]:
    """Losses of a run as they would be under the bounds."""
    for k in range(1, len(losses)):
        if is_above(losses[:k], bounds):
            return losses[:k]
    return losses


def _is_whole(losses: list[float], length: int, bounds: Sequence[float]) -> bool:
    return len(losses) >= length or losses[-1] == math.inf or is_above(losses, bounds)


def _top(state: SearchState) -> float:
    """The loss up to which programs are run that behave like a known one."""
    whole = [losses[-1] for losses in state.known.values() if len(losses) == state.length]
    return float(np.quantile(whole, CONFIRMED, method="higher")) if whole else -math.inf
