"""``python -m benchmarks.growth [AREA ...] [--json FILE]``: how seconds and memory grow, for each area."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.growth.measure import curve, measured_here, powers
from benchmarks.growth.workloads import WORKLOADS
from thalweg.core.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    known = {growth.area: growth for growth in WORKLOADS}
    parser.add_argument("areas", nargs="*", help=f"of {', '.join(known)}; all by default")
    parser.add_argument("--json", type=Path, help="put what was measured into this file, beside what it has")
    parser.add_argument("--one", nargs=2, metavar=("AREA", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.areas if name not in known]
    if unknown:
        parser.error(f"no area {unknown[0]!r}; known: {', '.join(known)}")
    if arguments.one:
        area, size = arguments.one
        print(json.dumps(asdict(measured_here(known[area], int(size)))))
        return
    table = Table("area", "workload", "largest", "seconds", "GiB", "power, expected", "memory's, expected")
    for growth in (known[name] for name in arguments.areas or known):
        points = curve(growth)
        seconds, memory = powers(points)
        told = {
            "what": growth.what,
            "of": growth.of,
            "expected": [growth.seconds, growth.memory],
            "powers": [seconds, None if math.isnan(memory) else memory],
            "points": [asdict(p) for p in points],
        }
        if arguments.json is not None:
            kept = json.loads(arguments.json.read_text("utf-8")) if arguments.json.exists() else {}
            write_text(arguments.json, json.dumps({**kept, growth.area: told}, indent=1) + "\n")
        last = points[-1]
        table.add_row(
            growth.area,
            growth.what,
            f"{last.size:,} {growth.of}".replace(",", " "),
            f"{last.seconds:.3g}",
            f"{last.bytes / 2**30:.2g}",
            f"{seconds:.2f}, {growth.seconds:g}",
            f"{memory:.2f}, {growth.memory:g}",
        )
        print(f"{growth.area}: {len(points)} sizes, powers {seconds:.2f} and {memory:.2f}", flush=True)
    console = Console()
    console.width = max(console.width, 160)
    console.print(table)


if __name__ == "__main__":
    main()
