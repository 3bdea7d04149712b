"""A network converted so that its weights are a function of the hyper-parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from thalweg.bilevel._trees import Tree
from thalweg.bilevel.selftuning.dropout import HyperDropout
from thalweg.bilevel.selftuning.layers import (
    Context,
    Tuned,
    TunedBatchNorm,
    TunedConv,
    TunedEmbedding,
    TunedLinear,
)
from thalweg.bilevel.selftuning.lstm import TunedLSTM
from thalweg.bilevel.selftuning.space import HyperSpace
from thalweg.core import InvalidProblem

Converter: TypeAlias = Callable[[nn.Module, Context], nn.Module]

#: How a layer becomes one that responds; `register_layer` adds to it.
CONVERTERS: dict[type[nn.Module], Converter] = {
    nn.Linear: TunedLinear,
    nn.Conv1d: TunedConv,
    nn.Conv2d: TunedConv,
    nn.LSTM: TunedLSTM,
    nn.Embedding: TunedEmbedding,
    nn.BatchNorm1d: TunedBatchNorm,
    nn.BatchNorm2d: TunedBatchNorm,
}


def register_layer(kind: type[nn.Module], converter: Converter) -> None:
    """Convert layers of a class by ``converter(layer, context)``; `Tuned` is the base to derive from."""
    CONVERTERS[kind] = converter


class SelfTuned(nn.Module):
    """A network with weights ``W(u)``, made by `self_tuning`.

    Called with inputs alone every example has the current hyper-parameters; called ``at`` u, shape (batch,
    hyper-parameters) or (hyper-parameters,), each has the weights, and in training mode the dropout rates, of its u.

    Args:
        module: the converted network.
        space: of the hyper-parameters.
        context: what its layers look at.
        delta: respond to first order around the current hyper-parameters (Delta-STN) instead of exactly around the
            first ones (STN).
    """

    current: Tensor
    centre: Tensor

    def __init__(self, module: nn.Module, space: HyperSpace, context: Context, delta: bool) -> None:
        super().__init__()
        self.module, self.space, self.context, self.delta = module, space, context, delta
        u0 = space.u0.to(next(module.parameters()))
        self.register_buffer("current", u0)
        self.register_buffer("centre", u0.clone())

    @torch.no_grad()
    def move(self, u: Tensor) -> None:
        """Make u the current hyper-parameters; in Delta-STN the centre goes with them."""
        self.current.copy_(u)
        if self.delta:
            self.centre.copy_(u)

    def forward(self, *inputs: Tree, at: Tensor | None = None) -> Tree:
        u = self.current if at is None else at
        u = u[None] if u.ndim == 1 else u
        values = self.space.values(u)
        if self.delta and at is None:
            with self.context.at(None, values):
                return self.module(*inputs)
        shift = u - self.centre
        if not self.delta:
            with self.context.at(shift, values):
                return self.module(*inputs)
        with forward_ad.dual_level(), self.context.at(shift, values, linear=True):
            primal, tangent = forward_ad.unpack_dual(self.module(*inputs))
            return primal if tangent is None else primal + tangent

    @property
    def layers(self) -> list[Tuned]:
        """Those that respond."""
        return [m for m in self.module.modules() if isinstance(m, Tuned)]

    def squared_norm(self, u: Tensor) -> Tensor:
        """``|W(u)|^2`` of all matrices and kernels for each u, shape (batch,), without making the weights."""
        shift = (u[None] if u.ndim == 1 else u) - self.centre
        return torch.stack([layer.squared_norm(shift) for layer in self.layers]).sum(0)

    @property
    def responses(self) -> list[nn.Parameter]:
        """V and W_1; the other parameters are the plain network's own."""
        return [p for layer in self.layers for p in layer.gates.parameters()]

    def export(self, u: Tensor | None = None) -> nn.Module:
        """A plain copy of the network, with the weights and dropout rates of u; by default the current."""
        at = self.current if u is None else u.to(self.centre)
        network = copy.deepcopy(self.module)
        values = self.space.values(at)

        def plain(module: nn.Module) -> nn.Module:
            if isinstance(module, Tuned):
                return module.export(at - self.centre)
            if isinstance(module, HyperDropout):
                return (nn.Dropout2d if module.whole else nn.Dropout)(float(values[module.name]))
            for name, child in module.named_children():
                setattr(module, name, plain(child))
            return module

        return plain(network)


def self_tuning(
    module: nn.Module,
    space: HyperSpace,
    *,
    dropout: Mapping[str, str] | None = None,
    delta: bool = False,
) -> SelfTuned:
    """A copy of a network whose layers respond to hyper-parameters.

    Linear, Conv1d, Conv2d, LSTM, Embedding, BatchNorm1d and BatchNorm2d are converted; other layers with parameters
    need `register_layer`. The batch has to come first in every layer's input.

    Args:
        module: the network; left as it is.
        space: of the hyper-parameters.
        dropout: which hyper-parameter is the rate of which ``Dropout`` layer, by the layer's name in the network.
        delta: Delta-STN's linearised, centred response instead of STN's.

    Raises:
        InvalidProblem: a layer that cannot be converted, or a dropout name that is no ``Dropout`` layer.
        UnknownName: a dropout by a hyper-parameter that is not in the space.

    Cost: twice the network's memory; a forward pass about twice as long, three times with ``delta``.

    Source: MacKay et al. (2019), arXiv 1903.03088; Bae and Grosse (2020), arXiv 2010.13514.

    >>> from thalweg.bilevel.selftuning import HyperParameter
    >>> space = HyperSpace(HyperParameter("rate", 0.2))
    >>> net = self_tuning(nn.Sequential(nn.Dropout(), nn.Linear(3, 2)), space, dropout={"0": "rate"}).eval()
    >>> x = torch.ones(4, 3)
    >>> torch.equal(net(x), net(x, at=space.u0)), net.export()[0]
    (True, Dropout(p=0.20000000298023224, inplace=False))
    """
    names, context = dict(dropout or {}), Context(len(space))
    if not any(True for _ in module.parameters()):
        raise InvalidProblem("self_tuning needs a network with parameters.")
    for name in names.values():
        space.require(name)

    def converted(part: nn.Module, path: str) -> nn.Module:
        name = names.pop(path, None)
        if name is not None:
            if not isinstance(part, nn.Dropout | nn.Dropout2d):
                raise InvalidProblem(
                    f"'{path}' is {type(part).__name__}; a dropout rate needs a Dropout layer."
                )
            return HyperDropout(name, context, whole=isinstance(part, nn.Dropout2d))
        if type(part) in CONVERTERS:
            return CONVERTERS[type(part)](part, context)
        if any(True for _ in part.parameters(recurse=False)):
            raise InvalidProblem(
                f"'{path or 'the network'}' is {type(part).__name__}, which has parameters of its own and no "
                "self-tuning form. Give one with register_layer(type, converter)."
            )
        for child, inner in list(part.named_children()):
            setattr(part, child, converted(inner, f"{path}.{child}" if path else child))
        return part

    network = converted(copy.deepcopy(module), "")
    if names:
        raise InvalidProblem(
            f"There is no layer '{next(iter(names))}' in the network. Its layers: "
            f"{', '.join(n for n, _ in module.named_modules() if n)}."
        )
    return SelfTuned(network, space, context, delta)
