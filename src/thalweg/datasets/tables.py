"""Tables of numbers and words in text: ``.csv``, ``.tsv`` and ``.txt``, in the dialects that programs write."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter, InvalidProblem, UnknownName, UnreadableFile
from thalweg.datasets import _cells, _dialect
from thalweg.datasets._text import read_text

TABLES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True)
class Cells:
    """The texts of a table: ``rows`` of cells, and the number of the line where each ends, from 1."""

    rows: list[list[str]]
    lines: list[int]


@dataclass(frozen=True, eq=False)
class Table:
    """A table as its file says it, before anybody asks what the columns are for.

    ``numbers`` has shape (rows, columns) and is NaN where a cell is missing or a word; ``words`` gives, for each
    column that holds any, the first row with one. ``first_unnamed``: the header has no name for the first column,
    which then numbers the rows, most likely. ``doubtful``: the first line, read as data, may as well be a header.
    """

    path: Path
    names: tuple[str, ...]
    has_header: bool
    first_unnamed: bool
    numbers: NDArray[np.float64]
    words: dict[int, int]
    doubtful: bool
    split: Callable[[], Cells] = field(repr=False)

    @property
    def cells(self) -> Cells:
        """The texts, cut when somebody needs them: tables of numbers alone rarely do."""
        return self.split()

    def texts(self, column: int) -> list[str]:
        """The cells of a column."""
        return [row[column] for row in self.cells.rows]

    def line(self, row: int) -> int:
        """The number of the line of a row, from 1."""
        return self.cells.lines[row]

    def column(self, name: str) -> int:
        """The place of a column.

        Raises:
            UnknownName: no column is called so.
            InvalidProblem: several are.
        """
        if name not in self.names:
            see = f"In {self.path}."
            if not self.has_header:
                see += (
                    " Its first line holds numbers, so that it is read as data; header=True (--header) makes it "
                    "names."
                )
            raise UnknownName("column", name, self.names, see=see)
        if self.names.count(name) > 1:
            raise InvalidProblem(
                f"{self.path}: {self.names.count(name)} columns are called {name!r}; give each its own name."
            )
        return self.names.index(name)

    def values(self, columns: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Some columns as numbers, shape (rows, columns); all by default. Missing ones are NaN.

        Raises:
            InvalidProblem: a cell that is a word, or an integer whose last digits a float64 would lose.
        """
        chosen = range(len(self.names)) if columns is None else columns
        bad = [column for column in chosen if column in self.words]
        if bad:
            row = self.words[bad[0]]
            listed = ", ".join(repr(self.names[column]) for column in bad[:3])
            raise InvalidProblem(
                f"{self.path}: column {listed} holds no numbers: line {self.line(row)}: "
                f"{_cells.fault(self.cells.rows[row][bad[0]])}. Encode, mend or drop it first."
            )
        values = self.numbers if columns is None else self.numbers[:, list(columns)]
        for row, at in np.argwhere(np.abs(values) >= _cells.EXACT):
            place = f"{self.path}: line {self.line(row)}, column {self.names[chosen[at]]!r}"
            _cells.refuse_loss(place, self.cells.rows[row][chosen[at]])
        return values

    def refuse_numbering(self) -> None:
        """Refuse a first column that most likely numbers the rows, where all columns are to be used."""
        if self.first_unnamed:
            raise InvalidProblem(
                f"{self.path}: the first column has no name. If it numbers the rows, remove it (pandas writes none "
                "with index=False); else name it."
            )

    def refuse_doubt(self, if_likely: bool = False) -> None:
        """Refuse a table whose first line may be a header or a row.

        Args:
            if_likely: refuse it only if whole numbers stand in the first line alone.
        """
        if not self.doubtful:
            return
        if if_likely and any(_cells.is_integer(cell) for row in self.cells.rows[1:] for cell in row):
            return
        raise InvalidProblem(
            f"{self.path}: the first line counts 0, 1, 2, ...: are these names, or a row? Say header=True or "
            "header=False (--header, --no-header), or in the file: words are names, and 0.0 is a number."
        )


