"""States that Lion can go on from: its own, those of earlier releases, and lion-pytorch's, with the same momentum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from thalweg.core import CheckpointMismatch

#: Options that tell whose state it is; the first that is there decides.
_TELLING = {
    "amsgrad": "Adam",
    "nesterov": "SGD",
    "ns_steps": "Muon",
    "beta2_decay": "Adafactor",
    "momentum_decay": "NAdam",
    "centered": "RMSprop",
    "lr_decay": "Adagrad",
    "rho": "Adadelta",
    "etas": "Rprop",
    "lambd": "ASGD",
    "history_size": "LBFGS",
    "eps": "Adamax, RAdam or another of Adam's kin",
}


def taken_in(state: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A saved state in the form that the optimizer with these groups loads, or a refusal.

    What a group of another origin lacks, it has from ``groups``.

    Raises:
        CheckpointMismatch: another optimizer's, another number of groups, other parameters, another K.
    """
    saved_groups = state["param_groups"]
    if len(saved_groups) != len(groups):
        raise CheckpointMismatch(
            f"The state has a different number of parameter groups: {len(saved_groups)}; this optimizer has "
            f"{len(groups)}."
        )
    taken = [_group(saved, ours) for saved, ours in zip(saved_groups, groups, strict=True)]
    for index, (saved, ours) in enumerate(zip(taken, groups, strict=True)):
        if len(saved["params"]) != len(ours["params"]):
            raise CheckpointMismatch(
                f"Parameter group {index} (counted from 0) was saved with {len(saved['params'])} parameters; this one "
                f"has {len(ours['params'])}."
            )
        for number, p in zip(saved["params"], ours["params"], strict=True):
            _check_momentum(state["state"].get(number, {}), p, number)
    return {**state, "param_groups": taken}


def _group(saved: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    for telling, name in _TELLING.items():
        if telling in saved:
            name = "AdamW" if telling == "amsgrad" and saved.get("decoupled_weight_decay", False) else name
            raise CheckpointMismatch(
                f"This is the state of {name}, whose moments Lion has no use for. Load it into {name.split(',')[0]}, "
                "or begin with a fresh Lion."
            )
    if "betas" not in saved:
        raise CheckpointMismatch(
            f"This is the state of an optimizer without betas: {', '.join(sorted(saved))}."
        )
    if saved.get("cautious_factor", 1.0) != 1.0:
        raise CheckpointMismatch(
            f"The optimizer was saved with cautious_factor = {saved['cautious_factor']}, which is not here."
        )
    group = {name: value for name, value in saved.items() if name != "cautious_factor"}
    # An earlier release called the option kernel; lion-pytorch has none, and it is L1.
    K = group.pop("kernel", None) or group.get("K", "L1()")
    if repr(ours["K"]) != K:
        raise CheckpointMismatch(f"The optimizer was saved with K = {K}; this one has {ours['K']!r}.")
    kept = {"K": ours["K"], "momentum_dtype": ours["momentum_dtype"]}
    return {**{name: value for name, value in ours.items() if name != "params"}, **group, **kept}


def _check_momentum(entry: Mapping[str, Any], p: Tensor, number: int) -> None:
    if not entry:
        return
    momentum = entry.get("exp_avg")
    if set(entry) != {"exp_avg"} or not isinstance(momentum, Tensor):
        raise CheckpointMismatch(
            f"This is the state of another optimizer: it keeps {', '.join(sorted(map(str, entry)))}; Lion keeps "
            "exp_avg."
        )
    if momentum.shape != p.shape:
        raise CheckpointMismatch(
            f"The momentum of parameter {number} (counted from 0) has shape {tuple(momentum.shape)}; the parameter has "
            f"{tuple(p.shape)}."
        )
