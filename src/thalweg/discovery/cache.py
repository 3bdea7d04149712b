"""Losses of programs in a file of SQLite, shared by searches and processes."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from thalweg.core import UnreadableFile


@dataclass(frozen=True)
class LossCache:
    """Losses by problem and by a name of the program: its structural hash, or its behaviour.

    Several processes may read and write one file at once. A name that is there stays: the first to write it is right.

    Args:
        path: of the file; made where there is none.

    Raises:
        UnreadableFile: the file is no SQLite database, or cannot be written.

    >>> import tempfile
    >>> cache = LossCache(Path(tempfile.mkdtemp()) / "losses.sqlite")
    >>> cache.put("digits", {"a": [2.0, 1.0]})
    >>> cache.get("digits", "a"), cache.get("digits", "b")
    ([2.0, 1.0], None)
    """

    path: Path

    def get(self, problem: str, name: str) -> list[float] | None:
        """The losses under a name, None where there are none."""
        with self._open() as database:
            row = database.execute(
                "SELECT losses FROM runs WHERE problem = ? AND name = ?", (problem, name)
            ).fetchone()
        return None if row is None else [math.inf if x is None else float(x) for x in json.loads(row[0])]

    def put(self, problem: str, losses: dict[str, list[float]]) -> None:
        """Keep losses by name; longer ones take the place of those that were stopped early."""
        rows = [
            (problem, name, json.dumps([None if x == math.inf else x for x in values]), len(values))
            for name, values in losses.items()
        ]
        with self._open() as database:
            database.executemany(
                "INSERT INTO runs VALUES (?, ?, ?, ?) ON CONFLICT (problem, name) DO UPDATE SET "
                "losses = excluded.losses, length = excluded.length WHERE excluded.length > runs.length",
                rows,
            )

    def __len__(self) -> int:
        with self._open() as database:
            return int(database.execute("SELECT COUNT(*) FROM runs").fetchone()[0])

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=30.0)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS runs (problem TEXT, name TEXT, losses TEXT, length INTEGER, "
                    "PRIMARY KEY (problem, name)) WITHOUT ROWID"
                )
                yield database
        except sqlite3.Error as error:
            raise UnreadableFile(f"{self.path} cannot be used as a cache of losses: {error}.") from error
