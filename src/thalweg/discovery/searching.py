"""A search in one call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from thalweg.core import Callback, Checkpoint, Result, Run, Stop, solve
from thalweg.core.validation import is_whole, require
from thalweg.discovery.evolution import RegularizedEvolution
from thalweg.discovery.mutation import Mutations
from thalweg.discovery.problem import ProgramSearch
from thalweg.discovery.program import ADAMW, Program, parse
from thalweg.discovery.proxies import Proxy
from thalweg.discovery.simplification import Simplified, simplified
from thalweg.discovery.watching import ProgramWatch

#: Steps for each evaluation asked for, after which nothing new comes any more.
PER_EVALUATION = 20


@dataclass(frozen=True)
class Discovery:
    """What a search found.

    Args:
        task: what was searched on.
        program: the best one.
        archive: the best program of each time slice of the search, first the start; what `funnel` takes.
        result: of `solve`: why it ended, counts, history.
    """

    task: ProgramSearch
    program: Program
    archive: list[Program]
    result: Result

    def simplified(self, tolerance: float = 0.0) -> Simplified:
        """The best program made shorter, where it does not hurt on the proxy."""
        return simplified(self.program, lambda p: self.task.losses(p)[-1], tolerance)


class ArchiveWatch(Callback):
    """Keeps hold of a search's archive, which its result does not show."""

    def __init__(self) -> None:
        self.sources: list[str] = []

    def start(self, run: Run) -> None:
        self(run)

    def __call__(self, run: Run) -> None:
        self.sources = [str(source) for _, source, _ in run.state.archive]


def search(
    proxy: Proxy,
    *,
    start: Program = ADAMW,
    evaluations: int = 300,
    population: int = 100,
    tournament: int = 2,
    children: int = 8,
    mutations: Mutations | None = None,
    workers: int = 1,
    cache: str | Path | None = None,
    checkpoint: str | Path | None = None,
    resume: str | Path | None = None,
    restart_after: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Discovery:
    """Search for a program by regularised evolution.

    Args:
        proxy: a Python function of a `Rule` that trains by it and returns a validation loss; `DigitsMLP` and
            `NetworkProxy` are ready.
        start: where the population begins; its signature is that of all programs. AdamW by default; for a schedule,
            a program of the signature `SCHEDULE`.
        evaluations: runs of the proxy, after which the search ends.
        population, tournament, children, mutations, restart_after, cache: as of `RegularizedEvolution`.
        workers: processes. What is found does not hang on their number; 16 ``children`` for each keep them busy.
        checkpoint: a file that the search is kept in, every 10 steps.
        resume: such a file, to go on from.
        seconds: that a candidate may take.
        seed: of the mutations.
        progress: a live table, with the best program so far.

    Raises:
        InvalidParameter, InvalidProblem: as of `RegularizedEvolution` and `ProgramSearch`.
        CheckpointMismatch: a file of another proxy, start, function set, population or seed.

    >>> from thalweg.discovery import DigitsMLP
    >>> found = search(DigitsMLP(steps=20, seeds=(0,)), evaluations=20, population=10)
    >>> found.result.calls >= 20
    True
    """
    require(is_whole(evaluations) and evaluations >= 1, "search needs evaluations >= 1", got=evaluations)
    task = ProgramSearch(proxy, start, seconds)
    method = RegularizedEvolution(
        population,
        tournament,
        children,
        mutations=Mutations() if mutations is None else mutations,
        restart_after=restart_after,
        workers=workers,
        cache=cache,
    )
    archive = ArchiveWatch()
    callbacks: list[Callback] = (
        [archive] if checkpoint is None else [archive, Checkpoint(checkpoint, every=10)]
    )
    if progress:
        callbacks.append(ProgramWatch())
    stop = Stop(calls=evaluations, steps=PER_EVALUATION * evaluations)
    result = solve(task, method, stop=stop, callbacks=callbacks, seed=seed, progress=False, resume=resume)
    kept = [parse(source, start.signature) for source in archive.sources]
    return Discovery(task, parse(result.x, start.signature), kept, result)
