"""Two-layer networks of PyTorch, read into arrays; what is none is refused in a line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.convex.relu.network import TwoLayerNetwork
from thalweg.core import InvalidProblem

#: Layers that leave values as they are.
NEUTRAL = (nn.Identity, nn.Flatten)


@dataclass(frozen=True, eq=False)
class ReadModule:
    """What a module holds.

    Args:
        network: its weights in float64; with ``hidden_bias`` the hidden biases are a last column of the hidden weights.
        hidden_bias: whether the first layer has a bias: X then wants a column of ones.
        output_bias: whether the last layer has one.
    """

    network: TwoLayerNetwork
    hidden_bias: bool
    output_bias: bool

    def rows(self, X: np.ndarray) -> np.ndarray:
        """X with the column of ones that the hidden weights want."""
        return np.column_stack([X, np.ones(len(X))]) if self.hidden_bias else X


def read_module(module: nn.Module) -> ReadModule:
    """The weights of a network with one hidden layer of rectified linear units.

    Args:
        module: ``Sequential(Linear, ReLU, Linear)``, or a class of your own with two `Linear` layers in any order.
            Whatever its code is, its outputs on a few random rows have to be those of ``second(relu(first(x)))``.

    Raises:
        InvalidProblem: other layers, another activation, another structure; says which.

    >>> found = read_module(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)))
    >>> found.network.hidden.shape, found.hidden_bias
    ((5, 4), True)
    """
    if not isinstance(module, nn.Module):
        raise InvalidProblem(f"A torch.nn.Module is expected; got {type(module).__name__}.")
    leaves = [leaf for leaf in module.modules() if not any(True for _ in leaf.children())]
    linear = [leaf for leaf in leaves if isinstance(leaf, nn.Linear)]
    others = [
        leaf for leaf in leaves if not isinstance(leaf, (nn.Linear, nn.ReLU, *NEUTRAL)) and leaf is not module
    ]
    if others:
        raise InvalidProblem(
            f"The network has a {type(others[0]).__name__} layer; two Linear layers with ReLU between are read here."
        )
    if len(linear) != 2:
        raise InvalidProblem(
            f"The network has {len(linear)} Linear layers; two with ReLU between are read here."
        )
    held = {id(p) for layer in linear for p in layer.parameters()}
    if any(id(p) not in held for p in module.parameters()):
        raise InvalidProblem("The network has parameters beside those of its two Linear layers.")
    for first, second in (linear, linear[::-1]):
        if first.out_features == second.in_features and _agrees(module, first, second):
            return _read(first, second)
    raise InvalidProblem(
        "The network's outputs are not those of second(relu(first(x))): another activation, or other work in forward."
    )


def _agrees(module: nn.Module, first: nn.Linear, second: nn.Linear) -> bool:
    """Whether the module is these two layers with rectified linear units between, on random rows."""
    weight = first.weight
    generator = torch.Generator().manual_seed(0)
    rows = 3.0 * torch.randn(64, first.in_features, generator=generator, dtype=torch.float64)
    rows = rows.to(weight.dtype).to(weight.device)
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            found = module(rows)
            expected = second(torch.relu(first(rows)))
    except (RuntimeError, TypeError, ValueError) as error:
        raise InvalidProblem(
            f"The network could not be run on rows of {first.in_features} columns: {' '.join(str(error).split())[:200]}"
        ) from error
    finally:
        module.train(training)
    if not isinstance(found, Tensor) or found.numel() != expected.numel():
        return False
    found = found.reshape(expected.shape)
    scale = float(expected.abs().max()) + 1e-300
    return bool((found - expected).abs().max() <= 100 * torch.finfo(weight.dtype).eps * scale)


def _read(first: nn.Linear, second: nn.Linear) -> ReadModule:
    def array(t: Tensor) -> np.ndarray:
        return np.asarray(t.detach().cpu().to(torch.float64).numpy())

    hidden = array(first.weight)
    if first.bias is not None:
        hidden = np.column_stack([hidden, array(first.bias)])
    bias = np.zeros(second.out_features) if second.bias is None else array(second.bias)
    arrays = (hidden, array(second.weight).T, bias)
    if not all(np.isfinite(a).all() for a in arrays):
        raise InvalidProblem("The network holds weights that are NaN or infinite.")
    return ReadModule(
        TwoLayerNetwork(*(np.ascontiguousarray(a) for a in arrays)),
        first.bias is not None,
        second.bias is not None,
    )
