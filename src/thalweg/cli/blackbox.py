"""Programs as black boxes: ``thalweg solve blackbox`` and ``thalweg compare blackbox``."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.options import Json, Page, Seed
from thalweg.cli.output import PAGES, check_outputs, strict_json
from thalweg.core import CheckpointMismatch, InvalidParameter, Problem
from thalweg.core.files import write_text

if TYPE_CHECKING:
    from thalweg.blackbox import BayesianOptimization, Study, Trial
    from thalweg.blackbox.workers import Command

Words = Annotated[
    list[str],
    typer.Argument(
        help="After --: the program, with {name} where a parameter goes. Its last line is the value."
    ),
]
SpaceFile = Annotated[Path, typer.Option(help="The parameters, a TOML file with a table for each.")]
Maximize = Annotated[bool, typer.Option("--maximize", help="Look for the largest value.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds until an evaluation counts as hung.")]


def read(
    command: Words, space: SpaceFile, maximize: Maximize = False, timeout: Timeout = None
) -> Mapping[str, Problem]:
    """Optimise a program of your own: each evaluation runs it once."""
    from thalweg.blackbox import BlackBox, Space
    from thalweg.blackbox.workers import Command

    parameters, program = Space.from_toml(space), Command(_as_utf8(command), timeout)
    program.check(parameters)
    return {command[0]: BlackBox(program, parameters, "maximize" if maximize else "minimize")}


def solve_blackbox(
    command: Words,
    space: SpaceFile,
    trials: Annotated[int, typer.Option(help="Evaluations in all, those of earlier runs included.")] = 50,
    parallel: Annotated[int, typer.Option(help="Evaluations at once.")] = 1,
    maximize: Maximize = False,
    timeout: Timeout = None,
    study: Annotated[
        Path,
        typer.Option(
            help="Where the study is kept, after every evaluation: its checkpoint. The same command, and "
            "no other, goes on from there."
        ),
    ] = Path("blackbox.study"),
    method: Annotated[
        str, typer.Option(help="bayesian-optimization:option=1,... in place of the two below.")
    ] = "",
    acquisition: Annotated[str, typer.Option(help="auto, logei, noisy-ei, kg, mes, ucb, ...")] = "auto",
    exact: Annotated[bool, typer.Option("--exact", help="The values have no noise.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the outcome here, as --json prints it: .json.")
    ] = None,
    report: Page = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Optimise a program: evaluate it where it is worth most, several at once.

    In the program's words {x} is the parameter x, {x:.3f} the same in a number format of Python; {{ and }} are braces.
    An evaluation that ends with an error, prints no number or hangs is a failed trial, and such places are avoided.
    The method is Bayesian optimisation; `thalweg compare blackbox` runs the others beside it.
    Ctrl-C ends with the best point so far. Exit status 1 if it was interrupted or nothing succeeded.

    Example: thalweg solve blackbox --space space.toml --trials 50 --parallel 4 -- ./simulate.sh {x} {y}
    """
    from thalweg.blackbox import Space
    from thalweg.blackbox.workers import Command, evaluate

    check_outputs([(report, PAGES), (out, (".json",)), (study, ())], [space])
    chosen = _bayesian(method, acquisition, exact)
    ours = chosen.study(Space.from_toml(space), "maximize" if maximize else "minimize", seed)
    program = Command(_as_utf8(command), timeout)
    program.check(ours.space)
    if study.exists():
        _go_on(ours, study, program)
    ours.command = shlex.join(program.words)

    def watch(trial: Trial, message: str) -> None:
        best = ours.best
        outcome = f"failed: {message}" if message else f"{trial.value:.6g}"
        so_far = "" if best is None else f"  best {best.value:.6g}"
        typer.echo(f"{trial.number + 1:4d}/{trials}  {outcome}{so_far}  {_words(trial.point)}", err=True)

    complete = evaluate(ours, program, trials, parallel=parallel, path=study, watch=watch)
    told: dict[str, object] = {"complete": complete, "trials": len(ours.trials)}
    told["failed"] = sum(t.status == "failed" for t in ours.trials)
    if ours.done:
        found, best = ours.recommend(), ours.best
        told |= {"point": found.point, "mean": found.mean, "std": found.std}
        told["best"] = None if best is None else {"point": best.point, "value": best.value}
        if report is not None:
            from thalweg.workbench import render_figures

            render_figures(ours.plot(), report, "thalweg: the black box")
    if out is not None:
        write_text(out, strict_json(told) + "\n")
    if as_json:
        typer.echo(strict_json(told))
    elif not ours.done:
        typer.echo(
            f"No trial of {len(ours.trials)} succeeded. Run the command by hand at a point to see why."
        )
    else:
        typer.echo(f"Use {_words(found.point)}: {found.mean:.6g} +- {found.std:.2g}")
        typer.echo(f"{'Done' if complete else 'Interrupted'}; kept in {study}.")
    raise typer.Exit(0 if complete and ours.done else 1)


def _go_on(ours: Study, path: Path, program: Command) -> None:
    """Load what was kept for this program; one that was made in Python, or has no answer yet, may be any's."""
    ours.load(path)
    pending = sum(t.status == "pending" for t in ours.trials)
    told = len(ours.trials) - pending
    if told and ours.command not in ("", shlex.join(program.words)):
        raise CheckpointMismatch(
            f"{path} was kept for another command: {ours.command}. Use it, or another --study."
        )
    open_ones = f", {pending} in progress" if pending else ""
    typer.echo(
        f"Going on with {path}: {told} {'trial' if told == 1 else 'trials'} done{open_ones}.", err=True
    )


def _bayesian(method: str, acquisition: str, exact: bool) -> BayesianOptimization:
    """The method of a study: by its text, or by the two options that are wanted most."""
    from thalweg.blackbox import METHODS, BayesianOptimization, BlackBox, Real, Space
    from thalweg.cli.methods import parsed

    if not method:
        return BayesianOptimization(acquisition=acquisition, noise="none" if exact else "learn")
    if acquisition != "auto" or exact:
        raise InvalidParameter(
            "--method has options of its own: --method bayesian-optimization:acquisition=logei,noise=none."
        )
    nowhere = BlackBox(lambda point: 0.0, Space({"x": Real(0.0, 1.0)}))
    chosen = parsed(method, METHODS, nowhere, "blackbox")
    if not isinstance(chosen, BayesianOptimization):
        raise InvalidParameter(
            f"A study that is kept is Bayesian optimisation; {method.partition(':')[0]} runs in `thalweg compare "
            "blackbox`."
        )
    if chosen.q != 1:
        raise InvalidParameter("Evaluations at once are --parallel here, not q.")
    return chosen


def _words(point: Mapping[str, object]) -> str:
    return " ".join(f"{name}={v:.6g}" if isinstance(v, float) else f"{name}={v}" for name, v in point.items())


def _as_utf8(words: list[str]) -> list[str]:
    """Words as the shell gave them, read as UTF-8 like the space's file, and not in the machine's locale."""
    return [os.fsencode(word).decode("utf-8", "surrogateescape") for word in words]
