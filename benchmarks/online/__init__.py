"""24: rows a second of groupwise prediction, and weights of experts; 17: searches among actions; 09: episodes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.online import actions, groupwise, mdp
from benchmarks.race import Row


def rows() -> Iterator[Row]:
    """Groupwise prediction, then searches, then episodes."""
    yield from groupwise.rows()
    yield from actions.rows()
    yield from mdp.rows()
