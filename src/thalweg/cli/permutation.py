"""Two networks from files, matched and merged."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, cast

import typer

from thalweg.cli.case import Case
from thalweg.core import Figure, InvalidParameter, InvalidProblem, Problem, Result, Series

if TYPE_CHECKING:
    from torch import Tensor, nn

    from thalweg.landscape.permutation import Rebasin


def read(
    first: Annotated[
        Path, typer.Argument(help="Weights of network a: .safetensors, or a state dict in .pt.")
    ],
    second: Annotated[Path, typer.Argument(help="Weights of network b.")],
    module: Annotated[
        str,
        typer.Option(
            help="package.module:function of yours that returns the network, called without arguments."
        ),
    ],
    share: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Of b in what --out writes: 0.5 the mean, 1 the matched b."),
    ] = 0.5,
    example: Annotated[
        str,
        typer.Option(help="Shape of an input by commas, such as 1,3,224,224; guessed for simple networks."),
    ] = "",
    data: Annotated[
        Path | None, typer.Option(help="X and y in a .npz: for methods with data, and batch normalisation.")
    ] = None,
) -> Mapping[str, Problem]:
    """Bring the hidden units of a network into the places of another's, and merge the two.

    --module imports the named function from the current folder or where Python finds modules, which runs that file's
    code.
    """
    import torch

    from thalweg.landscape.permutation import Rebasin, check_preserved, trace_permutations
    from thalweg.landscape.permutation.tracing import arguments

    net = _made(module)
    draw = torch.Generator().manual_seed(0)
    given = torch.randn(_shape(example), generator=draw) if example else None
    if given is not None:
        _check_taken(net, given)
    arrays = _data(data)
    problem = Rebasin(first, second, trace_permutations(net, given), net, arrays)
    net.load_state_dict(problem.second, strict=False)
    check_preserved(net, problem.spec, *arguments(net, given))
    if problem.spec.statistics and arrays is None:
        raise InvalidProblem(
            "The network has batch normalisation; give --data, to compute its statistics on."
        )
    return {f"{first.stem}, {second.stem}": problem}


def _made(named: str) -> nn.Module:
    from torch import nn

    package, colon, name = named.partition(":")
    if not colon or not package or not name or package.startswith("."):
        raise InvalidParameter(f"--module is package.module:function; got {named!r}.")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    function = getattr(_imported(package, named), name, None)
    if not callable(function):
        raise InvalidParameter(f"--module {named}: {package} has no function '{name}'.")
    try:
        net = function()
    except Exception as error:
        raise InvalidProblem(
            f"--module {named}: {name}() raised {type(error).__name__}: {' '.join(str(error).split())}. It is called "
            "without arguments, and returns the network."
        ) from error
    if not isinstance(net, nn.Module):
        raise InvalidProblem(f"--module {named} returned a {type(net).__name__}; expected an nn.Module.")
    return net


def _check_taken(net: nn.Module, given: Tensor) -> None:
    """Refuse an example that the network does not take."""
    import torch

    training = net.training
    try:
        with torch.no_grad():
            net.eval()(given)
    except RuntimeError as error:
        raise InvalidParameter(
            f"--example: the network does not take an input of shape {tuple(given.shape)}: "
            f"{' '.join(str(error).split())}."
        ) from error
    finally:
        net.train(training)


def _imported(package: str, named: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and f"{package}.".startswith(f"{error.name}.")
        where = " It has to be in the current folder, or on PYTHONPATH." if absent else ""
        raise InvalidParameter(f"--module {named}: {error}.{where}") from error


def _shape(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise InvalidParameter(
            f"--example is whole numbers above 0 by commas, such as 1,3,32,32; got {text!r}."
        )
    return tuple(map(int, words))


def _data(path: Path | None) -> tuple[Tensor, ...] | None:
    if path is None:
        return None
    import numpy as np
    import torch

    from thalweg.datasets import load_arrays

    arrays = load_arrays(path)
    if "X" not in arrays:
        raise InvalidProblem(f"{path} lacks 'X', the inputs; it holds {', '.join(arrays)}.")
    parts = [torch.from_numpy(np.asarray(arrays["X"], dtype=np.float32))]
    if "y" in arrays:
        parts.append(torch.from_numpy(np.asarray(arrays["y"])))
    return tuple(parts)


@dataclass
class RebasinCase(Case):
    """The merged network, and how far apart the two are, layer by layer."""

    endings = (".safetensors", ".pt", ".pth")

    def _problem(self) -> Rebasin:
        return cast("Rebasin", self.problem)

    def write(self, path: Path, result: Result) -> None:
        """Weights of the merged network."""
        from thalweg.landscape.permutation import recomputed, save_weights
        from thalweg.landscape.permutation.weights import StateDict, mixed_lazily

        problem, share = self._problem(), float(cast(float, self.given["share"]))
        moved = problem.spec.moving(problem.second, result.x)
        found: StateDict = mixed_lazily([problem.first, moved], [1 - share, share])
        if problem.spec.statistics and problem.module is not None and problem.data is not None:
            found = recomputed(problem.module, found, problem.data[0])
        save_weights(path, found)

    def told(self, result: Result) -> dict[str, object]:
        problem = self._problem()
        return {"permutations": len(problem.spec.permutations), "distance before": problem.start}

    def said(self, result: Result) -> list[str]:
        problem = self._problem()
        return [
            f"{len(problem.spec.permutations)} permutations; distance {problem.start:.4g} before, "
            f"{result.metrics['distance']:.4g} after."
        ]

    def figures(self, result: Result) -> list[Figure]:
        from thalweg.landscape.permutation import alignment

        problem = self._problem()
        moved = problem.spec.apply(problem.second, result.x)
        series = []
        for name, other in (("as it was", problem.second), ("matched", moved)):
            values = list(alignment(problem.first, other).by_layer.values())
            series.append(Series(name, [float(k) for k in range(len(values))], values))
        caption = (
            "Of singular vectors whose value is 0.3 of the layer's largest or more; 1 where layers are alike."
        )
        return [Figure("How the layers' singular vectors lie", caption, "layer", "alignment", series)]
