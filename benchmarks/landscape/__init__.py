"""25: a map of errors by width and steps in closed form, against gradient descent run step by step."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.landscape import double_descent
from benchmarks.race import Row


def rows() -> Iterator[Row]:
    """Maps of double descent."""
    yield from double_descent.rows()
