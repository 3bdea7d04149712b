"""The command: list, show, solve, compare, reproduce, report.

Heavy imports wait until a command needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Published optimization systems with one vocabulary: solve, compare, and rerun the papers' claims.",
    epilog="Start with: thalweg list, then thalweg show 02, then thalweg reproduce --scale smoke",
)
solve_app = typer.Typer(no_args_is_help=True, help="Solve a problem from your own files.")
compare_app = typer.Typer(
    no_args_is_help=True, help="Run several methods on your own files under one budget."
)
app.add_typer(solve_app, name="solve")
app.add_typer(compare_app, name="compare")

Tolerance = Annotated[float, typer.Option(help="Relative residual to reach.")]
Steps = Annotated[int, typer.Option(help="Most iterations.")]
Seconds = Annotated[float | None, typer.Option(help="Most seconds.")]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Seed = Annotated[int, typer.Option(help="Makes the run repeatable.")]


@app.command("list")
def list_(
    area: Annotated[str | None, typer.Argument(help="One area: its methods, and its systems.")] = None,
) -> None:
    """List the systems, or what one area has to offer."""
    from rich.console import Console
    from rich.table import Table

    from thalweg.catalogue import AREAS, SYSTEMS
    from thalweg.core import UnknownName

    if area is not None and area not in AREAS:
        raise UnknownName("area", area, AREAS, see="`thalweg list` shows all.")
    console = Console()
    table = Table(
        "system", "name", "area", "today", title=None if area is None else f"You have ... {AREAS[area]}"
    )
    for system in SYSTEMS:
        if area in (None, system.area):
            today = ", ".join(e.partition(".")[2] for e in system.exports) or "-"
            table.add_row(system.number, system.slug, system.area, today)
    console.print(table)
    if area == "linear":
        from thalweg.linear import METHODS

        console.print("Methods for `thalweg solve linear`: " + ", ".join(METHODS) + ", learned")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A system, a method, or a schedule: 02, ssor-cg, rex.")],
) -> None:
    """Explain a system, a method or a schedule; schedules are drawn."""
    from rich.console import Console

    from thalweg.catalogue import SYSTEMS
    from thalweg.core import UnknownName
    from thalweg.linear import METHODS
    from thalweg.training import PROFILES

    console = Console()
    if name in PROFILES:
        console.print(_drawn_schedule(name))
        return
    if name in METHODS:
        console.print(f"thalweg.linear.{METHODS[name].__name__}\n\n{_docstring(METHODS[name])}", markup=False)
        return
    for system in SYSTEMS:
        if name in (system.number, system.slug):
            console.print(_described(system), markup=False)
            return
    known = [*METHODS, *PROFILES, *(s.slug for s in SYSTEMS)]
    raise UnknownName("system, method or schedule", name, known, see="`thalweg list` shows all.")


@solve_app.command("linear")
def solve_linear(
    matrices: Annotated[
        list[Path], typer.Argument(help="A: .mtx, .npz, .npy or .csv; several are a sequence.")
    ],
    rhs: Annotated[list[Path] | None, typer.Option(help="b, one for each matrix; ones by default.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="e.g. ssor-cg, sor:omega=1.8, learned; see `thalweg list linear`. Default: chosen by A."
        ),
    ] = "",
    tol: Tolerance = 1e-8,
    steps: Steps = 10_000,
    seconds: Seconds = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the answer here, as .npy.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Keep the run here as it goes.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on from a checkpoint.")] = None,
    as_json: Json = False,
) -> None:
    """Solve A x = b. Ctrl-C ends with the best answer so far. Exit status 1 if it did not converge."""
    import numpy as np

    from thalweg.core import Checkpoint, Stop, solve
    from thalweg.core.storage import atomic_write
    from thalweg.linear import SSORCG, LearnedSolver, ListedSystems, omega_grid
    from thalweg.online import TsallisINF

    systems = _systems(matrices, rhs)
    problem: Any = systems[0] if len(systems) == 1 else ListedSystems(systems)
    stop = Stop(below={"residual": tol}, steps=steps, seconds=seconds)
    if len(systems) > 1 or method == "learned":
        problem = ListedSystems(systems)
        single = method not in ("", "learned")
        arms = [_linear_method(method)] if single else omega_grid(SSORCG)
        chosen: Any = LearnedSolver(TsallisINF(len(arms)), arms, tolerance=tol, cap=steps)
        stop = Stop(seconds=seconds, steps=None)
    else:
        chosen = _linear_method(method) if method else None
    callbacks = [Checkpoint(checkpoint)] if checkpoint else []
    result = solve(problem, chosen, stop=stop, callbacks=callbacks, seed=seed, resume=resume)
    if out is not None:
        with atomic_write(out) as file:
            np.save(file, result.x)
    told: dict[str, Any] = {"status": result.status.value, "steps": result.steps, "seconds": result.seconds}
    told |= {"metrics": result.metrics, "message": result.message}
    if as_json:
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{result!r}. {result.message}")
        if out is not None:
            typer.echo(f"Answer: {out}")
    raise typer.Exit(0 if result.converged else 1)


@compare_app.command("linear")
def compare_linear(
    matrices: Annotated[list[Path], typer.Argument(help="A: .mtx, .npz, .npy or .csv; each is a problem.")],
    rhs: Annotated[list[Path] | None, typer.Option(help="b, one for each matrix; ones by default.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Repeat it: --method cg --method sor:omega=1.8. Default: all that fit."),
    ] = None,
    tol: Tolerance = 1e-8,
    steps: Steps = 10_000,
    seconds: Annotated[float | None, typer.Option(help="Most seconds a run.")] = 60.0,
    report: Annotated[
        Path | None, typer.Option(help="Write a page with table, curves and profile here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run several methods on your own linear systems and see table and curves."""
    from thalweg.core import Stop
    from thalweg.linear import METHODS
    from thalweg.workbench import compare

    problems = {path.stem: system for path, system in zip(matrices, _systems(matrices, rhs), strict=True)}
    names = method or [name for name in METHODS if name != "red-black-sor"]
    methods = {name: _linear_method(name) for name in names}
    found = compare(problems, methods, stop=Stop(below={"residual": tol}, steps=steps, seconds=seconds))
    if report is not None:
        found.report(report)
    if as_json:
        clean = [{k: None if v != v else v for k, v in row.items()} for row in found.rows]
        typer.echo(json.dumps(clean))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("problem", "method", "status", "steps", "seconds", "residual")
    for row in found.rows:
        numbers = [f"{row.get(name, float('nan')):.4g}" for name in ("steps", "seconds", "residual")]
        table.add_row(row["problem"], row["method"], row["status"], *numbers)
    Console().print(table)
    if report is not None:
        typer.echo(f"Report: {report}")


