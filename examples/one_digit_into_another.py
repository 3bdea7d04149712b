"""Handwritten threes become eights: a bridge between two clouds of images that nothing pairs.

Run it: ``python examples/one_digit_into_another.py page.html``. It fits the bridge in sixteen principal
coordinates, says how many threes a classifier takes for an eight before and after, and draws their ways in the first
two.
"""

import sys

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from thalweg.core import Figure, Series
from thalweg.datasets import load
from thalweg.transport import LightBridge
from thalweg.workbench import render_figures


def main(page: str = "", steps: int = 600, ways: int = 8) -> tuple[float, float]:
    """Shares of threes that are taken for an eight: as they are, and carried."""
    data = load("digits")
    X, y = np.asarray(data.X) / 16.0, np.asarray(data.y)
    X = PCA(16, random_state=0).fit(X).transform(X)
    three, eight = X[y == 3], X[y == 8]
    judge = LogisticRegression(C=1.0, max_iter=2000).fit(
        np.r_[three, eight], np.r_[[3] * len(three), [8] * len(eight)]
    )
    bridge = LightBridge(eps=0.03, n_components=10, steps=steps).fit(three, eight)
    carried = bridge.sample(three)[0]
    if page:
        path = bridge.trajectory(three[:ways], steps=60)
        series = [Series(f"way {i + 1}", list(path[:, i, 0]), list(path[:, i, 1])) for i in range(ways)]
        caption = "Diffusions from threes to eights, in the first two principal coordinates."
        figure = Figure("Ways from 3 to 8", caption, "first coordinate", "second coordinate", series)
        render_figures([figure], page, "One digit into another")
    before, after = (float((judge.predict(points) == 8).mean()) for points in (three, carried))
    return before, after


if __name__ == "__main__":
    before, after = main(*sys.argv[1:2])
    print(f"Taken for an eight: {before:.0%} of the threes, {after:.0%} when carried.")
