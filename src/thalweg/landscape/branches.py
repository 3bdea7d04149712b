"""Runs that share their first steps and then part: what lies between their ends, by when they parted.

Frankle, Dziugaite, Roy and Carbin (2020), "Linear mode connectivity and the lottery ticket hypothesis", for spawning;
Singh et al. (2024), arXiv 2406.16300, for the picture.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.func import functional_call, vmap

from thalweg.core import Figure, InvalidProblem, NotFinite, Series
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require
from thalweg.landscape._stacked import MakeOptimizer, made
from thalweg.landscape.barriers import barrier_by_ends
from thalweg.landscape.slices import cosine, interpolate
from thalweg.landscape.surface import Judged, LossSurface, Weights, length, require_surface
from thalweg.numerics.tensor_checks import require_tensors
from thalweg.training.task import Loss, cross_entropy

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]


def late_decay(step: int, steps: int) -> float:
    """A factor of the learning rate: one in the first half, falling to zero in the second.

    >>> [late_decay(step, 4) for step in range(4)]
    [1.0, 1.0, 1.0, 0.5]
    """
    return min(1.0, 2.0 * (steps - step) / steps)


@dataclass(frozen=True, eq=False)
class Spawned:
    """Where runs parted, and where they ended.

    Args:
        roots: weights after each number of shared steps.
        ends: weights of the branches from there.
    """

    roots: dict[int, dict[str, Tensor]]
    ends: dict[int, list[dict[str, Tensor]]]


def spawn(
    module: nn.Module,
    data: Sequence[Tensor],
    optimizer: MakeOptimizer,
    *,
    after: Sequence[int],
    steps: int,
    batch_size: int = 32,
    branches: int = 2,
    schedule: Callable[[int, int], float] = late_decay,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> Spawned:
    """Train a network, and from several moments on let branches go on with other orders of the data.

    A branch has the trunk's weights and the optimizer's state to the bit; only the order of its examples is its own.
    All branches are trained as one stack where the optimizer's counters agree, else those of one moment are.

    Args:
        module: with the weights to begin from; it is left as it is.
        data: tensors with the examples along the first axis.
        optimizer: called with the parameters; it has to treat each number by itself.
        after: shared steps, >= 0, at constant learning rate.
        steps: of each branch.
        batch_size: examples a step, drawn by reshuffling.
        branches: from each moment.
        schedule: factor of the learning rate at a step of a branch. Default: constant, then falling to 0.
        loss: ``loss(model, *batch)``.
        seed: of the orders.

    Raises:
        InvalidProblem: buffers, such as batch normalisation's, that a stack cannot share; data of unlike lengths.
        NotFinite: training that diverged.
    """
    moments = sorted(set(after))
    require(
        len(moments) == len(list(after)) > 0 and all(is_whole(k) and k >= 0 for k in moments),
        "spawn: after needs different whole numbers >= 0",
        got=list(after),
    )
    for name, value in (("steps", steps), ("batch_size", batch_size), ("branches", branches)):
        require(is_whole(value) and value >= 1, f"spawn needs {name} >= 1", got=value)
    buffers = [name for name, _ in module.named_buffers()]
    if buffers:
        raise InvalidProblem(
            f"spawn: the network has buffers ({buffers[0]}), which branches in one stack cannot keep apart. Use layer "
            "or group normalisation."
        )
    require_tensors("spawn: data", data)
    lengths = {len(part) for part in data}
    if len(lengths) != 1 or 0 in lengths:
        raise InvalidProblem(
            f"spawn: data needs tensors of as many examples, one or more; got {sorted(lengths)}."
        )
    run = _Stack(module, data, optimizer, loss, min(batch_size, lengths.pop()))
    roots, states = run.trunk(moments, seed)
    places = [(k, j) for k in moments for j in range(branches)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        groups = (
            [places]
            if run.agree([states[k] for k in moments])
            else [[p for p in places if p[0] == k] for k in moments]
        )
        ends: dict[int, list[dict[str, Tensor]]] = {k: [] for k in moments}
        for group in groups:
            orders = [_order(len(data[0]), run.batch_size, seed, k, j + 1) for k, j in group]
            starts = [roots[k] for k, _ in group]
            found, _ = run.train(
                starts, [states[k] for k, _ in group], orders, steps, lambda t: schedule(t, steps)
            )
            for (k, _), end in zip(group, found, strict=True):
                ends[k].append(end)
    return Spawned(roots, ends)


def train_together(
    module: nn.Module,
    starts: Sequence[Weights],
    data: Sequence[Tensor],
    optimizer: MakeOptimizer,
    *,
    steps: int,
    batch_size: int = 32,
    schedule: Callable[[int, int], float] = late_decay,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> list[dict[str, Tensor]]:
    """Networks from different starts, trained as one stack, each with its own order of the data.

    Args: see `spawn`; starts are weights of the module's names.
    """
    run = _Stack(module, data, optimizer, loss, min(batch_size, len(data[0])))
    orders = [_order(len(data[0]), run.batch_size, seed, k, 1) for k in range(len(starts))]
    factor = lambda t: schedule(t, steps)  # noqa: E731 -- a factor by the step
    return run.train([dict(s) for s in starts], [[] for _ in starts], orders, steps, factor)[0]


def _order(examples: int, size: int, *seed: int) -> Callable[[], NDArray[np.int64]]:
    """Batches of places by reshuffling; what does not fill a batch waits for no one."""
    draws = generator(*seed, 0x5A)
    waiting: list[NDArray[np.int64]] = []

    def batch() -> NDArray[np.int64]:
        if not waiting:
            order = draws.permutation(examples)
            waiting.extend(np.split(order[: examples // size * size], examples // size))
        return waiting.pop(0)

    return batch


State = list[dict[str, Any]]


class _Stack:
    """Networks of one architecture, trained together."""

    def __init__(
        self,
        module: nn.Module,
        data: Sequence[Tensor],
        optimizer: MakeOptimizer,
        loss: Loss,
        batch_size: int,
    ) -> None:
        self.judged = Judged(copy.deepcopy(module).train(), loss)
        self.data, self.optimizer, self.batch_size = tuple(data), optimizer, batch_size
        self.start = {name: p.detach().clone() for name, p in module.named_parameters()}

    def trunk(self, moments: list[int], seed: int) -> tuple[dict[int, dict[str, Tensor]], dict[int, State]]:
        """Weights and optimizer states after each number of shared steps."""
        order = _order(len(self.data[0]), self.batch_size, seed, 0, 0)
        roots: dict[int, dict[str, Tensor]] = {}
        states: dict[int, State] = {}
        now, done = self.start, 0
        state: State = []
        for k in moments:
            if k > done:
                (now,), (state,) = self.train([now], [state], [order], k - done, lambda t: 1.0)
            roots[k], states[k], done = now, state, k
        return roots, states

    def agree(self, states: list[State]) -> bool:
        """Whether the optimizer's entries can be stacked: tensors of the weights' shapes, and equal counters."""
        first = states[0]
        for state in states[1:]:
            if len(state) != len(first):
                return False
            for mine, other in zip(first, state, strict=True):
                if mine.keys() != other.keys():
                    return False
                if any(not _is_array(v) and not _same(v, other[name]) for name, v in mine.items()):
                    return False
        return True

    def train(
        self,
        starts: list[dict[str, Tensor]],
        states: list[State],
        orders: list[Callable[[], NDArray[np.int64]]],
        steps: int,
        factor: Callable[[int], float],
    ) -> tuple[list[dict[str, Tensor]], list[State]]:
        """Weights and optimizer states after so many steps of each."""
        stack = {name: torch.stack([start[name] for start in starts]).requires_grad_() for name in self.start}
        optimizer = made("spawn", self.optimizer, list(stack.values()))
        for place, p in enumerate(stack.values()):
            entries = [state[place] for state in states if state]
            if entries:
                optimizer.state[p] = {
                    name: torch.stack([entry[name] for entry in entries])
                    if _is_array(value)
                    else copy.deepcopy(value)
                    for name, value in entries[0].items()
                }
        rates = [group["lr"] for group in optimizer.param_groups]

        def value(point: dict[str, Tensor], *batch: Tensor) -> Tensor:
            named = {f"inner.{name}": v for name, v in point.items()}
            found: Tensor = functional_call(self.judged, named, batch)
            return found

        together = vmap(value, randomness="different")
        for step in range(steps):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor(step)
            chosen = torch.from_numpy(np.stack([order() for order in orders]))
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(together(stack, *(part[chosen] for part in self.data)).sum())
            optimizer.step()
        ends = [{name: p[i].detach().clone() for name, p in stack.items()} for i in range(len(starts))]
        if not all(bool(torch.isfinite(v).all()) for end in ends for v in end.values()):
            raise NotFinite("spawn: training diverged. Take a smaller learning rate.")
        left = [
            [
                {
                    name: v[i].clone() if _is_array(v) else copy.deepcopy(v)
                    for name, v in optimizer.state[p].items()
                }
                for p in stack.values()
            ]
            for i in range(len(starts))
        ]
        return ends, left


def _is_array(value: object) -> bool:
    """Whether an entry of an optimizer's state has the weights' shape; counters are scalars."""
    return isinstance(value, Tensor) and value.ndim > 0


def _same(a: object, b: object) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b


@dataclass(frozen=True, eq=False)
class Ridges:
    """Barriers between branches, by when they parted; a column for each pair.

    Args:
        after: shared steps, (moments,).
        barrier: largest rise above the chord, (moments, pairs).
        predicted: the same by slopes and curvatures at the ends.
        distance: between the ends.
        cosine: of the angle at the root.
        norm: of the weights at the root, (moments,).
    """

    after: Array
    barrier: Array
    predicted: Array
    distance: Array
    cosine: Array
    norm: Array

    @property
    def rank_agreement(self) -> float:
        """Spearman's correlation of predicted and measured barriers over all pairs."""
        return rank_correlation(self.predicted.ravel(), self.barrier.ravel())

    def to_frame(self) -> pd.DataFrame:
        """A row a moment with means over pairs, as a pandas DataFrame."""
        import pandas as pd

        means = {name: getattr(self, name).mean(1) for name in ("barrier", "predicted", "distance", "cosine")}
        return pd.DataFrame({"after": self.after, **means, "norm": self.norm})

    def figure(self) -> Figure:
        """Barriers and angles over the shared steps, the mean over pairs and their range."""
        x = self.after + 1.0
        series = [Series.of(name, x, getattr(self, name).T) for name in ("barrier", "predicted", "cosine")]
        caption = (
            "Runs that part early end on different sides of a ridge; those that part late share a valley."
        )
        return Figure(
            "Barriers by when runs parted", caption, "shared steps + 1", "loss, or cosine", series, log_x=True
        )


