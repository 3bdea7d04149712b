"""``python -m benchmarks AREA [--json FILE]``: print a table, and keep the rows."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

import thalweg
from thalweg.core.files import write_text

HOME = Path(thalweg.__file__).parent
AREAS = sorted(p.name for p in Path(__file__).parent.iterdir() if (HOME / p.name / "__init__.py").exists())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("area", choices=AREAS)
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    rows = [row.to_dict() for row in importlib.import_module(f"benchmarks.{arguments.area}").rows()]
    table = Table("system", "workload", "ours", "peer", "peer's", "ratio", "accuracy ours", "peer's")
    for row in rows:
        accuracies = ["" if row[k] is None else f"{row[k]:.2g}" for k in ("accuracy_ours", "accuracy_peer")]
        times = [f"{row['ours_s']:.3g} s", row["peer"], f"{row['peer_s']:.3g} s", f"{row['ratio']:.2f}"]
        table.add_row(row["system"], row["workload"], *times, *accuracies)
    console = Console()
    console.width = max(console.width, 160)  # a narrow table cuts the words that matter
    console.print(table)
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
