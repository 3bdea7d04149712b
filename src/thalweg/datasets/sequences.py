"""Sequences with scores: FASTA, and tables with a column of each."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, NotFinite, UnknownName, UnreadableFile
from thalweg.core.files import check_target, write_text
from thalweg.datasets._text import ending, read_text, reading
from thalweg.datasets.frames import load_frame

if TYPE_CHECKING:
    import pandas as pd

FASTA = (".fasta", ".fa", ".fna", ".faa")
_FIELD = re.compile(r"(?:^|[\s|;,])([A-Za-z_]\w*)=(\S*?)(?=[\s|;,]|$)")


@dataclass(frozen=True)
class SequenceFile:
    """What a file holds: names, none in a table; letters; scores, None where there are none."""

    names: tuple[str, ...]
    letters: tuple[str, ...]
    scores: NDArray[np.float64] | None


def load_sequences(
    path: str | Path, *, sequence: str = "", score: str | None = "", header: bool | None = None
) -> SequenceFile:
    """Load ``.fasta`` (``.fa``, ``.fna``, ``.faa``) or a table ``.csv``, ``.tsv``, ``.txt``, each also compressed.

    Args:
        sequence: the column of letters. Default: the only column of words.
        score: the column of numbers; in FASTA the field of the title, ``>name score=1.5``. Default: ``score`` or the
            only column of numbers; none is taken where FASTA has no such field. None: do not look for scores.
        header: whether a table's first line names its columns; by default seen from it.

    Raises:
        UnreadableFile: absent, damaged, or no such file; a title without letters. UnknownName: no such column.
        InvalidProblem: several columns fit; a title of FASTA lacks the score that others have.
        NotFinite: a cell or field without a finite value.
    """
    path = Path(path)
    if ending(path) in FASTA:
        return _fasta(path, score)
    frame = load_frame(path, header=header)
    words = [str(name) for name, dtype in frame.dtypes.items() if dtype.kind != "f"]
    numbers = [str(name) for name, dtype in frame.dtypes.items() if dtype.kind == "f"]
    column = _chosen(path, "sequence", sequence, words, list(map(str, frame.columns)))
    letters = tuple(str(cell).strip() for cell in frame[column])
    if score is None:
        return SequenceFile((), letters, None)
    chosen = _chosen(path, "score", score, numbers, list(map(str, frame.columns)))
    if chosen not in numbers:
        raise InvalidProblem(f"{path}: column {chosen!r} holds words; a score is a number.")
    return SequenceFile((), letters, frame[chosen].to_numpy(np.float64))


def _chosen(path: Path, what: str, said: str, fitting: list[str], columns: list[str]) -> str:
    """The column that was named, or the only one that fits."""
    if said:
        if said not in columns:
            raise UnknownName("column", said, columns, see=f"In {path}.")
        return said
    if what in fitting:
        return what
    if len(fitting) != 1:
        kind = "words" if what == "sequence" else "numbers"
        listed = ", ".join(fitting) or "none"
        raise InvalidProblem(
            f"{path}: columns of {kind}: {listed}; expected one, or one called {what!r}. Say which: "
            f"{what}='NAME' (--{what} NAME)."
        )
    return fitting[0]


def _fasta(path: Path, score: str | None) -> SequenceFile:
    with reading(path, "FASTA"):
        lines = read_text(path).split("\n")
    titles: list[str] = []
    parts: list[list[str]] = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if text.startswith(">"):
            titles.append(text[1:].strip())
            parts.append([])
        elif text and not text.startswith(";"):
            if not titles:
                raise UnreadableFile(f"{path} is no FASTA: line {number} stands before the first title, '>'.")
            parts[-1].append("".join(text.split()))
    if not titles:
        raise UnreadableFile(f"{path} is no FASTA: no line begins with '>'.")
    letters = tuple("".join(part).rstrip("*") for part in parts)
    for title, text in zip(titles, letters, strict=True):
        if not text:
            raise UnreadableFile(f"{path}: the title '>{title}' has no letters below it.")
    return SequenceFile(tuple(titles), letters, _fields(path, titles, score))


def _fields(path: Path, titles: list[str], score: str | None) -> NDArray[np.float64] | None:
    """The scores in the titles."""
    if score is None:
        return None
    name = score or "score"
    found = [dict(_FIELD.findall(title)).get(name) for title in titles]
    if all(value is None for value in found):
        if score:
            raise UnknownName("field", name, [], see=f"No title of {path} has {name}=NUMBER.")
        return None
    values = np.empty(len(titles))
    for row, value in enumerate(found):
        if value is None:
            raise InvalidProblem(
                f"{path}: the title '>{titles[row]}' lacks {name}=NUMBER, which others have."
            )
        try:
            values[row] = float(value)
        except ValueError:
            raise InvalidProblem(f"{path}: '>{titles[row]}': {name}={value} is no number.") from None
        if not np.isfinite(values[row]):
            raise NotFinite(f"{path}: '>{titles[row]}': {name}={value} is not finite. Drop such sequences.")
    return values


def save_sequences(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a frame with a column ``sequence``, in its order: ``.csv``, or FASTA with the other columns in the titles.

    Numbers have six digits. The file is written whole or not at all.
    """
    target = check_target(path, (".csv", *FASTA))
    cells = [
        {str(k): f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
        for row in frame.to_dict("records")
    ]
    if target.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, ["rank", *map(str, frame.columns)], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"rank": rank, **row} for rank, row in enumerate(cells, 1))
        write_text(target, text.getvalue())
        return
    lines = []
    for rank, row in enumerate(cells, 1):
        fields = " ".join(f"{name}={value}" for name, value in row.items() if name != "sequence")
        lines.append(f">{rank} {fields}\n{row['sequence']}\n")
    write_text(target, "".join(lines))
