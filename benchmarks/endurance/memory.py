"""``python -m benchmarks.endurance.memory``: memory of a process in long runs, from their first fifth to their end."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

#: Memory is read so many times in a run; the first fifth is warm-up.
READINGS = 20
#: Bytes over the rest of a run that are the allocator's, and no growth.
ALLOWED = 8 * 2**20


def resident() -> int:
    """Bytes of this process that are in memory, without what nothing reaches any more."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _read(count: int) -> Iterator[int]:
    """The places, from 1 to ``count``, after which memory is read."""
    yield from range(count // READINGS, count + 1, count // READINGS)


def steps() -> list[int]:
    """Steps of `solve` with a callback at each and a checkpoint now and then; the history has a bound."""
    import tempfile

    from thalweg import Checkpoint, Stop, solve
    from thalweg.core import Run
    from thalweg.linear import SOR, LinearSystem
    from thalweg.numerics import FivePointStencil

    system = LinearSystem(FivePointStencil(20, 20).to_csr(), np.ones(400))
    places, found = set(_read(COUNTS["steps"])), list[int]()

    def look(run: Run) -> None:
        if run.steps in places:
            found.append(resident())

    with tempfile.TemporaryDirectory() as folder:
        watchers = [look, Checkpoint(Path(folder) / "kept", every=1000)]
        stop = Stop(below={"residual": 0.0}, steps=COUNTS["steps"])
        solve(system, SOR(1.0), stop=stop, callbacks=watchers, history=1000, progress=False)
    return found


def asks() -> list[int]:
    """Points asked for and told, with failures between; all of them drawn, as a model of so many would take days."""
    from thalweg.blackbox import Real, Study

    count, found, places = COUNTS["asks"], list[int](), set(_read(COUNTS["asks"]))
    study = Study({"x": Real(0.0, 1.0)}, noise="none", initial=10 * count)
    for i in range(1, count + 1):
        trial = study.ask()
        if i % 7:
            study.tell(trial, trial.point["x"] ** 2)
        else:
            study.tell(trial, failed=True)
        if i in places:
            found.append(resident())
    return found


def rounds() -> list[int]:
    """Rounds of a bandit and of predictions by group."""
    from thalweg.online import GroupwiseRegressor, TsallisINF

    count, found, places = COUNTS["rounds"], list[int](), set(_read(COUNTS["rounds"]))
    rng, policy = np.random.default_rng(0), TsallisINF(4).started(0)
    regressor = GroupwiseRegressor()
    X, y = rng.standard_normal((100, 3)), rng.standard_normal(100)
    for i in range(1, count + 1):
        policy.learn(policy.act(), rng.random())
        if i % 100 == 0:
            regressor.partial_fit(X, y)
        if i in places:
            found.append(resident())
    return found


def requests() -> list[int]:
    """Runs of a workflow, each with its feedback sent back and a step of a search."""
    from thalweg.workflow import Bounds, bundle, node
    from thalweg.workflow.optimizers import PatternSearch

    @bundle()
    def answer(x: float, slope: float) -> float:
        """A line."""
        return slope * x

    count, found, places = COUNTS["requests"], list[int](), set(_read(COUNTS["requests"]))
    slope = node(1.0, trainable=True, constraint=Bounds(-5, 5))
    search = PatternSearch([slope])
    for i in range(1, count + 1):
        output = (answer(float(i % 9), slope) - 3.0 * (i % 9)) ** 2
        search.zero_feedback()
        search.backward(output, float(output.data))
        search.step()
        if i in places:
            found.append(resident())
    return found


RUNS: dict[str, Callable[[], list[int]]] = {
    "steps": steps,
    "asks": asks,
    "rounds": rounds,
    "requests": requests,
}
COUNTS = {"steps": 100_000, "asks": 10_000, "rounds": 100_000, "requests": 10_000}


def main() -> None:
    """Each run in a process of its own."""
    if len(sys.argv) == 2:
        print(*RUNS[sys.argv[1]]())
        return
    table, worst = (
        Table("run", "how many", "MiB after a fifth", "MiB at the end", "grown, MiB", "a thing, bytes"),
        0,
    )
    for name, run in RUNS.items():
        words = [sys.executable, "-m", "benchmarks.endurance.memory", name]
        done = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603  ourselves
        read = done.stdout.split()[-READINGS:]
        first, *_, last = [int(value) for value in read[READINGS // 5 - 1 :]]
        each = (last - first) / (0.8 * COUNTS[name])
        cells = (f"{COUNTS[name]:,}", f"{first / 2**20:.0f}", f"{last / 2**20:.0f}")
        about = (run.__doc__ or name).partition(";")[0].partition(",")[0].rstrip(".")
        table.add_row(about, *cells, f"{(last - first) / 2**20:.1f}", f"{each:.0f}")
        worst = max(worst, last - first)
    Console(width=140).print(table)
    sys.exit(worst > ALLOWED)


if __name__ == "__main__":
    main()
