"""The command: list, show, solve, compare, predict, and the rest of `thalweg --help`.

Heavy imports wait until a command needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import math
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO, cast

import typer

from thalweg.cli import (
    advise,
    align,
    coding,
    dictionary,
    discover,
    evidence,
    federated,
    find,
    improve,
    landscape,
    look,
    matrix,
    search,
    stream,
    training,
)
from thalweg.cli.areas import AREAS
from thalweg.cli.build import compare_command, solve_command

if TYPE_CHECKING:
    import click

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Published optimization systems with one vocabulary: solve, compare, and rerun the papers' claims.",
    epilog="Start with: thalweg advise FILES on your own files, or thalweg find WORDS, then thalweg show 02",
)
solve_app = typer.Typer(no_args_is_help=True, help="Solve a problem from your own files.")
compare_app = typer.Typer(
    no_args_is_help=True, help="Run several methods on your own files under one budget."
)
schedule_app = typer.Typer(no_args_is_help=True, help="Learning-rate schedules from what runs have recorded.")
app.add_typer(solve_app, name="solve")
app.add_typer(compare_app, name="compare")
app.add_typer(schedule_app, name="schedule")


def _version(asked: bool) -> None:
    if asked:
        from thalweg import __version__

        typer.echo(f"thalweg {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the code an error came from. May stand anywhere.")
    ] = False,
) -> None:
    """Nothing: the options above are seen to before any command."""


app.command("list")(look.list_)
app.command("show")(look.show)
app.command("find")(find.find)
app.command("advise")(advise.advise)
for _area in AREAS:
    solve_app.command(_area.name)(_area.solve or solve_command(_area))
    compare_app.command(_area.name)(compare_command(_area))
schedule_app.command("refine")(training.refine_schedule)
app.command("align")(align.align)
app.command("predict")(matrix.predict)
app.add_typer(coding.coding_app, name="coding")
app.add_typer(federated.federated_app, name="federated")
app.command()(stream.stream)
app.command()(search.search)
app.command("dictionary")(dictionary.learn_dictionary)
app.command("discover")(discover.discover)
app.command("improve")(improve.improve)
app.command("double-descent")(landscape.double_descent)
app.command()(evidence.reproduce)
app.command()(evidence.report)


#: What is wrong with the words of a command. Later versions of typer bring a click of their own, with its own classes.
_TOLD = cast(
    "type[click.ClickException]",
    next(k for k in typer.BadParameter.__mro__ if k.__name__ == "ClickException"),
)


def main() -> None:
    """Entry point: an error of any kind is told in one line, with exit status 2; ``--debug`` shows its traceback."""
    before, dashes, after = _split(sys.argv[1:])
    debug = "--debug" in before
    warnings.showwarning = _warn
    try:
        code = _command()([a for a in before if a != "--debug"] + dashes + after, standalone_mode=False)
    except _TOLD as error:
        error.show()
        if type(error).__name__ == "NoSuchOption":
            typer.echo("If it is a formula or a number that begins with a minus, put -- before it.", err=True)
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("Interrupted.", err=True)
        code = 130
    except Exception as error:
        if debug:
            raise
        typer.echo(_one_line(error), err=True)
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


@functools.cache
def _command() -> click.Command:
    """Put together once: reading all signatures takes as long as a small problem."""
    whole = typer.main.get_command(app)
    _refuse_nan(whole)
    return whole


def _refuse_nan(command: click.Command) -> None:
    """NaN is neither below nor above any bound, and passes click's ranges."""
    for parameter in command.params:
        kind = parameter.type
        if type(kind).__name__ == "FloatRange":
            setattr(kind, "convert", functools.partial(_converted, kind.convert, kind.fail))  # noqa: B010
    for below in getattr(command, "commands", {}).values():
        _refuse_nan(below)


def _converted(
    convert: Callable[..., float], fail: Callable[..., NoReturn], value: object, *where: object
) -> float:
    found = convert(value, *where)
    return fail(f"{value!r} is no number.", *where) if math.isnan(found) else found


def _split(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]


def _one_line(error: Exception) -> str:
    from thalweg.core import ThalwegError

    text = " ".join(str(error).split())
    if (
        isinstance(error, ThalwegError) or type(error).__name__ == "InvalidParameterError"
    ):  # scikit-learn's own
        return f"Error: {error if isinstance(error, ThalwegError) else text}"
    return f"Error: {type(error).__name__}: {text or 'no message'}. (thalweg --debug ... shows where it came from.)"


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    typer.echo(f"Warning: {' '.join(str(message).split())}", err=True)
