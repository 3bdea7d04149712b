"""Convex problems from tables: least squares, logistic and multi-class losses with penalties."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from thalweg.cli.case import Case, named
from thalweg.cli.options import Header
from thalweg.cli.output import array_of
from thalweg.core import InvalidParameter, InvalidProblem, Problem, Result, UnknownName

if TYPE_CHECKING:
    import numpy as np

    from thalweg.convex import BlockCoordinateDescent, ConvexReLU, Loss, Penalized
    from thalweg.convex.coordinate import Partition
    from thalweg.datasets import Dataset

LOSSES = ("squares", "logistic", "multiclass")


def read(
    data: Annotated[
        list[Path],
        typer.Argument(help="Features and target: .svm, .csv (with --target) or .npz (X, y); also .gz."),
    ],
    loss: Annotated[str, typer.Option(help=f"One of {', '.join(LOSSES)}.")] = "squares",
    target: Annotated[str | None, typer.Option(help="The target's column of a .csv.")] = None,
    l1: Annotated[
        float,
        typer.Option(
            help="Weight of the l1 penalty, l1 |x|_1, beside the sum of the losses: n times Lasso's alpha."
        ),
    ] = 0.0,
    ridge: Annotated[
        float, typer.Option(help="Weight of the l2 penalty, ridge/2 |x|^2, beside the sum of the losses.")
    ] = 0.0,
    group: Annotated[
        float, typer.Option(help="Weight of the group penalty: the sum of the groups' lengths.")
    ] = 0.0,
    group_size: Annotated[
        int | None,
        typer.Option(
            help="Neighbouring columns in a group; with multiclass by default a column and its classes."
        ),
    ] = None,
    header: Header = None,
    zero_based: Annotated[
        bool | None,
        typer.Option("--zero-based/--one-based", help="How a .svm file counts its columns; guessed."),
    ] = None,
    features: Annotated[
        int | None, typer.Option(help="How many columns a .svm file has; the largest seen.")
    ] = None,
    nonnegative: Annotated[bool, typer.Option("--nonnegative", help="Hold x >= 0.")] = False,
    relu: Annotated[
        str | None,
        typer.Option(
            help="Train a two-layer ReLU network instead: activation patterns to sample, or 'all' on small data."
        ),
    ] = None,
    decay: Annotated[
        float | None,
        typer.Option(
            help="With --relu: weight decay beside the sum of the losses, decay/2 |weights|^2. Default 1."
        ),
    ] = None,
    draw: Annotated[
        int | None, typer.Option(min=0, help="With --relu: the seed of the patterns. Default 0.")
    ] = None,
) -> Mapping[str, Problem]:
    """Minimise a loss with penalties, on a table of features and a target."""
    import numpy as np

    from thalweg.datasets import load

    if group_size is not None and not group:
        raise InvalidParameter("--group-size is of a group penalty; say its weight, --group, too.")
    if relu is None and (decay is not None or draw is not None):
        raise InvalidParameter("--decay and --draw are of a network; say --relu too.")
    problems: dict[str, Problem] = {}
    for name, path in named(data).items():
        counted: bool | Literal["auto"] = "auto" if zero_based is None else zero_based
        found = load(path, target=target, header=header, zero_based=counted, n_features=features)
        if found.y is None:
            raise InvalidProblem(
                f"{path} holds no target. Name a column with --target, or give a .npz with X and y."
            )
        if relu is not None:
            if l1 or ridge or group or nonnegative:
                raise InvalidParameter(
                    "--relu has one penalty, --decay; leave out --l1, --ridge, --group and --nonnegative."
                )
            problems[name] = _network(found, loss, relu, 1.0 if decay is None else decay, draw or 0)
            continue
        low = 0.0 if nonnegative else -np.inf
        problems[name] = _problem(_loss(loss, found, ridge), l1, low, group, group_size)
    return problems


def _loss(name: str, data: Dataset, ridge: float) -> Loss:
    """The loss that ``name`` says; two labels of any kind become -1 and 1, several 0, 1, 2, ..."""
    import numpy as np

    from thalweg.convex import LeastSquares, Logistic, Multinomial

    if name not in LOSSES:
        raise UnknownName("loss", name, LOSSES)
    if name == "squares":
        return LeastSquares(data.X, data.numbers("squares"), ridge)
    labels, values = data.classes()
    if name == "multiclass":
        return Multinomial(data.X, labels, len(values), ridge)
    if len(values) != 2:
        raise InvalidProblem(
            f"The target has {len(values)} values; logistic needs two. Use --loss multiclass."
        )
    return Logistic(data.X, np.where(labels == 1, 1.0, -1.0), ridge)


def _problem(loss: Loss, l1: float, low: float, group: float, group_size: int | None) -> Penalized:
    import numpy as np

    from thalweg.convex import GroupPenalized, Penalized

    if not group:
        return Penalized(loss, l1, low)
    size = group_size if group_size is not None else 1
    if size < 1 or (size == 1 and loss.classes == 1):
        raise InvalidParameter(f"--group needs --group-size of two columns or more; got {group_size}.")
    return GroupPenalized(
        loss, l1, low, groups=np.arange(loss.n) // (loss.classes * size), group_weight=group
    )


def _network(data: Dataset, loss: str, patterns: str, decay: float, seed: int) -> ConvexReLU:
    """The convex program of a network on a table, its hidden bias a column of ones."""
    import numpy as np

    from thalweg.convex import ConvexReLU, all_patterns, sample_patterns

    if loss not in LOSSES:
        raise UnknownName("loss", loss, LOSSES)
    if patterns != "all" and not (patterns.isdecimal() and int(patterns)):
        raise InvalidParameter(f"--relu needs a number of patterns >= 1, or 'all'; got {patterns!r}.")
    given = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X, dtype=np.float64)
    X = np.column_stack([given, np.ones(len(given))])
    D = all_patterns(X) if patterns == "all" else sample_patterns(X, int(patterns), seed=seed)
    if loss == "squares":
        return ConvexReLU(X, data.numbers("squares"), D, decay, output_bias=True)
    labels, values = data.classes()
    if loss == "multiclass":
        return ConvexReLU(X, labels, D, decay, "softmax", output_bias=True)
    if len(values) != 2:
        raise InvalidProblem(
            f"The target has {len(values)} values; logistic needs two. Use --loss multiclass."
        )
    return ConvexReLU(X, np.where(labels == 1, 1.0, -1.0), D, decay, "logistic", output_bias=True)


def bcd(
    problem: Penalized,
    blocks: Literal["variable", "in-order", "random", "sorted", "averaged"] = "variable",
    size: int = 20,
    select: Literal[
        "cyclic", "random", "lipschitz", "gs", "gsl", "gsd", "gsdhb", "gsq", "gsr", "progress"
    ] = "gsl",
    update: Literal["gradient", "bound", "newton", "two-metric"] = "newton",
    order: int = 0,
) -> BlockCoordinateDescent:
    """Blocks of ``size`` coordinates (groups, with a group penalty); ``order`` is the seed of random blocks."""
    from thalweg.convex import SELECTIONS, UPDATES, BlockCoordinateDescent

    partition = _partition(blocks, problem, min(size, problem.units), order)
    return BlockCoordinateDescent(partition, SELECTIONS[select](), UPDATES[update]())


def _partition(name: str, problem: Penalized, size: int, seed: int) -> Partition:
    from thalweg.convex import FixedBlocks, VariableBlocks

    n, lipschitz = problem.loss.n, problem.loss.lipschitz
    if name == "variable":
        return VariableBlocks(size)
    if problem.units < n:
        raise InvalidParameter(f"blocks={name} would cut groups in two. Use blocks=variable.")
    if name == "in-order":
        return FixedBlocks.in_order(n, size)
    if name == "random":
        return FixedBlocks.at_random(n, size, seed)
    if name == "sorted":
        return FixedBlocks.sorted_by_lipschitz(lipschitz, size)
    return FixedBlocks.averaged(lipschitz, size)


MAKERS = {"bcd": bcd}


@dataclass
class ConvexCase(Case):
    """Coefficients, a column for each class where there are several; or a network's layers."""

    def arrays(self, result: Result) -> dict[str, np.ndarray]:
        from thalweg.convex import ConvexReLU

        if isinstance(self.problem, ConvexReLU):
            found = self.problem.network(result.x)
            return {"hidden": found.hidden, "output": found.output, "bias": found.bias}
        x = array_of(result.x)
        classes = getattr(getattr(self.problem, "loss", None), "classes", 1)
        return {"x": x if classes == 1 else x.reshape(-1, classes)}

    def told(self, result: Result) -> dict[str, object]:
        import numpy as np

        from thalweg.convex import ConvexReLU

        if isinstance(self.problem, ConvexReLU):
            return {
                "neurons": self.problem.network(result.x).width,
                "lower": self.problem.lower_bound(result.x),
            }
        return {"nonzero": int(np.count_nonzero(array_of(result.x)))}

    def said(self, result: Result) -> Sequence[str]:
        from thalweg.convex import ConvexReLU

        if isinstance(self.problem, ConvexReLU):
            found, lower = self.problem.network(result.x), self.problem.lower_bound(result.x)
            return [
                f"{found.width} neurons; no network whose neurons have these {len(self.problem.patterns)} patterns "
                f"goes below {lower:.6g}."
            ]
        x = array_of(result.x)
        return [f"{(x != 0).sum()} of {x.size} coefficients are not zero."]