def read_table(
    path: Path, *, header: bool | None = None, wanted: str | None = None, parted: str | None = None
) -> Table:
    """Read a table of any dialect; ``wanted`` is the name of a column that helps to know a header.

    ``parted`` is a separator of several characters, which no cell holds.

    Cells are separated by commas, semicolons, tabs or white space, and may be quoted. Decimals follow a point, or a
    comma where that separates no cells. The names come from the first line, or from the last of the lines before it
    that begin with ``#``; without either, columns are called ``column 1``, ``column 2``, ...

    Cost: 10^6 rows of ten numbers take about five seconds; with words, or quoted, about twice that.

    Raises:
        UnreadableFile: the file is empty, its cells are separated by ``|``, or a row has more or fewer cells than the
            first; says which.
        InvalidProblem: nobody can know whether the first line holds names.
    """
    text = read_text(path)
    lines = (text if parted is None else text.replace(parted, "\t")).split("\n")
    separator, start = said_separator(lines)
    first = next((i for i in range(start, len(lines)) if not is_skipped(lines[i])), None)
    if first is None:
        raise UnreadableFile(f"{path} holds no rows.")
    sample = [line for line in lines[first : first + 200] if not is_skipped(line)][:100]
    separator = _dialect.find_separator(sample) if separator is None else separator
    if separator in ("", " ") and _dialect.is_piped(sample):
        raise UnreadableFile(
            f"{path} separates its cells by '|', which is not read. Write commas, semicolons or tabs in its place."
        )
    start, names = find_names(path, lines, first, separator, header, wanted)
    doubtful = names is None and header is None and sees_header(path, lines, start, separator, wanted) is None

    @cache
    def split() -> Cells:
        return _split(path, lines, start, separator, names)

    numbers, words = numbers_alone(lines, start, separator, names), dict[int, int]()
    if numbers is None:
        numbers, words = _columns(split().rows, separator)
    given = [""] * numbers.shape[1] if names is None else names
    shown = tuple(given[i] or f"column {i + 1}" for i in range(numbers.shape[1]))
    unnamed = names is not None and not names[0]
    return Table(path, shown, names is not None, unnamed, numbers, words, doubtful, split)


def refuse_header(path: Path, header: bool | None) -> None:
    """Refuse ``header`` for a file that is no table of text."""
    if header is not None:
        raise InvalidParameter(f"header is for tables ({', '.join(TABLES)}); {path} is none.")


def said_separator(lines: Sequence[str]) -> tuple[str | None, int]:
    """The separator that a spreadsheet's ``sep=;`` names, and the line after it."""
    said = re.fullmatch(r'"?sep=([,;\t])"?', lines[0].strip(" "))
    return (said[1], 1) if said else (None, 0)


def is_skipped(line: str) -> bool:
    """Whether a line holds no row: white space, or a comment."""
    return not line.strip() or line.lstrip().startswith("#")


def _first_record(
    path: Path, lines: Sequence[str], start: int, separator: str, hint: str = ""
) -> tuple[int, list[str]]:
    for line, cells in _dialect.records(path, lines, start, separator):
        return line, cells
    raise UnreadableFile(f"{path} holds a header, but no rows.{hint}")


