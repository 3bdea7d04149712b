"""``thalweg solve constrained``: formulas on the command line."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from thalweg.cli.options import Json, Seconds, Seed, Steps, Tolerance

METHODS = ("sketched", "newton", "gmres", "minres", "augmented-lagrangian")
SKETCHES = ("rows", "gaussian", "count", "hadamard", "blocks")


def solve_constrained(
    minimize: Annotated[str, typer.Argument(help='What to minimise, in x1, x2, ...: "(1 - x1)**2".')],
    start: Annotated[str, typer.Option(help='Where to start, one number for each unknown: "-1.2, 1".')],
    subject_to: Annotated[
        list[str] | None, typer.Option(help='An expression to hold at zero: "x2 - x1**2". May be repeated.')
    ] = None,
    at_most_zero: Annotated[
        list[str] | None, typer.Option(help="An expression to hold at or below zero. May be repeated.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "newton",
    sketch: Annotated[str, typer.Option(help=f"For sketched: {', '.join(SKETCHES)}.")] = "blocks",
    tol: Tolerance = 1e-8,
    steps: Steps = 1_000,
    seconds: Seconds = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Minimise a formula under equations, and check the optimality conditions. Exit status 1 if it did not converge.

    Formulas are Python expressions with sin, cos, exp, log, sqrt and the like; they are evaluated, so use your own
    only.
    """
    from thalweg import constrained
    from thalweg.core import InvalidProblem, Stop, UnknownName, solve
    from thalweg.numerics import sketch as sketches

    kinds: dict[str, Any] = {
        "rows": sketches.Kaczmarz,
        "gaussian": sketches.Gaussian,
        "count": sketches.CountSketch,
        "hadamard": sketches.SRHT,
        "blocks": sketches.BlockKaczmarz,
    }
    made: dict[str, Any] = {
        "sketched": lambda: constrained.SketchedNewton(kinds[sketch]()),
        "newton": constrained.NewtonSQP,
        "gmres": constrained.InexactSQP,
        "minres": lambda: constrained.InexactSQP("minres"),
        "augmented-lagrangian": constrained.AugmentedLagrangian,
    }
    for kind, name, known in (("method", method, made), ("sketch", sketch, kinds)):
        if name not in known:
            raise UnknownName(kind, name, known, see="`thalweg solve constrained --help` shows all.")
    try:
        x = [float(number) for number in start.split(",")]
    except ValueError as error:
        raise InvalidProblem(f"--start {start!r} is no list of numbers such as '-1.2, 1'.") from error
    problem = constrained.EqualityConstrained.from_formulas(
        minimize, subject_to or [], x, at_most_zero=at_most_zero or []
    )
    result = solve(
        problem, made[method](), stop=Stop(below={"kkt": tol}, steps=steps, seconds=seconds), seed=seed
    )
    certificate = constrained.certify(problem, result.x)
    told: dict[str, Any] = {"status": result.status.value, "steps": result.steps, "seconds": result.seconds}
    told |= {"x": result.x[: len(x)].tolist(), "multipliers": certificate.multipliers.tolist()}
    told |= {"metrics": result.metrics, "strict_minimum": certificate.minimum(), "message": result.message}
    if as_json:
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{result!r}. {result.message}")
        typer.echo(f"x                        {', '.join(f'{v:.8g}' for v in told['x'])}")
        typer.echo(str(certificate))
    raise typer.Exit(0 if result.converged else 1)
