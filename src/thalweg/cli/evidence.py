"""``thalweg reproduce`` and ``thalweg report``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:
    from thalweg.studies.evidence import Scale
    from thalweg.workbench import Record


def reproduce(
    systems: Annotated[
        list[str] | None, typer.Argument(help="Numbers or slugs; all with a study by default.")
    ] = None,
    scale: Annotated[str, typer.Option(help="smoke (seconds), quick, or full (minutes a study).")] = "quick",
    engine: Annotated[str, typer.Option(help="loky, ray or sequential.")] = "loky",
    jobs: Annotated[int | None, typer.Option(help="Studies at once; default: as many as cores.")] = None,
    runs: Annotated[Path, typer.Option(help="Where finished studies are kept.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Run again what is already kept.")] = False,
    page: Annotated[Path | None, typer.Option("--report", help="The page; default RUNS/report.html.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Write what --scale full gave as recorded evidence.")
    ] = False,
    evidence: Annotated[
        Path | None, typer.Option(help="Recorded evidence; default evidence/ of the checkout, or here.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print {slug: verdicts}; the guide on evidence has the format.")
    ] = False,
) -> None:
    """Rerun the papers' claims against their baselines and write one report.

    Finished studies are kept, and skipped the next time unless the code has changed since. Exit status 1 if a
    study broke down; a claim that does not hold is a finding, shown in the report.
    """
    from thalweg.core.validation import require
    from thalweg.workbench import evidence_folder, read_recorded, render_studies, write_recorded
    from thalweg.workbench import reproduce as run

    require(not record or scale == "full", "--record needs --scale full: that is what is kept", got=scale)
    evidence = evidence or evidence_folder()

    with _Live(as_json) as watch:
        records, failures = run(
            systems or (),
            scale=cast("Scale", scale),
            folder=runs,
            engine=engine,
            jobs=jobs,
            fresh=fresh,
            watch=watch,
        )
    written = write_recorded(records, evidence) if record else []
    page = page or runs / "report.html"
    shown = {record.system.number for record in records}
    render_studies(records, page, {n: r for n, r in read_recorded(evidence).items() if n in shown})
    if as_json:
        typer.echo(json.dumps({r.system.slug: [v.to_dict() for v in r.evidence.verdicts] for r in records}))
    else:
        _print_verdicts(records)
        for path in written:
            typer.echo(f"Recorded: {path}")
        typer.echo(f"Report: {page.resolve()}")
    for failure in failures:
        typer.echo(f"{failure.system.slug} broke down:\n{failure.trace}", err=True)
    if open_:
        _open(page)
    raise typer.Exit(1 if failures else 0)


def report(
    runs: Annotated[Path | None, typer.Option(help="Where finished studies are kept; default runs.")] = None,
    page: Annotated[Path | None, typer.Option("--report", help="The page; default RUNS/report.html.")] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Recorded evidence; default evidence/ of the checkout, or here.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write the report of the studies that are kept, and of the evidence that is recorded.

    Of a study kept at several scales the largest is shown.
    """
    from thalweg.core import UnreadableFile
    from thalweg.studies.evidence import SCALES
    from thalweg.workbench import Record, evidence_folder, read_recorded, render_studies

    folder = runs or Path("runs")
    kept = [Record.load(path) for path in sorted(folder.glob("[0-9][0-9]-*.json"))]
    recorded = read_recorded(evidence or evidence_folder())
    if not kept and (runs is not None or not recorded):
        raise UnreadableFile(
            f"No finished studies in {folder}. Run `thalweg reproduce` first, or pass --runs."
        )
    page = page or folder / "report.html"
    kept.sort(key=lambda record: SCALES.index(record.scale))
    largest = {record.system.number: record for record in kept}
    render_studies(list(largest.values()), page, recorded)
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

    def __enter__(self) -> Callable[[dict[str, str]], None] | None:
        from rich.console import Console
        from rich.live import Live

        if sys.stderr.isatty():
            self._live = Live(console=Console(stderr=True), refresh_per_second=4)
            self._live.start()
        return None if self._quiet and self._live is None else self._show

    def __exit__(self, *error: object) -> None:
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


def _print_verdicts(records: Sequence[Record]) -> None:
    from rich.console import Console
    from rich.table import Table

    colours = {"holds": "green", "fails": "red", "open": "yellow"}
    table = Table("system", "claim", "measured", "90 % interval", "required", "outcome")
    for record in records:
        for v in record.evidence.verdicts:
            low, high = v.wanted
            required = (
                f"{low:.4g} to {high:.4g}" if v.relation == "within" else f"{v.relation} {v.required:.4g}"
            )
            interval = "" if v.interval is None else f"{v.interval[0]:.4g} to {v.interval[1]:.4g}"
            outcome = f"[{colours[v.outcome]}]{v.outcome}[/]"
            claim = v.claim.replace("[", "\\[")  # rich would take brackets for its own
            table.add_row(record.system.number, claim, f"{v.measured:.4g}", interval, required, outcome)
    Console().print(table)
