"""``thalweg discover``: an optimizer as a program, found by evolution on a proxy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from thalweg.cli.options import Json, Seed
from thalweg.cli.output import check_outputs, strict_json
from thalweg.cli.own import from_file

if TYPE_CHECKING:
    from thalweg.discovery.proxies import Proxy


def discover(
    proxy: Annotated[
        str,
        typer.Argument(
            help="digits-mlp, cnn, characters, tabular; or FILE.py:FUNCTION of yours, called with the rule, which "
            "returns a loss."
        ),
    ] = "digits-mlp",
    start: Annotated[
        Path | None, typer.Option(help="A program to begin with, as --out writes it. Default: AdamW.")
    ] = None,
    evaluations: Annotated[int, typer.Option(min=1, help="Runs of the proxy.")] = 300,
    population: Annotated[int, typer.Option(min=1, help="Programs alive.")] = 100,
    tournament: Annotated[int, typer.Option(min=1, help="Programs of which the best is the parent.")] = 2,
    children: Annotated[
        int, typer.Option(min=1, help="Made from one population and run side by side: 16 a worker.")
    ] = 8,
    workers: Annotated[int, typer.Option(min=1, help="Processes; what is found does not hang on it.")] = 1,
    restart_after: Annotated[
        int | None,
        typer.Option(min=1, help="Children without a better program, before all begin from the best."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Most that a candidate may take. Default: no limit.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="File of losses, shared by searches that run on the same proxy.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Keep the search in this file.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on from such a file.")] = None,
    simplify: Annotated[bool, typer.Option(help="Make the program shorter where it does not hurt.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Write the winner as a module with an optimizer's class, .py.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the class.")] = "Discovered",
    progress: Annotated[
        bool | None, typer.Option(help="A live table with the best program. Default: in a terminal.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Search for an update rule, beginning with AdamW, that trains a small task better.

    A proxy FILE.py:FUNCTION is imported, which runs that file's code. Ctrl-C ends with the best program so far.

    Example: thalweg discover digits-mlp --evaluations 300 --population 30 --tournament 8 --out found.py
    """
    import sys

    from thalweg.discovery import ADAMW, read_program, search, write_optimizer

    check_outputs([(out, (".py",))], [cache, checkpoint, resume])
    begin = ADAMW if start is None else read_program(start)
    found = search(
        proxy_named(proxy),
        start=begin,
        evaluations=evaluations,
        population=population,
        tournament=tournament,
        children=children,
        workers=workers,
        cache=cache,
        checkpoint=checkpoint,
        resume=resume,
        restart_after=restart_after,
        seconds=seconds,
        seed=seed,
        progress=sys.stderr.isatty() if progress is None else progress,
    )
    first = found.task.metrics(begin.source)["loss"]
    short = found.simplified() if simplify else None
    program = found.program if short is None else short.program
    loss = found.task.metrics(program.source)["loss"]
    if out is not None:
        write_optimizer(program, out, name)
    last = found.result.history.metrics[-1] if found.result.history.metrics else {}
    if as_json:
        told = {"program": program.source, "loss": loss, "start": first, "status": found.result.status.value}
        log = [] if short is None else [str(change) for change in short.log]
        typer.echo(strict_json(told | {"search": last, "log": log, "out": str(out) if out else None}))
        return
    typer.echo(program.source)
    for change in () if short is None else short.log:
        typer.echo(f"# {change}")
    shown = ", ".join(f"{key} {value:.4g}" for key, value in last.items())
    typer.echo(f"Loss {loss:.4g}, of the start {first:.4g}. {shown}.")


def proxy_named(text: str) -> Proxy:
    """A ready proxy, or a function of the user's file."""
    from thalweg.core import InvalidParameter, UnknownName
    from thalweg.discovery import PROXIES

    if ":" not in text:
        if text not in PROXIES:
            raise UnknownName("proxy", text, PROXIES, see="Or give FILE.py:FUNCTION of yours.")
        return PROXIES[text]()
    found, _ = from_file(text)
    if not callable(found):
        raise InvalidParameter(f"{text} is a {type(found).__name__}; expected a function.")
    return cast("Proxy", found)
