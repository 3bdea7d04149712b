"""Ratings: who gave what how much, in the tables of MovieLens and their like."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, NotFinite, UnreadableFile
from thalweg.datasets import _cells, _dialect
from thalweg.datasets._arrays import refuse_nan
from thalweg.datasets._text import ending, read_text, reading
from thalweg.datasets.tables import TABLES, Table, read_table

Labels = NDArray[np.int64] | NDArray[np.str_]

#: What MovieLens calls its files, beside the tables that are read anyway.
ENDINGS = (*TABLES, ".data", ".dat")
_KINDS = f"ratings in {', '.join(ENDINGS)}"
#: What stands between the cells of MovieLens' ``ratings.dat``.
DOUBLE_COLON = "::"
#: Names by which columns are known, in small letters and without ``_`` and spaces.
_KNOWN = {
    "user": ("user", "userid", "users", "uid", "customer", "customerid", "row", "rowid"),
    "item": (
        "item",
        "itemid",
        "items",
        "iid",
        "movie",
        "movieid",
        "product",
        "productid",
        "column",
        "columnid",
    ),
    "rating": ("rating", "ratings", "score", "stars", "value", "count", "plays"),
    "time": ("timestamp", "time", "date"),
}


@dataclass(frozen=True, eq=False)
class Ratings:
    """Entries of a matrix whose rows are users and whose columns are items, or whatever the labels say.

    Args:
        rows, columns: places from 0, shape (ratings,).
        values: likewise; 1 where the file has no ratings.
        row_ids, column_ids: what the file calls each row and column, sorted: whole numbers, or words.
        times: shape (ratings,), or None.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[np.float64]
    row_ids: Labels
    column_ids: Labels
    times: NDArray[np.float64] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(users, items)."""
        return len(self.row_ids), len(self.column_ids)

    @property
    def entries(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """As `thalweg.matrix.Completion` takes them."""
        return self.rows, self.columns, self.values


def load_ratings(
    path: str | Path,
    *,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    time: str | None = None,
    header: bool | None = None,
) -> Ratings:
    """Read ratings: a line each, with user, item, rating and perhaps a time.

    MovieLens' ``u.data`` (tabs), ``ratings.dat`` (``::``) and ``ratings.csv`` (a header), and any other table, also
    compressed. Users and items are whole numbers or words.

    Args:
        path: a ``.csv``, ``.tsv``, ``.txt``, ``.data`` or ``.dat``.
        user, item, rating, time: the columns' names. By default known by their names where there is a header, such as
            ``userId``, ``movieId``, ``rating``, ``timestamp``, else the first four, in this order, with a warning if
            the header calls them otherwise. A file of two columns has no ratings: each is 1.
        header: whether the first line holds names. Default: whether its rating is no number.

    Raises:
        UnreadableFile: absent, damaged, of another kind, or with a row of more or fewer cells; says the line.
        UnknownName: no such column.
        InvalidProblem: a rating that is a word; fewer than two columns, or more than four without names; one column for
            two of them; says the line.
        NotFinite: a rating, user or item that is missing; says the line.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "ratings.dat").write_text("7::ann::3::99\\n8::ann::4.5::99\\n")
    ...     found = load_ratings(Path(folder, "ratings.dat"))
    >>> found.row_ids, found.column_ids, found.values
    (array([7, 8]), array(['ann'], dtype='<U3'), array([3. , 4.5]))
    """
    table, at = _read(Path(path), {"user": user, "item": item, "rating": rating, "time": time}, header)
    rows, row_ids = _labels(table, at["user"])
    columns, column_ids = _labels(table, at["item"])
    values = np.ones(len(rows))
    if "rating" in at:
        values = _numbers(table, at["rating"], "the rating")
    times = _numbers(table, at["time"], "the time") if "time" in at else None
    return Ratings(rows, columns, values, row_ids, column_ids, times)


def load_pairs(
    path: str | Path, *, user: str | None = None, item: str | None = None, header: bool | None = None
) -> tuple[Labels, Labels]:
    """The labels of pairs to be rated, (users, items), shape (pairs,) each, from a table as in `load_ratings`.

    Further columns are left out.
    """
    table, at = _read(Path(path), {"user": user, "item": item}, header)
    (rows, row_ids), (columns, column_ids) = _labels(table, at["user"]), _labels(table, at["item"])
    return row_ids[rows], column_ids[columns]


def _read(path: Path, wanted: dict[str, str | None], header: bool | None) -> tuple[Table, dict[str, int]]:
    with reading(path, _KINDS):
        if ending(path) not in ENDINGS:
            raise UnreadableFile(f"{path} has an unknown ending; expected {_KINDS}.")
        text = read_text(path)
        first = next((line for line in text.split("\n", 100) if line.strip()), "")
        parted = DOUBLE_COLON if DOUBLE_COLON in first else None
        if header is None:
            header = _has_header(path, text, parted)
        table = read_table(
            path, header=header, wanted=next(filter(None, wanted.values()), None), parted=parted
        )
        return table, _columns(table, wanted)


def _has_header(path: Path, text: str, parted: str | None) -> bool | None:
    """Whether the first line's third cell, a rating, is no number; None where that decides nothing."""
    lines = [
        line for line in text.split("\n", 100)[:100] if line.strip() and not line.lstrip().startswith("#")
    ]
    if parted:
        lines = [line.replace(parted, "\t") for line in lines]
    if not lines:
        return None
    separator = _dialect.find_separator(lines)
    _, cells = next(_dialect.records(path, lines, 0, separator), (0, []))
    comma = _dialect.takes_decimal_comma(separator)
    names = {name for known in _KNOWN.values() for name in known}
    if any(_plain(cell) in names for cell in cells):
        return True
    return None if len(cells) < 3 else not _cells.is_value(cells[2], comma)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "").replace("-", "")


