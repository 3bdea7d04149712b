"""01: weights from a Gram matrix against those of torchjd, where it is installed.

LibMTL, which has the same methods, needs a NumPy and a torch of long ago.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.race import Row, race
from thalweg.adaptation import MGDA, CAGrad, GradientCombiner, PCGrad, UPGrad

INSTANCES = 100
#: Frank-Wolfe steps of torchjd's MGDA: as many as it takes by itself. A hundred times as many bring the gap to 1e-4.
STEPS = 100


def instances(m: int) -> list[np.ndarray]:
    """Products of m gradients in twice as many dimensions, of sizes from 0.3 to 3."""
    rng = np.random.default_rng(0)
    G = rng.standard_normal((INSTANCES, m, 2 * m)) * 10.0 ** rng.uniform(-0.5, 0.5, (INSTANCES, m, 1))
    return list(G @ G.transpose(0, 2, 1))


def gap(products: list[np.ndarray], weights: list[np.ndarray]) -> float:
    """Largest ``a'Ca - min (Ca)_i`` over the mean square length: zero at the point of least norm and nowhere else."""
    gaps = [(a @ C @ a - (C @ a).min()) / C.trace() * len(C) for C, a in zip(products, weights, strict=True)]
    return float(max(gaps))


def apart(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Largest difference of weights, of the largest weight."""
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(one, other, strict=True))


def all_of(weigh: Callable[[Any], Any], products: list[Any]) -> Callable[[], list[np.ndarray]]:
    return lambda: [np.asarray(weigh(C)) for C in products]


def rows() -> Iterator[Row]:
    """Rows of 3 and 8 objectives for each combiner that both have."""
    try:
        theirs = importlib.import_module("torchjd.aggregation")
    except ImportError:
        print("torchjd is not installed: no rows against its weights.")
        return
    for m in (3, 8):
        products = instances(m)
        tensors = [torch.from_numpy(C) for C in products]
        exact = all_of(MGDA().weights, products)
        peer = all_of(theirs.MGDAWeighting(epsilon=1e-12, max_iters=STEPS), tensors)
        (a, x), (b, y) = race(exact, peer, rounds=2)
        what = f"torchjd, {STEPS} steps"
        yield Row("01", f"{INSTANCES} MGDA of {m}", a, what, b, gap(products, x), gap(products, y))
        pairs: list[tuple[GradientCombiner, str, Callable[[], Any]]] = [
            (PCGrad(), "torchjd, one order", theirs.PCGradWeighting),
            (UPGrad(), "torchjd", theirs.UPGradWeighting),
            (CAGrad(0.5), "torchjd", lambda: theirs.CAGradWeighting(c=0.5)),
        ]
        for combiner, what, make in pairs:
            name = type(combiner).__name__
            try:
                weigh = make()
            except ImportError as error:  # quadprog for UPGrad, CVXPY for CAGrad
                print(f"torchjd's {name}: {error}")
                continue
            (a, x), (b, y) = race(
                all_of(combiner.weights, products), all_of(weigh, tensors), rounds=1 if m == 8 else 2
            )
            differ = None if name == "PCGrad" else apart(x, y)
            yield Row("01", f"{INSTANCES} {name} of {m}", a, what, b, None, differ)
