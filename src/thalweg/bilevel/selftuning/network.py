"""A network converted so that its weights are a function of the hyper-parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from thalweg.bilevel._trees import Tree
from thalweg.bilevel.selftuning.dropout import HyperDropout
from thalweg.bilevel.selftuning.forward_code import require_called_layers
from thalweg.bilevel.selftuning.gates import Gate, require_whole_tensors
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
            return pytree.tree_map(_linearised, self.module(*inputs))

    @property
    def layers(self) -> list[Tuned]:
        """Those that respond, each once."""
        return [m for m in self.module.modules() if isinstance(m, Tuned)]

    def squared_norm(self, u: Tensor) -> Tensor:
        """``|W(u)|^2`` of all matrices and kernels for each u, shape (batch,), without making the weights.

        A tensor that several layers share counts once; a frozen one counts, and does not respond.
        """
        shift = (u[None] if u.ndim == 1 else u) - self.centre
        gated, responses = gated_tensors(self.module), {id(p) for p in self.responses}
        total = shift.new_zeros(len(shift))
        for p in self.module.parameters():
            if id(p) in responses or p.ndim < 2:
                continue
            gate = gated[id(p)][1] if id(p) in gated else None
            weight = p.detach() if self.context.linear else p
            total = total + (weight.square().sum() if gate is None else gate.squared_norm(weight, shift))
        return total

    @property
    def responses(self) -> list[nn.Parameter]:
        """V and W_1, each once; the other parameters are the plain network's own."""
        found = {id(p): p for layer in self.layers for p in layer.gates.parameters()}
        return list(found.values())

    @torch.no_grad()
    def export(self, u: Tensor | None = None) -> nn.Module:
        """A plain copy of the network, with the weights and dropout rates of u; by default the current.

        Modules and tensors that are shared here are shared there; frozen tensors keep their bits.
        """
        at = self.current if u is None else u.to(self.centre)
        network = copy.deepcopy(self.module)
        values = self.space.values(at)
        for p, gate in gated_tensors(network).values():
            p.copy_(gate.at(p, at - self.centre))

        def plain(module: nn.Module, path: str) -> nn.Module:
            if isinstance(module, Tuned):
                return module.plain
            if isinstance(module, HyperDropout):
                kind = nn.Dropout2d if module.whole else nn.Dropout
                return kind(float(values[module.name])).train(module.training)
            return module

        return replaced(network, plain)


def _linearised(output: Tree) -> Tree:
    """A value and its tangent added up; what is no tensor as it is."""
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return output
    primal, tangent = forward_ad.unpack_dual(output)
    return primal if tangent is None else primal + tangent


def gated_tensors(module: nn.Module) -> dict[int, tuple[nn.Parameter, Gate]]:
    """The plain tensors that respond, with their gates, each once, by identity."""
    return {
        id(p): (p, layer.gate_of(name))
        for layer in module.modules()
        if isinstance(layer, Tuned)
        for name, p in layer.tensors().items()
        if layer.responds(name)
    }


def replaced(module: nn.Module, change: Callable[[nn.Module, str], nn.Module]) -> nn.Module:
    """The module with ``change(part, path)`` in every part's place: one that is used twice stays one.

    A part that ``change`` gives back is entered.
    """
    done: dict[int, nn.Module] = {}

    def at(part: nn.Module, path: str) -> nn.Module:
        if id(part) not in done:
            done[id(part)] = now = change(part, path)
            if now is part:
                for child, inner in part._modules.items():
                    if inner is not None:
                        part._modules[child] = at(inner, f"{path}.{child}" if path else child)
        return done[id(part)]

    return at(module, "")


