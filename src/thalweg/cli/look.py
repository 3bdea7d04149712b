"""`list` and `show`: what there is, and what it does."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.areas import Area, area_named, areas_in
from thalweg.cli.methods import Maker, options

if TYPE_CHECKING:
    from rich.console import Console

    from thalweg.catalogue import System


def list_(
    area: Annotated[str | None, typer.Argument(help="One area: its methods, and its systems.")] = None,
) -> None:
    """List the systems, or what one area has to offer."""
    from rich.console import Console
    from rich.table import Table

    from thalweg.catalogue import AREAS, METHODS, SYSTEMS
    from thalweg.core import UnknownName
    from thalweg.needs import NEEDS

    row = None if area is None or area in AREAS else area_named(area)
    folder = area if row is None else row.folder
    if folder is not None and folder not in AREAS:
        raise UnknownName("area", folder, AREAS, see="`thalweg list` shows all.")
    console = Console()
    table = Table(
        "", "you have", "use", title=None if folder is None else f"You have {AREAS[folder]}", box=None
    )
    for system in SYSTEMS:
        if folder in (None, system.area):
            table.add_row(system.number, NEEDS[system.number].have, system.area)
    console.print(table)
    if folder is None:
        typer.echo("\n`thalweg show 02` explains one, `thalweg list linear` an area with its methods.")
    if folder is None or not METHODS[folder]:
        return
    parts: list[Area | None] = [row] if row else [*areas_in(folder)] or [None]
    for part in parts:
        _list_methods(console, folder, part)


def _list_methods(console: Console, folder: str, row: Area | None) -> None:
    """The methods of a row, or of a folder that has none."""
    from rich.table import Table

    from thalweg.catalogue import METHODS

    makers: Mapping[str, Maker] = row.methods() if row else {**METHODS[folder]}
    home = (row.home if row else "") or folder
    methods = Table("method", "is", "options (default)", title=f"Methods of thalweg.{home}")
    for name, maker in sorted(makers.items()):
        methods.add_row(name, _first_line(METHODS[folder][name]), _shown_options(maker))
    console.print(methods)
    if row is not None:
        typer.echo(
            f"thalweg solve {row.name} ... --method NAME:option=value,...; `thalweg show NAME` explains one."
        )


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _shown_options(maker: Maker) -> str:
    return ", ".join(
        f"{o.name}" if o.required else f"{o.name} ({_short(o.default)})" for o in options(maker).values()
    )


def _short(value: object) -> str:
    if value is None or isinstance(value, bool | int | str):
        return str(value).lower() if isinstance(value, bool) or value is None else str(value)
    return f"{value:g}" if isinstance(value, float) else type(value).__name__


def show(
    name: Annotated[
        str, typer.Argument(help="A system, a method, or a schedule: 02, ssor-cg, linear/cg, rex.")
    ],
) -> None:
    """Explain a system, a method or a schedule; schedules are drawn."""
    from rich.console import Console

    from thalweg.catalogue import METHODS, SYSTEMS
    from thalweg.core import UnknownName
    from thalweg.training import PROFILES

    console = Console()
    if name in PROFILES:
        console.print(_drawn_schedule(name))
        return
    methods = {f"{area}/{m}": (area, m) for area in METHODS for m in METHODS[area]}
    found = [key for key, (area, m) in methods.items() if name in (key, m, METHODS[area][m].__name__)]
    if found:
        for key in found:
            console.print(_described_method(*methods[key]), markup=False, highlight=False)
        return
    for system in SYSTEMS:
        if name.zfill(2) == system.number or name == system.slug:
            console.print(_described(system), markup=False)
            return
    known = [*(m for _, m in methods.values()), *PROFILES, *(s.slug for s in SYSTEMS)]
    raise UnknownName("system, method or schedule", name, known, see="`thalweg list` shows all.")


def _described_method(area: str, name: str) -> str:
    from thalweg.catalogue import METHODS

    kind = METHODS[area][name]
    row = next((row for row in areas_in(area) if name in row.methods()), None)
    maker = row.methods()[name] if row else kind
    lines = [
        f"thalweg.{(row.home if row else '') or area}.{kind.__name__}",
        "",
        inspect.getdoc(kind) or "",
        "",
    ]
    found = options(maker)
    if row is not None:
        lines.append(
            f"On the command line: thalweg solve {row.name} ... --method {name}"
            + (":option=value" if found else "")
        )
        if maker is not kind:
            lines.append(_first_line(maker))
    for option in found.values():
        default = "required" if option.required else f"default {_short(option.default)}"
        lines.append(f"    {option.name}: {option.expected}; {default}")
    return "\n".join([*lines, ""])


def _described(system: System) -> str:
    from thalweg.needs import NEEDS

    lines = [
        f"{system.number} {system.title} ({system.paper})",
        f"You have {NEEDS[system.number].have}.",
        f"area: {system.area}",
        "",
    ]
    for export in system.exports:
        module, _, name = export.rpartition(".")
        thing = getattr(importlib.import_module(f"thalweg.{module}"), name)
        lines += [
            f"thalweg.{export}",
            *("    " + line for line in (inspect.getdoc(thing) or "").splitlines()),
            "",
        ]
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