def _columns(table: Table, wanted: dict[str, str | None]) -> dict[str, int]:
    """The place of each column that there is: named, known by its name, or in order."""
    at = {what: table.column(name) for what, name in wanted.items() if name is not None}
    for what, place in at.items():
        twice = next((other for other in at if other != what and at[other] == place), None)
        if twice is not None:
            raise InvalidProblem(
                f"{table.path}: column {table.names[place]!r} is named for {twice} and {what}; expected two columns."
            )
    if not table.has_header and len(table.names) > len(_KNOWN) and not {"user", "item"} <= set(at):
        raise InvalidProblem(
            f"{table.path} has {len(table.names)} columns and no names; expected user, item, rating and time. If it is "
            "a table of ratings, users in rows and items in columns, write a line for each rating; else name the "
            "columns: user='column 1' (--user 'column 1') and so on."
        )
    if table.has_header:
        for what in wanted:
            places = [i for i, name in enumerate(table.names) if _plain(name) in _KNOWN[what]]
            places = [i for i in places if i not in at.values()]
            if what not in at and places:
                at[what] = places[0]
    left = [i for i in range(len(table.names)) if i not in at.values()]
    guessed = []
    for what in wanted:
        if what not in at and left:
            if what in ("rating", "time") and table.has_header and len(at) > 2:
                continue  # a column by another name is something else
            at[what] = left.pop(0)
            guessed.append(what)
    if not {"user", "item"} <= set(at):
        raise InvalidProblem(
            f"{table.path} has {len(table.names)} column; expected a user and an item in each line, and a rating."
        )
    if table.has_header and guessed:
        _tell_guessed(table, {what: at[what] for what in guessed})
    return at


def _tell_guessed(table: Table, at: dict[str, int]) -> None:
    taken = ", ".join(f"{what}s: {table.names[place]}" for what, place in at.items())
    options, arguments = ", ".join(f"--{what}" for what in at), ", ".join(f"{what}=" for what in at)
    warnings.warn(
        f"{table.path}: {taken} (by position: the header has no known names for them; say {options}, in Python "
        f"{arguments}, to take others).",
        stacklevel=5,  # of load_ratings and load_pairs
    )


def _labels(table: Table, at: int) -> tuple[NDArray[np.int64], Labels]:
    """Places from 0 of a column's labels, and the labels: whole numbers, else words as they stand."""
    numbers = table.numbers[:, at]
    if at not in table.words and np.isfinite(numbers).all():
        whole = numbers.astype(np.int64) if (np.abs(numbers) < _cells.EXACT).all() else None
        if whole is not None and (whole == numbers).all():
            ids, places = np.unique(whole, return_inverse=True)
            return places.astype(np.int64), ids
    texts = table.texts(at)
    for row, cell in enumerate(texts):
        if not cell:
            raise NotFinite(
                f"{table.path}: line {table.line(row)}, column {table.names[at]!r}: no label. Fill or "
                "drop such lines first."
            )
    words, places = np.unique(np.array(texts), return_inverse=True)
    return places.astype(np.int64), words


def _numbers(table: Table, at: int, what: str) -> NDArray[np.float64]:
    values = table.values([at])[:, 0]
    refuse_nan(table.path, what, values, table.line)
    return values
