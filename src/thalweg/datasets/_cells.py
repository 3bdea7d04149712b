"""What one cell of a table is: a number, a missing value, a truth value, or a word."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem

#: From here on, neighbouring integers are one and the same float64.
EXACT = 2**53

#: Cells that stand for a value that is not there.
MISSING = frozenset(
    [
        *["", "?", "NA", "<NA>", "#NA", "N/A", "#N/A", "n/a", "NULL", "null", "None"],
        *["NaN", "nan", "-NaN", "-nan", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"],
    ]
)
_TRUE = frozenset(["True", "TRUE", "true"])
_FALSE = frozenset(["False", "FALSE", "false"])

_EXPONENT = r"(?:[eE][+-]?\d+)?"
_POINT = re.compile(rf"[+-]?(?:\d+\.?\d*|\.\d+){_EXPONENT}|[+-]?(?:inf|infinity|nan)", re.ASCII | re.I)
_COMMA = re.compile(rf"[+-]?\d+,\d+{_EXPONENT}", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_LONG = re.compile(rb"(?<![^\s:])[+-]?\d{16,}(?!\S)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?P<by>[,.'\u2019 \u00a0\u202f])\d{3}(?:(?P=by)\d{3})*(?:[.,]\d*)?")


def is_number(cell: str, comma: bool = False) -> bool:
    """Whether a cell is a number; ``comma`` lets its decimals follow a comma."""
    return bool(_POINT.fullmatch(cell) or (comma and _COMMA.fullmatch(cell)))


def is_integer(cell: str) -> bool:
    """Whether a cell is an integer, digits and a sign only."""
    return bool(_INTEGER.fullmatch(cell))


def is_value(cell: str, comma: bool = False) -> bool:
    """Whether a cell is data by itself: a number, a truth value, or a mark of a missing one."""
    return cell in MISSING or cell in _TRUE or cell in _FALSE or is_number(cell, comma)


def has_decimal_comma(cells: Sequence[str]) -> bool | None:
    """Whether decimals follow a comma, by the first cell that shows it; None where none does."""
    for cell in cells:
        if "," in cell and _COMMA.fullmatch(cell):
            return True
        if "." in cell and _POINT.fullmatch(cell):
            return False
    return None


def loses_digits(cell: str) -> bool:
    """Whether a float64 cannot hold an integer: neither its value nor the digits that it would be shown by.

    >>> loses_digits("9007199254740993"), loses_digits("9007199254740992"), loses_digits("12345678901234567000")
    (True, False, False)
    """
    if not _INTEGER.fullmatch(cell):
        return False
    held = float(cell)
    return not math.isfinite(held) or int(cell) not in (int(held), _shown(held))


def _shown(value: float) -> int:
    """The integer that a float's shortest digits spell."""
    digits, _, power = repr(value).partition("e")
    whole, _, part = digits.partition(".")
    shift = int(power or 0) - len(part)
    mantissa = int(whole + part)
    ten: int = 10 ** abs(shift)
    return mantissa * ten if shift >= 0 else mantissa // ten


def refuse_loss(place: str, text: str) -> None:
    """Refuse an integer whose last digits a float64 would lose; ``place`` says where it stands."""
    if loses_digits(text):
        raise InvalidProblem(
            f"{place}: {text} has more digits than a float64 holds (whole numbers are exact to {EXACT}). "
            "Round or drop it first."
        )


def refuse_losses(path: Path, content: bytes) -> None:
    """`refuse_loss` for every number of a text whose numbers stand between white space or after colons."""
    for found in _LONG.finditer(content):
        line = content.count(b"\n", 0, found.start()) + 1
        refuse_loss(f"{path}: line {line}", found[0].decode())


def is_misspelt(cell: str) -> bool:
    """Whether a word is a number in another spelling: with thousands separators, or the other decimal mark.

    >>> is_misspelt("0,5"), is_misspelt("1'000"), is_misspelt("foo")
    (True, True, False)
    """
    return any(spelling.fullmatch(cell) for spelling in (_THOUSANDS, _COMMA, _POINT))


def fault(cell: str) -> str:
    """Why a cell is no number, and the mend."""
    if _THOUSANDS.fullmatch(cell):
        return f"{cell!r} has thousands separators or a decimal comma: write it with digits and a point only"
    if _COMMA.fullmatch(cell):
        return f"{cell!r} has a decimal comma: write a point, or separate the cells by ';'"
    if _POINT.fullmatch(cell):
        return f"{cell!r} has a point, where other cells have a decimal comma"
    return f"{cell[:40]!r} is no number"


def numbers(cells: Sequence[str], comma: bool) -> tuple[NDArray[np.float64], int | None]:
    """The values of a column, NaN where there is none, and the first row that holds a word, if any.

    ``comma`` says that decimals follow a comma; a point would then part thousands, and is no number.
    """
    joined = "".join(cells)
    if joined.isascii() and "_" not in joined and not (comma and "." in joined):
        try:
            return np.array([float(cell) for cell in cells]), None
        except ValueError:
            pass  # words, holes or decimal commas: cell by cell
    values = np.full(len(cells), np.nan)
    word = None
    for row, cell in enumerate(cells):
        if comma and _COMMA.fullmatch(cell):
            values[row] = float(cell.replace(",", "."))
        elif _POINT.fullmatch(cell) and not (comma and "." in cell):
            values[row] = float(cell)
        elif cell not in MISSING and word is None:
            word = row
    return values, word


def booleans(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """The column as 1 and 0 where all its cells are truth values, else None; a missing one is NaN."""
    if not all(cell in _TRUE or cell in _FALSE or cell in MISSING for cell in cells):
        return None
    return np.array([np.nan if cell in MISSING else float(cell in _TRUE) for cell in cells])
