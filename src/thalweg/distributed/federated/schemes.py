"""When a server aggregates, whom it takes, and with which weight: FedAvg, FedFix, FedBuff and their kin as one family.

Fraboni, Vidal, Kameni and Lorenzi (2023), "A general theory for federated optimization with asynchronous and
heterogeneous clients updates", arXiv 2206.10189. Aggregation n moves the model by ``eta_g sum_i d_i(n) Delta_i``;
its clients' losses are minimised with weights ``q_i = E[d_i] / sum_j E[d_j]``, which have to be the importances p_i.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from thalweg.core.seeding import generator
from thalweg.core.validation import require, require_counts, require_positive
from thalweg.distributed.federated.times import ClientTimes

Vector = NDArray[np.float64]

#: Random times that expectations are taken over, for each client.
SAMPLES = 4000


@dataclass(frozen=True)
class Aggregation(ABC):
    """Base. A server asks for `weight` when it aggregates a client's update, and for `expected` beforehand.

    ``waits_longer`` and ``waits_less`` are words for what makes an aggregation take more, and fewer, updates.
    """

    waits_longer: ClassVar[str] = "more updates an aggregation"
    waits_less: ClassVar[str] = "waiting for fewer updates"

    @abstractmethod
    def weight(self, client: int, seconds: float, p: Vector, rates: Vector) -> float:
        """d_i of an update that took so many seconds; ``rates`` are `arrival_shares`."""

    @abstractmethod
    def expected(self, p: Vector, times: ClientTimes) -> Vector:
        """E[d_i], over aggregations, shape (clients,)."""

    @abstractmethod
    def participation(self, p: Vector, times: ClientTimes) -> Vector:
        """Updates of each client an aggregation takes, in expectation."""

    @abstractmethod
    def interval(self, p: Vector, times: ClientTimes) -> float:
        """Seconds between aggregations, in expectation."""

    def variance(self, p: Vector, times: ClientTimes) -> Vector:
        """Var[d_i]: by default of a client that takes part at most once, always with one weight."""
        return np.asarray(self.expected(p, times) ** 2 * (1.0 / self.participation(p, times) - 1.0))

    def covariance_bound(self, p: Vector, times: ClientTimes) -> Vector:
        """v, such that ``diag(v) - Cov[d]`` is positive semi-definite: by default of independent clients."""
        return self.variance(p, times)

    @property
    def arrivals(self) -> int | None:
        """Updates that an aggregation takes as they come; None where a time ends it, `due`."""
        return None

    def due(self, finishes: Vector, aggregation: int) -> float:
        """When an aggregation takes what has finished: by default when the last of those called has."""
        return float(finishes.max())

    def window(self, p: Vector, times: ClientTimes) -> int:
        """Aggregations within which every client takes part: for fixed times; for random ones, in expectation."""
        least = float(self.participation(p, times).min())
        return int(np.ceil(1.0 / max(least, 1e-12)))

    def delay(self, p: Vector, times: ClientTimes) -> int:
        """Aggregations an update is old at most: for fixed times; for random ones, in expectation."""
        return self.window(p, times) - 1

    def chosen(self, clients: int, p: Vector, aggregation: int, seed: int) -> NDArray[np.int64] | None:
        """Whom a server calls for this aggregation, with repeats; None where all work all the time."""
        return None


def arrival_shares(times: ClientTimes) -> Vector:
    """Shares of the clients among updates, where each begins anew as soon as it is done."""
    rates = 1.0 / times.means
    return np.asarray(rates / rates.sum())


def _drawn(scheme: Aggregation, p: Vector, times: ClientTimes, count: float = np.inf) -> Vector:
    """Var[d] where an aggregation draws its clients count times, with repeats; by default what bounds Cov[d].

    The covariance of draws is ``diag(E[d]^2 / participation) - E[d] E[d]' / count``.
    """
    return np.asarray(scheme.expected(p, times) ** 2 * (1.0 / scheme.participation(p, times) - 1.0 / count))


@dataclass(frozen=True)
class FedAvg(Aggregation):
    """All clients, waited for (McMahan and others, 2017): ``d_i = p_i``."""

    waits_less: ClassVar[str] = "FedFix, with an interval shorter than the slowest client's time,"

    def weight(self, client: int, seconds: float, p: Vector, rates: Vector) -> float:
        return float(p[client])

    def expected(self, p: Vector, times: ClientTimes) -> Vector:
        return p

    def participation(self, p: Vector, times: ClientTimes) -> Vector:
        return np.ones_like(p)

    def interval(self, p: Vector, times: ClientTimes) -> float:
        if times.kind == "fixed":
            return float(times.means.max())
        drawn = [times.sample(i, SAMPLES) for i in range(times.clients)]
        random = generator(0, 0x18)
        rows = [random.permutation(d) if len(d) == SAMPLES else random.choice(d, SAMPLES) for d in drawn]
        return float(np.max(rows, axis=0).mean())


@dataclass(frozen=True)
class Sampled(Aggregation):
    """``count`` clients are called and waited for: without replacement (uniform), or m draws by importance (MD).

    Args:
        count: m.
        how: ``"uniform"``, ``d_i = p_i M / m``; ``"md"``, ``d_i = draws / m``.
    """

    waits_longer: ClassVar[str] = "a larger count"
    waits_less: ClassVar[str] = "a smaller count"

    count: int = 10
    how: Literal["uniform", "md"] = "uniform"

    def __post_init__(self) -> None:
        require_counts(self, "count")
        require(self.how in ("uniform", "md"), "Sampled.how is uniform or md", got=self.how)

    def weight(self, client: int, seconds: float, p: Vector, rates: Vector) -> float:
        return float(p[client] * len(p) / self.count) if self.how == "uniform" else 1.0 / self.count

    def expected(self, p: Vector, times: ClientTimes) -> Vector:
        return p

    def participation(self, p: Vector, times: ClientTimes) -> Vector:
        return np.full_like(p, self.count / len(p)) if self.how == "uniform" else self.count * p

    def variance(self, p: Vector, times: ClientTimes) -> Vector:
        return super().variance(p, times) if self.how == "uniform" else _drawn(self, p, times, self.count)

    def covariance_bound(self, p: Vector, times: ClientTimes) -> Vector:
        if self.how == "md":
            return _drawn(self, p, times)
        return np.asarray(self.variance(p, times) * (len(p) / max(len(p) - 1, 1)))

    def interval(self, p: Vector, times: ClientTimes) -> float:
        random = generator(0, 0x19)
        most = [
            max(float(random.choice(times.sample(int(i), 200))) for i in self.chosen(times.clients, p, k, 1))
            for k in range(400)
        ]
        return float(np.mean(most))

    def delay(self, p: Vector, times: ClientTimes) -> int:
        return 0  # who is called is waited for

    def chosen(self, clients: int, p: Vector, aggregation: int, seed: int) -> NDArray[np.int64]:
        require(
            self.count <= clients,
            f"Sampled calls count clients an aggregation, and there are {clients}: take a count of at most that",
            got=self.count,
        )
        random = generator(seed, aggregation, 0x1A)
        if self.how == "md":
            return random.choice(clients, self.count, p=p)
        return np.sort(random.permutation(clients)[: self.count])


@dataclass(frozen=True)
class FedFix(Aggregation):
    """Aggregate at fixed times whoever has finished since: ``d_i = ceil(T_i / interval) p_i``.

    Args:
        seconds: the interval. With one that no client exceeds, this is `FedAvg`.
        corrected: False leaves the factor out, which favours fast clients.
    """

    waits_longer: ClassVar[str] = "a longer interval"
    waits_less: ClassVar[str] = "an interval shorter than the slowest client's time"

    seconds: float = 1.0
    corrected: bool = True

    def __post_init__(self) -> None:
        require_positive(self, "seconds")

    def weight(self, client: int, seconds: float, p: Vector, rates: Vector) -> float:
        return float(self._rounds(seconds) * p[client]) if self.corrected else float(p[client])

    def expected(self, p: Vector, times: ClientTimes) -> Vector:
        return p if self.corrected else p * self.participation(p, times)

    def participation(self, p: Vector, times: ClientTimes) -> Vector:
        return 1.0 / np.array([self._rounds(times.sample(i, SAMPLES)).mean() for i in range(times.clients)])

    def variance(self, p: Vector, times: ClientTimes) -> Vector:
        if not self.corrected:
            return super().variance(p, times)
        rounds = [self._rounds(times.sample(i, SAMPLES)) for i in range(times.clients)]
        return np.array([p[i] ** 2 * ((r**2).mean() / r.mean() - 1.0) for i, r in enumerate(rounds)])

    def interval(self, p: Vector, times: ClientTimes) -> float:
        return self.seconds

    def due(self, finishes: Vector, aggregation: int) -> float:
        return (aggregation + 1) * self.seconds

    def _rounds(self, seconds: float | Vector) -> Vector:
        """Aggregations that a task lasts; a task that ends with an interval, up to rounding, is in time."""
        return np.maximum(np.ceil(np.asarray(seconds) / self.seconds * (1.0 - 1e-12)), 1.0)


@dataclass(frozen=True)
class FedBuff(Aggregation):
    """Aggregate every ``count`` arrivals (Nguyen and others, 2022): ``d_i = p_i / (count share_i)``.

    Args:
        count: updates an aggregation takes; with 1 this is asynchronous FedAvg, `AsyncFedAvg`.
        corrected: False weighs an update by ``p_i M / count`` however often the client comes.
    """

    waits_longer: ClassVar[str] = "a larger count"
    waits_less: ClassVar[str] = "a smaller count"

    count: int = 10
    corrected: bool = True

    def __post_init__(self) -> None:
        require_counts(self, "count")

    @property
    def arrivals(self) -> int:
        return self.count

    def weight(self, client: int, seconds: float, p: Vector, rates: Vector) -> float:
        often = rates[client] if self.corrected else 1.0 / len(p)
        return float(p[client] / (self.count * often))

    def expected(self, p: Vector, times: ClientTimes) -> Vector:
        return p if self.corrected else p * len(p) * arrival_shares(times)

    def participation(self, p: Vector, times: ClientTimes) -> Vector:
        return self.count * arrival_shares(times)

    def variance(self, p: Vector, times: ClientTimes) -> Vector:
        return _drawn(self, p, times, self.count)

    def covariance_bound(self, p: Vector, times: ClientTimes) -> Vector:
        return _drawn(self, p, times)

    def interval(self, p: Vector, times: ClientTimes) -> float:
        return self.count / float((1.0 / times.means).sum())


@dataclass(frozen=True)
class AsyncFedAvg(FedBuff):
    """Aggregate at every arrival (Xie and others, 2019): ``d_i = p_i / share_i``, by which rare clients count more."""

    waits_longer: ClassVar[str] = "FedBuff, with a count above 1"

    count: int = 1
