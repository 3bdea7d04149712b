"""Runs of a program side by side in processes, with the same answers as one after the other."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

from thalweg.core import InvalidProblem, ThalwegError
from thalweg.core.processes import beside
from thalweg.workflow.nodes import Node
from thalweg.workflow.parameters import ParameterNode
from thalweg.workflow.propagate import ancestors, traced

J = TypeVar("J")
R = TypeVar("R")
#: Pieces that the jobs are cut into, for each worker: so that a slow one does not hold up the others.
PIECES = 4
_UNPACKED: dict[bytes, object] = {}


@dataclass(frozen=True)
class Runner(Generic[J, R]):
    """What is run: derive from it, with the program and its parameters as fields. ``away`` in another process."""

    away: bool = False

    def run(self, job: J) -> R:
        """The answer of one job."""
        raise NotImplementedError

    def checked(self, output: Node) -> Node:
        """An output of the program, whose parameters are those that were sent with it.

        Raises:
            InvalidProblem: it is a plain value; or the other process has made parameters of its own, which nobody sets.
        """
        traced(output)
        if self.away:
            found = [n for n in ancestors(output) if isinstance(n, ParameterNode) and not n.travelled]
            if found:
                raise InvalidProblem(
                    f"{found[0].name.rpartition(':')[0]} belongs to a module, and each process imports its own. Make "
                    "parameters in a function or as attributes of a Module, or use workers=1."
                )
        return output


def side_by_side(runner: Runner[J, R], jobs: Sequence[J], workers: int) -> list[R]:
    """The answers of all jobs in their order, by so many processes; by one, all are run here.

    Raises:
        InvalidProblem: what cannot be sent to another process.

    Cost: some milliseconds and the sending of the program for each worker; starting the processes takes a second once.
    """
    if workers == 1 or len(jobs) < 2:
        return [runner.run(job) for job in jobs]
    import cloudpickle
    from joblib import Parallel, delayed

    try:
        packed = cloudpickle.dumps((replace(runner, away=True), list(jobs)))
    except ThalwegError:
        raise
    except (TypeError, ValueError, AttributeError, pickle.PicklingError, RecursionError) as error:
        raise InvalidProblem(
            f"The program cannot be sent to other processes: {error}. Use workers=1."
        ) from error
    count = min(len(jobs), PIECES * workers)
    cuts = [len(jobs) * i // count for i in range(count + 1)]
    pieces = [range(a, b) for a, b in itertools.pairwise(cuts)]
    found: list[list[object] | ThalwegError]
    run, parent = delayed(beside), os.getpid()
    found = Parallel(n_jobs=workers, backend="loky")(run(parent, _piece, packed, piece) for piece in pieces)
    answers: list[R] = []
    for piece in found:
        if isinstance(piece, ThalwegError):
            raise piece
        answers += cast("list[R]", piece)
    return answers


def _piece(packed: bytes, places: range) -> list[object] | ThalwegError:
    """The answers of some jobs; a process unpacks equal bytes once. What it refuses does not end it."""
    if packed not in _UNPACKED:
        _UNPACKED.clear()
        _UNPACKED[packed] = pickle.loads(packed)  # noqa: S301  made by the process that started this one
    runner, jobs = cast("tuple[Runner[object, object], list[object]]", _UNPACKED[packed])
    try:
        return [runner.run(jobs[i]) for i in places]
    except ThalwegError as error:
        return error
