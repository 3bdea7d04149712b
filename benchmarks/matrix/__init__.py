"""15: matrix completion against exact steps and its peers; 28: bases of streams against scikit-learn's learners."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.matrix import completion, dictionary
from benchmarks.race import Row


def rows() -> Iterator[Row]:
    """Completion, then learners of a stream."""
    yield from completion.rows()
    yield from dictionary.rows()
