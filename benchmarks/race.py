"""Time contestants in turns, so that a busy moment of the machine hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of a benchmark; ``ratio`` is ours over the peer's, smaller is better.

    ``accuracy`` is what each reached (a residual, a difference to the exact result); None where there is none.
    """

    system: str
    workload: str
    ours_s: float
    peer: str
    peer_s: float
    accuracy_ours: float | None = None
    accuracy_peer: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The documented format of ``make bench JSON=...``."""
        fields = asdict(self)
        accuracies = {name: fields.pop(name) for name in ("accuracy_ours", "accuracy_peer")}
        return {**fields, "ratio": self.ours_s / self.peer_s, **accuracies}


def race(*contestants: Callable[[], Any], rounds: int = 5) -> list[tuple[float, Any]]:
    """Best time and last result of each contestant over ``rounds`` rounds, after one that warms up."""
    results = [contestant() for contestant in contestants]
    best = [float("inf")] * len(contestants)
    for _ in range(rounds):
        for i, contestant in enumerate(contestants):
            start = time.perf_counter()
            results[i] = contestant()
            best[i] = min(best[i], time.perf_counter() - start)
    return list(zip(best, results, strict=True))
