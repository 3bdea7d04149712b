"""Who is late: patterns that a code tolerates, and times of workers to replay."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, check_vector, require, require_positive

Pattern = NDArray[np.bool_]


def is_bursty(pattern: ArrayLike, B: int, W: int, lam: int) -> bool:
    """Whether in any W rounds at most ``lam`` workers straggle, each within B consecutive rounds.

    Args:
        pattern: shape (rounds, workers), true where a worker straggles.

    >>> is_bursty([[1, 0], [1, 0], [0, 0]], B=2, W=3, lam=1)
    True
    """
    late = np.asarray(pattern, dtype=bool)
    for first in range(max(len(late) - W + 1, min(len(late), 1))):
        window = late[first : first + W]
        who = window.any(0)
        if who.sum() > lam:
            return False
        rounds = np.arange(len(window))[:, None]
        last = np.where(window, rounds, -1).max(0)
        begin = np.where(window, rounds, len(window)).min(0)
        if (last - begin + 1)[who].max(initial=0) > B:
            return False
    return True


def is_arbitrary(pattern: ArrayLike, N: int, W: int, lam: int) -> bool:
    """Whether in any W rounds at most ``lam`` workers straggle, each at most N times.

    >>> is_arbitrary([[1, 0], [0, 0], [1, 0]], N=2, W=3, lam=1)
    True
    """
    late = np.asarray(pattern, dtype=bool)
    for first in range(max(len(late) - W + 1, 1)):
        times = late[first : first + W].sum(0)
        if (times > 0).sum() > lam or times.max(initial=0) > N:
            return False
    return True


def bursty_pattern(rounds: int, workers: int, B: int, W: int, lam: int, seed: int = 0) -> Pattern:
    """A random pattern that is as bursty as (B, W, lam) allows, built round by round."""
    require(
        1 <= B <= W and 0 <= lam <= workers,
        "bursty_pattern needs 1 <= B <= W, 0 <= lam <= n",
        got=(B, W, lam),
    )
    random, late = generator(seed, 0x22), np.zeros((rounds, workers), dtype=bool)
    for r in range(rounds):
        for worker in random.permutation(workers):
            late[r, worker] = random.random() < 0.7
            if late[r, worker] and not is_bursty(late[max(r - W + 1, 0) : r + 1], B, W, lam):
                late[r, worker] = False
    return late


def gilbert_elliott(
    rounds: int, workers: int, enter: float = 0.02, leave: float = 0.4, seed: int = 0
) -> Pattern:
    """A two-state chain for each worker: it begins to straggle with chance ``enter``, recovers with ``leave``.

    The longer bursts are, the smaller is ``leave``; the share of stragglers is ``enter / (enter + leave)``.
    """
    require(0 < enter <= 1 and 0 < leave <= 1, "gilbert_elliott needs chances in (0, 1]", got=(enter, leave))
    random = generator(seed, 0x23)
    late = np.zeros((rounds, workers), dtype=bool)
    late[0] = random.random(workers) < enter / (enter + leave)
    for r in range(1, rounds):
        chance = random.random(workers)
        late[r] = np.where(late[r - 1], chance >= leave, chance < enter)
    return late


@dataclass(frozen=True, eq=False)
class DelayProfile:
    """Seconds that each worker took in each round while it did ``load`` of the data.

    Args:
        seconds: shape (rounds, workers), positive.
        load: share of all data that a worker went through: 1 / workers for uncoded rounds, the default.
        slope: seconds that going through all the data adds to a worker's round; with another load the times are
            ``seconds + slope (load' - load)``.

    Raises:
        InvalidProblem: seconds that are no matrix of positive numbers.
        NotFinite: NaN or infinity among them.
    """

    seconds: NDArray[np.float64]
    load: float | None = None
    slope: float = 0.0
    _order: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        seconds = as_real("profile", self.seconds)
        if seconds.ndim != 2 or 0 in seconds.shape:
            raise InvalidProblem(
                f"A profile has a row for each round and a column for each worker; got {seconds.shape}."
            )
        check_finite("profile", seconds)
        if not (seconds > 0).all():
            raise InvalidProblem(f"A profile holds seconds, all positive; the smallest is {seconds.min():g}.")
        require_positive(self, "slope", zero=True)
        object.__setattr__(self, "seconds", seconds)
        object.__setattr__(self, "_order", np.argsort(seconds, axis=1, kind="stable"))

    @property
    def workers(self) -> int:
        """Columns."""
        return self.seconds.shape[1]

    @property
    def recorded_load(self) -> float:
        """Share of the data that a worker went through: ``load``, or of uncoded rounds."""
        return 1.0 / self.workers if self.load is None else self.load

    @property
    def order(self) -> NDArray[np.int64]:
        """Workers of each round, fastest first; the same for every load."""
        return self._order

    def at(self, load: float) -> NDArray[np.float64]:
        """Seconds with another load, at least a thousandth of the recorded."""
        return np.maximum(self.seconds + self.slope * (load - self.recorded_load), 1e-3 * self.seconds)

    @classmethod
    def generated(
        cls,
        rounds: int,
        workers: int,
        *,
        slope: float = 16.0,
        base: float = 1.0,
        delay: float = 5.0,
        enter: float = 0.02,
        leave: float = 0.4,
        seed: int = 0,
    ) -> DelayProfile:
        """Gilbert-Elliott stragglers that take ``delay`` times the base, with 5 % of jitter, while uncoded.

        >>> DelayProfile.generated(10, 4).seconds.shape
        (10, 4)
        """
        late = gilbert_elliott(rounds, workers, enter, leave, seed)
        jitter = generator(seed, 0x24).lognormal(0.0, 0.05, late.shape)
        return cls(base * np.where(late, delay, 1.0) * jitter + slope / workers, slope=slope)


def fit_slope(loads: ArrayLike, seconds: ArrayLike) -> tuple[float, float]:
    """Seconds at no load, and seconds for all the data, by least squares of the times on the loads.

    Raises:
        InvalidProblem: other lengths, what holds no numbers, fewer than two different loads.
        NotFinite: NaN or infinity.

    >>> base, slope = fit_slope([0.1, 0.2, 0.4], [2.0, 3.0, 5.0])
    >>> round(base, 6), round(slope, 6)
    (1.0, 10.0)
    """
    at = as_real("loads", loads)
    took = check_vector("seconds", seconds, at.size)
    at = check_vector("loads", at, at.size)
    require(
        at.size > 1 and bool(np.ptp(at) > 0),
        "fit_slope needs two different loads",
        got=loads,
        error=InvalidProblem,
    )
    slope, base = np.polyfit(at, took, 1)
    return float(base), float(slope)
