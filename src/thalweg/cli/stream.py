"""``thalweg stream``: rows from standard input, each predicted before its label is looked at."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.online import Groups
from thalweg.cli.options import Json
from thalweg.cli.output import strict_json

if TYPE_CHECKING:
    from thalweg.online import By, RowLearner


def stream(
    target: Annotated[
        str, typer.Option(help="The column to predict; a row without a value in it is not learned from.")
    ],
    low: Annotated[float, typer.Option(help="Smallest value that the target can have.")],
    high: Annotated[float, typer.Option(help="Largest value that the target can have.")],
    groups: Groups = "",
    combine: Annotated[str, typer.Option(help="mean, draw, mixable or smallest.")] = "mean",
    alpha: Annotated[float, typer.Option(help="Ridge of the groups' learners.")] = 1.0,
    delimiter: Annotated[
        str | None, typer.Option(help="What separates cells; seen from the first line by itself.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Predict rows of a table as they come on standard input, so well that no group of rows is worse off.

    The first line names the columns; each line after it is a row. Each row is answered at once, by its prediction and
    its label (``--json``: an object a line, with the row's line); then its label is learned from. The first prediction
    is ``--low``. A column is one of numbers or one of words by its first row. Words become one column a word, and new
    words new ones; numbers are taken as they are, so that numbers of about one size learn fastest. A row that cannot be
    taken, such as one with a word among numbers, is told with its line and left out; its answer is a comma alone, so
    that answers stay beside their rows. At the end, every group's losses are told, beside those of one model for all.
    """
    from thalweg.core import ThalwegError
    from thalweg.online import RowLearner, group_rules

    rules = group_rules(groups)
    learner = RowLearner(rules, low, high, combine=combine, alpha=alpha, seed=seed)
    rows = _Rows(_lines(sys.stdin), target, delimiter)
    rows.check(rules)
    wrong = 0
    try:
        for line, text in rows.lines:
            try:
                cells = rows.cells(text)
                if not cells:
                    continue
                played, label = _answer(learner, rows.names, cells, target)
            except ThalwegError as error:
                wrong += 1
                typer.echo(f"Line {line} is left out: {error}", err=True)
                if not as_json:
                    _say(",")
                continue
            _tell(line, played, label, as_json)
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
    for said in learner.summary():
        typer.echo(said, err=True)
    if wrong:
        typer.echo("1 row was left out." if wrong == 1 else f"{wrong} rows were left out.", err=True)


def _lines(file: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without the mark that some programs put before the first one."""
    for i, line in enumerate(file, 1):
        yield i, line.rstrip("\r\n").removeprefix("\ufeff" if i == 1 else "")


class _Rows:
    """Lines cut into cells as those of files are, but the separator is seen from the header alone."""

    def __init__(self, lines: Iterator[tuple[int, str]], target: str, delimiter: str | None) -> None:
        from thalweg.core import InvalidParameter

        if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise InvalidParameter(f"--delimiter is one character, and no quotation mark; got {delimiter!r}.")
        self.lines, self.target = lines, target
        self.names, self.separator = self._header(delimiter)
        self.see = f"On standard input, whose cells are cut at {self.separator!r} (--delimiter)."
        self._comma: bool | None = None  # whether decimals follow one; by the first row that shows it

    def _header(self, said: str | None) -> tuple[Sequence[str], str]:
        """The names in the first line that is no comment, or in a comment that names the target."""
        from thalweg.core import UnreadableFile
        from thalweg.datasets import _dialect
        from thalweg.datasets.tables import said_separator

        for number, line in self.lines:
            told = said_separator([line])[0] if number == 1 else None
            if told or not line.strip():
                said = said or told
                continue
            is_comment = line.lstrip().startswith("#")
            text = line.lstrip().lstrip("#").strip() if is_comment else line
            separator = said or _dialect.find_separator([text])
            names = _dialect.cells_of(text, separator)
            if names is None:
                raise UnreadableFile(f"Standard input: line {number} has a faulty quotation.")
            if not is_comment or self.target in names:
                return names, separator
        raise UnreadableFile("Standard input holds no line; expected one with the columns' names.")

    def check(self, rules: Sequence[By]) -> None:
        """Refuse a header without the target or a column of the groups, or with names that are none."""
        from thalweg.core import InvalidParameter, InvalidProblem, UnknownName

        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice and twice[0]:
            raise InvalidProblem(f"Two columns are called {twice[0]!r}; give each its own name.")
        if self.target not in self.names:
            raise UnknownName("column", self.target, self.names, see=self.see)
        if "" in self.names:
            place = self.names.index("") + 1
            raise InvalidProblem(f"Column {place} of the header has no name. Name it, or leave it out.")
        for column in (str(name) for rule in rules for name in rule.columns):
            if column == self.target:
                raise InvalidParameter(f"--groups: {column!r} is the target; a group is known before it.")
            if column not in self.names:
                raise UnknownName("column", column, self.names, see=self.see)

    def cells(self, line: str) -> list[str]:
        """The cells of a row, none of a comment; decimals follow points.

        Raises:
            InvalidProblem: a faulty quotation, another number of cells, a number with the other decimal mark.
        """
        from thalweg.core import InvalidProblem
        from thalweg.datasets import _cells, _dialect

        cells = _dialect.cells_of(line, self.separator)
        if cells is None:
            raise InvalidProblem("it has a faulty quotation.")
        if cells and len(cells) != len(self.names):
            raise InvalidProblem(f"it has {len(cells)} cells; expected {len(self.names)}, as the header has.")
        if self._comma is None and _dialect.takes_decimal_comma(self.separator):
            self._comma = _cells.has_decimal_comma(cells)
        if not self._comma:
            return cells
        for name, cell in zip(self.names, cells, strict=False):
            if "." in cell and _cells.is_number(cell):
                raise InvalidProblem(f"{name} is no number here: {_cells.fault(cell)}.")
        return [cell.replace(",", ".") if _cells.is_number(cell, comma=True) else cell for cell in cells]


def _answer(
    learner: RowLearner, names: Sequence[str], cells: Sequence[str], target: str
) -> tuple[float, float | None]:
    from thalweg.core import InvalidProblem
    from thalweg.datasets import _cells

    row = dict(zip(names, cells, strict=True))
    text = row.pop(target)
    if text not in _cells.MISSING and not _cells.is_number(text):
        raise InvalidProblem(f"{target} is no number and not empty: {_cells.fault(text)}.")
    label = None if text in _cells.MISSING else float(text)
    return learner.play(row, label), label


def _say(text: str) -> None:
    """A line that a reader at the other end of a pipe gets at once."""
    typer.echo(text)
    sys.stdout.flush()


def _tell(line: int, played: float, label: float | None, as_json: bool) -> None:
    if as_json:
        _say(strict_json({"line": line, "prediction": played, "label": label}))
    else:
        _say(f"{played!r},{'' if label is None else repr(label)}")
