"""Layers whose weights respond to hyper-parameters: ``W(u) = W_0 + (V u) (*)_row W_1``, for each example its own u.

MacKay et al. (2019), section 3.2. With ``V = 0``, as layers start, they are the plain layers, bit for bit; an LSTM sums
in another order than torch's, and is so to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional

from thalweg.bilevel.selftuning.gates import ColumnGate, Gate
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


def reads_tensor(layer: str, tensor: str) -> str:
    """What is said where a network's code uses a tensor of a self-tuned layer without calling the layer."""
    return (
        f"The network reads '{tensor}' of a {layer} that is to be self-tuned: there is no one {tensor}, every example "
        "has its own. Call the layer instead, freeze it (requires_grad_(False)), or give the module that reads it a "
        "self-tuning form with register_layer."
    )


class Tuned(nn.Module):
    """Base: a plain layer, a gate for each of its tensors, and the network's context.

    A subclass says in ``respond`` what the response adds to the plain layer's output. Tensors that need no gradient,
    ``requires_grad`` False, have no gate and stay what they are.
    """

    #: Kinds of gates that ``respond`` can work with, the usual one first.
    gate_kinds: ClassVar[tuple[type[Gate], ...]] = (Gate,)
    #: Axes of one example's input, where the plain layer takes one without a batch.
    example_axes: int | None = None

    def __init__(self, plain: nn.Module, context: Context) -> None:
        super().__init__()
        self.plain, self.context = plain, context
        kind = self.gate_kinds[0]
        self.gates = nn.ModuleDict(
            {name: kind(p, context.size) for name, p in self.tensors().items() if p.requires_grad}
        )

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        try:
            return super().__getattr__(name)
        except AttributeError:
            plain = self.__dict__.get("_modules", {}).get("plain")
            if plain is None or name.startswith("_"):
                raise
        if self.responds(name):
            raise InvalidProblem(reads_tensor(type(plain).__name__, name))
        setting: Tensor | nn.Module = getattr(plain, name)  # a size, say
        return setting

    def tensors(self) -> dict[str, nn.Parameter]:
        """The plain layer's parameters by name; one that it uses under two names is here twice."""
        return dict(self.plain.named_parameters(recurse=False, remove_duplicate=False))

    def responds(self, name: str) -> bool:
        """Whether the layer has this tensor and it is gated."""
        return name in self.gates

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
        if context.shift is None or not self.gates:
            return self.call(x)
        if x.ndim == self.example_axes:
            return self(x[None])[0]
        if not context.linear:
            return self.together(x)
        # to first order: the response is a tangent, carried on by forward-mode differentiation of the layers after it
        primal = forward_ad.unpack_dual(x).primal if x.is_floating_point() else x
        change = self.respond(primal)
        held = {name: p.detach() for name, p in self.tensors().items()}
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
        """What W_1 adds, of the gated tensors; asked only where there is one at least."""
        raise NotImplementedError


class TunedLinear(Tuned):
    """`torch.nn.Linear` that responds; rows are outputs. Twice the multiplications.

    A weight that is an embedding's too has the embedding's gates, on its columns.
    """

    plain: nn.Linear
    gate_kinds = (Gate, ColumnGate)
    example_axes = 1

    def together(self, x: Tensor) -> Tensor:
        p = self.plain
        by_rows = self.responds("weight") and type(self.gate_of("weight")) is Gate
        if x.ndim != 2 or not by_rows or self.responds("bias") != (p.bias is not None):
            return super().together(x)
        g = self.gate("weight", len(x))
        if p.bias is None:
            plain = x @ p.weight.T
        else:
            shift = torch.addcmul(p.bias, self.gate("bias", len(x)), self.gate_of("bias").response)
            plain = torch.addmm(shift, x, p.weight.T)
        return torch.addcmul(plain, x @ self.gate_of("weight").response.T, g)

    def respond(self, x: Tensor) -> Tensor:
        between = [1] * (x.ndim - 2)
        change = x.new_zeros(())
        if self.responds("weight"):
            gate, g = self.gate_of("weight"), self.gate("weight", len(x))
            g = g.reshape(len(g), *between, -1)
            by_columns = isinstance(gate, ColumnGate)
            change = functional.linear(x * g if by_columns else x, gate.response)
            change = change if by_columns else change * g
        if self.responds("bias"):
            c = self.gate("bias", len(x)) * self.gate_of("bias").response
            change = change + c.reshape(len(c), *between, -1)
        return change


