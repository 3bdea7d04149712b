"""A table of numbers and words, as pandas has it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, NotFinite
from thalweg.datasets import _cells
from thalweg.datasets._arrays import refuse_nan
from thalweg.datasets._text import reading
from thalweg.datasets.tables import Table, read_table

if TYPE_CHECKING:
    import pandas as pd


def load_frame(path: str | Path, *, header: bool | None = None, wanted: str | None = None) -> pd.DataFrame:
    """Load a table of numbers and words: ``.csv``, ``.tsv`` or ``.txt`` in any dialect, also compressed.

    Columns are float64, or words. None of their cells is missing. A few words among numbers are no categories, but
    faults, and refused: words must be at least half of the cells.

    Args:
        path: the file.
        header: whether the first line holds names. Default: decided from that line.
        wanted: a column that there must be; it helps to know a header.

    Raises:
        UnreadableFile: absent, damaged, or no table.
        InvalidProblem: two columns of one name, whole numbers beyond float64, a column that numbers the rows, one of
            numbers with a few words; says the line.
        NotFinite: a cell without a value; says the line.
        UnknownName: no column is called ``wanted``.
    """
    import pandas as pd

    path = Path(path)
    with reading(path, "a table in .csv, .tsv or .txt"):
        table = read_table(path, header=header, wanted=wanted)
    table.refuse_numbering()
    table.refuse_doubt()
    if wanted is not None:
        table.column(wanted)
    return pd.DataFrame({name: _column(table, table.column(name)) for name in table.names})


def _column(table: Table, at: int) -> NDArray[np.float64] | list[str]:
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
    _refuse_strays(table, at, texts)
    return texts


def _refuse_strays(table: Table, at: int, texts: list[str]) -> None:
    """Refuse a column of numbers in which a few cells are words, or numbers in another spelling."""
    words = np.flatnonzero(np.isnan(table.numbers[:, at]))
    if 2 * sum(not _cells.is_misspelt(texts[row]) for row in words) >= len(texts):
        return
    row, found = table.words[at], len(texts) - len(words)
    raise InvalidProblem(
        f"{table.path}: column {table.names[at]!r} holds {found} number{'s' * (found != 1)} and {len(words)} "
        f"word{'s' * (len(words) != 1)} (line {table.line(row)}: {_cells.fault(texts[row])}). Mend or drop such rows; "
        "if the column holds categories, write a letter before each."
    )
