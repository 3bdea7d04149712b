"""The loss of a network on data, as a function of its weights."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.validation import is_whole, require
from thalweg.training.task import Loss, cross_entropy

#: Weights by name.
Weights = Mapping[str, Tensor]
#: What has weights: a network, a `state_dict`, or weights by name.
Place = nn.Module | Weights

#: Points are evaluated together up to so many examples, and so many numbers in a chunk of points.
FEW, CHUNK = 256, 2**24


class Unmoved(UserWarning):
    """Tensors that differ between two networks and are not moved: frozen ones, and whole numbers."""


class _Judged(nn.Module):
    """The loss as a module of its own, so that all of the network's weights can be put in its place."""

    def __init__(self, inner: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.inner, self.loss = inner, loss

    def forward(self, *batch: Tensor) -> Tensor:
        return self.loss(self.inner, *batch)


@dataclass(frozen=True, eq=False)
class LossSurface:
    """``L(theta)``: the mean loss over data of a network with weights theta.

    Args:
        module: the network; it is copied and left as it is. Its trainable parameters are theta; frozen ones and buffers
            stay the module's.
        data: tensors with the examples along the first axis, ``(inputs, labels)``; or a loader of such batches, which
            is gone through once and kept.
        loss: ``loss(model, *batch)``, the mean over a batch. Default cross-entropy.
        batch_size: examples evaluated at once.
        statistics: data on which batch normalisation's statistics are computed anew at every point: between two
            networks neither's are right. Needed where there is batch normalisation; usually what was trained on.

    Raises:
        InvalidProblem: no trainable weights, no data, batch normalisation without ``statistics``, a loss that is no
            scalar.

    Cost of a value: a forward pass over the data (two with batch normalisation).

    >>> _ = torch.manual_seed(0)
    >>> network, data = nn.Linear(4, 3), (torch.randn(20, 4), torch.randint(0, 3, (20,)))
    >>> surface = LossSurface(network, data)
    >>> abs(surface(network) - float(cross_entropy(network, *data))) < 1e-6
    True
    """

    module: nn.Module
    data: Sequence[Tensor] | Iterable[Sequence[Tensor]]
    loss: Loss = cross_entropy
    batch_size: int = 4096
    statistics: Sequence[Tensor] | Iterable[Sequence[Tensor]] | None = None

    def __post_init__(self) -> None:
        require(
            isinstance(self.module, nn.Module),
            "LossSurface needs an nn.Module",
            got=type(self.module).__name__,
        )
        require(
            is_whole(self.batch_size) and self.batch_size >= 1,
            "LossSurface needs batch_size >= 1",
            got=self.batch_size,
        )
        own = copy.deepcopy(self.module).eval()
        kept = [
            layer for layer in own.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats
        ]
        if kept and self.statistics is None:
            raise InvalidProblem(
                "The network has batch normalisation, whose statistics fit no point between two networks. Give "
                "statistics=, data to compute them on anew (usually those trained on)."
            )
        vars(self)["module"] = own
        if not self.names:
            raise InvalidProblem("The network has no trainable weights of floating-point numbers.")
        self.batches  # noqa: B018 -- looked at before any work

    @cached_property
    def _judged(self) -> nn.Module:
        return _Judged(self.module, self.loss)

    @cached_property
    def names(self) -> list[str]:
        """Names of the weights that move, each of a tied pair once."""
        return [n for n, p in self.module.named_parameters() if p.requires_grad and p.is_floating_point()]

    @cached_property
    def size(self) -> int:
        """How many numbers theta has."""
        held = dict(self.module.named_parameters())
        return sum(held[name].numel() for name in self.names)

    @cached_property
    def batches(self) -> list[tuple[Tensor, ...]]:
        """The data in pieces."""
        return _pieces("data", self.data, self.batch_size)

    @cached_property
    def examples(self) -> int:
        """How many there are."""
        return sum(len(batch[0]) for batch in self.batches)

    def weights(self, place: Place) -> dict[str, Tensor]:
        """theta of a network or a `state_dict` of the same architecture, not copied.

        Raises:
            InvalidProblem: a weight that is missing, or has another shape.
            NotFinite: NaN or infinity.
        """
        given: Weights = dict(place.state_dict()) if isinstance(place, nn.Module) else place
        held = dict(self.module.named_parameters())
        found = {}
        for name in self.names:
            if name not in given:
                raise InvalidProblem(f"The weights lack '{name}'; both networks need the same architecture.")
            value = given[name].detach()
            if value.shape != held[name].shape:
                raise InvalidProblem(
                    f"'{name}' has shape {tuple(value.shape)}; the network's has {tuple(held[name].shape)}."
                )
            if not bool(torch.isfinite(value).all()):
                raise NotFinite(f"'{name}' holds NaN or infinity.")
            found[name] = value.to(held[name])
        self._tell_unmoved(given)
        return found

    def _tell_unmoved(self, given: Weights) -> None:
        moving = set(self.names)
        tied = {p.data_ptr() for n, p in self.module.named_parameters() if n in moving}
        layers = {n for n, m in self.module.named_modules() if isinstance(m, _BatchNorm)}
        other = [
            name
            for name, value in self.module.state_dict().items()
            if name not in moving
            and value.data_ptr() not in tied
            and name.rpartition(".")[0] not in layers  # computed anew
            and name in given
            and (given[name].shape != value.shape or not torch.equal(given[name].to(value), value))
        ]
        if other:
            warnings.warn(
                f"{', '.join(other[:3])}{' and more' if len(other) > 3 else ''} differ and stay as the surface's "
                "network has them: they are frozen, or buffers.",
                Unmoved,
                stacklevel=4,
            )

    def __call__(self, place: Place) -> float:
        """The loss at weights; infinite where it is not a number."""
        return float(self.values([self.weights(place)])[0])

    def values(self, points: Iterable[Weights]) -> NDArray[np.float64]:
        """The loss at each of some points of the surface.

        Few examples are evaluated at many points together, many of them one point after another: on a CPU that is the
        faster way, too.
        """
        waiting = iter(points)
        many = max(1, CHUNK // (self.size * self.examples)) if self._together else 1
        found: list[float] = []
        while chunk := [point for _, point in zip(range(many), waiting, strict=False)]:
            found += self._at_many(chunk) if len(chunk) > 1 else [self._at(chunk[0])]
        return np.asarray(found)

    @cached_property
    def _together(self) -> bool:
        """Whether many points can be evaluated at once."""
        on_gpu = next(self.module.parameters()).is_cuda
        return self.statistics is None and (on_gpu or self.examples <= FEW)

    def _at(self, point: Weights) -> float:
        with torch.no_grad():
            if self.statistics is not None:
                self._compute_statistics(point)
            total = sum(float(self.at(point, *batch)) * len(batch[0]) for batch in self.batches)
        value = total / self.examples
        return value if math.isfinite(value) else math.inf

    def _at_many(self, points: list[Weights]) -> list[float]:
        stack = {name: torch.stack([point[name] for point in points]) for name in self.names}
        total = np.zeros(len(points))
        with torch.no_grad():
            for batch in self.batches:
                try:
                    values = vmap(lambda point, batch=batch: self.at(point, *batch))(stack)
                except RuntimeError:  # a network that looks at numbers, or has no rule for many points
                    vars(self)["_together"] = False
                    return [self._at(point) for point in points]
                total += values.double().cpu().numpy() * len(batch[0])
        means = total / self.examples
        return list(np.where(np.isfinite(means), means, np.inf))

    def at(self, point: Weights, *batch: Tensor) -> Tensor:
        """The mean loss of a batch, as a function of the weights that autograd and `torch.func` see through."""
        named = {f"inner.{name}": value for name, value in point.items()}
        value = cast(Tensor, functional_call(self._judged, named, batch))
        if value.numel() != 1:
            raise InvalidProblem(
                f"The loss has shape {tuple(value.shape)}; expected a scalar, the mean over a batch."
            )
        return value.reshape(())

    def _compute_statistics(self, point: Weights) -> None:
        """Batch normalisation's statistics at a point: the plain mean over batches."""
        layers = [m for m in self.module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a mean over all batches
            layer.train()
        named = {f"inner.{name}": value for name, value in point.items()}
        for batch in self._statistics_batches:
            functional_call(self._judged, named, batch)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()

    @cached_property
    def _statistics_batches(self) -> list[tuple[Tensor, ...]]:
        return _pieces("statistics", self.statistics or (), self.batch_size)


def _pieces(
    name: str, data: Sequence[Tensor] | Iterable[Sequence[Tensor]], size: int
) -> list[tuple[Tensor, ...]]:
    whole = list(data)
    if whole and all(isinstance(part, Tensor) for part in whole):
        lengths = {len(part) for part in whole}
        if len(lengths) > 1:
            raise InvalidProblem(f"{name} holds tensors of {sorted(lengths)} examples; each needs as many.")
        tensors = cast(list[Tensor], whole)
        batches = [tuple(part[i : i + size] for part in tensors) for i in range(0, lengths.pop(), size)]
    else:
        batches = [tuple(batch) for batch in whole]
    if not batches or not all(
        len(batch) and isinstance(batch[0], Tensor) and len(batch[0]) for batch in batches
    ):
        raise InvalidProblem(
            f"{name} holds no examples; expected tensors along the first axis, (inputs, labels), or batches of them."
        )
    for batch in batches:
        for part in batch:
            if part.is_floating_point() and not bool(torch.isfinite(part).all()):
                raise NotFinite(f"{name} holds NaN or infinity. Remove or impute such examples.")
    return batches


def moved(point: Weights, direction: Weights, t: float) -> dict[str, Tensor]:
    """``point + t direction``."""
    return {name: value + t * direction[name] for name, value in point.items()}


def between(a: Weights, b: Weights, t: float) -> dict[str, Tensor]:
    """``(1 - t) a + t b``; a at 0 and b at 1, to the bit."""
    return {name: (1.0 - t) * value + t * b[name] for name, value in a.items()}


def difference(a: Weights, b: Weights) -> dict[str, Tensor]:
    """``b - a``."""
    return {name: b[name] - value for name, value in a.items()}


def inner(a: Weights, b: Weights) -> float:
    """The inner product, summed in float64."""
    return float(sum((value.double() * b[name].double()).sum() for name, value in a.items()))


def length(a: Weights) -> float:
    """The Euclidean norm."""
    return math.sqrt(inner(a, a))


def by_layer(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Names of weights by the layer that holds them, in their order: ``"0.weight"`` and ``"0.bias"`` are one."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] or name, []).append(name)
    yield from groups.items()
