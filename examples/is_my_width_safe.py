"""A table, random features, and the question whether some width is a trap: the test error's peak and what removes it.

Run it: ``python examples/is_my_width_safe.py page.html``. It prints the verdict for the exact solution and for early
stopping, and draws the error over the widths.
"""

import sys

import numpy as np

from thalweg.datasets import load
from thalweg.landscape.double_descent import (
    EarlyStopping,
    Exact,
    FeatureModels,
    RandomFeatures,
    Scan,
    Split,
    scan,
)
from thalweg.workbench import render_figures

WIDTHS = (20, 40, 60, 80, 100, 120, 160, 200, 400, 800)


def main(page: str = "") -> tuple[Scan, Scan]:
    """Scans of the exact solution and of early stopping on the diabetes data."""
    table = load("diabetes")
    X, y = np.asarray(table.X), np.asarray(table.y, dtype=np.float64)
    data = Split((X - X.mean(0)) / X.std(0), (y - y.mean()) / y.std(), rows=100)
    exact = scan(FeatureModels(RandomFeatures(), Exact()), data, WIDTHS)
    stopped = scan(FeatureModels(RandomFeatures(), EarlyStopping()), data, WIDTHS)
    if page:
        render_figures([exact.figure(), stopped.figure()], page, "Error by width, exact and stopped early")
    return exact, stopped


if __name__ == "__main__":
    for name, found in zip(("Exact", "Stopped early"), main(*sys.argv[1:2]), strict=True):
        print(f"{name}\n{found}\n")
