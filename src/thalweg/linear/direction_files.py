"""Direction networks in files, those that come with the library among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from thalweg.core.validation import require
from thalweg.datasets.networks import load_tensors, save_tensors, shipped
from thalweg.linear.cycle_direction import CycleDirection
from thalweg.linear.direction_network import DirectionNetwork, ResidualDirection
from thalweg.linear.multigrid import PRETRAINED

KINDS = {"CycleDirection": CycleDirection, "ResidualDirection": ResidualDirection}


def save_direction(path: str | Path, network: DirectionNetwork, recipe: dict[str, Any] | None = None) -> None:
    """Write a network as safetensors; its settings and the ``recipe`` that made it stand in the file's header."""
    kind = type(network).__name__
    about = {"kind": kind, "settings": json.dumps(network.settings()), "recipe": json.dumps(recipe or {})}
    save_tensors(path, network.state_dict(), about)


def load_direction(path: str | Path, device: str | torch.device = "cpu") -> DirectionNetwork:
    """A network that `save_direction` wrote.

    Raises:
        UnreadableFile: absent, damaged, or not such a file.
    """

    def build(about: dict[str, str], tensors: dict[str, Tensor]) -> DirectionNetwork:
        network: DirectionNetwork = KINDS[about["kind"]](**json.loads(about["settings"]))
        network.load_state_dict(tensors)
        return network

    return load_tensors(path, build, "no direction network. save_direction() writes them").to(device).eval()


def pretrained_direction(dimensions: int, device: str | torch.device = "cpu") -> DirectionNetwork:
    """The `CycleDirection` shipped with the library, for 2-D or 3-D grids; `train_direction` has the recipe.

    Raises:
        InvalidParameter: other dimensions.
        UnreadableFile: its file has been changed.

    >>> type(pretrained_direction(2)).__name__
    'CycleDirection'
    """
    require(
        dimensions in PRETRAINED, f"There are networks for {sorted(PRETRAINED)} dimensions", got=dimensions
    )
    with shipped("thalweg.linear", *PRETRAINED[dimensions]) as path:
        return load_direction(path, device)
