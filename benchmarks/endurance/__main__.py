"""``python -m benchmarks.endurance``: a table of what the kills did."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.endurance.harness import endure
from benchmarks.endurance.workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.add_argument("names", nargs="*", help="of the workloads; all by default")
    parser.add_argument("--kills", type=int, default=15, help="SIGKILLs of each")
    parser.add_argument("--terms", type=int, default=8, help="SIGTERMs of each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    known = {make.__name__: make for make in WORKLOADS}
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"no workload {unknown[0]!r}; known: {', '.join(known)}")
    table = Table(
        "workload", "runs", "SIGKILL", "SIGTERM", "answers that differ", "orphans", "broken", "litter"
    )
    worst = 0
    for name in arguments.names or known:
        workload = known[name]()
        with tempfile.TemporaryDirectory(prefix="endurance-") as where:
            kills = {"SIGKILL": arguments.kills, "SIGTERM": arguments.terms}
            found = endure(workload, Path(where), kills, arguments.seed)
        broken = len(found.broken) + len(found.failed) - found.orphans - found.litter
        counts = (found.differ, found.orphans, broken, found.litter)
        table.add_row(
            workload.name, str(found.runs), *(str(found.kills[k]) for k in kills), *(str(c) for c in counts)
        )
        for line in (*found.broken, *found.failed, f"{found.runs} runs, {sum(counts)} faults"):
            print(f"{workload.name}: {line}", flush=True)
        worst += sum(counts)
    Console(width=120).print(table)
    sys.exit(worst > 0)


if __name__ == "__main__":
    main()
