"""A stream of people in overlapping groups: every group's regret, beside that of one model for all.

python examples/no_group_left_behind.py [page.html]
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from thalweg import solve
from thalweg.online import By, GroupedStream, Groupwise, OneForAll, encode


def people(rows: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Charges that rise with age for all, and with weight for smokers only."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 65, rows).astype(float),
            "sex": rng.choice(["f", "m"], rows),
            "smoker": rng.choice(["yes", "no"], rows, p=[0.2, 0.8]),
            "bmi": rng.uniform(18.0, 40.0, rows),
        }
    )
    smokes = table.smoker == "yes"
    table["charges"] = 250 * table.age + np.where(smokes, 800, 50) * table.bmi + rng.normal(0, 1000, rows)
    return table


def main(page: str | None = None, rows: int = 2000) -> dict[str, tuple[float, float]]:
    """Print the table of groups and return (ours, one model's) regret by group."""
    table = people(rows)
    groups = [By("sex"), By("smoker"), By("age", cuts=(35, 50)), By("sex", "smoker")]
    found = encode(table, "charges", groups)
    stream = GroupedStream(found.X, found.y, found.mask, names=found.group_names)
    ours, one = (stream.ledger(solve(stream, method).x) for method in (Groupwise(), OneForAll()))
    print(pd.DataFrame({"groupwise": ours, "one model for all": one}).round(2))
    if page is not None:
        from thalweg.core import Figure, Series
        from thalweg.workbench import render_figures

        names, places = list(ours), [float(i) for i in range(len(ours))]
        series = [
            Series(n, places, list(v.values())) for n, v in (("groupwise", ours), ("one model for all", one))
        ]
        bars = Figure(
            "Regret of each group", "Smaller is better.", "group", "regret", series, "bars", categories=names
        )
        render_figures([bars], page, "No group left behind")
    return {name: (ours[name], one[name]) for name in ours}


if __name__ == "__main__":
    main(*sys.argv[1:])
