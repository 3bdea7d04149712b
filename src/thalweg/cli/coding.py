"""``thalweg coding plan``: which code, with which parameters, on the times of one's own workers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.options import Header, Json
from thalweg.cli.output import PAGES, check_outputs, strict_json

if TYPE_CHECKING:
    from thalweg.distributed.coding import Scheme

coding_app = typer.Typer(no_args_is_help=True, help="Codes against late workers.")


@coding_app.command("plan")
def plan_coding(
    profile: Annotated[
        Path,
        typer.Option(help="Seconds of each worker in some uncoded rounds: a row a round, a column a worker."),
    ],
    workers: Annotated[int | None, typer.Option(help="How many; checked against the file's columns.")] = None,
    slope: Annotated[
        float | None,
        typer.Option(help="Seconds that one worker needs for all the data, beside a round's fixed costs."),
    ] = None,
    mu: Annotated[
        float, typer.Option(help="A round waits this share longer than the fastest worker takes.")
    ] = 0.2,
    most_b: Annotated[int, typer.Option(help="Longest burst to try, in rounds.")] = 3,
    most_w: Annotated[int, typer.Option(help="Longest window to try, in rounds.")] = 7,
    page: Annotated[Path | None, typer.Option(help="Draw the best scheme's rounds on this page.")] = None,
    header: Header = None,
    as_json: Json = False,
) -> None:
    """Replay every setting of uncoded, GC, SR-SGC and M-SGC on recorded times, and rank them.

    Without --slope, computing is taken for 30 % of the median round: measure it, by timing rounds with twice the data.
    """
    import numpy as np

    from thalweg.core import InvalidProblem
    from thalweg.datasets import load_named_matrix
    from thalweg.distributed.coding import DelayProfile, plan, replay, waterfall

    check_outputs([(page, PAGES)], [profile])
    seconds = load_named_matrix(profile, header=header, name="the profile").values
    if workers is not None and seconds.shape[1] != workers:
        raise InvalidProblem(f"{profile} has {seconds.shape[1]} columns, not {workers}: one for each worker.")
    taken = 0.3 * float(np.median(seconds)) * seconds.shape[1] if slope is None else slope
    times = DelayProfile(seconds, slope=taken)
    found = plan(times, mu, most_B=most_b, most_W=most_w)
    told = [_row(scheme, total) for scheme, total in found.ranked]
    result = replay(times, found.best, mu)
    if page is not None:
        from thalweg.workbench import render_figures

        render_figures(waterfall(result, times), page, "Gradient coding: rounds")
    if as_json:
        typer.echo(strict_json({"tried": found.tried, "slope": taken, "ranked": told}))
        return
    typer.echo(f"{found.tried} settings on {len(seconds)} rounds of {seconds.shape[1]} workers:")
    for row in told:
        typer.echo(
            f"  {row['seconds']:10.4g} s  load {row['load']:.4f}  {row['scheme']}({row['parameters']})"
        )
    if slope is None:
        typer.echo(f"Computing is taken for 30 % of the median round (--slope {taken:.4g}): measure it.")
    typer.echo(f"Of {seconds.size} results, {int(result.late.sum())} would not have been waited for.")
    if page is not None:
        typer.echo(f"Rounds: {page}")


def _row(scheme: Scheme, total: float) -> dict[str, object]:
    values = {f.name: getattr(scheme, f.name) for f in dataclasses.fields(scheme) if f.init and f.name != "n"}
    shown = ", ".join(f"{name}={value}" for name, value in values.items())
    return {
        "scheme": type(scheme).__name__,
        "parameters": shown,
        "seconds": total,
        "load": scheme.load,
    } | values
