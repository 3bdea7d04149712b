"""`advise`: what fits the files that a user has."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.options import Header, Json
from thalweg.cli.output import PAGES, check_outputs, strict_json
from thalweg.core import InvalidParameter

if TYPE_CHECKING:
    from thalweg.workbench.advice import Advice


def advise(
    context: typer.Context,
    files: Annotated[
        list[Path],
        typer.Argument(
            help="The files of one problem, such as a matrix and its right side, or folders of pictures."
        ),
    ],
    race: Annotated[
        float | None,
        typer.Option("--try", min=0.1, help="Race the methods of what fits best, each for so many seconds."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="With --try: write the race's page here, as .html.")
    ] = None,
    header: Header = None,
    as_json: Json = False,
) -> None:
    """Look at files and say which systems fit, which do not and why, with commands to begin with."""
    from dataclasses import asdict

    from thalweg.workbench.advice import advise as advised
    from thalweg.workbench.advice.rules import refuse_nothing

    if report is not None and race is None:
        raise InvalidParameter("--report is the page of a race; say --try SECONDS too.")
    check_outputs([(report, PAGES)], [files])
    sights, found = advised(files, header)
    refuse_nothing(sights, found)
    if as_json:
        typer.echo(strict_json([asdict(advice) for advice in found]))
    else:
        for sight in sights:
            typer.echo(sight.said())
        for advice in found:
            typer.echo("")
            _show(advice)
    if race is not None:
        _race(context, [advice for advice in found if advice.compared], race, report)


def _show(advice: Advice) -> None:
    systems = " and ".join(advice.systems)
    fits = "Fits" if advice.fits else "Does not fit"
    typer.echo(_filled(f"{fits}: {advice.what} ({systems}). {advice.why}"))
    if advice.question:
        typer.echo(_filled(advice.question, "    "))
    for command in advice.commands:
        typer.echo(f"    {command}")


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, 80, initial_indent=indent, subsequent_indent="    ")


def _race(context: typer.Context, found: list[Advice], seconds: float, report: Path | None) -> None:
    """Compare the methods of the first that can be raced as it is."""
    if not found:
        raise InvalidParameter(
            "--try: nothing that fits can be raced before you answer its question, or say more."
        )
    words = ["compare", *found[0].compared, "--seconds", f"{seconds:g}"]
    if report is not None:
        words += ["--report", str(report)]
    typer.echo(f"\nthalweg {' '.join(words)}\n")
    command = context.find_root().command
    command.main(args=words, standalone_mode=False, parent=None, prog_name="thalweg")
