"""Layers whose weights respond to hyper-parameters: ``W(u) = W_0 + (V u) (*)_row W_1``, for each example its own u.

MacKay et al. (2019), section 3.2. With ``V = 0``, as layers start, they are the plain layers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from thalweg.core import InvalidProblem
from thalweg.core.validation import require


@dataclass
class Context:
    """What the layers of one network look at while it runs.

    Args:
        size: number of hyper-parameters.
        shift: u minus the centre, shape (batch, size), or None: the plain network.
        values: of hyper-parameters, each shape (batch,).
        linear: respond to first order only, around centres that get no gradient (Delta-STN).
    """

    size: int
    shift: Tensor | None = None
    values: dict[str, Tensor] | None = None
    linear: bool = False

    @contextmanager
    def at(
        self, shift: Tensor | None, values: dict[str, Tensor] | None, linear: bool = False
    ) -> Iterator[None]:
        """These while the block runs."""
        before = self.shift, self.values, self.linear
        self.shift, self.values, self.linear = shift, values, linear
        try:
            yield
        finally:
            self.shift, self.values, self.linear = before

    def rows(self, per_example: Tensor, count: int) -> Tensor:
        """Numbers for each example, for an input of ``count`` rows: batches flattened with their time repeat them."""
        batch = len(per_example)
        if count == batch or batch == 1:
            return per_example
        if count % batch:
            raise InvalidProblem(
                f"An input of {count} rows met hyper-parameters for {batch} examples. The batch has to come first, in "
                "every layer's input."
            )
        return per_example.repeat_interleave(count // batch, 0)


class Gate(nn.Module):
    """``V u`` for one tensor, V of shape (rows, hyper-parameters), and the tensor W_1 whose rows it scales."""

    def __init__(self, like: Tensor, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(like.new_zeros(len(like), size))
        spread = float(like.detach().std()) if like.numel() > 1 else 0.0
        self.response = nn.Parameter(torch.randn_like(like) * (spread or 0.1))

    def forward(self, shift: Tensor) -> Tensor:
        """Shape (batch, rows)."""
        return shift @ self.scale.T

    def squared_norm(self, weight: Tensor, shift: Tensor) -> Tensor:
        """``|W_0 + (V u) (*)_row W_1|^2`` for each example, shape (batch,), without making the weights."""
        first, second = weight.reshape(len(weight), -1), self.response.reshape(len(weight), -1)
        g: Tensor = self(shift)
        return first.square().sum() + 2.0 * g @ (first * second).sum(1) + g.square() @ second.square().sum(1)

    @torch.no_grad()
    def at(self, weight: Tensor, shift: Tensor) -> Tensor:
        """The tensor at one u, shape that of W_0."""
        g = self(shift[None])[0]
        return weight + g.reshape(-1, *[1] * (weight.ndim - 1)) * self.response


class Tuned(nn.Module):
    """Base: a plain layer, a gate for each of its tensors, and the network's context.

    A subclass says in ``respond`` what the response adds to the plain layer's output.
    """

    def __init__(self, plain: nn.Module, context: Context) -> None:
        super().__init__()
        self.plain, self.context = plain, context
        self.gates = nn.ModuleDict(
            {name: Gate(p, context.size) for name, p in plain.named_parameters(recurse=False)}
        )

    def gate_of(self, name: str) -> Gate:
        """The gate of a tensor."""
        return cast(Gate, self.gates[name])

    def gate(self, name: str, rows: int, dims: int = 0) -> Tensor:
        """Row scales of a tensor for each example, with ``dims`` axes of length one at the end."""
        shift = self.context.shift
        if shift is None:
            raise InvalidProblem("A response is asked for while no hyper-parameters are set: use Context.at.")
        g: Tensor = self.context.rows(self.gate_of(name)(shift), rows)
        return g.reshape(*g.shape, *[1] * dims)

    def forward(self, x: Tensor) -> Tensor:
        context = self.context
        if context.shift is None:
            return self.call(x)
        if not context.linear:
            return self.together(x)
        # to first order: the response is a tangent, carried on by forward-mode differentiation of the layers after it
        primal = forward_ad.unpack_dual(x).primal if x.is_floating_point() else x
        change = self.respond(primal)
        held = {name: p.detach() for name, p in self.plain.named_parameters(recurse=False)}
        return self.call(x, held) + forward_ad.make_dual(torch.zeros_like(change), change)

    def call(self, x: Tensor, parameters: dict[str, Tensor] | None = None) -> Tensor:
        """The plain layer."""
        if parameters is None:
            out: Tensor = self.plain(x)
            return out
        held: Tensor = torch.func.functional_call(self.plain, parameters, (x,))
        return held

    def together(self, x: Tensor) -> Tensor:
        """The plain layer and its response; layers have it in fewer passes over memory where they can."""
        return self.call(x) + self.respond(x)

    def respond(self, x: Tensor) -> Tensor:
        """What W_1 adds."""
        raise NotImplementedError

    def squared_norm(self, shift: Tensor) -> Tensor:
        """Of all its tensors at each example's u, shape (batch,)."""
        held = self.context.linear
        parts = [
            self.gate_of(name).squared_norm(p.detach() if held else p, shift)
            for name, p in self.plain.named_parameters(recurse=False)
            if p.ndim > 1
        ]
        return torch.stack(parts).sum(0) if parts else shift.new_zeros(len(shift))

    @torch.no_grad()
    def export(self, shift: Tensor) -> nn.Module:
        """The plain layer with its weights at one u; changes the plain layer itself."""
        for name, p in self.plain.named_parameters(recurse=False):
            p.copy_(self.gate_of(name).at(p, shift))
        return self.plain


