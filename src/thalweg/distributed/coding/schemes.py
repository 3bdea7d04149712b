"""What every worker does in every round, and when a job's gradient can be decoded.

Krishnan, Ebrahimi and Khisti (2023), "Sequential gradient coding for straggler mitigation", arXiv 2211.13802. A
*job* is a gradient; job t starts in round t and is decodable by the end of round ``t + delay``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core.validation import require
from thalweg.distributed.coding.codes import GradientCode

Vector: TypeAlias = NDArray[np.float32] | NDArray[np.float64]


#: A gradient: a vector, a tensor, or containers of them, of one structure.
G = TypeVar("G")
#: What a result is called within its job: the worker, or the kind of item, the worker, and its chunk or group.
Label: TypeAlias = tuple[int | str, ...]


class WorkItem(NamedTuple):
    """One result for a job: the sum of ``coefficients`` times the partial gradients of ``parts``."""

    job: int
    label: Label
    parts: tuple[int, ...]
    coefficients: tuple[float, ...]


class Ledger(Generic[G]):
    """What has arrived for each job: ``{label: result}``, and who was late when."""

    def __init__(self) -> None:
        self.results: dict[int, dict[Label, G]] = {}
        self.late: list[frozenset[int]] = []
        #: Jobs 0 to done - 1 are decoded, and their results dropped.
        self.done = 0

    def has(self, job: int, label: Label) -> bool:
        """Whether that result is here."""
        return label in self.results.get(job, {})


@dataclass(frozen=True)
class Scheme(ABC):
    """Base: n workers, rounds from 0; jobs below 0 do not exist."""

    n: int

    @property
    @abstractmethod
    def load(self) -> float:
        """Share of the data that a worker goes through in a round."""

    @property
    def delay(self) -> int:
        """T: a job is done by the end of the T-th round after its own."""
        return 0

    @property
    def shares(self) -> NDArray[np.float64]:
        """Sizes of the parts that the data is cut into, summing to one."""
        return np.full(self.n, 1.0 / self.n)

    @abstractmethod
    def tasks(self, round: int, ledger: Ledger[G]) -> dict[int, list[WorkItem]]:
        """What each worker does in a round."""

    @abstractmethod
    def tolerates(self, late: frozenset[int], round: int, ledger: Ledger[G]) -> bool:
        """Whether the round may end without these workers, given who was late before."""

    @abstractmethod
    def decode(self, job: int, results: Mapping[Label, G]) -> G | None:
        """The job's gradient from its results, or None where they do not determine it."""


@dataclass(frozen=True)
class IgnoreStragglers(Scheme):
    """Uncoded, and the ``s`` slowest are left out: the gradient of the others, scaled up, which is biased.

    Args:
        s: stragglers left out at most.
    """

    s: int = 1

    @property
    def load(self) -> float:
        return 1.0 / self.n

    def tasks(self, round: int, ledger: Ledger[G]) -> dict[int, list[WorkItem]]:
        return {w: [WorkItem(round, (w,), (w,), (1.0,))] for w in range(self.n)}

    def tolerates(self, late: frozenset[int], round: int, ledger: Ledger[G]) -> bool:
        return len(late) <= self.s

    def decode(self, job: int, results: Mapping[Label, G]) -> G | None:
        if len(results) < self.n - self.s:
            return None
        return weighted_sum([(self.n / len(results), v) for v in results.values()])


@dataclass(frozen=True)
class Uncoded(IgnoreStragglers):
    """Every worker does its own part, and all are waited for."""

    s: int = field(default=0, init=False)


@dataclass(frozen=True)
class GradientCoding(Scheme):
    """GC: every round coded on its own with an (n, s) code.

    Args:
        s: stragglers tolerated a round.

    >>> GradientCoding(256, 15).load
    0.0625
    """

    s: int = 1

    def __post_init__(self) -> None:
        require(0 <= self.s < self.n, "GradientCoding needs 0 <= s < n", got=(self.n, self.s))

    @cached_property
    def code(self) -> GradientCode:
        """Made when it is first needed: replays do without."""
        return GradientCode(self.n, self.s)

    @property
    def load(self) -> float:
        return (self.s + 1) / self.n

    def tasks(self, round: int, ledger: Ledger[G]) -> dict[int, list[WorkItem]]:
        return {w: [_coded(self.code, w, round, (w,))] for w in range(self.n)}

    def tolerates(self, late: frozenset[int], round: int, ledger: Ledger[G]) -> bool:
        return len(late) <= self.s

    def decode(self, job: int, results: Mapping[Label, G]) -> G | None:
        return _decoded(self.code, {label[0]: v for label, v in results.items()})