def find_names(
    path: Path, lines: Sequence[str], first: int, separator: str, header: bool | None, wanted: str | None
) -> tuple[int, list[str] | None]:
    """The number of lines before the data, and the columns' names, if there are any."""
    end, cells = _first_record(path, lines, first, separator)
    comma = _dialect.takes_decimal_comma(separator)
    above = lines[first - 1].strip() if first else ""
    above = above.lstrip("#").strip() if above.startswith("#") else ""
    is_header = _dialect.is_header(cells, comma, wanted)
    if above and header is not False and is_header is not True:
        _, named = _first_record(path, [above], 0, separator)
        if len(named) == len(cells) and _dialect.is_header(named, comma, wanted):
            return first, named
    if header is True or (header is None and is_header is True):
        hint = "" if header else " If its line is a row, say header=False (--no-header)."
        _first_record(path, lines, end, separator, hint)
        return end, cells
    if header is None and is_header is None and not all(_cells.is_value(cell, comma) for cell in cells):
        raise InvalidProblem(
            f"{path}: the first line holds words and numbers: are these names, or a row? Say header=True or "
            "header=False (--header, --no-header), or write a line with names."
        )
    return first, None


def sees_header(
    path: Path, lines: Sequence[str], start: int, separator: str, wanted: str | None
) -> bool | None:
    """Whether the first record after ``start`` lines is a header; None where nobody can know."""
    _, cells = _first_record(path, lines, start, separator)
    return _dialect.is_header(cells, _dialect.takes_decimal_comma(separator), wanted)


def numbers_alone(
    lines: Sequence[str], start: int, separator: str, names: Sequence[str] | None
) -> NDArray[np.float64] | None:
    """The fast way for tables of plain numbers; None for all others, which `_columns` takes or refuses."""
    body = "\n".join(lines[start:])
    if any(mark in body for mark in '"#_\x0b\x0c') or (not separator and any(mark in body for mark in " \t")):
        return None
    if _dialect.takes_decimal_comma(separator) and "," in body:
        if "." in body:
            return None
        body = body.replace(",", ".")
    try:
        values = np.loadtxt(
            io.StringIO(body), delimiter=None if separator in ("", " ") else separator, comments=None, ndmin=2
        )
    except ValueError:
        return None
    return values if names is None or values.shape[1] == len(names) else None


def _split(
    path: Path, lines: Sequence[str], start: int, separator: str, names: Sequence[str] | None
) -> Cells:
    """Cut all rows into cells; each has as many as the header or the first row."""
    rows: list[list[str]] = []
    places: list[int] = []
    width = None if names is None else len(names)
    for line, cells in _dialect.records(path, lines, start, separator):
        width = len(cells) if width is None else width
        if len(cells) != width:
            first = "the first row" if names is None else "the header"
            raise UnreadableFile(
                f"{path}: row {len(rows) + 1} has {_counted(len(cells))}, {first} {width} (line {line})."
                + _advice(cells, width, separator)
            )
        rows.append(cells)
        places.append(line)
    ends_empty = width is not None and width > 1 and all(not row[-1] for row in rows)
    if ends_empty and (names is None or not names[-1]):
        rows = [row[:-1] for row in rows]
    return Cells(rows, places)


def _counted(cells: int) -> str:
    return f"{cells} cell" if cells == 1 else f"{cells} cells"


def _advice(cells: Sequence[str], width: int, separator: str) -> str:
    if not cells[-1] and len(cells) == width + 1:
        return f" The line ends with {separator!r}: remove it."
    if separator == "," and len(cells) > width and all(_cells.is_number(cell) for cell in cells):
        return " If the comma is a decimal comma, separate the cells by ';' or write points."
    return ""


def _columns(rows: Sequence[Sequence[str]], separator: str) -> tuple[NDArray[np.float64], dict[int, int]]:
    """The numbers of all columns, and the first row that holds a word for those that have one."""
    comma = _dialect.takes_decimal_comma(separator) and bool(
        next((found for row in rows if (found := _cells.has_decimal_comma(row)) is not None), False)
    )
    values = np.empty((len(rows), len(rows[0])))
    words: dict[int, int] = {}
    for at, column in enumerate(zip(*rows, strict=True)):
        values[:, at], word = _cells.numbers(column, comma)
        if word is not None:
            truths = _cells.booleans(column)
            if truths is None:
                words[at] = word
            else:
                values[:, at] = truths
    return values, words