def rank_correlation(x: Array, y: Array) -> float:
    """Spearman's correlation; NaN where one of the two is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


def ridges(surface: LossSurface, spawned: Spawned, points: int = 25) -> Ridges:
    """Measure what lies between the branches of each moment.

    Args:
        surface: the loss to judge by, usually on the training data.
        points: on each segment.

    Cost: ``points`` values and four forward products for each pair.
    """
    require_surface(surface)
    rows = []
    for k, root in spawned.roots.items():
        ends = spawned.ends[k]
        pairs = [(a, b) for i, a in enumerate(ends) for b in ends[i + 1 :]]
        if not pairs:
            raise InvalidProblem("ridges compares branches: spawn two or more.")
        rows.append([_pair(surface, root, a, b, points) for a, b in pairs])
    barrier, predicted, distance, angle = np.moveaxis(np.array(rows), -1, 0)
    norms = np.array([length(surface.theta(root)) for root in spawned.roots.values()])
    return Ridges(np.array(list(spawned.roots), dtype=np.float64), barrier, predicted, distance, angle, norms)


def _pair(
    surface: LossSurface, root: Weights, a: Weights, b: Weights, points: int
) -> tuple[float, float, float, float]:
    line = interpolate(surface, a, b, points)
    predicted = float(barrier_by_ends(surface, a, b, points)[1].max())
    start = surface.theta(root)
    moved_both = length(surface.theta(a) - start) * length(surface.theta(b) - start) > 0
    return line.barrier, predicted, line.distance, cosine(surface, root, a, b) if moved_both else 1.0
