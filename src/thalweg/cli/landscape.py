"""``thalweg double-descent``: whether a table's models are threatened by a peak of the test error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.options import Header, Json, Page
from thalweg.cli.output import PAGES, check_outputs, strict_json
from thalweg.core import InvalidParameter, InvalidProblem, UnknownName

if TYPE_CHECKING:
    from thalweg.landscape.double_descent import FeatureModels, LastLayer
    from thalweg.landscape.double_descent.features import FeatureMap

#: Trainers of the last layer by the names that the command takes.
TRAINERS = ("descent", "momentum", "cg", "sgd", "exact", "ridge", "early-stopping")


def double_descent(
    table: Annotated[
        Path, typer.Argument(help="FeatureModels and target: .svm, .csv or .npz (X, y); also .gz.")
    ],
    target: Annotated[str | None, typer.Option(help="The target's column of a .csv.")] = None,
    rows: Annotated[
        int | None, typer.Option(min=10, help="Rows to train on, drawn anew for each seed; half of them.")
    ] = None,
    widths: Annotated[
        str, typer.Option(help="Widths by commas; by default from a fifth of the rows to eight times.")
    ] = "",
    features: Annotated[
        str, typer.Option(help="relu or fourier: random features. columns: those of the table.")
    ] = "relu",
    optimizer: Annotated[
        str, typer.Option(help=f"Who trains the last layer: {', '.join(TRAINERS)}.")
    ] = "descent",
    steps: Annotated[int, typer.Option(min=1, help="Of the optimizer.")] = 10_000,
    seeds: Annotated[int, typer.Option(min=1, help="Draws of rows and features.")] = 5,
    header: Header = None,
    report: Page = None,
    as_json: Json = False,
) -> None:
    """Train models of many widths on a table: is there a peak of the test error, and what helps?

    Columns are standardised and the target is centred; a target that is text becomes one-hot targets. Exit status 1
    where a peak threatens.
    """
    import numpy as np

    from thalweg.datasets import load
    from thalweg.landscape.double_descent import Split, scan

    check_outputs([(report, PAGES)], [table])
    data = load(table, target=target, header=header)
    if data.y is None:
        raise InvalidProblem(
            f"{table} holds no target. Name a column with --target, or give a .npz with X and y."
        )
    X = np.asarray(data.X.toarray() if hasattr(data.X, "toarray") else data.X, dtype=np.float64)
    y = np.asarray(data.y)
    if y.dtype.kind in "OUS":
        classes, codes = np.unique(y, return_inverse=True)
        y = np.eye(len(classes))[codes]
    y = y - y.mean(0)
    deviation = X.std(0)
    X = np.divide(X - X.mean(0), deviation, out=np.zeros_like(X), where=deviation > 0)
    count = len(X) // 2 if rows is None else rows
    if not 10 <= count < len(X):
        raise InvalidProblem(
            f"{table} has {len(X)} rows; --rows needs at least 10 and fewer than that, got {count}."
        )
    shown = not as_json and sys.stderr.isatty()
    found = scan(
        _family(features, optimizer),
        Split(X, y.astype(np.float64), count),
        _widths(widths, count, X.shape[1] if features == "columns" else None),
        steps=steps,
        seeds=seeds,
        tell=lambda share, what: typer.echo(f"\r{what}\033[K", err=True, nl=False) if shown else None,
    )
    if shown:
        typer.echo("\r\033[K", err=True, nl=False)
    if report is not None:
        from thalweg.workbench import render_figures

        render_figures([found.figure()], report, f"Error by width: {table.name}")
    if as_json:
        frame = found.to_frame()
        effects = {name: float(np.median(values)) for name, values in found.effects.items()}
        typer.echo(
            strict_json(
                {
                    "threatened": found.threatened,
                    "peak_width": found.peak_width,
                    "peak": found.peak,
                    "ratio": found.ratio,
                    "rise": found.rise,
                    "effects": effects,
                    "widths": frame.to_dict("records"),
                }
            )
        )
    else:
        typer.echo(found.to_frame()[["width", "train", "test", "number", "rank"]].to_string(index=False))
        typer.echo(str(found))
        if report is not None:
            typer.echo(f"Report: {report}")
    raise typer.Exit(1 if found.threatened else 0)


def _family(features: str, optimizer: str) -> FeatureModels:
    from thalweg.landscape import double_descent as dd

    maps: dict[str, FeatureMap] = {
        "relu": dd.RandomFeatures(),
        "fourier": dd.RandomFeatures("fourier"),
        "columns": dd.Columns(),
    }
    made: tuple[type[LastLayer], ...] = (
        dd.GradientDescent,
        dd.HeavyBall,
        dd.CGLS,
        dd.SGD,
        dd.Exact,
        dd.Ridge,
        dd.EarlyStopping,
    )
    trainers = dict(zip(TRAINERS, made, strict=True))
    if features not in maps:
        raise UnknownName("features", features, maps)
    if optimizer not in trainers:
        raise UnknownName("optimizer", optimizer, trainers)
    return dd.FeatureModels(maps[features], trainers[optimizer]())


def _widths(text: str, rows: int, most: int | None) -> list[int]:
    """Widths named, or a grid around the rows; of a table's own columns not more than it has."""
    if text:
        try:
            return [int(word) for word in text.split(",")]
        except ValueError:
            raise InvalidParameter(
                f"--widths takes whole numbers by commas, such as 20,50,100; got {text!r}."
            ) from None
    grid = sorted(
        {
            max(1, round(rows * share))
            for share in (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.2, 1.5, 2.0, 4.0, 8.0)
        }
    )
    return [w for w in grid if most is None or w <= most]
