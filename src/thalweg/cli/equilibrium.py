"""``thalweg solve equilibrium``: matrix games from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from thalweg.cli.options import Json, Seconds, Seed, Steps, Tolerance

METHODS = ("pdhg", "extragradient", "forb", "anchored", "vr-extragradient", "inexact-halpern")


def solve_equilibrium(
    payoffs: Annotated[Path, typer.Argument(help="What the row player pays: .csv, .npy, .npz or .mtx.")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "pdhg",
    regularisation: Annotated[float, typer.Option(help="Adds (r/2)(|x|^2 - |y|^2); not with pdhg.")] = 0.0,
    tol: Tolerance = 1e-6,
    steps: Steps = 100_000,
    seconds: Seconds = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write both strategies here, as .npz: x and y.")] = None,
    as_json: Json = False,
) -> None:
    """Find an equilibrium of a matrix game, certified by its duality gap. Exit status 1 if it did not converge."""
    import numpy as np
    import torch

    from thalweg import equilibrium
    from thalweg.core import Stop, UnknownName, solve
    from thalweg.core.files import atomic_write
    from thalweg.datasets import load_matrix

    made: dict[str, Any] = {
        "pdhg": equilibrium.PDHG,
        "extragradient": equilibrium.Extragradient,
        "forb": equilibrium.ForwardReflectedBackward,
        "anchored": equilibrium.AnchoredExtragradient,
        "vr-extragradient": equilibrium.VRExtragradient,
        "inexact-halpern": equilibrium.InexactHalpern,
    }
    if method not in made:
        raise UnknownName("method", method, made, see="`thalweg solve equilibrium --help` shows all.")
    A = torch.tensor(load_matrix(payoffs).toarray(), dtype=torch.float64)
    game = equilibrium.matrix_game(A, regularisation)
    stop = Stop(below={"residual": tol}, steps=steps, seconds=seconds)
    result = solve(game, made[method](), stop=stop, seed=seed)
    x, y = result.x[: len(A)].numpy(), result.x[len(A) :].numpy()
    if out is not None:
        with atomic_write(out) as file:
            np.savez(file, x=x, y=y)
    told: dict[str, Any] = {"status": result.status.value, "steps": result.steps, "seconds": result.seconds}
    told |= {"metrics": result.metrics, "message": result.message, "x": x.tolist(), "y": y.tolist()}
    if as_json:
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{result!r}. {result.message}")
        for name, strategy in (("rows", x), ("columns", y)):
            played = [(i, p) for i, p in enumerate(strategy) if p > 1e-3]
            shown = ", ".join(f"{i}: {p:.3f}" for i, p in played[:10]) + (", ..." if len(played) > 10 else "")
            typer.echo(f"{name} played: {shown}")
        if out is not None:
            typer.echo(f"Strategies: {out}")
    raise typer.Exit(0 if result.converged else 1)
