"""28: bases of streams against scikit-learn's learners."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.matrix import dictionary
from benchmarks.race import Row


def rows() -> Iterator[Row]:
    """Learners of a stream."""
    yield from dictionary.rows()