def share_gates(module: nn.Module) -> None:
    """One gate for each tensor, whichever layers use it, of a kind that all of them can work with."""
    uses: dict[int, list[tuple[Tuned, str, str]]] = {}
    for path, layer in module.named_modules():
        if isinstance(layer, Tuned):
            for name, p in layer.tensors().items():
                if layer.responds(name):
                    uses.setdefault(id(p), []).append((layer, name, f"{path}.plain.{name}"))
    for places in uses.values():
        gates = [layer.gate_of(name) for layer, name, _ in places]
        fit = [g for g in gates if all(type(g) in layer.gate_kinds for layer, _, _ in places)]
        if not fit:
            names = " and ".join(f"{path} ({type(layer.plain).__name__})" for layer, _, path in places)
            raise InvalidProblem(
                f"{names.replace('.plain.', '.')} are one tensor, which these layers cannot share in a self-tuned "
                "network. Use two tensors."
            )
        for layer, name, _ in places:
            layer.gates[name] = fit[0]


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

    Tensors that need no gradient (``requires_grad`` False) do not respond and keep their bits; a layer all of whose
    tensors are frozen needs no self-tuning form. A layer or tensor that is used several times responds as one.

    Raises:
        InvalidProblem: a layer that cannot be converted; one whose tensors the network's ``forward`` reads itself;
            tensors that overlap in memory; a dropout name that is no ``Dropout`` layer.
        UnknownName: a dropout by a hyper-parameter that is not in the space.

    Cost: twice the network's memory; a forward pass about twice as long, three times with ``delta``.

    Source: MacKay et al. (2019), arXiv 1903.03088; Bae and Grosse (2020), arXiv 2010.13514.

    >>> import torch
    >>> from torch import nn
    >>> from thalweg.bilevel.selftuning import HyperSpace, self_tuning
    >>> from thalweg.bilevel.selftuning import HyperParameter
    >>> space = HyperSpace(HyperParameter("rate", 0.2))
    >>> net = self_tuning(nn.Sequential(nn.Dropout(), nn.Linear(3, 2)), space, dropout={"0": "rate"}).eval()
    >>> x = torch.ones(4, 3)
    >>> torch.equal(net(x), net(x, at=space.u0)), net.export()[0]
    (True, Dropout(p=0.20000000298023224, inplace=False))
    """
    context = Context(len(space))
    if not any(p.requires_grad for p in module.parameters()):
        raise InvalidProblem("self_tuning needs a network with parameters that are trained (requires_grad).")
    require_whole_tensors(module)
    require_called_layers(module, tuple(CONVERTERS))
    network = copy.deepcopy(module)
    rates = _rates(network, space, dropout or {})

    def converted(part: nn.Module, path: str) -> nn.Module:
        if id(part) in rates:
            return HyperDropout(rates[id(part)], context, whole=isinstance(part, nn.Dropout2d))
        trained = [p.requires_grad for p in part.parameters()]
        if type(part) in CONVERTERS and (any(trained) or not trained):
            _require_no_hooks(part, path)
            return CONVERTERS[type(part)](part, context)
        if any(p.requires_grad for p in part.parameters(recurse=False)):
            raise InvalidProblem(
                f"'{path or 'the network'}' is {type(part).__name__}, which has parameters of its own and no "
                "self-tuning form. Give one with register_layer(type, converter)."
            )
        return part

    network = replaced(network, converted)
    share_gates(network)
    return SelfTuned(network, space, context, delta)


def _rates(network: nn.Module, space: HyperSpace, dropout: Mapping[str, str]) -> dict[int, str]:
    """Hyper-parameters by the identity of the ``Dropout`` layers whose rates they are."""
    parts = dict(network.named_modules(remove_duplicate=False))
    rates: dict[int, str] = {}
    for path, name in dropout.items():
        space.require(name)
        if path not in parts or not path:
            raise InvalidProblem(
                f"There is no layer '{path}' in the network. Its layers: {', '.join(n for n in parts if n)}."
            )
        part = parts[path]
        if not isinstance(part, nn.Dropout | nn.Dropout2d):
            raise InvalidProblem(f"'{path}' is {type(part).__name__}; a dropout rate needs a Dropout layer.")
        if rates.setdefault(id(part), name) != name:
            raise InvalidProblem(
                f"'{path}' is a Dropout layer that is used twice, with rates '{rates[id(part)]}' and '{name}'. Give "
                "one rate, or use two layers."
            )
    return rates


def _require_no_hooks(part: nn.Module, path: str) -> None:
    if part._forward_hooks or part._forward_pre_hooks:
        raise InvalidProblem(
            f"'{path or 'the network'}' ({type(part).__name__}) has forward hooks, weight_norm's perhaps, which a "
            "self-tuned layer would pass over. Remove them first."
        )
