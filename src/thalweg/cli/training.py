"""``thalweg schedule``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thalweg.cli.options import Json
from thalweg.cli.output import PAGES, check_outputs, strict_json


def refine_schedule(
    norms: Annotated[
        Path, typer.Argument(help="Gradient norms of a run: .csv, .npz, .npy, or TensorBoard's events.")
    ],
    geometry: Annotated[str, typer.Option(help="l2 for SGD (l2 norms), l1 for Adam (l1 norms).")] = "l2",
    column: Annotated[
        str | None,
        typer.Option(help="Column, array or tag that holds the norms; by default the geometry's name."),
    ] = None,
    smoothing: Annotated[
        float, typer.Option(help="Width of the median filter, as a share of the run.")
    ] = 0.1,
    numerical: Annotated[
        bool, typer.Option("--numerical", help="Minimise the bound instead; l2 only.")
    ] = False,
    steps: Annotated[int | None, typer.Option(help="Length of the schedule; by default as recorded.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the schedule, its highest rate 1, as .npz, .npy or .csv.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a page with norms and schedule here.")] = None,
    as_json: Json = False,
) -> None:
    """Make a learning-rate schedule from the gradient norms of an earlier run.

    Example: thalweg schedule refine norms.csv --geometry l1 --out schedule.npz --plot schedule.html
    """
    import numpy as np

    from thalweg.core import UnknownName
    from thalweg.core.files import ARRAY_ENDINGS, save_array
    from thalweg.core.validation import require
    from thalweg.datasets import load_series
    from thalweg.training import conversion_bound, fit_warmup_poly, refine
    from thalweg.training.refinement import figures, smoothed

    check_outputs([(out, ARRAY_ENDINGS), (plot, PAGES)], [norms])
    if steps is not None:
        require(steps >= 1, "--steps needs a whole number >= 1", got=steps)
    try:
        recorded = load_series(norms, column or geometry)
    except UnknownName:
        recorded = load_series(norms, column)
    refined = refine(
        recorded,
        geometry,  # type: ignore[arg-type]
        smoothing=smoothing,
        method="numerical" if numerical else "closed-form",
    )
    fit = fit_warmup_poly(refined)
    values = refined(np.linspace(0.0, 1.0, steps or len(refined.values)))
    told = {"steps": len(values), "recorded": len(recorded), "warmup": fit.warmup, "power": fit.power}
    if geometry == "l2":
        G = smoothed(recorded, smoothing)
        linear = conversion_bound(np.linspace(1.0, 0.0, len(G)), G)
        told["guarantee, of linear decay's"] = conversion_bound(refined.values, G) / linear
    if out is not None:
        save_array(out, values)
    if plot is not None:
        from thalweg.workbench import render_figures

        render_figures(figures(recorded, refined, smoothing), plot, "thalweg: a refined schedule")
    if as_json:
        typer.echo(strict_json(told))
        return
    typer.echo(
        f"{len(values)} steps from {len(recorded)} recorded; close to {fit.warmup:.1%} of warm-up, then power "
        f"{fit.power:.2f}."
    )
    share = told.get("guarantee, of linear decay's")
    if share is not None:
        typer.echo(f"Guarantee: {share:.3f} of linear decay's.")
    for path in (out, plot):
        if path is not None:
            typer.echo(f"Written: {path}")
