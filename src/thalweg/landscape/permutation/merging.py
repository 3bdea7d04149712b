"""Match networks, and merge them into one.

Ainsworth, Hayase and Srinivasa (2023), "Git re-basin" (arXiv 2209.04836), for interpolation and MergeMany.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thalweg.core import InvalidProblem, Method, solve
from thalweg.core.files import check_target
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, require
from thalweg.landscape.permutation.matching import WeightMatching
from thalweg.landscape.permutation.preserving import check_preserved
from thalweg.landscape.permutation.problem import Rebasin
from thalweg.landscape.permutation.specification import Order, PermutationSpec
from thalweg.landscape.permutation.tracing import Example, trace_permutations
from thalweg.landscape.permutation.weights import (
    Network,
    StateDict,
    load_weights,
    mixed,
    mixed_lazily,
    save_weights,
    weights_of,
)

#: Sweeps of MergeMany at most; the distance falls with each.
SWEEPS = 100


@dataclass(frozen=True, eq=False)
class Matched:
    """Network b with its units in the places of a's.

    Args:
        weights: of b, moved; of a file a tensor at a time, each when it is asked for.
        orders: by permutation.
        spec: whose permutations.
        metrics: see `Rebasin`.
    """

    weights: StateDict
    orders: dict[str, Order]
    spec: PermutationSpec
    metrics: dict[str, float]


def match(
    a: Network,
    b: Network,
    spec: PermutationSpec | None = None,
    *,
    module: nn.Module | None = None,
    example: Example = None,
    method: Method | None = None,
    data: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> Matched:
    """Bring the units of b into the places of a's: the same function, nearer to a.

    Args:
        a, b: networks, state dicts, or files of weights (``.safetensors``, ``.pt``).
        spec: by default traced from the module.
        module: the architecture, where a is a state dict; with it b's function is checked to be kept.
        example: see `trace_permutations`.
        method: by default `WeightMatching`.
        data: for methods that need it.

    Raises:
        InvalidProblem: no specification and no module; other shapes; a specification that does not keep the function.

    >>> one, two = (nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))
    >>> match(one, two).metrics["left"] < 1
    True
    """
    module, spec, args, kwargs = _architecture(a, spec, module, example)
    problem = Rebasin(a, b, spec, module, data)
    result = solve(problem, method or WeightMatching(), seed=seed, progress=False)
    if module is not None and args is not None:
        own = copy.deepcopy(module)
        own.load_state_dict(problem.second)
        check_preserved(own, spec, args, kwargs, result.x)
    moved = spec.moving(problem.second, result.x)
    return Matched(moved if isinstance(b, str | Path) else dict(moved), result.x, spec, result.metrics)


def _need_several(name: str, models: Sequence[Network]) -> None:
    several = isinstance(models, list | tuple)
    if not several or len(models) < 2:
        got = len(models) if several else f"a value of type {type(models).__name__}"
        raise InvalidProblem(f"{name} needs a list of two or more networks; got {got}.")


def _architecture(
    a: Network,
    spec: PermutationSpec | None,
    module: nn.Module | None,
    example: Example,
) -> tuple[nn.Module | None, PermutationSpec, tuple[object, ...] | None, dict[str, object]]:
    from thalweg.landscape.permutation.tracing import arguments

    module = a if module is None and isinstance(a, nn.Module) else module
    if spec is None:
        if module is None:
            raise InvalidProblem("match: state dicts need spec=, or module= to trace one from.")
        spec = trace_permutations(module, example)
    if module is None:
        return None, spec, None, {}
    return module, spec, *arguments(module, example)


def merge(
    models: Sequence[Network],
    spec: PermutationSpec | None = None,
    *,
    module: nn.Module | None = None,
    example: Example = None,
    method: Method | None = None,
    weights: Sequence[float] | None = None,
    data: Sequence[Tensor] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> dict[str, Tensor]:
    """One network from several trained apart: all are matched to the first, then averaged.

    Not for networks that are fine-tuned from one: their units are in place already. For three and more of equal
    standing `merge_many` has no centre.

    Args:
        models: two or more: networks, state dicts, or files of weights.
        weights: share of each, >= 0, summing to 1. Default equal.
        data: inputs (and labels), on which batch normalisation's statistics are computed anew; needed where there is
            any.
        out: a ``.safetensors`` that the mean is written to, a tensor at a time; what is returned is read from there.
            With files given, a network is never whole in memory but for the ``module`` and a copy of it.

    Raises:
        InvalidProblem: fewer than two, other shapes, batch normalisation without data or without a module.
    """
    _need_several("merge", models)
    shares = [1 / len(models)] * len(models) if weights is None else list(weights)
    fits = len(shares) == len(models) and all(is_real(w) and w >= 0 for w in shares)
    require(
        fits and math.isclose(sum(shares), 1.0), "merge needs a weight >= 0 a network, of sum 1", got=weights
    )
    if out is not None:
        out = check_target(out, (".safetensors",))
    first = models[0]
    module, spec, *_ = _architecture(first, spec, module, example)
    _need_data(module, spec, data)
    start = weights_of(first, module)
    states: list[StateDict] = [start]
    for other in models[1:]:
        found = match(start, other, spec, module=module, example=example, method=method, data=data, seed=seed)
        states.append(found.weights)
    mean: StateDict = mixed_lazily(states, shares)
    if module is not None and data is not None:
        mean = recomputed(module, mean, data[0])
    if out is None:
        return dict(mean)
    save_weights(out, mean)
    return load_weights(out)


def merge_many(
    models: Sequence[Network],
    spec: PermutationSpec | None = None,
    *,
    module: nn.Module | None = None,
    example: Example = None,
    data: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
    """The mean of networks, each matched in turn to the mean of the others until none comes nearer; and they.

    Cost: for each network of each pass a weight matching.
    """
    _need_several("merge_many", models)
    module, spec, *_ = _architecture(models[0], spec, module, example)
    _need_data(module, spec, data)
    states, draw = [weights_of(m, module) for m in models], generator(seed, 0x2929)
    for _ in range(SWEEPS):
        changed = False
        for i in draw.permutation(len(states)):
            others = [s for k, s in enumerate(states) if k != i]
            mean = mixed(others, [1 / len(others)] * len(others))
            problem = Rebasin(mean, states[i], spec)
            result = solve(problem, WeightMatching(), seed=seed, progress=False)
            if result.metrics["distance"] < problem.start * (1 - 1e-7) - 1e-12 * math.sqrt(problem.norms):
                states[i], changed = spec.apply(states[i], result.x), True
        if not changed:
            break
    mean = mixed(states, [1 / len(states)] * len(states))
    return (mean if module is None or data is None else recomputed(module, mean, data[0])), states


def _need_data(module: nn.Module | None, spec: PermutationSpec, data: Sequence[Tensor] | None) -> None:
    kept = spec.statistics or (
        module is not None
        and any(isinstance(m, _BatchNorm) and m.track_running_stats for m in module.modules())
    )
    if kept and (data is None or module is None):
        raise InvalidProblem(
            "The networks have batch normalisation, whose statistics fit no mean of weights. Give data=, inputs to "
            "compute them on anew, and module=."
        )


def recomputed(
    module: nn.Module, state: StateDict, inputs: Tensor, batch_size: int = 512
) -> dict[str, Tensor]:
    """Weights with batch normalisation's statistics computed on inputs, the mean over batches."""
    own = copy.deepcopy(module).eval()
    own.load_state_dict(dict(state))
    layers = [m for m in own.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    if layers:
        with torch.no_grad():
            for batch in torch.split(inputs, batch_size):
                own(batch)
    return {n: v.detach().clone() for n, v in own.state_dict().items()}
