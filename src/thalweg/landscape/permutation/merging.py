"""Match networks, and merge them into one.

Ainsworth, Hayase and Srinivasa (2023), "Git re-basin" (arXiv 2209.04836), for interpolation and MergeMany.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thalweg.core import InvalidProblem, Method, MissingExtra, UnreadableFile, solve
from thalweg.core.files import atomic_write, check_target
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, require
from thalweg.landscape.permutation.matching import WeightMatching
from thalweg.landscape.permutation.preserving import check_preserved
from thalweg.landscape.permutation.problem import Rebasin, weights_of
from thalweg.landscape.permutation.specification import Order, PermutationSpec, StateDict
from thalweg.landscape.permutation.tracing import Example, trace_permutations

#: Sweeps of MergeMany at most; the distance falls with each.
SWEEPS = 100


@dataclass(frozen=True, eq=False)
class Matched:
    """Network b with its units in the places of a's.

    Args:
        weights: of b, moved.
        orders: by permutation.
        spec: whose permutations.
        metrics: see `Rebasin`.
    """

    weights: dict[str, Tensor]
    orders: dict[str, Order]
    spec: PermutationSpec
    metrics: dict[str, float]


def match(
    a: nn.Module | StateDict,
    b: nn.Module | StateDict,
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
        a, b: networks or state dicts.
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
    result = solve(Rebasin(a, b, spec, module, data), method or WeightMatching(), seed=seed, progress=False)
    found = weights_of(b, module)
    if module is not None and args is not None:
        own = copy.deepcopy(module)
        own.load_state_dict(found)
        check_preserved(own, spec, args, kwargs, result.x)
    return Matched(spec.apply(found, result.x), result.x, spec, result.metrics)


def _architecture(
    a: nn.Module | StateDict,
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


def mixed(states: Sequence[StateDict], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted mean of weights, a tensor at a time; whole numbers, such as counters, are the first's."""
    found = {}
    for name, value in states[0].items():
        if value.is_floating_point():
            total = sum(s[name].to(value.device).double() * w for s, w in zip(states, weights, strict=True))
            found[name] = torch.as_tensor(total).to(value.dtype)
        else:
            found[name] = value.clone()
    return found


def merge(
    models: Sequence[nn.Module | StateDict],
    spec: PermutationSpec | None = None,
    *,
    module: nn.Module | None = None,
    example: Example = None,
    method: Method | None = None,
    weights: Sequence[float] | None = None,
    data: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """One network from several trained apart: all are matched to the first, then averaged.

    Not for networks that are fine-tuned from one: their units are in place already. For three and more of equal
    standing `merge_many` has no centre.

    Args:
        models: two or more, networks or state dicts.
        weights: share of each, >= 0, summing to 1. Default equal.
        data: inputs (and labels), on which batch normalisation's statistics are computed anew; needed where there is
            any.

    Raises:
        InvalidProblem: fewer than two, other shapes, batch normalisation without data or without a module.
    """
    if len(models) < 2:
        raise InvalidProblem(f"merge needs two or more networks; got {len(models)}.")
    shares = [1 / len(models)] * len(models) if weights is None else list(weights)
    fits = len(shares) == len(models) and all(is_real(w) and w >= 0 for w in shares)
    require(
        fits and math.isclose(sum(shares), 1.0), "merge needs a weight >= 0 a network, of sum 1", got=weights
    )
    first = models[0]
    module, spec, *_ = _architecture(first, spec, module, example)
    _need_data(module, spec, data)
    rest = [
        match(first, m, spec, module=module, example=example, method=method, data=data, seed=seed).weights
        for m in models[1:]
    ]
    return _refreshed(module, mixed([weights_of(first, module), *rest], shares), data)


def merge_many(
    models: Sequence[nn.Module | StateDict],
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
    if len(models) < 2:
        raise InvalidProblem(f"merge_many needs two or more networks; got {len(models)}.")
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
            if result.metrics["distance"] < problem.start * (1 - 1e-7) - 1e-12:
                states[i], changed = spec.apply(states[i], result.x), True
        if not changed:
            break
    return _refreshed(module, mixed(states, [1 / len(states)] * len(states)), data), states


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


def _refreshed(
    module: nn.Module | None, state: dict[str, Tensor], data: Sequence[Tensor] | None
) -> dict[str, Tensor]:
    if module is None or data is None:
        return state
    return recomputed(module, state, data[0])


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


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict from ``.safetensors``, or from ``.pt`` or ``.pth`` as data alone.

    Raises:
        UnreadableFile: no such file, or none of these. MissingExtra: safetensors is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableFile(f"No file {path}.")
    try:
        if path.suffix == ".safetensors":
            return dict(_safetensors().load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except MissingExtra:
        raise
    except Exception as error:
        raise UnreadableFile(f"{path} holds no weights: {' '.join(str(error).split())[:200]}") from error
    found = found.get("state_dict", found) if isinstance(found, Mapping) else found
    if not isinstance(found, Mapping) or not all(isinstance(v, Tensor) for v in found.values()):
        raise UnreadableFile(f"{path} holds no state dict, tensors by name.")
    return dict(found)


def save_weights(path: str | Path, state: StateDict) -> None:
    """Write a state dict: ``.safetensors`` or ``.pt``, at once or not at all."""
    path = check_target(path, (".safetensors", ".pt", ".pth"))
    whole = {n: v.detach().cpu().contiguous().clone() for n, v in state.items()}
    with atomic_write(path) as file:
        if path.suffix == ".safetensors":
            file.write(_safetensors().save(whole))
        else:
            torch.save(whole, file)


def _safetensors() -> Any:  # noqa: ANN401 -- a module loaded when asked for
    try:
        import safetensors.torch
    except ImportError:
        raise MissingExtra("safetensors", "safetensors") from None
    return safetensors.torch
