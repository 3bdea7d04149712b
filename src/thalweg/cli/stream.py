"""``thalweg stream``: rows from standard input, each predicted before its label is looked at."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.online import Groups
from thalweg.cli.options import Json
from thalweg.cli.output import strict_json

if TYPE_CHECKING:
    from thalweg.online import RowLearner


def stream(
    target: Annotated[
        str, typer.Option(help="The column to predict; a row without a value in it is not learned from.")
    ],
    low: Annotated[float, typer.Option(help="Smallest value that the target can have.")],
    high: Annotated[float, typer.Option(help="Largest value that the target can have.")],
    groups: Groups = "",
    combine: Annotated[str, typer.Option(help="mean, draw, mixable or smallest.")] = "mean",
    alpha: Annotated[float, typer.Option(help="Ridge of the groups' learners.")] = 1.0,
    delimiter: Annotated[str, typer.Option(help="What separates cells.")] = ",",
    seed: Annotated[int, typer.Option(min=0, help="Of draw.")] = 0,
    as_json: Json = False,
) -> None:
    """Predict rows of a table as they come on standard input, so well that no group of rows is worse off.

    The first line names the columns. Each row is answered at once, by its prediction and its label (``--json``: an
    object a line); then its label is learned from. Columns of words become one column a word, and new words new ones;
    numbers are taken as they are, so that numbers of about one size learn fastest. A row that cannot be taken is told
    with its line and left out. At the end, every group's losses are told, beside those of one model for all.
    """
    from thalweg.core import InvalidParameter, ThalwegError
    from thalweg.online import RowLearner, group_rules

    if len(delimiter) != 1:
        raise InvalidParameter(f"--delimiter is one character; got {delimiter!r}.")
    learner = RowLearner(group_rules(groups), low, high, combine=combine, alpha=alpha, seed=seed)
    lines = csv.reader(_lines(sys.stdin), delimiter=delimiter)
    names = _names(lines, target)
    wrong = 0
    try:
        for cells in lines:
            if not cells:
                continue
            try:
                played, label = _answer(learner, names, cells, target)
            except ThalwegError as error:
                wrong += 1
                typer.echo(f"Line {lines.line_num} is left out: {error}", err=True)
                continue
            _tell(played, label, as_json)
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
    for line in learner.summary():
        typer.echo(line, err=True)
    if wrong:
        typer.echo(f"{wrong} rows were left out.", err=True)


def _lines(file: Iterable[str]) -> Iterator[str]:
    """Lines without the mark that some programs put before the first one."""
    for i, line in enumerate(file):
        yield line.removeprefix("\ufeff") if i == 0 else line


def _names(lines: Iterator[list[str]], target: str) -> Sequence[str]:
    from thalweg.core import InvalidProblem, UnknownName, UnreadableFile

    names = [name.strip() for name in next((cells for cells in lines if cells), [])]
    if not names:
        raise UnreadableFile("Standard input holds no line; expected one with the columns' names.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidProblem(f"Two columns are called {twice[0]!r}; give each its own name.")
    if target not in names:
        raise UnknownName("column", target, names, see="On standard input.")
    return names


def _answer(
    learner: RowLearner, names: Sequence[str], cells: Sequence[str], target: str
) -> tuple[float, float | None]:
    from thalweg.core import InvalidProblem

    if len(cells) != len(names):
        raise InvalidProblem(f"it has {len(cells)} cells; expected {len(names)}, as the header has.")
    row = dict(zip(names, cells, strict=True))
    text = row.pop(target).strip()
    try:
        label = float(text) if text else None
    except ValueError:
        raise InvalidProblem(f"{target} is {text!r}; expected a number, or nothing.") from None
    return learner.play(row, label), label


def _tell(played: float, label: float | None, as_json: bool) -> None:
    if as_json:
        typer.echo(strict_json({"prediction": played, "label": label}))
    else:
        typer.echo(f"{played!r},{'' if label is None else repr(label)}")
    sys.stdout.flush()
