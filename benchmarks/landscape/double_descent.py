"""25: errors of gradient descent by width, steps and seeds: one decomposition each, or the steps themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.race import Row, race
from thalweg.landscape.double_descent import LinearTeacher, RandomFeatures, Spectrum, descent_map

WIDTHS = (20, 40, 60, 80, 90, 100, 110, 120, 150, 200, 300, 400, 800)
STEPS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)


def stepped(features: np.ndarray, targets: np.ndarray, steps: int) -> np.ndarray:
    """Gradient descent with step size one over the largest eigenvalue, by products with the smaller Gram matrix."""
    eta = 1.0 / np.linalg.norm(features, 2) ** 2
    n, p = features.shape
    w = np.zeros(p)
    if p <= n:
        gram, right = eta * features.T @ features, eta * features.T @ targets
        for _ in range(steps):
            w += right - gram @ w
        return w
    gram, dual = eta * features @ features.T, np.zeros(n)
    for _ in range(steps):
        dual += eta * targets - gram @ dual
    return features.T @ dual


def rows() -> Iterator[Row]:
    """The whole map beside one of its 455 entries, and one entry by both ways."""
    teacher = LinearTeacher()
    data = teacher(0)
    features, _ = RandomFeatures()(data.X, data.X_test, 100, 0)
    for steps in (1000, 100_000):

        def closed(steps: int = steps) -> np.ndarray:
            problem = Spectrum(features, data.y)
            return problem.weights(problem.descent(steps))

        rounds = 3 if steps <= 1000 else 1
        (ours, w), (peer, v) = race(
            closed, lambda steps=steps: stepped(features, data.y, steps), rounds=rounds
        )
        difference = float(np.linalg.norm(w - v) / np.linalg.norm(v))
        yield Row("25", f"width 100, {steps} steps", ours, "the steps themselves", peer, difference)
    (ours, _), (peer, _) = race(
        lambda: descent_map(RandomFeatures(), teacher, WIDTHS, STEPS, seeds=5),
        lambda: stepped(features, data.y, 100_000),
        rounds=1,
    )
    yield Row(
        "25", "map of 13 widths, 7 step counts, 5 seeds", ours, "one of its entries, 100 000 steps", peer
    )
