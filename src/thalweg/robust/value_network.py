"""The network that knows what a decision costs at a scenario: two sets, embedded item by item, summed, joined.

Dumouchelle et al. (2024), "Neur2RO: neural two-stage robust optimization" (arXiv 2310.04345), section 4.1 and
appendix F.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from thalweg.core import InvalidProblem, UnknownName
from thalweg.datasets.networks import load_tensors, save_tensors, shipped
from thalweg.robust.milp import Array
from thalweg.robust.problem import TwoStageRobust

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """Columns of an item's row, the rest of x, a scenario's row; widths of the MLPs."""

    items: int
    others: int
    scenario: int
    hidden: int = 32
    embedded: int = 16
    post_hidden: int = 64
    post: int = 8
    joint: int = 8


class ValueNetwork(nn.Module):
    """``V(x, xi) = joint(post(sum_i phi(x_i, a_i)), post'(sum_j psi(xi_j, b_j)))``: permuting items changes nothing.

    Item and post MLPs have one hidden layer and no biases. Inputs are scaled to [0, 1] by the range of the training
    data; outputs back by the range of labels of problems with as many items. `train_value` makes and trains one.

    Args:
        kind: the class of problem that it is for.
        shape: widths.

    Raises, when used on a problem:
        InvalidProblem: it was trained for another class or other features, or not at this number of items.
    """

    item_low: Tensor
    item_width: Tensor
    other_low: Tensor
    other_width: Tensor
    scenario_low: Tensor
    scenario_width: Tensor

    def __init__(self, kind: str, shape: Shape) -> None:
        super().__init__()
        self.kind, self.shape = kind, shape

        def pair(wide: int, hidden: int, out: int, bias: bool = False) -> nn.Sequential:
            return nn.Sequential(nn.Linear(wide, hidden, bias), nn.ReLU(), nn.Linear(hidden, out, bias))

        self.item = pair(1 + shape.items, shape.hidden, shape.embedded)
        self.post = pair(shape.embedded + shape.others, shape.post_hidden, shape.post)
        self.scenario_item = pair(shape.scenario, shape.hidden, shape.embedded)
        self.scenario_post = pair(shape.embedded, shape.post_hidden, shape.post)
        self.joint = pair(2 * shape.post, shape.joint, 1, bias=True)
        for name, width in (("item", shape.items), ("other", shape.others), ("scenario", shape.scenario)):
            self.register_buffer(f"{name}_low", torch.zeros(width))
            self.register_buffer(f"{name}_width", torch.ones(width))
        #: Items, and least and largest label of each size.
        self.ranges: dict[int, tuple[float, float]] = {}

    def decision(self, bits: Tensor, features: Tensor, others: Tensor) -> Tensor:
        """Embeddings of x, shape (..., a, post), from (..., a, items), (..., items, k), (..., a, g)."""
        known = ((features - self.item_low) / self.item_width).unsqueeze(-3)
        rows = torch.cat([bits.unsqueeze(-1), known.expand(*bits.shape, known.shape[-1])], -1)
        rest = (others - self.other_low) / self.other_width
        return self.post(torch.cat([self.item(rows).sum(-2), rest], -1))

    def scenario(self, rows: Tensor) -> Tensor:
        """Embeddings of scenarios, shape (..., b, post), from rows (..., b, items, q)."""
        return self.scenario_post(
            self.scenario_item((rows - self.scenario_low) / self.scenario_width).sum(-2)
        )

    def forward(self, decision: Tensor, scenario: Tensor) -> Tensor:
        """Scaled values of all pairs, shape (..., a, b)."""
        a, b = decision.shape[-2], scenario.shape[-2]
        left = decision.unsqueeze(-2).expand(*decision.shape[:-1], b, decision.shape[-1])
        right = scenario.unsqueeze(-3).expand(*scenario.shape[:-2], a, *scenario.shape[-2:])
        return self.joint(torch.cat([left, right], -1)).squeeze(-1)

    def range_of(self, problem: TwoStageRobust) -> tuple[float, float]:
        """Least and largest label at this problem's size, or `InvalidProblem` where the network does not fit."""
        kind, size = type(problem).__name__, len(problem.items)
        if kind != self.kind:
            raise InvalidProblem(
                f"The network is for {self.kind}; got a {kind}. `train_value` trains one for it."
            )
        maps, fixed = problem.scenario_features()
        widths = {
            "item features": (problem.item_features().shape[1], self.shape.items),
            "entries of x that are no items": (len(problem.others), self.shape.others),
            "scenario features": (maps.shape[1] + fixed.shape[1], self.shape.scenario),
        }
        for what, (has, knows) in widths.items():
            if has != knows:
                raise InvalidProblem(
                    f"The network was trained with {knows} {what}; the problem has {has}. Train another one for it."
                )
        if size not in self.ranges:
            raise InvalidProblem(
                f"The network was trained on problems of {', '.join(map(str, sorted(self.ranges)))} items and has no "
                f"scale for {size}. Train it on that size, too: train_value(make, sizes=[{size}, ...])."
            )
        return self.ranges[size]


def scenario_rows(problem: TwoStageRobust, XI: Array) -> Array:
    """What a network sees of scenarios, shape (b, rows, q + k)."""
    maps, fixed = problem.scenario_features()
    moving = np.einsum("rqd,bd->brq", maps, XI)
    return np.concatenate([moving, np.broadcast_to(fixed, (len(XI), *fixed.shape))], axis=2)


@dataclass(frozen=True, eq=False)
class ValueSurrogate:
    """A network put to one problem, in float64.

    >>> from thalweg.robust import RobustKnapsack, pretrained_value
    >>> problem = RobustKnapsack.random(20, seed=5)
    >>> told = ValueSurrogate(pretrained_value("knapsack"), problem)
    >>> X, XI = np.ones((1, 20)), np.eye(20)[:3]
    >>> bool(np.abs(told.predict(X, XI) / problem.labels(X, XI) - 1).max() < 0.1)
    True
    """

    network: ValueNetwork
    problem: TwoStageRobust

    def __post_init__(self) -> None:
        self.network.range_of(self.problem)

    def decisions(self, X: Array) -> Tensor:
        """Embeddings, shape (a, post)."""
        problem, X = self.problem, np.atleast_2d(X)
        parts = X[:, problem.items], problem.item_features(), X[:, problem.others]
        with torch.no_grad():
            return self.network.decision(*(torch.from_numpy(np.ascontiguousarray(p)) for p in parts))

    def scenarios(self, XI: Array | Tensor) -> Tensor:
        """Embeddings, shape (b, post), differentiable in a tensor."""
        if isinstance(XI, Tensor):
            maps, fixed = (
                torch.from_numpy(np.ascontiguousarray(p)) for p in self.problem.scenario_features()
            )
            moving = torch.einsum("rqd,bd->brq", maps, XI)
            return self.network.scenario(torch.cat([moving, fixed.expand(len(XI), *fixed.shape)], -1))
        with torch.no_grad():
            return self.network.scenario(torch.from_numpy(scenario_rows(self.problem, np.atleast_2d(XI))))

    def scaled(self, value: Tensor) -> Tensor:
        """Outputs in the unit of labels."""
        low, high = self.network.range_of(self.problem)
        return low + (high - low) * value

    def predict(self, X: Array, XI: Array) -> Array:
        """Predicted labels, shape (a, b)."""
        with torch.no_grad():
            return self.scaled(self.network(self.decisions(X), self.scenarios(XI))).numpy()


def save_value(network: ValueNetwork, path: str | Path) -> None:
    """Write a network as ``.safetensors``, with its kind, widths and ranges of labels."""
    about = {
        "kind": network.kind,
        "shape": json.dumps(vars(network.shape)),
        "ranges": json.dumps({str(n): ends for n, ends in network.ranges.items()}),
    }
    save_tensors(path, {name: value.float() for name, value in network.state_dict().items()}, about)


def load_value(path: str | Path) -> ValueNetwork:
    """Read what `save_value` wrote; float64.

    Raises:
        UnreadableFile: no such file, or not one of these.
    """

    def build(about: dict[str, str], tensors: dict[str, Tensor]) -> ValueNetwork:
        network = ValueNetwork(about["kind"], Shape(**json.loads(about["shape"])))
        network.load_state_dict(tensors)
        network.ranges = {int(n): (float(a), float(b)) for n, (a, b) in json.loads(about["ranges"]).items()}
        return network

    return load_tensors(path, build, "no value network. save_value() writes them").double().eval()


#: Files of the shipped networks and their SHA-256.
PRETRAINED: dict[str, tuple[str, str]] = {
    "knapsack": ("knapsack.safetensors", "d583c9eb4b93cf0a1d8917c97baf48770f3a32c586da515dbc99684a70c922c8"),
    "budgeting": (
        "budgeting.safetensors",
        "05d6b3574f047940b2bfe6e51aafa867e13cd1150fc5beea739295162d4a4e8b",
    ),
    "facility": ("facility.safetensors", "239ae34b0bd6e3dc67467eab11703f4e4fe318b8fefc9bc2bac94122ceaa41a5"),
}
#: Which of them is for which class of problem.
PRETRAINED_FOR = {
    "RobustKnapsack": "knapsack",
    "CapitalBudgeting": "budgeting",
    "FacilityLocation": "facility",
}


def pretrained_value(problem: str) -> ValueNetwork:
    """The network shipped for ``"knapsack"``, ``"budgeting"`` or ``"facility"``; `RECIPES` has how it was made.

    >>> sorted(pretrained_value("knapsack").ranges)
    [20, 30, 40, 50]
    """
    if problem not in PRETRAINED:
        raise UnknownName("pretrained value network", problem, PRETRAINED)
    name, checksum = PRETRAINED[problem]
    with shipped("thalweg.robust", name, checksum) as path:
        return load_value(path)
