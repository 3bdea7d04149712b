"""``thalweg reproduce`` and ``thalweg report``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer


def reproduce(
    systems: Annotated[
        list[str] | None, typer.Argument(help="Numbers or slugs; all with a study by default.")
    ] = None,
    scale: Annotated[str, typer.Option(help="smoke (seconds), quick, or paper (big machines).")] = "quick",
    engine: Annotated[str, typer.Option(help="loky, ray or sequential.")] = "loky",
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
