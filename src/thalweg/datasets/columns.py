"""The columns of a table as they are: numbers, or words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.core import NotFinite, UnknownName
from thalweg.datasets import _cells
from thalweg.datasets._arrays import refuse_nan
from thalweg.datasets._text import reading, title
from thalweg.datasets.tables import Table, read_table

Column = NDArray[np.float64] | list[str]


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns by name, each float64 of shape (rows,) or a list of words; none of their cells is missing."""

    name: str
    rows: int
    values: dict[str, Column]

    def __getitem__(self, column: str) -> Column:
        if column not in self.values:
            raise UnknownName("column", column, self.values, see=f"In {self.name}.")
        return self.values[column]


def load_columns(path: str | Path, *, header: bool | None = None, wanted: str | None = None) -> Columns:
    """Load a table of numbers and words: ``.csv``, ``.tsv`` or ``.txt`` in any dialect, also compressed.

    Args:
        path: the file.
        header: whether the first line holds names. Default: decided from that line.
        wanted: a column that there must be; it helps to know a header.

    Raises:
        UnreadableFile: absent, damaged, or no table.
        InvalidProblem: two columns of one name, whole numbers beyond float64, a column that numbers the rows.
        NotFinite: a cell without a value; says the line.
        UnknownName: no column is called ``wanted``.
    """
    path = Path(path)
    with reading(path, "a table in .csv, .tsv or .txt"):
        table = read_table(path, header=header, wanted=wanted)
    table.refuse_numbering()
    table.refuse_doubt()
    if wanted is not None:
        table.column(wanted)
    values: dict[str, Column] = {name: _column(table, table.column(name)) for name in table.names}
    return Columns(title(path), len(table.numbers), values)


def _column(table: Table, at: int) -> Column:
    if at not in table.words:
        found = table.values([at])[:, 0]
        refuse_nan(table.path, table.names[at], found, table.line)
        return found
    texts = table.texts(at)
    for row, cell in enumerate(texts):
        if cell in _cells.MISSING:
            raise NotFinite(
                f"{table.path}: column {table.names[at]!r} has no value in line {table.line(row)}. Fill or drop such "
                "rows first."
            )
    return texts
