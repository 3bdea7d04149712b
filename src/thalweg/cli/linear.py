"""``thalweg solve linear`` and ``thalweg compare linear``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from thalweg.cli.options import Json, Seconds, Seed, Steps, Tolerance


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
    from thalweg.core.files import atomic_write
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
