"""Options that several commands have."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

Tolerance = Annotated[float | None, typer.Option(min=0.0, help="What the metric must come down to.")]
Method = Annotated[str, typer.Option(help="NAME or NAME:option=1,...")]
Steps = Annotated[int | None, typer.Option(min=0, help="Most steps; 10 000 by default.")]
Seconds = Annotated[float | None, typer.Option(min=0.0, help="Most seconds.")]
Seed = Annotated[int, typer.Option(min=0, help="Makes the run repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="Whether a table's first line names its columns; seen by itself."
    ),
]
Page = Annotated[Path | None, typer.Option(help="Write a page with table and curves here.")]


def numbers_by_commas(text: str) -> list[float] | None:
    """Finite numbers by commas, none of an empty text; None of anything else.

    >>> numbers_by_commas("0.1, 1"), numbers_by_commas(""), numbers_by_commas("1,nan")
    ([0.1, 1.0], [], None)
    """
    try:
        found = [float(word) for word in text.split(",")] if text.strip() else []
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None
