"""Give the units of a merged network the spread that those of its ends have.

Jordan, Sedghi, Saukh, Entezari and Neyshabur (2023), "REPAIR: renormalizing permuted activations for interpolation
repair" (arXiv 2211.08403).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thalweg.core import InvalidProblem
from thalweg.landscape.permutation.weights import StateDict

#: Layers whose outputs are rescaled, and the axis of their units.
RESCALED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def repair(
    module: nn.Module,
    merged: StateDict,
    ends: Sequence[StateDict],
    inputs: Tensor,
    *,
    weights: Sequence[float] | None = None,
    batch_size: int = 512,
) -> dict[str, Tensor]:
    """Rescale each hidden unit of a merged network so that its mean and deviation are those of the ends, mixed.

    The mean of networks has units that vary less than theirs, the more so the deeper they lie. Layer by layer, from the
    input on, the unit's weights and bias are scaled and shifted; the last layer stays.

    Args:
        module: the architecture.
        merged: weights of the merged network.
        ends: weights of the networks that were averaged, *matched*.
        inputs: on which means and deviations are taken.
        weights: shares of the ends. Default equal.
        batch_size: inputs at once.

    Raises:
        InvalidProblem: batch normalisation, whose statistics do this already; layers without bias, which cannot be
            shifted; fewer than two layers.

    Cost: a forward pass over the inputs for each end, and one for each layer.

    >>> _ = torch.manual_seed(0)
    >>> make = lambda: nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> a, b, X = make(), make(), torch.randn(200, 3)
    >>> mean = {n: 0.5 * (v + b.state_dict()[n]) for n, v in a.state_dict().items()}
    >>> repaired = repair(a, mean, [a.state_dict(), b.state_dict()], X)
    >>> torch.equal(repaired["2.weight"], mean["2.weight"]), torch.equal(repaired["0.weight"], mean["0.weight"])
    (True, False)
    """
    shares = [1 / max(len(ends), 1)] * len(ends) if weights is None else list(weights)
    if not ends or len(shares) != len(ends):
        raise InvalidProblem(f"repair needs the ends and a share of each; got {len(ends)} and {len(shares)}.")
    if any(isinstance(m, _BatchNorm) for m in module.modules()):
        raise InvalidProblem(
            "repair: the network has batch normalisation, whose statistics, computed anew, do the same. Give merge "
            "data=."
        )
    own = copy.deepcopy(module).eval()
    names = _order(own, inputs[:1])
    if len(names) < 2:
        raise InvalidProblem("repair needs a hidden layer: two linear or convolutional layers, or more.")
    hidden = names[:-1]
    bare = [name for name in hidden if own.get_submodule(name).bias is None]
    if bare:
        raise InvalidProblem(f"repair: layer '{bare[0]}' has no bias, so that its units cannot be shifted.")
    wanted = {name: (torch.zeros(()), torch.zeros(())) for name in hidden}
    for end, share in zip(ends, shares, strict=True):
        own.load_state_dict(dict(end))
        for name, (mean, deviation) in _moments(own, hidden, inputs, batch_size).items():
            wanted[name] = wanted[name][0] + share * mean, wanted[name][1] + share * deviation
    own.load_state_dict(dict(merged))
    for name in hidden:
        layer = own.get_submodule(name)
        mean, deviation = _moments(own, [name], inputs, batch_size)[name]
        # a unit that does not vary is shifted alone
        scale = torch.where(deviation > 0, wanted[name][1] / deviation.clamp_min(1e-30), 1.0)
        weight, bias = layer.weight, layer.bias
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):  # looked at above; for the types
            continue
        with torch.no_grad():
            weight.mul_(scale.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1)))
            bias.copy_(((bias.double() - mean) * scale + wanted[name][0]).to(bias.dtype))
    return {n: v.detach().clone() for n, v in own.state_dict().items()}


def _order(module: nn.Module, inputs: Tensor) -> list[str]:
    """The layers in the order in which they are called, each once."""
    called: list[str] = []
    handles = [
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
        for name, layer in module.named_modules()
        if isinstance(layer, RESCALED)
    ]
    with torch.no_grad():
        module(inputs)
    for handle in handles:
        handle.remove()
    if len(set(called)) < len(called):
        raise InvalidProblem("repair: a layer is called twice; its units have no one mean.")
    return called


def _moments(
    module: nn.Module, names: Sequence[str], inputs: Tensor, batch_size: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and standard deviation of each unit's output, in float64, over inputs and places."""
    sums: dict[str, tuple[int, Tensor, Tensor, Tensor]] = {}
    with torch.no_grad(), _watched(module, names, sums):
        for batch in torch.split(inputs, batch_size):
            module(batch)
    found = {}
    for name, (count, origin, total, squares) in sums.items():
        off = total / count
        found[name] = origin + off, (squares / count - off**2).clamp_min(0.0).sqrt()
    return found


@contextmanager
def _watched(
    module: nn.Module, names: Sequence[str], sums: dict[str, tuple[int, Tensor, Tensor, Tensor]]
) -> Iterator[None]:
    """Sums of the layers' outputs beside their first row and of their squares, written down as they are called.

    Squares of the outputs themselves would make a deviation of rounding for a unit that does not vary.
    """

    def watch(name: str, axis: int) -> object:
        def hook(layer: nn.Module, given: object, out: Tensor) -> None:
            rows = out.double().movedim(axis, -1).reshape(-1, out.shape[axis])
            count, origin, total, squares = sums.get(name, (0, rows[0], torch.zeros(()), torch.zeros(())))
            rows = rows - origin
            sums[name] = count + len(rows), origin, total + rows.sum(0), squares + (rows**2).sum(0)

        return module.get_submodule(name).register_forward_hook(hook)

    handles = [watch(n, -1 if isinstance(module.get_submodule(n), nn.Linear) else 1) for n in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
