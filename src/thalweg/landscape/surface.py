"""The loss of a network on data, as a function of its weights."""

from __future__ import annotations

import copy
import itertools
import math
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
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
#: What has weights: a network, a `state_dict`, weights by name, or theta itself.
Place = nn.Module | Weights | Tensor

#: Networks of so many weights times examples are evaluated at many points together; such a chunk has so many numbers.
SMALL, CHUNK = 2**19, 2**24


class Unmoved(UserWarning):
    """Tensors that differ between two networks and are not moved: frozen ones, and whole numbers."""


class Judged(nn.Module):
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
        self.batches, self._lock, self._unmoved, self._place  # noqa: B018 -- made before any thread asks for them

    @cached_property
    def _lock(self) -> AbstractContextManager[object]:
        """Evaluation writes weights into the module: one thread at a time."""
        return threading.RLock()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    @cached_property
    def _judged(self) -> nn.Module:
        return Judged(self.module, self.loss)

    @cached_property
    def names(self) -> list[str]:
        """Names of the weights that move, each of a tied pair once."""
        return [n for n, p in self.module.named_parameters() if p.requires_grad and p.is_floating_point()]

    @cached_property
    def _held(self) -> dict[str, nn.Parameter]:
        """The weights that move, by name."""
        every = dict(self.module.named_parameters())
        return {name: every[name] for name in self.names}

    @cached_property
    def size(self) -> int:
        """How many numbers theta has."""
        return sum(p.numel() for p in self._held.values())

    @cached_property
    def batches(self) -> list[tuple[Tensor, ...]]:
        """The data in pieces."""
        return _pieces("data", self.data, self.batch_size)

    @cached_property
    def examples(self) -> int:
        """How many there are."""
        return sum(len(batch[0]) for batch in self.batches)

    def theta(self, place: Place) -> Tensor:
        """The weights of a network or a `state_dict` of the same architecture, or theta itself, as one vector (p,).

        Raises:
            InvalidProblem: a weight that is missing, or has another shape.
            NotFinite: NaN or infinity.
        """
        if isinstance(place, Tensor):
            if place.shape != (self.size,):
                raise InvalidProblem(f"theta has shape ({self.size},); got {tuple(place.shape)}.")
            return place.detach()
        if not isinstance(place, nn.Module | Mapping):
            raise InvalidProblem(
                f"A place is a module, a state dict or a vector of weights; got a value of type {type(place).__name__}."
            )
        given: Weights = dict(place.state_dict()) if isinstance(place, nn.Module) else place
        found = []
        for name, held in self._held.items():
            if name not in given:
                raise InvalidProblem(f"The weights lack '{name}'; both networks need the same architecture.")
            value = given[name].detach()
            if value.shape != held.shape:
                raise InvalidProblem(
                    f"'{name}' has shape {tuple(value.shape)}; the network's has {tuple(held.shape)}."
                )
            if not bool(torch.isfinite(value).all()):
                raise NotFinite(f"'{name}' holds NaN or infinity.")
            found.append(value.reshape(-1).to(held.device))
        self._tell_unmoved(given)
        return torch.cat(found)

    def named(self, theta: Tensor) -> dict[str, Tensor]:
        """theta's pieces by name, in the weights' shapes and types."""
        pieces = torch.split(theta, [p.numel() for p in self._held.values()])
        return {
            name: piece.reshape(p.shape).to(p.dtype)
            for (name, p), piece in zip(self._held.items(), pieces, strict=True)
        }

    @cached_property
    def _place(self) -> Tensor | None:
        """One tensor that all weights are views of: a point is written at once. None where their types differ."""
        first = next(iter(self._held.values()))
        if any(p.dtype != first.dtype or p.device != first.device for p in self._held.values()):
            return None
        whole = torch.cat([p.detach().reshape(-1) for p in self._held.values()])
        for p, piece in zip(
            self._held.values(), torch.split(whole, [p.numel() for p in self._held.values()]), strict=True
        ):
            p.data = piece.view(p.shape)
        return whole

    def _go_to(self, theta: Tensor) -> None:
        """Write theta into the module."""
        if self._place is not None:
            self._place.copy_(theta)
            return
        for p, value in zip(self._held.values(), self.named(theta).values(), strict=True):
            p.data.copy_(value)

    @cached_property
    def _unmoved(self) -> dict[str, Tensor]:
        """Tensors that stay the module's: frozen weights and buffers, but for statistics that are computed anew."""
        moving = set(self.names)
        tied = {p.data_ptr() for p in self._held.values()}
        layers = {n for n, m in self.module.named_modules() if isinstance(m, _BatchNorm)}
        return {
            name: value.clone()
            for name, value in self.module.state_dict().items()
            if name not in moving and value.data_ptr() not in tied and name.rpartition(".")[0] not in layers
        }

    def _tell_unmoved(self, given: Weights) -> None:
        other = [
            name
            for name, value in self._unmoved.items()
            if name in given
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
        return float(self.values([self.theta(place)])[0])

    def values(self, points: Iterable[Tensor]) -> NDArray[np.float64]:
        """The loss at each of some points theta, (p,) each.

        Small networks on few examples are evaluated at many points together, others at one after another: on a CPU that
        is the faster way.
        """
        waiting = iter(points)
        many = max(1, CHUNK // (self.size + self.examples)) if self._together else 1
        found: list[float] = []
        while chunk := list(itertools.islice(waiting, many)):
            found += self._at_many(torch.stack(chunk)) if len(chunk) > 1 else [self._at(chunk[0])]
        return np.asarray(found)

    @cached_property
    def _together(self) -> bool:
        """Whether many points are evaluated at once."""
        on_gpu = next(iter(self._held.values())).is_cuda
        return self.statistics is None and (on_gpu or self.examples * self.size <= SMALL)

    def _at(self, theta: Tensor) -> float:
        with torch.no_grad(), self._lock, _told():
            self._go_to(theta)
            if self.statistics is not None:
                self._compute_statistics()
            total = sum(float(_scalar(self._judged(*batch))) * len(batch[0]) for batch in self.batches)
        value = total / self.examples
        return value if math.isfinite(value) else math.inf

    def _at_many(self, points: Tensor) -> list[float]:
        total = np.zeros(len(points))
        with torch.no_grad():
            for batch in self.batches:
                try:
                    values = vmap(lambda theta, batch=batch: self.at(theta, *batch))(points)
                except RuntimeError:  # a network that looks at numbers, or has no rule for many points
                    vars(self)["_together"] = False
                    return [self._at(theta) for theta in points]
                total += values.double().cpu().numpy() * len(batch[0])
        means = total / self.examples
        return list(np.where(np.isfinite(means), means, np.inf))

    def at(self, theta: Tensor, *batch: Tensor) -> Tensor:
        """The mean loss of a batch, as a function of theta that autograd and `torch.func` see through."""
        named = {f"inner.{name}": value for name, value in self.named(theta).items()}
        with self._lock:
            return _scalar(functional_call(self._judged, named, batch))

    def _compute_statistics(self) -> None:
        """Batch normalisation's statistics where the module is: the plain mean over batches."""
        layers = [m for m in self.module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # a mean over all batches
            layer.train()
        for batch in self._statistics_batches:
            self._judged(*batch)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()

    @cached_property
    def _statistics_batches(self) -> list[tuple[Tensor, ...]]:
        return _pieces("statistics", self.statistics or (), self.batch_size)


def require_surface(surface: object) -> None:
    """`InvalidProblem` where something else stands in a surface's place."""
    if not isinstance(surface, LossSurface):
        raise InvalidProblem(
            f"A LossSurface comes first, LossSurface(network, data), and then networks; got a value of type "
            f"{type(surface).__name__}."
        )


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
            f"{name} holds no examples; expected torch's tensors along the first axis, (inputs, labels), or batches "
            "of them. Make tensors of arrays by torch.as_tensor."
        )
    for batch in batches:
        for part in batch:
            if part.is_floating_point() and not bool(torch.isfinite(part).all()):
                raise NotFinite(f"{name} holds NaN or infinity. Remove or impute such examples.")
    return batches


@contextmanager
def _told() -> Iterator[None]:
    """What torch says of data that the network cannot take, in a line of ours."""
    try:
        yield
    except (RuntimeError, TypeError, IndexError) as error:
        text = " ".join(str(error).split())[:200]
        raise InvalidProblem(f"The loss could not be evaluated on the data: {text}.") from error


def _scalar(value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise InvalidProblem(
            f"The loss is of type {type(value).__name__}; expected a tensor, the mean over a batch."
        )
    if value.numel() != 1:
        raise InvalidProblem(
            f"The loss has shape {tuple(value.shape)}; expected a scalar, the mean over a batch."
        )
    return value.reshape(())


def between(a: Tensor, b: Tensor, t: float) -> Tensor:
    """``(1 - t) a + t b``; a at 0 and b at 1, to the bit."""
    return torch.lerp(a, b, t)


def length(d: Tensor) -> float:
    """The Euclidean norm, summed in float64."""
    return float(torch.linalg.vector_norm(d, dtype=torch.float64))


def by_layer(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Names of weights by the layer that holds them, in their order: ``"0.weight"`` and ``"0.bias"`` are one."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] or name, []).append(name)
    yield from groups.items()
