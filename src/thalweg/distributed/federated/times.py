"""How long clients take: fixed or random times, or times that were recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, require, require_positive

Vector = NDArray[np.float64]
Kind = Literal["fixed", "gaussian", "exponential", "lognormal", "recorded"]


@dataclass(frozen=True, eq=False)
class ClientTimes:
    """Seconds that each client takes for a task, sending and receiving included.

    Args:
        means: shape (clients,), positive.
        kind: ``"fixed"``; ``"gaussian"`` (at least a tenth of the mean), ``"exponential"``, ``"lognormal"``; or
            ``"recorded"``, drawn from the rows of ``record``.
        spread: standard deviation over the mean, of gaussian and lognormal times.
        record: shape (tasks, clients), for recorded ones.

    >>> ClientTimes.heterogeneous(3, 0.5).means
    array([1.  , 0.75, 0.5 ])
    """

    means: Vector
    kind: Kind = "fixed"
    spread: float = 0.2
    record: Vector | None = None

    def __post_init__(self) -> None:
        means = as_real("times", self.means)
        if means.ndim != 1 or means.size == 0:
            raise InvalidProblem(f"Times are one mean for each client; got an array of shape {means.shape}.")
        _check_seconds("times", means)
        require(
            self.kind in ("fixed", "gaussian", "exponential", "lognormal", "recorded"),
            "ClientTimes.kind is fixed, gaussian, exponential, lognormal or recorded",
            got=self.kind,
        )
        require(
            (self.kind == "recorded") == (self.record is not None),
            "ClientTimes needs a record for kind='recorded', and for no other kind",
            got=self.kind,
        )
        require_positive(self, "spread", zero=True)
        object.__setattr__(self, "means", means)

    @property
    def clients(self) -> int:
        """How many."""
        return self.means.size

    @classmethod
    def heterogeneous(
        cls, clients: int, faster: float, kind: Kind = "fixed", spread: float = 0.2
    ) -> ClientTimes:
        """Means from 1 down to ``1 - faster``, evenly: the fastest client takes that share less than the slowest."""
        require(0 <= faster < 1, "heterogeneous needs 0 <= faster < 1", got=faster)
        return cls(np.linspace(1.0, 1.0 - faster, clients), kind, spread)

    @classmethod
    def recorded(cls, record: ArrayLike) -> ClientTimes:
        """Times seen, a row a task and a column a client; tasks draw from a client's column.

        Raises:
            InvalidProblem: no matrix, or times that are not positive; names the first.
            NotFinite: NaN or infinity among them.
        """
        seen = as_real("recorded times", record)
        if seen.ndim != 2 or 0 in seen.shape:
            raise InvalidProblem(
                f"Recorded times have a row for each task and a column for each client; got shape {seen.shape}."
            )
        _check_seconds("recorded times", seen)
        return cls(seen.mean(0), "recorded", record=seen)

    def draw(self, client: int, task: int, seed: int) -> float:
        """Seconds of a client's task; the same for the same seed."""
        mean = float(self.means[client])
        if self.kind == "fixed":
            return mean
        return float(self._random(mean, client, generator(seed, client, task, 0x16), 1)[0])

    def sample(self, client: int, count: int, seed: int = 0) -> Vector:
        """Many times of a client, to estimate what depends on their distribution."""
        if self.record is not None:
            return self.record[:, client]
        if self.kind == "fixed":
            return self.means[client : client + 1]
        return self._random(float(self.means[client]), client, generator(seed, client, 0x17), count)

    def _random(self, mean: float, client: int, random: np.random.Generator, count: int) -> Vector:
        if self.kind == "exponential":
            return np.asarray(mean * random.exponential(size=count))
        if self.kind == "gaussian":
            return np.maximum(mean * (1.0 + self.spread * random.standard_normal(count)), 0.1 * mean)
        if self.record is not None:
            return self.record[random.integers(len(self.record), size=count), client]
        sigma = np.sqrt(np.log1p(self.spread**2))  # lognormal
        return np.asarray(mean * np.exp(sigma * random.standard_normal(count) - 0.5 * sigma**2))


def _check_seconds(name: str, values: Vector) -> None:
    """Refuse what is no positive time, with the place of the first: its row, where there are any, and its client."""
    bad = np.argwhere(~((values > 0) & np.isfinite(values)))
    if not len(bad):
        return
    *row, client = (int(i) for i in bad[0])
    place = f"row {row[0]}, client {client}" if row else f"client {client}"
    value = float(values[tuple(bad[0])])
    error = InvalidProblem if np.isfinite(value) else NotFinite
    raise error(
        f"{name.capitalize()} are positive seconds; that of {place} (from 0) is {value:g}, the first of {len(bad)} "
        "that are not."
    )
