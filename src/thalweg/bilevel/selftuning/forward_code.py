"""Whether a network's own code reads tensors of its layers instead of calling them."""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType

from torch import nn

from thalweg.bilevel.selftuning.layers import reads_tensor
from thalweg.core import InvalidProblem


def require_called_layers(network: nn.Module, converted: tuple[type[nn.Module], ...]) -> None:
    """Refuse a network whose ``forward`` says ``self.child.weight`` of a layer that will be converted.

    It looks at the code of ``forward`` and of the methods that it names; a tensor read in a roundabout way is refused
    in the first pass.
    """
    for path, module in network.named_modules():
        if type(module) in converted:
            continue
        for child, name in attribute_pairs(type(module)):
            layer = module._modules.get(child)
            if type(layer) not in converted or layer is None:
                continue
            tensor = layer._parameters.get(name)
            if tensor is not None and tensor.requires_grad:
                where = f"{path}.{child}" if path else child
                raise InvalidProblem(f"'{where}': {reads_tensor(type(layer).__name__, name)}")


def attribute_pairs(kind: type[nn.Module]) -> Iterator[tuple[str, str]]:
    """Every ``a.b`` that follows a dot in ``forward`` and in the class's methods that are reached from it."""
    seen, waiting = set(), ["forward"]
    while waiting:
        method = getattr(kind, waiting.pop(), None)
        if (
            not isinstance(method, FunctionType)
            or method in seen
            or method.__module__ == nn.Module.__module__
        ):
            continue
        seen.add(method)
        for code in _codes(method.__code__):
            before = None
            for instruction in dis.get_instructions(code):
                name = instruction.argval if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") else None
                if name is not None:
                    waiting.append(name)
                    if before is not None:
                        yield before, name
                before = name


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)
