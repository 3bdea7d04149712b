"""What a saved study is checked by before another goes on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thalweg.blackbox.parameters import Parameter
from thalweg.core import CheckpointMismatch, UnreadableFile
from thalweg.core.fingerprint import fingerprint
from thalweg.core.tree import require_alike

#: What a saved study holds.
PARTS = ("settings", "parameters", "trials", "models", "region")


def check_parts(state: object) -> dict[str, Any]:
    """The state, or `UnreadableFile` where it is none of a study."""
    if not isinstance(state, dict) or not set(PARTS) <= set(state):
        raise UnreadableFile(
            "This is no saved study, or one of an earlier version. Start afresh under another name."
        )
    require_alike("command", "", state.get("command", ""))
    return state


def marks(parameters: Mapping[str, Parameter]) -> dict[str, str]:
    """A hash of each parameter's content, by name, in the order of the coordinates."""
    return {name: fingerprint(parameter) for name, parameter in parameters.items()}


def check_settings(kept: Mapping[str, object], own: Mapping[str, object]) -> None:
    """Raise `CheckpointMismatch` with the name, the kept value and the own one of a setting that differs."""
    for name, value in own.items():
        if kept.get(name) != value:
            raise CheckpointMismatch(
                f"The saved study has {name}={kept.get(name)!r}, and this one {name}={value!r}. Make this one with the "
                "same, or start afresh under another name."
            )


def check_parameters(kept: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Raise `CheckpointMismatch` with the parameters that differ; their order is no difference."""
    other = [
        *(f"{name!r} is not in this one" for name in kept if name not in own),
        *(f"{name!r} is new" for name in own if name not in kept),
        *(f"{name!r} has other values" for name in own if name in kept and kept[name] != own[name]),
    ]
    if other:
        raise CheckpointMismatch(
            f"The saved study has another space: {', '.join(other)}. Make this one with the same parameters, or start "
            "afresh under another name."
        )
