"""``thalweg solve convex``: least squares, logistic and multi-class problems from files, by any block rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from thalweg.cli.options import Json, Seconds, Seed

LOSSES = ("squares", "logistic", "multiclass")


def solve_convex(
    data: Annotated[
        Path, typer.Argument(help="Features and target: .svm, .csv (with --target) or .npz (X, y).")
    ],
    loss: Annotated[str, typer.Option(help=f"One of {', '.join(LOSSES)}.")] = "squares",
    target: Annotated[str | None, typer.Option(help="The target's column of a .csv.")] = None,
    l1: Annotated[float, typer.Option(help="Weight of the l1 penalty: l1 |x|_1.")] = 0.0,
    ridge: Annotated[float, typer.Option(help="Weight of the l2 penalty: ridge/2 |x|^2.")] = 0.0,
    group: Annotated[
        float, typer.Option(help="Weight of the group penalty: the sum of the groups' lengths.")
    ] = 0.0,
    group_size: Annotated[
        int | None,
        typer.Option(
            help="Neighbouring columns in a group; with multiclass by default a column and its classes."
        ),
    ] = None,
    nonnegative: Annotated[bool, typer.Option(help="Hold x >= 0.")] = False,
    blocks: Annotated[str, typer.Option(help="variable, in-order, random, sorted or averaged.")] = "variable",
    size: Annotated[int, typer.Option(help="Coordinates in a block; with a group penalty, groups.")] = 20,
    select: Annotated[
        str, typer.Option(help="cyclic, random, lipschitz, gs, gsl, gsd, gsdhb, gsq, gsr or progress.")
    ] = "gsl",
    update: Annotated[str, typer.Option(help="gradient, bound, newton or two-metric.")] = "newton",
    tol: Annotated[float, typer.Option(help="Largest violation of optimality to reach.")] = 1e-6,
    steps: Annotated[int, typer.Option(help="Most block updates.")] = 100_000,
    seconds: Seconds = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the coefficients here: .npy, .npz or .csv.")] = None,
    as_json: Json = False,
) -> None:
    """Minimise a loss with penalties by block coordinate descent. Exit status 1 if it did not converge."""
    import numpy as np

    from thalweg import convex
    from thalweg.core import InvalidProblem, Stop, UnknownName, solve
    from thalweg.core.files import save_array
    from thalweg.datasets import load

    found = load(data, target=target)
    if found.y is None:
        raise InvalidProblem(
            f"{data} holds no target. Name a column with --target, or give a .npz with X and y."
        )
    low = 0.0 if nonnegative else -np.inf
    problem = _problem(_loss(loss, found, ridge), l1, low, group, group_size)
    for kind, name, known in (
        ("selection", select, convex.SELECTIONS),
        ("update", update, convex.UPDATES),
    ):
        if name not in known:
            raise UnknownName(kind, name, known, see="`thalweg solve convex --help` shows all.")
    partition = _partition(blocks, problem, min(size, problem.units), seed)
    chosen = convex.BlockCoordinateDescent(partition, convex.SELECTIONS[select](), convex.UPDATES[update]())
    stop = Stop(below={"violation": tol}, steps=steps, seconds=seconds)
    result = solve(problem, chosen, stop=stop, seed=seed)
    x = (
        result.x.reshape(-1, problem.loss.classes)
        if isinstance(problem.loss, convex.Multinomial)
        else result.x
    )
    if out is not None:
        save_array(out, x)
    told: dict[str, Any] = {"status": result.status.value, "steps": result.steps, "seconds": result.seconds}
    told |= {"metrics": result.metrics, "nonzero": int(np.count_nonzero(x)), "message": result.message}
    if as_json:
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"{result!r}. {result.message}")
        typer.echo(f"{told['nonzero']} of {x.size} coefficients are not zero.")
        if out is not None:
            typer.echo(f"Coefficients: {out}")
    raise typer.Exit(0 if result.converged else 1)


def _loss(name: str, data: Any, ridge: float) -> Any:
    """The loss that ``name`` says; two labels of any kind become -1 and 1, several 0, 1, 2, ..."""
    import numpy as np

    from thalweg.convex import LeastSquares, Logistic, Multinomial
    from thalweg.core import InvalidProblem, UnknownName

    if name not in LOSSES:
        raise UnknownName("loss", name, LOSSES)
    if name == "squares":
        return LeastSquares(data.X, data.y, ridge)
    values, labels = np.unique(data.y, return_inverse=True)
    if name == "multiclass":
        return Multinomial(data.X, labels, len(values), ridge)
    if len(values) != 2:
        raise InvalidProblem(
            f"The target has {len(values)} values; logistic needs two. Use --loss multiclass."
        )
    return Logistic(data.X, np.where(labels == 1, 1.0, -1.0), ridge)


def _problem(loss: Any, l1: float, low: float, group: float, group_size: int | None) -> Any:
    import numpy as np

    from thalweg.convex import GroupPenalized, Multinomial, Penalized
    from thalweg.core import InvalidParameter

    if not group:
        return Penalized(loss, l1, low)
    classes = loss.classes if isinstance(loss, Multinomial) else 1
    size = group_size if group_size is not None else 1
    if size < 1 or (size == 1 and classes == 1):
        raise InvalidParameter(f"--group needs --group-size of two columns or more; got {group_size}.")
    return GroupPenalized(loss, l1, low, groups=np.arange(loss.n) // (classes * size), group_weight=group)


def _partition(name: str, problem: Any, size: int, seed: int) -> Any:
    from thalweg.convex import FixedBlocks, VariableBlocks
    from thalweg.core import InvalidParameter, UnknownName

    n, lipschitz = problem.loss.n, problem.loss.lipschitz
    if name != "variable" and problem.units < n:
        raise InvalidParameter(f"--blocks {name} would cut groups in two. Use --blocks variable.")
    made: dict[str, Any] = {
        "variable": lambda: VariableBlocks(size),
        "in-order": lambda: FixedBlocks.in_order(n, size),
        "random": lambda: FixedBlocks.at_random(n, size, seed),
        "sorted": lambda: FixedBlocks.sorted_by_lipschitz(lipschitz, size),
        "averaged": lambda: FixedBlocks.averaged(lipschitz, size),
    }
    if name not in made:
        raise UnknownName("blocks", name, made)
    return made[name]()
