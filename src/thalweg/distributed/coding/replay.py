"""How long a scheme would have taken on recorded times, and which scheme and parameters take least."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.figure import Figure, Series, Surface
from thalweg.core.validation import require
from thalweg.distributed.coding._replay_kernels import bursty_rounds, coded_rounds, repeated_rounds
from thalweg.distributed.coding.master import Master, waited
from thalweg.distributed.coding.schemes import (
    GradientCoding,
    IgnoreStragglers,
    Multiplexed,
    Scheme,
    SelectiveRepeat,
    Uncoded,
)
from thalweg.distributed.coding.stragglers import DelayProfile

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Replay:
    """A scheme on a profile.

    Args:
        scheme: what was replayed.
        seconds: length of each round, shape (rounds,).
        late: whom each round left out, shape (rounds, workers).
    """

    scheme: Scheme
    seconds: Vector
    late: NDArray[np.bool_]

    @property
    def total(self) -> float:
        """Seconds of all rounds."""
        return float(self.seconds.sum())


@dataclass(frozen=True)
class Plan:
    """Schemes by predicted time, the best setting of each kind first.

    Args:
        ranked: ``(scheme, seconds for the profile's rounds)``, best first, one for each kind.
        tried: settings replayed.
    """

    ranked: tuple[tuple[Scheme, float], ...]
    tried: int

    @property
    def best(self) -> Scheme:
        """The fastest."""
        return self.ranked[0][0]


def replay(profile: DelayProfile, scheme: Scheme, mu: float = 0.2) -> Replay:
    """Every round of a profile as the master would have lived it, with the scheme's load.

    A round ends ``1 + mu`` times after the fastest worker, or, where the scheme does not tolerate those who are missing
    then, as soon as it does.

    >>> profile = DelayProfile.generated(20, 8)
    >>> bool(replay(profile, GradientCoding(8, 2)).total > 0)
    True
    """
    _fits(profile, scheme.n, mu)
    if not isinstance(scheme, IgnoreStragglers | GradientCoding | SelectiveRepeat | Multiplexed):
        return rehearsed(profile, scheme, mu)
    lengths = _Space(profile, mu).lengths(scheme)
    return Replay(scheme, lengths, profile.at(scheme.load) > lengths[:, None] * (1.0 + 1e-12))


def rehearsed(profile: DelayProfile, scheme: Scheme, mu: float = 0.2) -> Replay:
    """The same for any scheme, by going through the master's protocol; slow for many workers."""
    _fits(profile, scheme.n, mu)
    master: Master[float] = Master(scheme)
    seconds = profile.at(scheme.load)
    lengths, late = np.empty(len(seconds)), np.ones(seconds.shape, dtype=bool)
    for r, row in enumerate(seconds):
        lengths[r], arrived = waited(row.tolist(), master, mu)
        work = master.assignments()
        master.close({w: [0.0] * len(work[w]) for w in arrived})
        late[r, arrived] = False
    return Replay(scheme, lengths, late)


def plan(
    profile: DelayProfile,
    mu: float = 0.2,
    *,
    most_B: int = 3,
    most_W: int = 7,
    tell: Callable[[float], None] = lambda share: None,
) -> Plan:
    """Replay every setting of GC, SR-SGC and M-SGC up to bursts of ``most_B`` in ``most_W`` rounds, and uncoded.

    The profile's first rounds serve to choose; choose again on the way, as conditions change.

    Cost: rounds times workers for each setting at most; 5000 settings of 300 rounds of 256 workers take seconds.

    >>> found = plan(DelayProfile.generated(40, 8, slope=16.0))
    >>> found.tried, len(found.ranked)
    (216, 4)
    """
    n = profile.workers
    _fits(profile, n, mu)
    require(1 <= most_B < most_W, "plan needs 1 <= most_B < most_W", got=(most_B, most_W))
    best: dict[type[Scheme], tuple[Scheme, float]] = {}
    schemes, space = list(settings(n, most_B, most_W)), _Space(profile, mu)
    for k, scheme in enumerate(schemes):
        total = float(space.lengths(scheme).sum())
        if type(scheme) not in best or total < best[type(scheme)][1]:
            best[type(scheme)] = (scheme, total)
        if k % 64 == 0:
            tell(k / len(schemes))
    return Plan(tuple(sorted(best.values(), key=lambda pair: pair[1])), len(schemes))


def settings(n: int, most_B: int, most_W: int) -> Iterator[Scheme]:
    """What `plan` tries: every s and lambda up to 512 workers; beyond, 512 of them, evenly on a logarithmic scale."""
    levels = np.unique(np.geomspace(1, n, 512).round().astype(int)).tolist() if n > 512 else range(1, n + 1)
    yield Uncoded(n)
    for s in levels:
        if s < n:
            yield GradientCoding(n, s)
    for B in range(1, most_B + 1):
        for W in range(B + 1, most_W + 1):
            for lam in levels:
                yield Multiplexed(n, B, W, lam)
                if (W - 1) % B == 0 and B * lam <= (n - 1) * (W - 1 + B):
                    yield SelectiveRepeat(n, B, W, lam)


class _Space:
    """Work space of the kernels for one profile."""

    def __init__(self, profile: DelayProfile, mu: float) -> None:
        self.profile, self.mu = profile, mu
        rounds, n = profile.seconds.shape
        self.late, self.here = np.empty((rounds, n), dtype=bool), np.empty((rounds, n), dtype=bool)
        self.recent, self.again = np.empty(n, dtype=np.int64), np.empty(n, dtype=bool)
        self.out = np.empty(rounds)

    def lengths(self, scheme: Scheme) -> Vector:
        """Seconds of each round, overwritten by the next call."""
        profile = self.profile
        added = profile.slope * (scheme.load - profile.recorded_load)
        given = (profile.order, profile.seconds, added, self.mu)
        window = (self.recent, self.late, self.again)
        if isinstance(scheme, Multiplexed):
            bursty_rounds(*given, scheme.B, scheme.W, scheme.lam, *window, self.out)
        elif isinstance(scheme, SelectiveRepeat):
            repeated_rounds(*given, scheme.B, scheme.W, scheme.lam, scheme.s, *window, self.here, self.out)
        elif isinstance(scheme, IgnoreStragglers | GradientCoding):
            coded_rounds(*given, scheme.s, self.out)
        else:
            raise InvalidParameter(f"No kernel replays a {type(scheme).__name__}. Use rehearsed().")
        return self.out


def _fits(profile: DelayProfile, n: int, mu: float) -> None:
    require(mu >= 0, "replay needs mu >= 0", got=mu)
    if profile.workers != n:
        raise InvalidProblem(f"The profile has {profile.workers} workers and the scheme {n}.")


def waterfall(result: Replay, profile: DelayProfile, title: str = "") -> list[Figure]:
    """Two figures: the length of each round with its slowest workers, and who was left out when."""
    seconds = profile.at(result.scheme.load)
    rounds = np.arange(len(seconds))
    lengths = Figure(
        title or f"{type(result.scheme).__name__}: rounds",
        f"{result.total:.4g} s in all; load {result.scheme.load:.4f}.",
        "round",
        "seconds",
        [
            Series.of("round ends", rounds, result.seconds),
            Series.of("slowest worker", rounds, seconds.max(1)),
            Series.of("fastest worker", rounds, seconds.min(1)),
        ],
    )
    who = Figure(
        "Who was left out",
        "One where a worker's result was not waited for.",
        "worker",
        "round",
        [],
        surface=Surface(
            np.arange(profile.workers, dtype=float).tolist(),
            rounds.astype(float).tolist(),
            result.late.astype(float).tolist(),
        ),
    )
    return [lengths, who]