@dataclass(frozen=True)
class SelectiveRepeat(Scheme):
    """SR-SGC: a smaller code, and what a burst has left out is done again B rounds later.

    Where v > s workers were late in round t, v - s of them do task t in round t + B in place of their own.

    Args:
        B, W, lam: bursts of at most B rounds and ``lam`` workers in any W rounds; B divides W - 1.

    >>> scheme = SelectiveRepeat(4, B=1, W=2, lam=2)
    >>> scheme.s, scheme.delay
    (1, 1)
    """

    B: int = 1
    W: int = 2
    lam: int = 1

    def __post_init__(self) -> None:
        n, B, W, lam = self.n, self.B, self.W, self.lam
        require(B >= 1 and W > B, "SelectiveRepeat needs W > B >= 1", got=(B, W))
        require((W - 1) % B == 0, "SelectiveRepeat needs B to divide W - 1", got=(B, W))
        require(0 <= lam <= n, "SelectiveRepeat needs 0 <= lam <= n", got=lam)
        require(self.s < n, "SelectiveRepeat needs s = ceil(B lam / (W - 1 + B)) < n", got=self.s)

    @cached_property
    def code(self) -> GradientCode:
        """Made when it is first needed."""
        return GradientCode(self.n, self.s)

    @property
    def s(self) -> int:
        """Stragglers that a round tolerates without repeats."""
        return math.ceil(self.B * self.lam / (self.W - 1 + self.B))

    @property
    def load(self) -> float:
        return (self.s + 1) / self.n

    @property
    def delay(self) -> int:
        return self.B

    def repeats(self, round: int, ledger: Ledger[G]) -> list[int]:
        """The workers that do task ``round - B`` again."""
        job = round - self.B
        if job < ledger.done:
            return []
        here = {label[0] for label in ledger.results.get(job, {})}
        missing = max(self.n - self.s - len(here), 0)
        late = ledger.late[job]  # a burst that began then is over; others may be late again
        return sorted((w for w in range(self.n) if w not in here), key=lambda w: (w not in late, w))[:missing]

    def tasks(self, round: int, ledger: Ledger[G]) -> dict[int, list[WorkItem]]:
        again = set(self.repeats(round, ledger))
        jobs = {w: round - self.B if w in again else round for w in range(self.n)}
        return {w: [_coded(self.code, w, job, (w,))] for w, job in jobs.items()}

    def tolerates(self, late: frozenset[int], round: int, ledger: Ledger[G]) -> bool:
        repeats = set(self.repeats(round, ledger))
        if not late:
            return True
        if late & repeats:
            return False
        if len(late | repeats) <= self.s:
            return True
        return _bursty_with(late, ledger, self.B, self.W, self.lam)

    def decode(self, job: int, results: Mapping[Label, G]) -> G | None:
        return _decoded(self.code, {label[0]: v for label, v in results.items()})


@dataclass(frozen=True)
class Multiplexed(Scheme):
    """M-SGC: most of the data uncoded and repeated on failure, the rest coded, on the diagonals of W - 1 + B rounds.

    A job's data is D1, W - 1 chunks for each worker, and D2, B groups that are each coded with an (n, lam) code. In
    a round a worker does one small task for each of W - 1 + B jobs: its D1 chunk in a job's first W - 1 rounds; in
    the last B rounds a chunk that has failed, or else the coded task of one group.

    Args:
        B, W, lam: bursts of at most B rounds and ``lam`` workers in any W rounds.

    >>> round(Multiplexed(256, B=1, W=2, lam=27).load, 4)
    0.0075
    """

    B: int = 1
    W: int = 2
    lam: int = 1

    def __post_init__(self) -> None:
        require(self.B >= 1 and self.W > self.B, "Multiplexed needs W > B >= 1", got=(self.B, self.W))
        require(0 <= self.lam <= self.n, "Multiplexed needs 0 <= lam <= n", got=self.lam)

    @cached_property
    def code(self) -> GradientCode | None:
        """Made when it is first needed; none where lam is n, and all the data are D1."""
        return GradientCode(self.n, self.lam) if self.lam < self.n else None

    @property
    def load(self) -> float:
        slots, uncoded = self.W - 1 + self.B, self.W - 1
        if self.lam == self.n:
            return slots / (self.n * uncoded)
        return (self.lam + 1) * slots / (self.n * (self.B + uncoded * (self.lam + 1)))

    @property
    def delay(self) -> int:
        return self.W - 2 + self.B

    @property
    def shares(self) -> NDArray[np.float64]:
        chunk = self.load / (self.W - 1 + self.B)
        first = np.full(self.n * (self.W - 1), chunk)
        return first if self.lam == self.n else np.r_[first, np.full(self.n * self.B, chunk / (self.lam + 1))]

    def tasks(self, round: int, ledger: Ledger[G]) -> dict[int, list[WorkItem]]:
        slots = [m for m in range(self.W - 1 + self.B) if round - m >= ledger.done]
        found = {w: [self._task(w, round - m, m, ledger) for m in slots] for w in range(self.n)}
        return {w: [task for task in some if task is not None] for w, some in found.items()}

    def _task(self, worker: int, job: int, slot: int, ledger: Ledger[G]) -> WorkItem | None:
        uncoded = self.W - 1
        if slot >= uncoded:
            failed = [k for k in range(uncoded) if not ledger.has(job, ("chunk", worker, k))]
            if not failed:
                return self._group(worker, job, slot - uncoded)
            slot = failed[0]
        return WorkItem(job, ("chunk", worker, slot), (worker * uncoded + slot,), (1.0,))

    def _group(self, worker: int, job: int, group: int) -> WorkItem | None:
        if self.code is None:
            return None
        task = _coded(self.code, worker, job, ("group", worker, group))
        first = self.n * (self.W - 1) + self.n * group
        return task._replace(parts=tuple(first + p for p in task.parts))

    def tolerates(self, late: frozenset[int], round: int, ledger: Ledger[G]) -> bool:
        return _bursty_with(late, ledger, self.B, self.W, self.lam)

    def decode(self, job: int, results: Mapping[Label, G]) -> G | None:
        chunks = [v for label, v in results.items() if label[0] == "chunk"]
        if len(chunks) < self.n * (self.W - 1):
            return None
        terms = [(1.0, v) for v in chunks]
        code = self.code
        if code is None:
            return weighted_sum(terms)
        for group in range(self.B):
            arrived = {x[1]: v for x, v in results.items() if x[0] == "group" and x[2] == group}
            part = _decoded(code, arrived)
            if part is None:
                return None
            terms.append((1.0, part))
        return weighted_sum(terms)


