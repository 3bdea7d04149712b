"""How the lines of a table are cut into cells, and whether the first of them holds names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from thalweg.core import UnreadableFile
from thalweg.datasets._cells import MISSING, is_integer, is_number, is_value

#: Separators in the order in which they are tried; " " stands for any white space, "" for a single column.
SEPARATORS = ("\t", ";", ",", " ", "")
#: A byte that no text holds: it makes one cell of a line.
_NEVER = "\x1f"
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_AFTER_NUMBERS = re.compile(r"([\d\s.,;eE+-]*[\d\s.])#.*")
_COMMENT = re.compile(r"\s*#(\s|$)")


def takes_decimal_comma(separator: str) -> bool:
    """Whether decimals may follow a comma: only where it separates no cells."""
    return separator in ("\t", ";", " ")


def find_separator(sample: Sequence[str]) -> str:
    """The separator under which lines have equally many cells, and the most of these are numbers.

    >>> find_separator(["1,5;2,5", "2,5;1,5"]), find_separator(["a, b", "1, 2"]), find_separator(["7", "8"])
    (';', ',', '')
    """
    plain = [_QUOTED.sub("0", line) for line in sample]
    occurring = [s for s in SEPARATORS[:3] if any(s in line.strip(" ") for line in plain)]
    if any(len(line.split()) > 1 for line in plain[1:] or plain):
        occurring.append(" ")
    if not {",", ";", "\t"} & set(occurring):
        occurring.append("")
    return max(occurring, key=lambda separator: _fitness(plain, separator))


def is_piped(sample: Sequence[str]) -> bool:
    """Whether ``|`` cuts all lines, which no other separator does, into equally many parts, numbers among them.

    >>> is_piped(["a|b", "1|2"]), is_piped(["drama|crime", "crime|war"]), is_piped(["1", "2"])
    (True, False, False)
    """
    rows = [line.strip("| ").split("|") for line in sample]
    parts = [part.strip() for row in rows[1:] or rows for part in row]
    return len(rows[0]) > 1 and len({len(row) for row in rows}) == 1 and any(map(is_number, parts))


def _fitness(lines: Sequence[str], separator: str) -> tuple[bool, float]:
    rows = [_cut(line, separator) for line in lines]
    data = rows[1:] or rows
    cells = [cell for row in data for cell in row if cell or separator]
    comma = takes_decimal_comma(separator)
    numeric = sum(cell in MISSING or is_number(cell, comma) for cell in cells) / max(1, len(cells))
    return len({len(row) for row in rows}) == 1 and numeric > 0, numeric


def _cut(line: str, separator: str) -> list[str]:
    if separator == " ":
        return line.split()
    return [cell.strip() for cell in line.split(separator)] if separator else [line.strip()]


def records(path: Path, lines: Sequence[str], start: int, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each record after ``start`` lines, with the number of the line where it ends, from 1.

    Empty lines, lines that begin with ``# ``, and what follows a ``#`` after numbers are left out.

    Raises:
        UnreadableFile: a quotation that does not end; says the line.
    """
    reader = csv.reader(
        (_without_comment(lines[at], separator) for at in range(start, len(lines))),
        delimiter=separator or _NEVER,
        skipinitialspace=separator != "\t",
        strict=True,
    )
    last = start
    try:
        for cells in reader:
            last = start + reader.line_num
            if cells:
                yield last, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UnreadableFile(f"{path}: line {last + 1} has a faulty quotation: {error}.") from None


def cells_of(line: str, separator: str) -> list[str] | None:
    """The cells of one line that is a row by itself, none of a comment; None for a faulty quotation."""
    try:
        return next((cells for _, cells in records(Path(), [line], 0, separator)), [])
    except UnreadableFile:
        return None


def _without_comment(line: str, separator: str) -> str:
    if "#" in line:
        after = _AFTER_NUMBERS.fullmatch(line)
        if _COMMENT.match(line):
            return ""
        line = after[1] if after and after[1].strip() else line
    if separator == " ":
        return " ".join(line.split())
    return line.strip(" ")


def is_header(cells: Sequence[str], comma: bool, wanted: str | None) -> bool | None:
    """Whether a first line holds the columns' names, by its own cells; None where that cannot be known.

    Words only: names. Numbers only: data, unless they count 0, 1, 2, ... as the names of a table without names
    do; then ``wanted``, the name of a column, decides, or nothing does. Words beside numbers: names where the
    numbers count so, or where ``wanted`` is one of the words; otherwise nobody can know.
    """
    words = [cell for cell in cells if not is_value(cell, comma)]
    numbers = [cell for cell in cells if is_value(cell, comma) and cell not in MISSING]
    if not numbers:
        return bool(words)
    if wanted is not None and wanted not in cells and re.fullmatch(r"column \d+", wanted):
        return False
    if words:
        counted = len(numbers) > 2 and _count(cells, words)
        return True if wanted in words or counted else None
    if wanted in cells and len(cells) > 1 and is_integer(cells[0]) and _count(cells, first=int(cells[0])):
        return True
    if cells[0] == "" and len(cells) > 2 and _count(cells[1:]):
        return True
    return None if len(cells) > 1 and _count(cells) else False


def _count(cells: Sequence[str], words: Sequence[str] = (), first: int = 0) -> bool:
    """Whether all cells but ``words`` are their places, counted from ``first``."""
    return all(cell == str(first + at) for at, cell in enumerate(cells) if cell not in words)
