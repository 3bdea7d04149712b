"""A good alloy from a handful of experiments: which of a hundred ingredients matter is not known, and few do.

python examples/few_experiments.py [page.html]
"""

from __future__ import annotations

import sys

import numpy as np

from thalweg import solve
from thalweg.online import ActionTable, GOptimal, LazyElimination, RandomActions


def alloys(n: int = 600, ingredients: int = 100, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Recipes, shape (n, ingredients), and their strengths: two ingredients and an effect that is not linear."""
    rng = np.random.default_rng(seed)
    recipes = rng.standard_normal((n, ingredients))
    recipes /= np.linalg.norm(recipes, axis=1, keepdims=True)
    linear = 0.8 * recipes[:, 17] - 0.6 * recipes[:, 61]
    return recipes, linear + 0.05 * np.sin(40 * recipes[:, 3])


def main(page: str | None = None) -> dict[str, tuple[int, float]]:
    """Print and return, by method, (experiments made, strength below the best alloy's)."""
    recipes, strengths = alloys()

    # As in a laboratory: ask, measure, tell.
    search = LazyElimination(sparsity=2, eps=0.05).begin(recipes)
    while not search.done:
        search.observe(strengths[search.next_action()])
    found = search.result()
    print(f"Alloy {found.action} after {found.queries} experiments. {found.certificate}")

    # Who knows all strengths can judge: the same search, and others, on the whole table.
    table, told = ActionTable(recipes, strengths), {}
    methods = {
        "elimination, eps known": LazyElimination(sparsity=2, eps=0.05),
        "elimination, eps unknown": LazyElimination(sparsity=2),
        "least squares": GOptimal(eps=0.05),
        "as many at random": RandomActions(rounds=found.queries),
    }
    results = {name: solve(table, method, progress=False) for name, method in methods.items()}
    for name, result in results.items():
        told[name] = (result.calls, result.metrics["gap"])
        print(f"{name:26} {result.calls:4d} experiments, {result.metrics['gap']:.3f} below the best")
    if page is not None:
        from thalweg.core import Figure, Series
        from thalweg.workbench import render_figures

        curves = [Series.of(n, r.history.steps[:60], r.history["gap"][:60]) for n, r in results.items()]
        figure = Figure(
            "Strength below the best alloy's", "By experiments made.", "experiments", "gap", curves
        )
        render_figures([figure], page, "A good alloy from few experiments")
    return told


if __name__ == "__main__":
    main(*sys.argv[1:])
