"""`find`: systems by what a user has."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer


def find(
    words: Annotated[
        list[str], typer.Argument(help="What you have, in your own words; quotes are not needed.")
    ],
    most: Annotated[int, typer.Option(min=1, help="How many systems to show, at most.")] = 5,
) -> None:
    """Find the systems that fit what you have, such as: find unpaired samples before and after."""
    from thalweg.core import InvalidProblem
    from thalweg.needs import NEEDS, near, search

    text = " ".join(words)
    found = search(text, most)
    if not found:
        close = near(text)
        mend = f"Close: {', '.join(close)}." if close else "`thalweg list` shows what people have."
        raise InvalidProblem(f"No system is described by {text!r}. {mend}")
    for match in found:
        system = match.system
        typer.echo(f"{system.number}  you have {NEEDS[system.number].have}")
        told = f"{system.title}. thalweg.{system.area}; `thalweg show {system.number}` explains it."
        typer.echo(textwrap.fill(told, 80, initial_indent="    ", subsequent_indent="    "))
