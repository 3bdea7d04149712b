"""From many programs of a search to the few that hold on larger tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.discovery.problem import ProgramSearch
from thalweg.discovery.program import Program


@dataclass(frozen=True)
class Funnelled:
    """What is left of the programs.

    Args:
        programs: those that beat the baseline on every task, best of the last task first.
        losses: of every program on each task it came to, NaN beyond; shape (programs given, tasks).
        baseline: the baseline's loss on each task.
    """

    programs: list[Program]
    losses: np.ndarray[tuple[int, int], np.dtype[np.float64]]
    baseline: list[float]


def funnel(programs: Sequence[Program], tasks: Sequence[ProgramSearch], baseline: Program) -> Funnelled:
    """Judge programs on one task after another, each larger than the last; who does not beat the baseline stays back.

    The paper's tasks grow tenfold in size and steps from one to the next. Give it the archive of a search, the best of
    each time slice, and not the last best alone: a search that goes on for long fits its own proxy.

    Args:
        programs: at least one.
        tasks: from small to large.
        baseline: what is to be beaten, such as AdamW at its best rate.

    Cost: one run of each task a program that comes to it, and one of the baseline.
    """
    require(len(programs) > 0 and len(tasks) > 0, "funnel needs programs and tasks", error=InvalidProblem)
    losses = np.full((len(programs), len(tasks)), np.nan)
    bars, left = [], list(range(len(programs)))
    for t, task in enumerate(tasks):
        bars.append(task.losses(baseline)[-1])
        for k in left:
            losses[k, t] = task.losses(programs[k])[-1]
        left = [k for k in left if losses[k, t] < bars[-1]]
    left.sort(key=lambda k: float(losses[k, -1]))
    return Funnelled([programs[k] for k in left], losses, bars)
