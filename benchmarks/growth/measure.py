"""One size in a process of its own: its seconds, and the most memory that it took."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: A size is left out where the last ones say that it would need more than this; this machine has 24 GiB.
MOST_SECONDS, MOST_BYTES = 30.0, 20 * 2**30
#: Memory below this is the interpreter's.
LEAST_BYTES = 16 * 2**20
#: Seconds below this are calls.
LEAST_SECONDS = 0.01


@dataclass(frozen=True)
class Growth:
    """A workload of one area.

    Args:
        area: the package.
        what: what is done.
        of: what the size counts.
        sizes: from small to large; the first one warms up as well.
        seconds, memory: powers of the size that are expected.
        prepare: makes the problem of a size; what it returns is timed.
    """

    area: str
    what: str
    of: str
    sizes: Sequence[int]
    seconds: float
    memory: float
    prepare: Callable[[int], Callable[[], object]]


@dataclass(frozen=True)
class Point:
    """What one size took; ``bytes`` is beyond what the process had before."""

    size: int
    seconds: float
    bytes: int


def measured_here(growth: Growth, size: int) -> Point:
    """Time a size in this process, after the smallest one, which compiles what is compiled."""
    growth.prepare(growth.sizes[0])()
    before = _memory("VmRSS")
    run = growth.prepare(size)
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return Point(size, seconds, max(_memory("VmHWM") - before, 0))


def _memory(name: str) -> int:
    """Bytes of this process, by Linux; ``getrusage`` would count what a parent had before this one began."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def curve(growth: Growth) -> list[Point]:
    """Every size that fits, each in a process of its own."""
    points: list[Point] = []
    for size in growth.sizes:
        if points and _too_large(points, size):
            break
        words = [sys.executable, "-m", "benchmarks.growth", "--one", growth.area, str(size)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 -- our own command
        if done.returncode:
            raise RuntimeError(f"{growth.area} at {size}: {done.stderr[-2000:]}")
        points.append(Point(**json.loads(done.stdout.splitlines()[-1])))
    return points


def _too_large(points: Sequence[Point], size: int) -> bool:
    """Whether the last step's powers, or one, say that a size does not fit."""
    last, before = points[-1], points[-2] if len(points) > 1 else None

    def ahead(now: float, then: float | None, least: float) -> float:
        """``now``, grown to the size; numbers below ``least`` say nothing of a power."""
        found = 1.0
        if before is not None and then is not None:
            step = np.log(last.size / before.size)
            found = max(float(np.log(max(now, least) / max(then, least)) / step), 1.0)
        return float(max(now, least) * (size / last.size) ** found)

    seconds = ahead(last.seconds, before and before.seconds, LEAST_SECONDS)
    return seconds > MOST_SECONDS or ahead(last.bytes, before and before.bytes, LEAST_BYTES) > MOST_BYTES


def power(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of the larger half of the sizes, three at least, in logarithms."""
    count = max(3, (len(sizes) + 1) // 2)
    slope: float = np.polyfit(np.log(sizes[-count:]), np.log(np.maximum(values[-count:], 1e-9)), 1)[0]
    return slope


def powers(points: Sequence[Point]) -> tuple[float, float]:
    """The powers of seconds and of bytes; NaN for bytes that are the interpreter's own."""
    sizes = [p.size for p in points]
    large = [p for p in points if p.bytes > LEAST_BYTES]
    in_bytes = power([p.size for p in large], [p.bytes for p in large]) if len(large) >= 3 else float("nan")
    return power(sizes, [p.seconds for p in points]), in_bytes
