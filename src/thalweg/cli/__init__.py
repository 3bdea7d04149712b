"""The command: list, show, solve, compare, schedule, reproduce, report.

Heavy imports wait until a command needs them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from thalweg.cli import (
    blackbox,
    coding,
    constrained,
    convex,
    equilibrium,
    evidence,
    federated,
    linear,
    training,
)

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
schedule_app = typer.Typer(no_args_is_help=True, help="Learning-rate schedules from what runs have recorded.")
app.add_typer(solve_app, name="solve")
app.add_typer(compare_app, name="compare")
app.add_typer(schedule_app, name="schedule")


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
    rerun = f"Rerun its claims: thalweg reproduce {system.number}" if system.study else "It has no study yet."
    return "\n".join([*lines, rerun])


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


solve_app.command("linear")(linear.solve_linear)
solve_app.command("blackbox")(blackbox.solve_blackbox)
solve_app.command("constrained")(constrained.solve_constrained)
solve_app.command("convex")(convex.solve_convex)
solve_app.command("equilibrium")(equilibrium.solve_equilibrium)
schedule_app.command("refine")(training.refine_schedule)
compare_app.command("linear")(linear.compare_linear)
app.add_typer(coding.coding_app, name="coding")
app.add_typer(federated.federated_app, name="federated")
app.command()(evidence.reproduce)
app.command()(evidence.report)


def main() -> None:
    """Entry point: errors made on purpose are told in a line, with exit status 2."""
    from thalweg.core.errors import ThalwegError

    try:
        app()
    except ThalwegError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