@app.command()
def reproduce(
    systems: Annotated[
        list[str] | None, typer.Argument(help="Numbers or slugs; all with a study by default.")
    ] = None,
    scale: Annotated[str, typer.Option(help="smoke (seconds), quick, or paper (big machines).")] = "quick",
    engine: Annotated[str, typer.Option(help="loky, ray, dask or sequential.")] = "loky",
    jobs: Annotated[int | None, typer.Option(help="Studies at once; default: as many as cores.")] = None,
    runs: Annotated[Path, typer.Option(help="Where finished studies are kept.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what is already kept.")] = False,
    page: Annotated[Path | None, typer.Option("--report", help="The page; default RUNS/report.html.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print {slug: [{"claim", "measured", "required", "holds"}]}.')
    ] = False,
) -> None:
    """Rerun the papers' claims against their baselines and write one report.

    Finished studies are kept and skipped the next time. Exit status 1 if a study broke down; a claim that does
    not hold is a finding, shown in the report.
    """
    from thalweg.workbench import render_studies
    from thalweg.workbench import reproduce as run

    with _Live(as_json) as watch:
        records, failures = run(
            systems or (),
            scale=cast(Any, scale),
            folder=runs,
            engine=engine,
            jobs=jobs,
            fresh=fresh,
            watch=watch,
        )
    page = page or runs / "report.html"
    render_studies(records, page)
    if as_json:
        typer.echo(json.dumps({r.system.slug: [v.to_dict() for v in r.evidence.verdicts] for r in records}))
    else:
        _print_verdicts(records)
        typer.echo(f"Report: {page.resolve()}")
    for failure in failures:
        typer.echo(f"{failure.system.slug} broke down:\n{failure.trace}", err=True)
    if open_:
        _open(page)
    raise typer.Exit(1 if failures else 0)


@app.command()
def report(
    runs: Annotated[Path, typer.Option(help="Where finished studies are kept.")] = Path("runs"),
    page: Annotated[Path | None, typer.Option("--report", help="The page; default RUNS/report.html.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write the report of the studies that are already kept."""
    from thalweg.core import UnreadableFile
    from thalweg.workbench import Record, render_studies

    kept = sorted(runs.glob("[0-9][0-9]-*.json"))
    if not kept:
        raise UnreadableFile(f"No finished studies in {runs}. Run `thalweg reproduce` first, or pass --runs.")
    page = page or runs / "report.html"
    render_studies([Record.load(path) for path in kept], page)
    typer.echo(f"Report: {page.resolve()}")
    if open_:
        _open(page)


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        typer.echo("No browser was found here to open it with.")


def _systems(matrices: list[Path], rhs: list[Path] | None) -> list[Any]:
    import numpy as np

    from thalweg.core import InvalidProblem
    from thalweg.datasets import load_matrix, load_vector
    from thalweg.linear import LinearSystem

    if rhs and len(rhs) != len(matrices):
        raise InvalidProblem(
            f"{len(matrices)} matrices but {len(rhs)} right-hand sides; give one --rhs for each."
        )
    loaded = [load_matrix(path) for path in matrices]
    sides = [load_vector(path) for path in rhs] if rhs else [np.ones(A.shape[0]) for A in loaded]
    return [LinearSystem(A, b) for A, b in zip(loaded, sides, strict=True)]


def _linear_method(text: str) -> Any:
    """The method that ``sor:omega=1.8`` names."""
    import dataclasses

    from thalweg.core import InvalidParameter, UnknownName
    from thalweg.linear import METHODS

    name, _, options = text.partition(":")
    if name not in METHODS:
        raise UnknownName("method", name, [*METHODS, "learned"], see="`thalweg list linear` shows all.")
    kind: Any = METHODS[name]
    fields = {f.name: f for f in dataclasses.fields(kind) if f.init and isinstance(f.default, int | float)}
    values = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in fields:
            raise UnknownName(f"option of {name}", key, fields)
        try:
            values[key] = type(cast(Any, fields[key].default))(value)
        except ValueError:
            raise InvalidParameter(f"{name}: {key} needs a number; got {value!r}.") from None
    return kind(**values)


def _docstring(thing: Any) -> str:
    import inspect

    return inspect.getdoc(thing) or ""


def _described(system: Any) -> str:
    import importlib

    lines = [f"{system.number} {system.title} ({system.paper})", f"area: {system.area}", ""]
    if not system.available:
        return "\n".join([*lines, "Not here yet."])
    for export in system.exports:
        module, _, name = export.rpartition(".")
        thing = getattr(importlib.import_module(f"thalweg.{module}"), name)
        lines += [f"thalweg.{export}", *("    " + line for line in _docstring(thing).splitlines()), ""]
    return "\n".join([*lines, f"Rerun its claims: thalweg reproduce {system.number}"])


def _drawn_schedule(name: str) -> str:
    """A schedule as a small plot of characters, 60 wide and 12 high."""
    import numpy as np

    from thalweg.training import PROFILES

    values = PROFILES[name](np.linspace(0, 1, 60))
    rows = [f"{name}: multiple of the base learning rate over the share of the budget\n"]
    for level in np.linspace(1, 0, 12):
        marks = "".join("█" if v >= level - 1 / 22 and v > 0 else " " for v in values)
        rows.append(f"{level:4.2f} ┤{marks}")
    return "\n".join([*rows, "     └" + "─" * 60, "      0" + " " * 57 + "1"])


class _Live:
    """A table of what each study is doing, on standard error; plain lines where that is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._last: dict[str, str] = {}
        self._live: Any = None

    def __enter__(self) -> Any:
        from rich.console import Console
        from rich.live import Live

        if sys.stderr.isatty():
            self._live = Live(console=Console(stderr=True), refresh_per_second=4)
            self._live.start()
        return None if self._quiet and self._live is None else self._show

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def _show(self, state: dict[str, str]) -> None:
        from rich.table import Table

        if self._live is not None:
            table = Table("study", "progress")
            for name, note in state.items():
                table.add_row(name, note)
            self._live.update(table)
            return
        for name, note in state.items():
            if note != self._last.get(name) and note != "waiting":
                typer.echo(f"{name}: {note}", err=True)
        self._last = state


def _print_verdicts(records: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("system", "claim", "measured", "required", "holds")
    for record in records:
        for v in record.evidence.verdicts:
            holds = "[green]yes[/]" if v.holds else "[red]no[/]"
            table.add_row(
                record.system.number, v.claim, f"{v.measured:.4g}", f"{v.relation} {v.required:.4g}", holds
            )
    Console().print(table)


def main() -> None:
    """Entry point: errors made on purpose are told in a line, with exit status 2."""
    from thalweg.core.errors import ThalwegError

    try:
        app()
    except ThalwegError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
