"""Learning rates, regularisation and bonus of each learner: those of the analysis, and those that work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from thalweg.core.validation import is_real, require

Which = Literal["practical", "theory"]


@dataclass(frozen=True)
class Constants:
    """What an episode is learned with.

    Args:
        eta: the learning rate, >= 0; zero learns nothing.
        gamma: added to each covariance, at least 1e-12: below, inverses are rounding.
        beta: of the bonus, >= 0; zero for none.

    >>> Constants(0.1, 0.01, 0.0)
    Constants(eta=0.1, gamma=0.01, beta=0.0)
    """

    eta: float
    gamma: float
    beta: float

    def __post_init__(self) -> None:
        for name, least in (("eta", 0.0), ("gamma", 1e-12), ("beta", 0.0)):
            value = getattr(self, name)
            fits = is_real(value) and least <= value < math.inf
            require(fits, f"Episodes need {name} >= {least:g}", got=value)


#: Constants from the number of episodes, actions, dimensions and layers.
Schedule = Callable[[int, int, int, int], Constants]


def log_barrier_schedule(which: Which) -> Schedule:
    """``eta = c sqrt(A ln K / (d H^p K))``: theory has c = 1 and p = 4, practice 15 and 2.

    Theory: ``gamma = 96 eta^2 H^4``, ``beta = 8 eta H^2``. Practice: ``gamma = 10/K``, ``beta = eta H^2 / 500``.
    """

    def made(episodes: int, actions: int, dimension: int, layers: int) -> Constants:
        size = actions * math.log(max(episodes, 2)) if actions > 1 else 0.0
        return _root(which, 15.0, size, episodes, dimension, layers)

    return made


def reduced_schedule(which: Which) -> Schedule:
    """As `log_barrier_schedule` with ln A in place of A ln K, and 16 in practice."""

    def made(episodes: int, actions: int, dimension: int, layers: int) -> Constants:
        return _root(which, 16.0, math.log(actions), episodes, dimension, layers)

    return made


def luo_schedule(which: Which, given: float | None = None) -> Schedule:
    """``eta = c (ln A / (d K))^(2/3)``, ``gamma = 2 eta H``.

    Theory: c = 1, ``beta = H sqrt(gamma)/2``. Practice: c = 3, the best of 1, 3, 6 and 10 on random linear MDPs, and
    ``beta = eta H^2 / 500``. The rate of ``K^(2/3)`` comes from gamma, which keeps ``eta Q >= -1/2``; it follows an eta
    that is ``given``, too.
    """

    def made(episodes: int, actions: int, dimension: int, layers: int) -> Constants:
        scale = 1.0 if which == "theory" else 3.0
        own = scale * (math.log(actions) / (dimension * episodes)) ** (2.0 / 3.0)
        eta = own if given is None else given
        gamma = max(2.0 * eta * layers, 1.0 / episodes)  # with one action eta is zero
        theory = layers * math.sqrt(gamma) / 2.0
        return Constants(eta, gamma, theory if which == "theory" else eta * layers**2 / 500.0)

    return made


def _root(which: Which, scale: float, size: float, episodes: int, dimension: int, layers: int) -> Constants:
    if which == "theory":
        eta = math.sqrt(size / (dimension * layers**4 * episodes))
        return Constants(eta, max(96.0 * eta**2 * layers**4, 1.0 / episodes), 8.0 * eta * layers**2)
    eta = scale * math.sqrt(size / (dimension * layers**2 * episodes))
    return Constants(eta, 10.0 / episodes, eta * layers**2 / 500.0)
