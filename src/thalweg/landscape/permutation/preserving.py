"""Whether a network is the same function after its units have changed places."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from thalweg.core import InvalidProblem
from thalweg.landscape.permutation.specification import Orders, PermutationSpec

#: Relative difference of outputs that rounding explains, by the weights' type; half precision has three digits.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def check_preserved(
    module: nn.Module,
    spec: PermutationSpec,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None = None,
    orders: Orders | None = None,
) -> float:
    """Run a module before and after its units change places; the largest relative difference of the outputs.

    Args:
        args, kwargs: what the module takes.
        orders: by default drawn at random.

    Raises:
        InvalidProblem: outputs that differ by more than rounding (1e-5 in float32): the specification is not the
            module's.

    A deep network in float32 can change by more than 1e-5 by rounding alone; it is looked at in float64 before it is
    refused.

    Cost: two forward passes and a copy of the module; as many again where rounding is in doubt.
    """
    orders = spec.random(1) if orders is None else orders
    own = copy.deepcopy(module).eval()
    worst, allowed = _change(own, spec, args, kwargs, orders), _rounding(own)
    if allowed > ROUNDING[torch.float64] and not worst <= allowed:
        exact = copy.deepcopy(module).eval().double()
        try:
            given, named = tree_map(_exactly, (tuple(args), dict(kwargs or {})))
            worst = _change(exact, spec, given, named, orders)
            allowed = ROUNDING[torch.float64]
        except RuntimeError:  # a module that makes float32 itself is judged as it is
            pass
    if not worst <= allowed:
        raise InvalidProblem(
            f"The specification does not keep the network's function: its outputs change by {worst:.2g} of their size "
            "when units change places. It is not this module's."
        )
    return worst


def _change(
    own: nn.Module,
    spec: PermutationSpec,
    args: Sequence[object],
    kwargs: Mapping[str, object] | None,
    orders: Orders,
) -> float:
    """The largest relative change of the outputs; the module is left with the new orders, a tensor at a time."""
    before, moved = _outputs(own, args, kwargs), set()
    state = own.state_dict()
    spec.check_orders(orders)
    spec.check_state(state)
    for name in spec.axes:
        value = state[name]
        if value.numel() and (value.data_ptr(), value.shape) not in moved:
            moved.add((value.data_ptr(), value.shape))  # tied weights move once
            value.copy_(spec.moved(name, value, orders))
    after = _outputs(own, args, kwargs)
    worst = 0.0
    for one, two in zip(before, after, strict=True):
        scale = float(one.double().abs().max()) or 1.0
        worst = max(worst, float((one.double() - two.double()).abs().max()) / scale)
    return worst


def _rounding(module: nn.Module) -> float:
    return max((ROUNDING.get(p.dtype, 1e-5) for p in module.parameters()), default=1e-5)


def _exactly(given: object) -> object:
    return given.double() if isinstance(given, Tensor) and given.is_floating_point() else given


def _outputs(module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object] | None) -> list[Tensor]:
    with torch.no_grad():
        found = module(*args, **(kwargs or {}))
    return [v for v in tree_leaves(found) if isinstance(v, Tensor) and v.is_floating_point()]
