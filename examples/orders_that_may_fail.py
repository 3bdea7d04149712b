"""Which orders to take when up to three of twenty may lose their profit.

Run it: ``python examples/orders_that_may_fail.py page.html``. It decides for the nominal profits and for the worst
case, says what each costs when things go wrong, and draws both over how many losses may come.
"""

import sys
from dataclasses import replace

from thalweg import solve
from thalweg.core import Figure, Series
from thalweg.robust import Nominal, RelaxedRecourse, RobustKnapsack
from thalweg.workbench import render_figures


def main(page: str = "", losses: int = 3) -> dict[str, list[float]]:
    """Profits in the worst case, by how many losses may come."""
    orders = RobustKnapsack.random(20, seed=3, spread=1.0)
    profits: dict[str, list[float]] = {"nominal": [], "robust": [], "no decision is above": []}
    for gamma in range(losses + 1):
        problem = replace(orders, gamma=gamma)
        for name, method in (("nominal", Nominal()), ("robust", RelaxedRecourse())):
            profits[name].append(-solve(problem, method, progress=False).metrics["cost"])
        profits["no decision is above"].append(-problem.bound)
    if page:
        counts = [float(gamma) for gamma in range(losses + 1)]
        series = [Series(name, counts, values) for name, values in profits.items()]
        caption = "Profit in the worst case of decisions for nominal profits and for the worst case."
        figure = Figure(
            "What losses cost", caption, "losses that may come", "profit in the worst case", series
        )
        render_figures([figure], page, "Orders that may fail")
    return profits


if __name__ == "__main__":
    for name, values in main(*sys.argv[1:2]).items():
        print(f"{name}: " + ", ".join(f"{value:.0f}" for value in values))
