"""Functions on the unit cube to try optimizers on, to be minimised.

Domains and minima as in Surjanovic and Bingham, "Virtual library of simulation experiments".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Vector: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class TestFunction:
    """A function on the unit cube, and its least value.

    >>> round(BRANIN([0.5428, 0.1517]) - BRANIN.minimum, 4)
    0.0
    """

    __test__ = False  # pytest collects classes of this name

    name: str
    dimension: int
    function: Callable[[Vector], float]
    minimum: float

    def __call__(self, u: ArrayLike) -> float:
        return self.function(np.asarray(u, dtype=float))


def branin(u: Vector) -> float:
    """Three equal minima."""
    x, y = 15 * u[0] - 5, 15 * u[1]
    bowl = (y - 5.1 / (4 * math.pi**2) * x * x + 5 / math.pi * x - 6) ** 2
    return float(bowl + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10)


def biased_branin(u: Vector) -> float:
    """Branin of the first two coordinates at fidelity u[2], exact at one (Wu et al., 2019)."""
    x, y, s = 15 * u[0] - 5, 15 * u[1], u[2]
    bowl = (y - (5.1 / (4 * math.pi**2) - 0.1 * (1 - s)) * x * x + 5 / math.pi * x - 6) ** 2
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
    """Six local minima in six dimensions."""
    return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-(_A * (u - _P) ** 2).sum(1)))


def ackley(u: Vector) -> float:
    """A funnel covered with ripples."""
    x = 65.536 * u - 32.768
    waves = math.exp(np.cos(2 * math.pi * x).mean())
    return float(20 + math.e - 20 * math.exp(-0.2 * math.sqrt((x**2).mean())) - waves)


def levy(u: Vector) -> float:
    """A bowl with waves along every axis."""
    w = 1 + (20 * u - 10 - 1) / 4
    middle = ((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2)).sum()
    last = (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)
    return float(math.sin(math.pi * w[0]) ** 2 + middle + last)


def rosenbrock(u: Vector) -> float:
    """A long bent valley."""
    x = 15 * u - 5
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def camel(u: Vector) -> float:
    """Six local minima in two dimensions, two of them global."""
    x, y = 6 * u[0] - 3, 4 * u[1] - 2
    return float((4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + 4 * (y**2 - 1) * y**2)


_A3 = np.array([[3, 10, 30], [0.1, 10, 35], [3, 10, 30], [0.1, 10, 35]])
_P3 = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])


def hartmann3(u: Vector) -> float:
    """Four local minima in three dimensions."""
    return -float(np.array([1.0, 1.2, 3.0, 3.2]) @ np.exp(-(_A3 * (u - _P3) ** 2).sum(1)))


def michalewicz(u: Vector) -> float:
    """Steep ravines between plains."""
    x = math.pi * u
    return -float((np.sin(x) * np.sin(np.arange(1, len(x) + 1) * x**2 / math.pi) ** 20).sum())


def styblinski_tang(u: Vector) -> float:
    """Two minima along every axis, one of them lower."""
    x = 10 * u - 5
    return float((x**4 - 16 * x**2 + 5 * x).sum() / 2)


BRANIN = TestFunction("Branin", 2, branin, 0.39788735772973816)
HARTMANN6 = TestFunction("Hartmann-6", 6, hartmann6, -3.322368011415515)
ACKLEY6 = TestFunction("Ackley-6", 6, ackley, 0.0)
LEVY6 = TestFunction("Levy-6", 6, levy, 0.0)
ROSENBROCK4 = TestFunction("Rosenbrock-4", 4, rosenbrock, 0.0)
CAMEL = TestFunction("Six-hump camel", 2, camel, -1.0316284534898774)
HARTMANN3 = TestFunction("Hartmann-3", 3, hartmann3, -3.8627797873327696)
MICHALEWICZ5 = TestFunction("Michalewicz-5", 5, michalewicz, -4.687658179088)
STYBLINSKI_TANG6 = TestFunction("Styblinski-Tang-6", 6, styblinski_tang, -6 * 39.16616570377141)
