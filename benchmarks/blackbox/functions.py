"""Test functions on the unit cube, to be minimised; minima and domains as Surjanovic and Bingham list them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Vector = np.ndarray[Any, Any]


@dataclass(frozen=True)
class TestFunction:
    """A function on the unit cube, and its least value."""

    __test__ = False  # pytest: this is no test

    name: str
    dimension: int
    function: Callable[[Vector], float]
    minimum: float

    def __call__(self, u: Vector) -> float:
        return self.function(np.asarray(u, dtype=float))


def branin(u: Vector) -> float:
    x, y = 15 * u[0] - 5, 15 * u[1]
    bowl = (y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6) ** 2
    return float(bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann6(u: Vector) -> float:
    return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-(_A * (u - _P) ** 2).sum(1)))


def ackley(u: Vector) -> float:
    x = 65.536 * u - 32.768
    waves = math.exp(np.cos(2 * math.pi * x).mean())
    return float(20 + math.e - 20 * math.exp(-0.2 * math.sqrt((x**2).mean())) - waves)


def levy(u: Vector) -> float:
    w = 1 + (20 * u - 10 - 1) / 4
    middle = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)).sum()
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return float(math.sin(math.pi * w[0]) ** 2 + middle + last)


def rosenbrock(u: Vector) -> float:
    x = 15 * u - 5
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


BRANIN = TestFunction("Branin", 2, branin, 0.397887)
HARTMANN6 = TestFunction("Hartmann-6", 6, hartmann6, -3.32237)
ACKLEY6 = TestFunction("Ackley-6", 6, ackley, 0.0)
LEVY6 = TestFunction("Levy-6", 6, levy, 0.0)
