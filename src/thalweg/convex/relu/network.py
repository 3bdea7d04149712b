"""A two-layer ReLU network as arrays: what the convex program recovers, and what modules of PyTorch are read into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import ArrayLike

from thalweg.convex.datafits import Vector
from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import as_real, check_finite

if TYPE_CHECKING:
    import torch

#: Rows of X at a time in `TwoLayerNetwork.outputs`.
CHUNK = 4096


@dataclass(frozen=True, eq=False)
class TwoLayerNetwork:
    """``f(x) = sum_j a_j (x'w_j)_+ + bias``; for patches their mean stands in place of ``(x'w_j)_+``.

    Args:
        hidden: W, shape (m, d).
        output: a, shape (m, k).
        bias: of the outputs, shape (k,). It is not penalised.

    >>> TwoLayerNetwork(np.array([[2.0]]), np.array([[0.5]]), np.zeros(1)).outputs([[3.0], [-1.0]])
    array([[3.],
           [0.]])
    """

    hidden: Vector
    output: Vector
    bias: Vector

    def __post_init__(self) -> None:
        m, k = self.output.shape
        if self.hidden.ndim != 2 or len(self.hidden) != m or self.bias.shape != (k,):
            raise InvalidProblem(
                f"TwoLayerNetwork: hidden {self.hidden.shape}, output {self.output.shape}, bias {self.bias.shape}; "
                "expected (m, d), (m, k), (k,)."
            )

    @property
    def width(self) -> int:
        """How many neurons there are."""
        return len(self.hidden)

    def outputs(self, X: ArrayLike) -> Vector:
        """f, shape (n, k), for X of shape (n, d) or (n, patches, d)."""
        data = as_real("X", X)
        if data.ndim not in (2, 3) or data.shape[-1] != self.hidden.shape[1]:
            raise InvalidProblem(
                f"X has shape {data.shape}; the network takes {self.hidden.shape[1]} columns."
            )
        check_finite("X", data)
        found = np.empty((len(data), len(self.bias)))
        for start in range(0, len(data), CHUNK):
            part = np.maximum(data[start : start + CHUNK] @ self.hidden.T, 0.0)
            found[start : start + CHUNK] = (
                part if data.ndim == 2 else part.mean(1)
            ) @ self.output + self.bias
        return found

    @property
    def penalty(self) -> float:
        """``(|W|^2 + |a|^2)/2``; times beta it is what the objective adds to the loss."""
        return 0.5 * float(np.square(self.hidden).sum() + np.square(self.output).sum())

    def balanced(self) -> Self:
        """The same outputs with ``|w_j| = |a_j|``, where the penalty is least; idle neurons are left out."""
        sizes = np.linalg.norm(self.hidden, axis=1), np.linalg.norm(self.output, axis=1)
        alive = (sizes[0] > 0) & (sizes[1] > 0)
        ratio = np.sqrt(sizes[1][alive] / sizes[0][alive])[:, None]
        return type(self)(self.hidden[alive] * ratio, self.output[alive] / ratio, self.bias)

    def to_module(self, *, hidden_bias: bool = False) -> torch.nn.Sequential:
        """``Sequential(Linear, ReLU, Linear)`` in float64 with the same outputs.

        Args:
            hidden_bias: the last column of X is a column of ones that the caller appended: it becomes the bias of the
                first layer, and the module takes X without it.
        """
        import torch

        inputs = self._inputs(hidden_bias)
        first = torch.nn.Linear(inputs, self.width, bias=hidden_bias, dtype=torch.float64)
        return torch.nn.Sequential(self._filled(first), torch.nn.ReLU(), self._last())

    def to_convolution(
        self, channels: int, size: int, *, stride: int = 1, hidden_bias: bool = False
    ) -> torch.nn.Sequential:
        """``Sequential(Conv2d, ReLU, AdaptiveAvgPool2d(1), Flatten, Linear)`` in float64: a network on `image_patches`.

        Args:
            channels, size, stride: of the patches; the module takes images (n, channels, height, width).
            hidden_bias: whether the patches had a column of ones.

        Raises:
            InvalidParameter: patches of another size than the network's.
        """
        import torch

        if self._inputs(hidden_bias) != channels * size * size:
            raise InvalidParameter(
                f"Patches of {channels} channels and {size} x {size} pixels have {channels * size * size} numbers; the "
                f"network takes {self._inputs(hidden_bias)}."
            )
        first = torch.nn.Conv2d(channels, self.width, size, stride, bias=hidden_bias, dtype=torch.float64)
        pooled = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        return torch.nn.Sequential(self._filled(first), torch.nn.ReLU(), *pooled, self._last())

    def _inputs(self, hidden_bias: bool) -> int:
        """How many inputs a module has."""
        inputs = self.hidden.shape[1] - int(hidden_bias)
        if inputs < 1 or self.width < 1:
            raise InvalidParameter(
                f"A module needs an input and a neuron; here are {inputs} and {self.width}. A constant needs no "
                "network."
            )
        return inputs

    def _filled(self, layer: torch.nn.Linear | torch.nn.Conv2d) -> torch.nn.Module:
        """The first layer with our weights; its bias, where it has one, is their last column."""
        import torch

        with torch.no_grad():
            inputs = self.hidden.shape[1] - int(layer.bias is not None)
            layer.weight.copy_(
                torch.from_numpy(np.array(self.hidden[:, :inputs])).reshape(layer.weight.shape)
            )
            if layer.bias is not None:
                layer.bias.copy_(torch.from_numpy(np.array(self.hidden[:, -1])))
        return layer

    def _last(self) -> torch.nn.Linear:
        import torch

        layer = torch.nn.Linear(self.width, self.output.shape[1], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(np.array(self.output.T)))
            layer.bias.copy_(torch.from_numpy(np.array(self.bias)))
        return layer


def recovered(blocks: Vector, bias: Vector) -> TwoLayerNetwork:
    """The network of the convex program's blocks, (2, P, k, d): a balanced neuron for each that is not zero.

    Source: Pilanci and Ergen (2020), theorem 1.

    >>> recovered(np.array([[[[4.0]]], [[[0.0]]]]), np.zeros(1)).hidden
    array([[2.]])
    """
    sizes = np.linalg.norm(blocks, axis=-1)
    sign, pattern, output = np.nonzero(sizes)
    roots = np.sqrt(sizes[sign, pattern, output])
    out = np.zeros((len(roots), blocks.shape[2]))
    out[np.arange(len(roots)), output] = np.where(sign == 0, roots, -roots)
    return TwoLayerNetwork(blocks[sign, pattern, output] / roots[:, None], out, np.array(bias))
