"""25: maps of double descent against the steps themselves; 32: slices and eigenvalues against their peers."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.landscape import double_descent, surfaces
from benchmarks.race import Row


def rows() -> Iterator[Row]:
    """Maps of double descent, then slices and curvature."""
    yield from double_descent.rows()
    yield from surfaces.rows()
