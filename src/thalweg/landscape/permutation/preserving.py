"""Whether a network is the same function after its units have changed places."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

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

    Cost: two forward passes and a copy of the module.
    """
    own = copy.deepcopy(module).eval()
    before = _outputs(own, args, kwargs)
    state = {n: v.clone() for n, v in own.state_dict().items()}
    own.load_state_dict(spec.apply(state, spec.random(1) if orders is None else orders))
    after = _outputs(own, args, kwargs)
    worst = 0.0
    for one, two in zip(before, after, strict=True):
        scale = float(one.double().abs().max()) or 1.0
        worst = max(worst, float((one.double() - two.double()).abs().max()) / scale)
    kinds = [ROUNDING.get(p.dtype, 1e-5) for p in own.parameters()]
    if not worst <= max(kinds, default=1e-5):
        raise InvalidProblem(
            f"The specification does not keep the network's function: its outputs change by {worst:.2g} of their size "
            "when units change places. It is not this module's."
        )
    return worst


def _outputs(module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object] | None) -> list[Tensor]:
    with torch.no_grad():
        found = module(*args, **(kwargs or {}))
    return [v for v in tree_leaves(found) if isinstance(v, Tensor) and v.is_floating_point()]