def _bursty_with(late: frozenset[int], ledger: Ledger[G], B: int, W: int, lam: int) -> bool:
    """Whether the last W rounds, this one among them, stay bursty with these stragglers."""
    before: Sequence[frozenset[int]] = ledger.late[-(W - 1) :] if W > 1 else []
    if len(late.union(*before)) > lam:
        return False
    early = before[: max(len(before) - (B - 1), 0)]  # B rounds ago or more
    return not any(late & rounds for rounds in early)


def _coded(code: GradientCode, worker: int, job: int, label: Label) -> WorkItem:
    parts = code.parts(worker)
    return WorkItem(job, label, tuple(parts), tuple(code.encoding[worker, parts].tolist()))


def _decoded(code: GradientCode, arrived: Mapping[int | str, G]) -> G | None:
    if len(arrived) < code.n - code.s:
        return None
    workers = list(arrived)
    weights = code.decoding(workers)
    return weighted_sum([(float(w), arrived[i]) for w, i in zip(weights, workers, strict=True) if w != 0.0])


def weighted_sum(terms: Sequence[tuple[float, G]]) -> G:
    """The weighted sum of gradients: arrays or tensors, or containers of them, of one structure."""
    weights, values = [w for w, _ in terms], [v for _, v in terms]
    return cast(G, _sum(weights, values))


def _sum(weights: Sequence[float], values: Sequence[object]) -> object:
    first = values[0]
    if isinstance(first, Mapping):
        maps = cast(Sequence[Mapping[str, object]], values)
        return {name: _sum(weights, [v[name] for v in maps]) for name in first}
    if isinstance(first, list | tuple):
        rows = cast(Sequence[Sequence[object]], values)
        return type(first)(_sum(weights, list(column)) for column in zip(*rows, strict=True))
    if isinstance(first, np.ndarray) and first.ndim == 1:
        return _sum_of_vectors(weights, cast(Sequence[Vector], values))
    numbers = cast(Sequence[Tensor], values)  # or anything else that is multiplied and added
    total = numbers[0] * weights[0]
    for weight, value in zip(weights[1:], numbers[1:], strict=True):
        total += weight * value
    return total


def _sum_of_vectors(weights: Sequence[float], values: Sequence[Vector], piece: int = 16_384) -> Vector:
    """Piece by piece, so that the sum stays in the cache and every vector is read once."""
    first = values[0]
    total, scratch = np.empty_like(first), np.empty(piece, dtype=first.dtype)
    for begin in range(0, len(first), piece):
        some = total[begin : begin + piece]
        product = scratch[: len(some)]
        np.multiply(first[begin : begin + piece], weights[0], out=some)
        for weight, value in zip(weights[1:], values[1:], strict=True):
            np.multiply(value[begin : begin + piece], weight, out=product)
            some += product
    return total