class TunedLinear(Tuned):
    """`torch.nn.Linear` that responds; rows are outputs. Twice the multiplications."""

    plain: nn.Linear

    def together(self, x: Tensor) -> Tensor:
        if x.ndim != 2:
            return super().together(x)
        p, g = self.plain, self.gate("weight", len(x))
        if p.bias is None:
            plain = x @ p.weight.T
        else:
            shift = torch.addcmul(p.bias, self.gate("bias", len(x)), self.gate_of("bias").response)
            plain = torch.addmm(shift, x, p.weight.T)
        return torch.addcmul(plain, x @ self.gate_of("weight").response.T, g)

    def respond(self, x: Tensor) -> Tensor:
        between = x.ndim - 2
        g = self.gate("weight", len(x), between)
        change = functional.linear(x, self.gate_of("weight").response) * (
            g if not between else g.movedim(1, -1)
        )
        if self.plain.bias is not None:
            c = self.gate("bias", len(x)) * self.gate_of("bias").response
            change = change + c.reshape(len(c), *[1] * between, -1)
        return change


class TunedConv(Tuned):
    """`torch.nn.Conv1d` or ``Conv2d`` that responds; rows are output channels. Twice the multiplications."""

    plain: nn.Conv1d | nn.Conv2d

    def __init__(self, plain: nn.Module, context: Context) -> None:
        if not isinstance(plain, nn.Conv1d | nn.Conv2d):
            raise InvalidProblem(f"TunedConv converts nn.Conv1d and nn.Conv2d; got {type(plain).__name__}.")
        super().__init__(plain, context)
        require(
            plain.padding_mode == "zeros",
            "Self-tuning convolutions pad with zeros",
            got=plain.padding_mode,
            error=InvalidProblem,
        )

    def together(self, x: Tensor) -> Tensor:
        dims = x.ndim - 2
        out = torch.addcmul(self.call(x), self._convolved(x), self.gate("weight", len(x), dims))
        return out if self.plain.bias is None else out.add_(self._shift(len(x), dims))

    def respond(self, x: Tensor) -> Tensor:
        dims = x.ndim - 2
        change = self._convolved(x) * self.gate("weight", len(x), dims)
        return change if self.plain.bias is None else change + self._shift(len(x), dims)

    def _convolved(self, x: Tensor) -> Tensor:
        p = self.plain
        convolve: Callable[..., Tensor] = functional.conv1d if x.ndim == 3 else functional.conv2d
        return convolve(x, self.gate_of("weight").response, None, p.stride, p.padding, p.dilation, p.groups)

    def _shift(self, rows: int, dims: int) -> Tensor:
        shift = self.gate("bias", rows) * self.gate_of("bias").response
        return shift.reshape(*shift.shape, *[1] * dims)


class TunedEmbedding(Tuned):
    """`torch.nn.Embedding` that responds; gates are on the entries of a vector, not on words."""

    plain: nn.Embedding

    def __init__(self, plain: nn.Module, context: Context) -> None:
        if not isinstance(plain, nn.Embedding):
            raise InvalidProblem(f"TunedEmbedding converts nn.Embedding; got {type(plain).__name__}.")
        super().__init__(plain, context)
        weight = plain.weight
        self.gate_of("weight").scale = nn.Parameter(weight.new_zeros(weight.shape[1], context.size))

    def respond(self, x: Tensor) -> Tensor:
        g = self.gate("weight", len(x))
        g = g.reshape(len(g), *[1] * (x.ndim - 1), -1)
        return functional.embedding(x, self.gate_of("weight").response) * g

    def squared_norm(self, shift: Tensor) -> Tensor:
        gate = self.gate_of("weight")
        weight = self.plain.weight
        first, second, g = weight.detach() if self.context.linear else weight, gate.response, gate(shift)
        cross, square = (first * second).sum(0), second.square().sum(0)
        return first.square().sum() + 2.0 * g @ cross + g.square() @ square

    @torch.no_grad()
    def export(self, shift: Tensor) -> nn.Module:
        gate = self.gate_of("weight")
        self.plain.weight.add_(gate(shift[None]) * gate.response)
        return self.plain


class TunedBatchNorm(Tuned):
    """`torch.nn.BatchNorm1d` or ``BatchNorm2d`` whose scale and shift respond."""

    plain: nn.BatchNorm1d | nn.BatchNorm2d

    def __init__(self, plain: nn.Module, context: Context) -> None:
        if not isinstance(plain, nn.BatchNorm1d | nn.BatchNorm2d):
            raise InvalidProblem(
                f"TunedBatchNorm converts nn.BatchNorm1d and nn.BatchNorm2d; got {type(plain).__name__}."
            )
        super().__init__(plain, context)
        require(plain.affine, "Self-tuning batch normalisation needs affine=True", error=InvalidProblem)

    def respond(self, x: Tensor) -> Tensor:
        p, dims = self.plain, x.ndim - 2
        if p.training or p.running_mean is None or p.running_var is None:
            over = [0, *range(2, x.ndim)]
            mean, var = x.mean(over, keepdim=True), x.var(over, unbiased=False, keepdim=True)
        else:
            shape = (1, -1, *[1] * dims)
            mean, var = p.running_mean.reshape(shape), p.running_var.reshape(shape)
        normal = (x - mean) * torch.rsqrt(var + p.eps)
        scale = self.gate("weight", len(x)) * self.gate_of("weight").response
        shift = self.gate("bias", len(x)) * self.gate_of("bias").response
        ones = [1] * dims
        return normal * scale.reshape(*scale.shape, *ones) + shift.reshape(*shift.shape, *ones)