class TunedConv(Tuned):
    """`torch.nn.Conv1d` or ``Conv2d`` that responds; rows are output channels. Twice the multiplications."""

    plain: nn.Conv1d | nn.Conv2d

    def __init__(self, plain: nn.Module, context: Context) -> None:
        if not isinstance(plain, nn.Conv1d | nn.Conv2d):
            raise InvalidProblem(f"TunedConv converts nn.Conv1d and nn.Conv2d; got {type(plain).__name__}.")
        super().__init__(plain, context)
        self.dims = 1 if isinstance(plain, nn.Conv1d) else 2
        self.example_axes = self.dims + 1
        require(
            plain.padding_mode == "zeros",
            "Self-tuning convolutions pad with zeros",
            got=plain.padding_mode,
            error=InvalidProblem,
        )

    def together(self, x: Tensor) -> Tensor:
        out = self.call(x)
        if self.responds("weight"):
            out = torch.addcmul(out, self._convolved(x), self.gate("weight", len(x), self.dims))
        return out.add_(self._shift(len(x))) if self.responds("bias") else out

    def respond(self, x: Tensor) -> Tensor:
        change = x.new_zeros(())
        if self.responds("weight"):
            change = self._convolved(x) * self.gate("weight", len(x), self.dims)
        return change + self._shift(len(x)) if self.responds("bias") else change

    def _convolved(self, x: Tensor) -> Tensor:
        p = self.plain
        convolve: Callable[..., Tensor] = functional.conv1d if self.dims == 1 else functional.conv2d
        return convolve(x, self.gate_of("weight").response, None, p.stride, p.padding, p.dilation, p.groups)

    def _shift(self, rows: int) -> Tensor:
        shift = self.gate("bias", rows) * self.gate_of("bias").response
        return shift.reshape(*shift.shape, *[1] * self.dims)


class TunedEmbedding(Tuned):
    """`torch.nn.Embedding` that responds; gates are on the entries of a vector, not on words."""

    plain: nn.Embedding
    gate_kinds = (ColumnGate,)

    def __init__(self, plain: nn.Module, context: Context) -> None:
        if not isinstance(plain, nn.Embedding):
            raise InvalidProblem(f"TunedEmbedding converts nn.Embedding; got {type(plain).__name__}.")
        require(
            plain.max_norm is None,
            "Self-tuning embeddings need max_norm=None: it changes the weights in every pass",
            got=plain.max_norm,
            error=InvalidProblem,
        )
        super().__init__(plain, context)
        if plain.padding_idx is not None and self.responds("weight"):
            with torch.no_grad():
                self.gate_of("weight").response[plain.padding_idx] = 0.0

    def respond(self, x: Tensor) -> Tensor:
        g = self.gate("weight", len(x))
        g = g.reshape(len(g), *[1] * (x.ndim - 1), -1)
        return functional.embedding(x, self.gate_of("weight").response, self.plain.padding_idx) * g


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
        ones, change = [1] * dims, x.new_zeros(())
        if self.responds("weight"):
            normal = (x - mean) * torch.rsqrt(var + p.eps)
            scale = self.gate("weight", len(x)) * self.gate_of("weight").response
            change = normal * scale.reshape(*scale.shape, *ones)
        if self.responds("bias"):
            shift = self.gate("bias", len(x)) * self.gate_of("bias").response
            change = change + shift.reshape(*shift.shape, *ones)
        return change
