"""The permutations of a module, found by running it once and following every axis through every operation.

An axis of a weight is a set of units. Where an operation adds, contracts or normalises along two axes, their units
are the same and move together; where it looks at their order (a convolution along the image, a slice, an output),
they stay.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from thalweg.core import InvalidProblem
from thalweg.landscape.permutation import labels as axes
from thalweg.landscape.permutation.labels import Label, Units
from thalweg.landscape.permutation.preserving import check_preserved
from thalweg.landscape.permutation.rules import RULES, is_pointwise, pointwise
from thalweg.landscape.permutation.specification import Axis, Factor, Permutation, PermutationSpec

#: What a module is called with: an input, several, or named ones; None for a guess.
Example = Tensor | Sequence[object] | dict[str, object] | None


def trace_permutations(
    module: nn.Module,
    example: Example = None,
    *,
    hold: Collection[str] = (),
) -> PermutationSpec:
    """Find which hidden units of a module can change places, by one forward pass.

    Linear layers, convolutions, normalisations, residual sums, concatenations, pooling, embeddings, attention with its
    heads (grouped ones too), tied weights: followed operation by operation, so that hand-written code is understood as
    well as ``torch.nn``.

    Args:
        module: with any weights; it is copied, and left as it is.
        example: input to run it on: a tensor, a tuple of arguments, or keyword arguments by name. By default made
            for a module that begins with a linear layer, a convolution (32 pixels wide) or an embedding.
        hold: paths of submodules where operations that are not understood are taken to hold all units in place.

    The specification is tried on the example with random orders before it is returned. A branch that the example does
    not take is not seen: its weights stay in place.

    Raises:
        InvalidProblem: an operation that is not understood on axes that could move, named with the submodule that
            called it; no example where none can be guessed.

    Cost: three forward passes, and a copy of the module on its device.

    >>> print(trace_permutations(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))))
    0 (8): 0.weight[0], 0.bias[0], 2.weight[1]
    """
    own = copy.deepcopy(module).eval()
    unknown = [path for path in hold if path not in dict(own.named_modules())]
    if unknown:
        raise InvalidProblem(f"trace_permutations: hold names '{unknown[0]}', which is no submodule.")
    args, kwargs = arguments(own, example)
    watch = _Watch(own, frozenset(hold))
    with _plain_attention(), torch.no_grad(), watch.paths(own), watch:
        output = own(*args, **kwargs)
    for value in tree_leaves(output):
        if isinstance(value, Tensor):
            for dim in watch.label(value):
                axes.pin(dim)
    spec = _specification(own, watch)
    _stir(own, watch.statistics)
    check_preserved(own, spec, args, kwargs)
    return spec


def arguments(module: nn.Module, example: Example) -> tuple[tuple[object, ...], dict[str, object]]:
    """What a module is called with."""
    if example is None:
        example = _guessed(module)
    if isinstance(example, dict):
        return (), dict(example)
    return ((example,) if isinstance(example, Tensor) else tuple(example)), {}


def _guessed(module: nn.Module) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    for layer in module.modules():
        weight = next(layer.parameters(recurse=False), None)
        if weight is None:
            continue
        kind: Any = {"dtype": weight.dtype}
        if isinstance(layer, nn.Linear):
            return torch.randn(3, layer.in_features, generator=draw, **kind).to(weight.device)
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            sides = [32] * (weight.ndim - 2)
            return torch.randn(2, layer.in_channels, *sides, generator=draw, **kind).to(weight.device)
        if isinstance(layer, nn.Embedding):
            return torch.randint(layer.num_embeddings, (2, 6), generator=draw).to(weight.device)
        break
    raise InvalidProblem(
        "trace_permutations: what this module takes cannot be guessed. Give example=, a tensor or a tuple."
    )


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention by its operations, not by one fused for whole layers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _stir(module: nn.Module, statistics: set[str]) -> None:
    """Make all weights unlike, so that a wrong order shows: new layers have zeros and ones that hide it."""
    draw = torch.Generator().manual_seed(1)
    state = module.state_dict()
    with torch.no_grad():
        for name in sorted(dict(module.named_parameters()).keys() | statistics):
            value = state[name]
            noise = torch.rand(value.shape, generator=draw).to(value)
            value.add_(noise * (0.2 * value.abs().mean() + 0.05))  # upward: variances stay positive


class _Watch(TorchDispatchMode):
    """Follows labels of axes through operations."""

    def __init__(self, module: nn.Module, hold: frozenset[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.hold, self.path = hold, [""]
        self.known: Any = WeakTensorKeyDictionary()
        self.seen: list[Label] = []
        self.weights: dict[str, Label] = {}
        for name, p in module.named_parameters(remove_duplicate=False):
            if p not in self.known:
                self.known[p] = [axes.free(n) for n in p.shape]
            self.weights[name] = self.known[p]
        self.statistics: set[str] = set()
        for path, layer in module.named_modules():
            if isinstance(layer, _NormBase):
                for name, b in layer.named_buffers(recurse=False):
                    if b.ndim == 1:
                        self.known[b] = [axes.free(len(b))]
                        full = f"{path}.{name}" if path else name
                        self.weights[full] = self.known[b]
                        self.statistics.add(full)
        self.touched: set[int] = set()

    @contextmanager
    def paths(self, module: nn.Module) -> Iterator[None]:
        """Know which submodule runs."""
        handles = []
        for path, layer in module.named_modules():
            handles.append(layer.register_forward_pre_hook(lambda *_, path=path: self.path.append(path)))
            handles.append(layer.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _leave(self, *_: object) -> None:
        self.path.pop()

    def label(self, value: Tensor) -> Label:
        """The label of a tensor; what is not known stays in place."""
        if value not in self.known:
            self.known[value] = [axes.fixed(n) for n in value.shape]
        found: Label = self.known[value]
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        given = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
        results = [v for v in tree_leaves(out) if isinstance(v, Tensor)]
        self.touched.update(id(self.known[v]) for v in given if v in self.known)
        name = func._schema.name.removeprefix("aten::")
        plain = name[:-1] if name.endswith("_") and not name.startswith("_") else name
        rule = RULES.get(plain) or (pointwise if is_pointwise(func, plain) else None)
        named = [self.label(v) for v in given]
        if all(axes.is_pinned(dim) for label in named for dim in label) and rule is not pointwise:
            found = None
        elif rule is not None:
            found = rule(self.label, args, kwargs, out)
        elif any(self.path[-1] == h or self.path[-1].startswith(f"{h}.") for h in self.hold):
            for dim in (dim for label in named for dim in label):
                axes.pin(dim)
            found = None
        else:
            raise InvalidProblem(
                f"trace_permutations: '{name}', called by '{self.path[-1] or 'the module'}', "
                "is not understood on axes whose "
                f"units could change places. Hold them there with hold=['{self.path[-1]}'], or give a specification "
                "with PermutationSpec.by_hand."
            )
        for k, value in enumerate(results):
            label = found[k] if found is not None and k < len(found) else [axes.fixed(n) for n in value.shape]
            if value in self.known and any(value is g for g in given):
                for old, new in zip(self.known[value], label, strict=True):
                    axes.join(old, new)
            else:
                self.known[value] = label
            self.seen.append(label)
        self.seen += named
        return out


def _specification(module: nn.Module, watch: _Watch) -> PermutationSpec:
    """Names for the sets of units that move."""
    for label in watch.weights.values():
        if id(label) not in watch.touched:  # never used: nothing is known of its order
            for dim in label:
                axes.pin(dim)
    nested = _nested(watch)
    names: dict[int, str] = {}
    permutations: dict[str, Permutation] = {}
    state = module.state_dict()

    def factor(units: Units, tensor: str) -> Factor:
        if units.pinned or units.size == 1:
            return Factor(units.size)
        if id(units) not in names:
            above = nested.get(id(units))
            under = None if above is None else factor(above, tensor).permutation
            base = tensor.rpartition(".")[0] or tensor
            name, k = base, 2
            while name in permutations:
                name, k = f"{base}~{k}", k + 1
            names[id(units)] = name
            permutations[name] = Permutation(units.size, under)
        return Factor(units.size, names[id(units)])

    found: dict[str, tuple[Axis, ...]] = {}
    twice: set[str] = set()
    for tensor, label in watch.weights.items():
        if tensor not in state:
            continue
        found[tensor] = tuple(
            tuple(tuple(factor(u, tensor) for u in product) or (Factor(1),) for product in axes.resolved(dim))
            for dim in label
        )
        tops = [
            {
                f.permutation
                for s in axis
                for f in s
                if f.permutation and permutations[f.permutation].under is None
            }
            for axis in found[tensor]
        ]
        if sum(len(t) for t in tops) > len(set().union(*tops)):
            twice.add(tensor)
    return PermutationSpec(permutations, found, frozenset(watch.statistics & found.keys()), frozenset(twice))


def _nested(watch: _Watch) -> dict[int, Units]:
    """Sets of units with an order of their own in each unit of another: where the two never part."""
    above: dict[int, Units | None] = {}

    def look(together: list[Units]) -> None:
        for u in together:
            p = axes.parent(u)
            if p is None or p is u or not any(p is v for v in together):
                above[id(u)] = None
            else:
                above.setdefault(id(u), p)

    for label in watch.seen:
        look([u for dim in label for product in axes.resolved(dim) for u in product])
    for label in watch.weights.values():
        for dim in label:
            for product in axes.resolved(dim):
                for k in range(len(product)):
                    look(product[: k + 1])
    kept = {u: p for u, p in above.items() if p is not None}
    return {u: p for u, p in kept.items() if id(p) not in kept}
