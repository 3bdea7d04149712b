"""24: rows a second of groupwise prediction, against one river model a group; weights of ten thousand experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.race import Row, race
from thalweg.online import AdaNormalHedge, GroupwiseRegressor

#: Rounds a second that are asked for: 6 groups and d = 25, 13 groups and d = 100.
ROUNDS = 2000


def rows() -> Iterator[Row]:
    """All rows."""
    yield from predictions(6, 25)
    yield from predictions(13, 100)
    yield weights()


def table(groups: int, columns: int) -> tuple[Any, Any, Any]:
    """Features, labels, and groups of which each row is in half."""
    rng = np.random.default_rng(0)
    X, mask = rng.random((ROUNDS, columns)), rng.random((ROUNDS, groups)) < 0.5
    slopes = rng.random((groups, columns)) / columns
    return X, (X @ slopes.T * mask).sum(1) / np.maximum(mask.sum(1), 1), mask


def predictions(groups: int, columns: int) -> Iterator[Row]:
    """A pass over the rows; a linear model of river's a group, of the groups of each row, is the peer."""
    X, y, mask = table(groups, columns)
    ours = _ours(X, y, mask)
    peers: dict[str, Callable[[], float]] = {"the same in NumPy, row by row": _in_numpy(X, y, mask)}
    river = _in_river(X, y, mask)
    if river is not None:
        peers["river LinearRegression, one a group"] = river
    timed = race(ours, *peers.values(), rounds=3)
    (seconds, loss), *others = timed
    for name, (theirs, other) in zip(peers, others, strict=True):
        yield Row("24", f"{ROUNDS} rows, {groups} groups, d = {columns}", seconds, name, theirs, loss, other)


def _ours(X: Any, y: Any, mask: Any) -> Callable[[], float]:
    def run() -> float:
        model = GroupwiseRegressor(low=0.0, high=1.0, fit_intercept=False, everyone=False)
        return float(model.partial_fit(X, y, mask).losses_.mean())

    return run


def _in_numpy(X: Any, y: Any, mask: Any) -> Callable[[], float]:
    """Algorithm 1 as one writes it down: an inverse and a vector a group."""

    def run() -> float:
        groups, d = mask.shape[1], X.shape[1]
        inverse, theta = np.repeat(np.eye(d)[None], groups, 0), np.zeros((groups, d))
        hedge, total = AdaNormalHedge(groups), 0.0
        for x, label, active in zip(X, y, mask, strict=True):
            z = np.clip(theta @ x, 0.0, 1.0)
            loss = (hedge.weights(active) @ z - label) ** 2
            total += loss
            hedge.learn(np.where(active, loss - (z - label) ** 2, 0.0), active)
            for g in np.flatnonzero(active):
                Px = inverse[g] @ x
                k = Px / (1.0 + x @ Px)
                theta[g] += k * (label - theta[g] @ x)
                inverse[g] -= np.outer(k, Px)
        return total / len(X)

    return run


def _in_river(X: Any, y: Any, mask: Any) -> Callable[[], float] | None:
    try:
        from river import linear_model
    except ImportError:
        return None
    dictionaries = [dict(enumerate(x)) for x in X.tolist()]

    def run() -> float:
        models = [linear_model.LinearRegression() for _ in range(mask.shape[1])]
        total = 0.0
        for x, label, active in zip(dictionaries, y.tolist(), mask, strict=True):
            awake = np.flatnonzero(active)
            z = [min(max(models[g].predict_one(x), 0.0), 1.0) for g in awake] or [0.5]
            total += (sum(z) / len(z) - label) ** 2
            for g in awake:
                models[g].learn_one(x, label)
        return total / len(X)

    return run


def weights() -> Row:
    """A round of ten thousand experts, against a copy of their numbers."""
    rng = np.random.default_rng(0)
    hedge, regrets = AdaNormalHedge(10_000), rng.uniform(-0.1, 0.1, 10_000)
    hedge.regrets[:], hedge.magnitudes[:] = rng.normal(0, 10, 10_000), 100.0

    def ours() -> float:
        p = hedge.weights()
        hedge.learn(regrets)
        return float(p.sum())

    def plain() -> float:
        R, C = hedge.regrets, hedge.magnitudes + 1.0
        up, down = (np.exp(np.maximum(R + s, 0.0) ** 2 / (3 * C)) for s in (1.0, -1.0))
        w = (up - down) / 2
        return float((w / w.sum()).sum())

    (seconds, _), (theirs, _) = race(ours, plain, rounds=50)
    return Row(
        "24",
        "weights of 10 000 experts, and learning",
        seconds,
        "the formula in NumPy, which overflows",
        theirs,
    )
