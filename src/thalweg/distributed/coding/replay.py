"""How long a scheme would have taken on recorded times, and which scheme and parameters take least."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem
from thalweg.core.figure import Figure, Series, Surface
from thalweg.core.validation import require
from thalweg.distributed.coding._replay_kernels import bursty_rounds, coded_rounds, repeated_rounds
from thalweg.distributed.coding.master import Master, waited
from thalweg.distributed.coding.schemes import (
    GradientCoding,
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
    space = _Space(profile, mu)
    if isinstance(scheme, Uncoded):
        space.total("uncoded", scheme.load, (0,))
    elif isinstance(scheme, GradientCoding):
        space.total("GC", scheme.load, (scheme.s,))
    elif isinstance(scheme, SelectiveRepeat):
        space.total("SR-SGC", scheme.load, (scheme.B, scheme.W, scheme.lam, scheme.s))
    elif isinstance(scheme, Multiplexed):
        space.total("M-SGC", scheme.load, (scheme.B, scheme.W, scheme.lam))
    else:
        return rehearsed(profile, scheme, mu)
    return Replay(scheme, space.out, profile.at(scheme.load) > space.out[:, None] * (1.0 + 1e-12))


def rehearsed(profile: DelayProfile, scheme: Scheme, mu: float = 0.2) -> Replay:
    """The same for any scheme, by going through the master's protocol; slow for many workers."""
    _fits(profile, scheme.n, mu)
    master, seconds = Master(scheme), profile.at(scheme.load)
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
    best: dict[str, tuple[Callable[[], Scheme], float]] = {}
    settings = list(_settings(n, most_B, most_W))
    space = _Space(profile, mu)
    for k, (kind, load, parameters, make) in enumerate(settings):
        total = space.total(kind, load, parameters)
        if kind not in best or total < best[kind][1]:
            best[kind] = (make, total)
        if k % 64 == 0:
            tell(k / len(settings))
    ranked = sorted(((make(), total) for make, total in best.values()), key=lambda pair: pair[1])
    return Plan(tuple(ranked), len(settings))


class _Space:
    """Work space of the kernels for one profile."""

    def __init__(self, profile: DelayProfile, mu: float) -> None:
        self.profile, self.mu = profile, mu
        shape = profile.seconds.shape
        self.late, self.here = np.empty(shape, dtype=bool), np.empty(shape, dtype=bool)
        self.recent = np.empty(shape[1], dtype=np.int64)
        self.again, self.out = np.empty(shape[1], dtype=bool), np.empty(shape[0])

    def total(self, kind: str, load: float, parameters: tuple[int, ...]) -> float:
        """Seconds of all rounds."""
        profile, mu = self.profile, self.mu
        assert profile.load is not None
        given = (profile.order, profile.seconds, profile.slope * (load - profile.load), mu)
        if kind == "M-SGC":
            bursty_rounds(*given, *parameters, self.recent, self.late, self.out)
        elif kind == "SR-SGC":
            repeated_rounds(*given, *parameters, self.recent, self.late, self.here, self.again, self.out)
        else:
            coded_rounds(*given, *parameters, self.out)
        return float(self.out.sum())


def _settings(
    n: int, most_B: int, most_W: int
) -> Iterator[tuple[str, float, tuple[int, ...], Callable[[], Scheme]]]:
    """Kind, load, the kernel's parameters, and what makes the scheme (which is slow for large codes)."""
    yield "uncoded", 1.0 / n, (0,), functools.partial(Uncoded, n)
    for s in range(1, n):
        yield "GC", (s + 1) / n, (s,), functools.partial(GradientCoding, n, s)
    for B in range(1, most_B + 1):
        for W in range(B + 1, most_W + 1):
            slots, uncoded = W - 1 + B, W - 1
            for lam in range(1, n + 1):
                load = (
                    (lam + 1) * slots / (n * (B + uncoded * (lam + 1))) if lam < n else slots / (n * uncoded)
                )
                yield "M-SGC", load, (B, W, lam), functools.partial(Multiplexed, n, B, W, lam)
                s = -(-B * lam // slots)
                if uncoded % B == 0 and s < n:
                    yield (
                        "SR-SGC",
                        (s + 1) / n,
                        (B, W, lam, s),
                        functools.partial(SelectiveRepeat, n, B, W, lam),
                    )


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
        "Who was left out", "One where a worker's result was not waited for.", "worker", "round", [],
        surface=Surface(
            np.arange(profile.workers, dtype=float).tolist(), rounds.astype(float).tolist(),
            result.late.astype(float).tolist(),
        ),
    )  # fmt: skip
    return [lengths, who]
