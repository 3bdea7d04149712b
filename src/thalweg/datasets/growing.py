"""Tables that are read while somebody still writes them: whole lines as they come, in constant memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter, InvalidProblem, UnknownName, UnreadableFile
from thalweg.core.tree import require_alike
from thalweg.datasets import _cells, _dialect
from thalweg.datasets._text import ending, is_compressed, reading
from thalweg.datasets.tables import (
    TABLES,
    find_names,
    is_skipped,
    numbers_alone,
    said_separator,
    sees_header,
)

#: Bytes of one reading, of what is remembered to know the file again, and of the longest line.
CHUNK, MARK, LONGEST = 1 << 20, 64, 1 << 24
#: Lines from which the dialect is seen.
SAMPLE = 100
_OPENERS: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_KINDS = "a table in .csv, .tsv or .txt"


@dataclass(frozen=True)
class BadLine:
    """A line that is no row: its number, from 1, and why."""

    line: int
    why: str


@dataclass(frozen=True)
class NewRows:
    """What a reading brought.

    Args:
        values: shape (rows, columns), NaN where a cell is missing.
        bad: lines that were left out.
        events: what happened to the file, a sentence each.
        at_end: whether the file held no more whole lines.
    """

    values: NDArray[np.float64]
    bad: tuple[BadLine, ...]
    events: tuple[str, ...]
    at_end: bool


class GrowingTable:
    """A table of numbers in text, read as it grows: `read` gives the rows that have been added since the last time.

    Dialects are those of all tables: commas, semicolons, tabs, white space, decimal commas, quotes, comments, any
    header; they are seen from the first lines. A cell without a number, a row of another length, an integer that a
    float64 does not hold and infinity make a line bad; bad lines are told, not taken. A line without its end waits.

    Args:
        path: the file; compressed ones (``.gz``, ``.bz2``, ``.xz``) can be read, but not followed.
        columns: the names of those that are wanted, in this order (``column 2`` where there is no header); all by
            default. Others may hold words.
        header: whether the first line holds names. Default: decided from that line.
        follow: whether the file may grow, be cut or be replaced.

    A file that was cut, written anew or replaced by another of the same name (a log that rotates) is read from its
    beginning, and that is told; what the old file still held is read first.

    Raises:
        UnreadableFile: no such file, no table, no text; a line longer than 16 MiB.
        InvalidProblem: nobody can know whether the first line is a header; a column of words; says which.
        UnknownName: no such column.
        InvalidParameter: a compressed file that is to be followed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "t.csv")
    ...     _ = path.write_bytes(b"a,b\\n1,2\\n3,")
    ...     table = GrowingTable(path, follow=True)
    ...     first = table.read().values.tolist()
    ...     _ = path.write_bytes(b"a,b\\n1,2\\n3,4\\n")
    ...     first, table.read().values.tolist()
    ([[1.0, 2.0]], [[3.0, 4.0]])
    """

    def __init__(
        self,
        path: str | Path,
        *,
        columns: Sequence[str] | None = None,
        header: bool | None = None,
        follow: bool = False,
    ) -> None:
        self.path = Path(path)
        self.names: tuple[str, ...] = ()
        self.line = 0
        self._columns, self._header, self._follow = columns, header, follow
        self._separator = ""
        self._is_seen = False  # whether the dialect is known
        self._comma: bool | None = None
        self._head: list[str] | None = None  # the cells of the header
        self._per_line = 0  # of each line
        self._chosen: list[int] = []
        self._file: BinaryIO | None = None
        self._offset = 0  # of the first byte that is not in a whole line that was taken
        self._mark = b""  # what stands before it
        with reading(self.path, _KINDS):
            if ending(self.path) not in TABLES:
                raise UnreadableFile(f"{self.path} has an unknown ending; expected {_KINDS}.")
            if follow and is_compressed(self.path):
                raise InvalidParameter(f"{self.path} is compressed: it can be read, but not followed.")

    @property
    def wanted(self) -> tuple[str, ...] | None:
        """The columns that were asked for; None for all."""
        return None if self._columns is None else tuple(self._columns)

    @property
    def width(self) -> int:
        """Columns that are given; 0 before the first rows."""
        return len(self._chosen)

    def read(self) -> NewRows:
        """The whole lines of the next MiB at most; without ``follow`` a last line needs no end."""
        if self._file is not None and not self.path.exists():  # between two files of a log that rotates
            return self._read()
        with reading(self.path, _KINDS):
            return self._read()

    def _read(self) -> NewRows:
        content, events, at_end = self._pull()
        lines = self._lines(content)
        if not self._is_seen and not self._see_dialect(lines, at_end and not self._follow):
            return NewRows(np.empty((0, 0)), (), tuple(events), at_end)
        start, self.line = self.line, self.line + len(lines)
        self._take(content)
        values, bad = self._rows(lines, start)
        return NewRows(values, tuple(bad), tuple(events), at_end)

    def restart(self) -> None:
        """Go back to the first line, for another pass."""
        self._close()
        self._offset, self._mark, self.line = 0, b"", 0

    def state_dict(self) -> dict[str, Any]:
        """Where reading has come to, as plain data."""
        return {
            "offset": self._offset,
            "mark": list(self._mark),
            "line": self.line,
            "seen": self._is_seen,
            "separator": self._separator,
            "comma": self._comma,
            "head": self._head,
            "per_line": self._per_line,
            "names": list(self.names),
            "chosen": list(self._chosen),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another reader of the same file was; a file that is another one by now is told at `read`."""
        for name in ("offset", "line"):
            require_alike(name, 0, state[name], optional=False)
        self._close()
        self._offset, self._mark, self.line = state["offset"], bytes(state["mark"]), state["line"]
        self._is_seen, self._separator, self._comma = state["seen"], state["separator"], state["comma"]
        self._head, self._per_line = state["head"], state["per_line"]
        self.names, self._chosen = tuple(state["names"]), list(state["chosen"])

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _pull(self) -> tuple[bytes, list[str], bool]:
        """Bytes of whole lines from where reading has come to, what happened, and whether there are no more."""
        events: list[str] = []
        if self._file is None:
            self._file = self._opened()
        content = self._after_mark(self._file)
        if content is None:
            events.append(self._begin_anew("was cut or written anew"))
            content = self._after_mark(self._file) or b""
        whole = content if len(content) < CHUNK and not self._follow else content[: content.rfind(b"\n") + 1]
        if not whole and len(content) >= CHUNK:
            content += self._file.read(LONGEST)
            whole = content[: content.rfind(b"\n") + 1]
            if not whole:
                raise UnreadableFile(f"{self.path}: line {self.line + 1} is longer than {LONGEST >> 20} MiB.")
        at_end = len(content) < CHUNK
        if at_end and not whole and self._follow and self._is_replaced(self._file):
            half = " Its last line had no end, and is lost." if content else ""
            self._close()
            self._file = self._opened()
            events.append(self._begin_anew("was replaced by another file", half))
            at_end = False
        return whole, events, at_end

    def _opened(self) -> BinaryIO:
        opener = _OPENERS.get(self.path.suffix.lower())
        opened: BinaryIO = self.path.open("rb") if opener is None else opener(self.path)
        return opened

    def _after_mark(self, file: BinaryIO) -> bytes | None:
        """What follows the bytes that were read before, or None if these have changed."""
        file.seek(self._offset - len(self._mark))
        content = file.read(len(self._mark) + CHUNK)
        if not content.startswith(self._mark):
            return None
        return content[len(self._mark) :]

    def _begin_anew(self, what: str, more: str = "") -> str:
        event = f"{self.path} {what} after line {self.line}; it is read from its beginning.{more}"
        self._offset, self._mark, self.line = 0, b"", 0
        return event

    def _is_replaced(self, file: BinaryIO) -> bool:
        try:
            there = self.path.stat()
        except FileNotFoundError:  # between two files: it may come
            return False
        mine = os.fstat(file.fileno())
        return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)

    def _take(self, content: bytes) -> None:
        self._offset += len(content)
        self._mark = (self._mark + content)[-MARK:]

    def _lines(self, content: bytes) -> list[bytes]:
        if self._offset == 0:
            if content.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UnreadableFile(f"{self.path} is not UTF-8 but UTF-16; save it as UTF-8.")
            content = content.removeprefix(b"\xef\xbb\xbf")
        lines = content.replace(b"\r\n", b"\n").split(b"\n")
        return lines if lines[-1] else lines[:-1]

    def _see_dialect(self, raw: list[bytes], is_all: bool) -> bool:
        """Separator, names and columns from the first lines; False where there are too few as yet."""
        lines = [_text(line) or "" for line in raw]
        separator, start = said_separator(lines) if lines else (None, 0)
        kept = [i for i in range(start, len(lines)) if not is_skipped(lines[i])][: SAMPLE + 1]
        if len(kept) < (1 if is_all else 2):
            if is_all:
                raise UnreadableFile(f"{self.path} holds no rows.")
            return False
        sample = [lines[i] for i in kept]
        separator = _dialect.find_separator(sample) if separator is None else separator
        begin, names = find_names(self.path, lines, kept[0], separator, self._header, None)
        if (
            names is None
            and self._header is None
            and sees_header(self.path, lines, begin, separator, None) is None
        ):
            raise InvalidProblem(
                f"{self.path}: the first line counts 0, 1, 2, ...: are these names, or a row? Say header=True or "
                "header=False (--header, --no-header)."
            )
        cut = [_dialect.cells_of(lines[i], separator) for i in kept if i >= begin]
        rows = [cells for cells in cut if cells is not None]
        lengths = Counter(len(cells) for cells in rows)
        width = len(names) if names is not None else lengths.most_common(1)[0][0] if rows else 0
        rows = [cells for cells in rows if len(cells) == width]
        if not rows:
            raise UnreadableFile(f"{self.path}: no row has the {width} cells of its header.")
        self._separator, self._head, self._per_line, self._is_seen = separator, names, width, True
        self._choose([""] * width if names is None else names, rows)
        return True

    def _choose(self, names: Sequence[str], rows: list[list[str]]) -> None:
        """Which columns are given; one of words alone is refused, since every line would be bad."""
        shown = tuple(name or f"column {i + 1}" for i, name in enumerate(names))
        ends_empty = len(shown) > 1 and not names[-1] and not any(row[-1] for row in rows)
        chosen = list(range(len(shown) - ends_empty))
        if self._columns is not None:
            for name in self._columns:
                if name not in shown:
                    raise UnknownName("column", name, shown, see=f"In {self.path}.")
            chosen = [shown.index(name) for name in self._columns]
        elif self._head is not None and not names[0] and len(shown) > 1:
            raise InvalidProblem(
                f"{self.path}: the first column has no name. If it numbers the rows, name the columns that are to be "
                "used (columns=, --columns)."
            )
        comma = _dialect.takes_decimal_comma(self._separator)
        for at in chosen:
            if not any(_cells.is_value(row[at], comma) for row in rows):
                raise InvalidProblem(
                    f"{self.path}: column {shown[at]!r} holds no numbers, but {rows[0][at][:40]!r}. Name the columns "
                    "that are to be used (columns=, --columns)."
                )
        self.names, self._chosen = tuple(shown[at] for at in chosen), chosen

    def _rows(self, raw: list[bytes], start: int) -> tuple[NDArray[np.float64], list[BadLine]]:
        """The rows of lines of which ``start`` lines stand before, and those that are none."""
        first = self._lines_of_head(raw) if start == 0 else 0
        body = raw[first:]
        values = self._at_once(body)
        if values is not None:
            return values, []
        rows: list[NDArray[np.float64]] = []
        bad: list[BadLine] = []
        for number, line in enumerate(body, start + first + 1):
            row = self._row(line)
            if isinstance(row, str):
                bad.append(BadLine(number, row))
            elif row is not None:
                rows.append(row)
        return np.array(rows).reshape(len(rows), len(self._chosen)), bad

    def _lines_of_head(self, raw: list[bytes]) -> int:
        """How many lines at the beginning of the file are no data."""
        lines = [_text(line) or "" for line in raw[: SAMPLE + 1]]
        start = said_separator(lines)[1] if lines else 0
        first = next((i for i in range(start, len(lines)) if not is_skipped(lines[i])), None)
        if first is None or self._head is None:
            return start
        cells = _dialect.cells_of(lines[first], self._separator)
        if cells == self._head:
            return first + 1
        comma = _dialect.takes_decimal_comma(self._separator)
        if cells and _dialect.is_header(cells, comma, None):
            raise InvalidProblem(
                f"{self.path} has another header now: {', '.join(cells[:5])}; it was {', '.join(self._head[:5])}."
            )
        return start

    def _at_once(self, raw: list[bytes]) -> NDArray[np.float64] | None:
        """The fast way, for lines of plain numbers alone; None for others."""
        try:
            lines = b"\n".join(raw).decode().split("\n")
        except UnicodeDecodeError:
            return None
        lines = [line for line in lines if line.strip()]
        if not lines:
            return np.empty((0, len(self._chosen)))
        if _dialect.takes_decimal_comma(self._separator):
            has_comma, has_point = (any(mark in line for line in lines) for mark in ",.")
            if (has_comma and has_point) or (
                has_comma if self._comma is False else self._comma and has_point
            ):
                return None
            if has_comma or has_point:
                self._comma = has_comma
        values = numbers_alone(lines, 0, self._separator, None)
        if values is None or values.shape[1] != self._per_line:
            return None
        values = values[:, self._chosen]
        with np.errstate(invalid="ignore"):
            return None if (np.abs(values) >= _cells.EXACT).any() else values

    def _row(self, raw: bytes) -> NDArray[np.float64] | str | None:
        """The row of a line; None for one that is empty or a comment, and words for why it is none."""
        text = _text(raw)
        if text is None:
            return "is no text in UTF-8"
        if is_skipped(text):
            return None
        cells = _dialect.cells_of(text, self._separator)
        if cells is None:
            return "has a faulty quotation"
        if len(cells) != self._per_line:
            return f"has {len(cells)} cell{'s' * (len(cells) != 1)}, expected {self._per_line}"
        picked = [cells[at] for at in self._chosen]
        if self._comma is None and _dialect.takes_decimal_comma(self._separator):
            self._comma = _cells.has_decimal_comma(picked)
        values, word = _cells.numbers(picked, bool(self._comma))
        for at, cell in enumerate(picked) if word is not None else ():
            truth = _cells.booleans([cell]) if np.isnan(values[at]) else None
            if truth is not None:
                values[at] = truth[0]
            elif np.isnan(values[at]) and cell not in _cells.MISSING:
                return f"column {self.names[at]!r}: {_cells.fault(cell)}"
        for at in np.flatnonzero(np.abs(values) >= _cells.EXACT).tolist():
            if np.isinf(values[at]):
                return f"column {self.names[at]!r} is infinite"
            if _cells.loses_digits(picked[at]):
                return f"column {self.names[at]!r}: {picked[at]} has more digits than a float64 holds"
        return values


def _text(line: bytes) -> str | None:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
