"""Two clouds of points to be joined by entropic optimal transport: what is given, and how good a bridge is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg.core import InvalidParameter, InvalidProblem, Problem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require
from thalweg.transport._parameters import Family, Gradient, Terms
from thalweg.transport.bridge import Bridge

Covariance = Literal["diag", "full"]

#: Coordinates have squares up to here.
HUGE = 1e140
#: Standardised eps between which a fit is meaningful: beyond, exponents overflow or the plan says nothing.
SMALLEST, LARGEST = 1e-7, 1e7


@dataclass(frozen=True, eq=False)
class EntropicTransport(Problem):
    """Fit ``pi(y|x)`` to samples: ``min L = mean log c(x) - mean log v(y)``, the divergence from the optimal plan.

    Args:
        x0: samples of the first distribution, shape (n0, D), one or more.
        x1: samples of the second, shape (n1, D), two different ones or more. Nothing pairs them.
        eps: entropy weight, > 0, in squared units of the data: the variance of the noise on the way. Choose it by
            `eps_path` where nothing says it.
        n_components: K, 1 to the number of fitted samples of x1. Default 20; hundreds where eps is small and the
            target is curved.
        covariance: ``"diag"``, the default, or ``"full"``, which is D times dearer and is needed where few components
            have to turn.
        weights0, weights1: one for each sample, >= 0, not all zero. They are shares: each cloud's are divided by their
            sum, and both clouds have mass one.
        held_out: share of both clouds that is not fitted, for the metric of that name. Default 0: the loss is seldom
            overfitted by 600 mini-batches.
        seed: which samples are held out.
        dtype: float64 (default) or float32.
        device: where the samples are and all is computed.
        unit: centres and lengths to standardise by, those of another problem whose answers are to be kept.
        unbalanced: only False; mass is neither made nor lost on the way.
        names: of the columns, for tables that are written. Default: none.

    The clouds are centred and divided by their root mean square distances from the centre, eps with them; an answer is
    in that unit, an array of shape (K, columns) with ``log a``, r and the logarithm of S's roots (below the diagonal,
    the roots themselves). `bridge` makes a `Bridge` in the data's units of it.

    Metrics: ``loss``, L on what is fitted, in the standardised unit; ``held_out``, on what is not; ``imbalance``, half
    the sum over components of the absolute difference between the mass that they send and the mass that they receive:
    0 at a minimum of L.

    Raises:
        InvalidProblem, NotFinite: samples that are no table of numbers, different dimensions, one target point only.
        InvalidParameter: eps <= 0 or out of proportion to the data, K beyond the samples, unbalanced transport.

    >>> x0, x1 = np.random.default_rng(0).standard_normal((2, 500, 2))
    >>> problem = EntropicTransport(x0, 3.0 + x1, eps=0.5, n_components=1)
    >>> start = np.zeros((1, 5))  # one component: y - mean is x - mean, and noise
    >>> sorted(problem.metrics(start)), problem.bridge(start).barycentric([[0.0, 0.0]]).round(decimals=0)
    (['imbalance', 'loss'], tensor([[3., 3.]], dtype=torch.float64))
    """

    x0: ArrayLike | Tensor
    x1: ArrayLike | Tensor
    eps: float
    n_components: int = 20
    covariance: Covariance = "diag"
    weights0: ArrayLike | None = None
    weights1: ArrayLike | None = None
    held_out: float = 0.0
    seed: int = 0
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    unit: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], tuple[float, float]] | None = None
    #: Centres and lengths by which the clouds are standardised.
    centres: tuple[NDArray[np.float64], NDArray[np.float64]] = field(init=False)
    lengths: tuple[float, float] = field(init=False)
    unbalanced: InitVar[bool] = False
    names: Sequence[str] = ()

    def __post_init__(self, unbalanced: bool) -> None:
        if unbalanced:
            raise InvalidParameter(
                "EntropicTransport: unbalanced transport is not done. Its potential is a density against Lebesgue "
                "measure, so that how much mass is made or lost would depend on the unit of the data. Scale the "
                "weights yourself, and join shares."
            )
        require(
            is_real(self.eps) and 0 < self.eps < math.inf, "EntropicTransport needs eps > 0", got=self.eps
        )
        known = self.covariance in ("diag", "full")
        require(known, "EntropicTransport: covariance is diag or full", got=self.covariance)
        require(
            is_real(self.held_out) and 0 <= self.held_out <= 0.5,
            "EntropicTransport needs 0 <= held_out <= 0.5",
            got=self.held_out,
        )
        require(is_whole(self.seed) and self.seed >= 0, "EntropicTransport needs seed >= 0", got=self.seed)
        known = self.dtype in (torch.float64, torch.float32)
        require(known, "EntropicTransport: dtype is torch.float64 or torch.float32", got=self.dtype)
        clouds = clouds_of_one_space(self.x0, self.x1)
        if len(self.names) not in (0, clouds[0].shape[1]):
            raise InvalidProblem(
                f"EntropicTransport: {len(self.names)} names of columns; the clouds have {clouds[0].shape[1]}."
            )
        masses = [
            _mass(f"weights{i}", given, len(cloud))
            for i, (given, cloud) in enumerate(zip((self.weights0, self.weights1), clouds, strict=True))
        ]
        centres, lengths = standard_unit(clouds, masses)
        if self.unit is not None:
            centres, lengths = list(self.unit[0]), self.unit[1]
        object.__setattr__(self, "x0", clouds[0])
        object.__setattr__(self, "x1", clouds[1])
        object.__setattr__(self, "weights0", masses[0])
        object.__setattr__(self, "weights1", masses[1])
        object.__setattr__(self, "centres", (centres[0], centres[1]))
        object.__setattr__(self, "lengths", lengths)
        if not SMALLEST <= self.scaled_eps <= LARGEST:
            raise InvalidParameter(
                f"EntropicTransport: eps is {self.eps:g}, and the clouds spread by {lengths[0]:.3g} and "
                f"{lengths[1]:.3g}; expected eps between {SMALLEST:g} and {LARGEST:g} times their product."
            )
        count = len(self.parts[1][0])
        require(
            is_whole(self.n_components) and 1 <= self.n_components <= count,
            f"EntropicTransport needs 1 <= n_components <= {count}, the samples of x1 that are fitted",
            got=self.n_components,
        )

    @property
    def scaled_eps(self) -> float:
        """eps in units of the two clouds' spreads."""
        return self.eps / (self.lengths[0] * self.lengths[1])

    @property
    def dimensions(self) -> int:
        """D."""
        return int(np.shape(self.x1)[1])

    @cached_property
    def family(self) -> Family:
        """Loss and gradients in the standardised unit."""
        return Family(self.scaled_eps, self.dimensions, self.covariance == "full")

    @cached_property
    def parts(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Standardised points and their masses: fitted of x0 and of x1, then held out of each."""
        found: list[list[tuple[Tensor, Tensor]]] = [[], []]
        for i, (cloud, mass) in enumerate(((self.x0, self.weights0), (self.x1, self.weights1))):
            points, masses = np.asarray(cloud), np.asarray(mass)
            count = int(self.held_out * len(points))
            order = (
                generator(self.seed, 0x19, i).permutation(len(points)) if count else np.arange(len(points))
            )
            for k, rows in enumerate((order[count:], order[:count])):
                z = torch.as_tensor((points[rows] - self.centres[i]) / self.lengths[i])
                m = torch.as_tensor(masses[rows])
                m = m / m.sum() if float(m.sum()) > 0 else m
                found[k].append((z.to(self.device, self.dtype), m.to(self.device, self.dtype)))
        return (*found[0], *found[1])

    def loss(self, x: Tensor, held_out: bool = False) -> float:
        """L of an answer on all that is fitted, or on what is not; NaN where that is nothing."""
        terms = self._terms(x, *self.parts[2:]) if held_out else self._terms(x, *self.parts[:2])
        return terms.loss

    def gradient(self, x: Tensor) -> Gradient:
        """L, its gradient and the components' masses, on all that is fitted at once."""
        (x0, m0), (x1, m1) = self.parts[:2]
        return self.family.gradient(x, x0, x1, m0, m1)

    def metrics(self, x: ArrayLike | Tensor) -> dict[str, float]:
        """Judge an answer."""
        answer = self.answer(x)
        found = self._terms(answer, *self.parts[:2])
        metrics = {"loss": found.loss, "imbalance": float((found.sent - found.received).abs().sum()) / 2}
        if self.held_out:
            metrics["held_out"] = self.loss(answer, held_out=True)
        return metrics

    def answer(self, x: ArrayLike | Tensor) -> Tensor:
        """``x`` as a tensor where the samples are, or `InvalidProblem`."""
        values = x if isinstance(x, Tensor) else torch.from_numpy(as_real("x", x))
        if values.ndim != 2 or values.shape[1] != self.family.columns:
            raise InvalidProblem(
                f"x has shape {tuple(values.shape)}; expected (components, {self.family.columns})."
            )
        return values.to(self.device, self.dtype)

    def started(self, x: ArrayLike | Tensor) -> Tensor:
        """An answer to begin at, of as many components as the problem's, or `InvalidProblem`."""
        found = self.answer(x)
        if len(found) != self.n_components:
            raise InvalidProblem(f"x0 has {len(found)} components; the problem has {self.n_components}.")
        return found

    def answer_at(self, eps: float, x: ArrayLike | Tensor) -> Tensor:
        """An answer to the same clouds at another eps, as a start at this one: ``eps log a``, r and S are kept."""
        require(is_real(eps) and 0 < eps < math.inf, "answer_at needs eps > 0", got=eps)
        found = self.answer(x).clone()
        found[:, 0] *= eps / self.eps
        return found

    def bridge(self, x: ArrayLike | Tensor) -> Bridge:
        """The `Bridge` of an answer, in the data's units."""
        log_a, R, root = self.family.split(self.answer(x))
        S = root @ root.mT if self.family.is_full else root * root
        ratio = self.lengths[1] / self.lengths[0]
        return Bridge(
            self.eps, log_a, self.lengths[1] * R, ratio * S, *(torch.from_numpy(c) for c in self.centres)
        )

    def _terms(self, x: Tensor, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Terms:
        return self.family.terms(x, first[0], second[0], first[1], second[1])


def clouds_of_one_space(x0: ArrayLike | Tensor, x1: ArrayLike | Tensor) -> list[NDArray[np.float64]]:
    """Two clouds of finite points with as many columns, whose squares are numbers, or `InvalidProblem`."""
    clouds = [_cloud(name, values) for name, values in (("x0", x0), ("x1", x1))]
    largest = max(float(np.abs(cloud).max()) for cloud in clouds)
    if largest > HUGE:
        raise InvalidProblem(
            f"EntropicTransport: the clouds reach {largest:.3g}, whose square is no number. Scale both down."
        )
    if clouds[0].shape[1] != clouds[1].shape[1]:
        raise InvalidProblem(
            f"EntropicTransport: x0 has {clouds[0].shape[1]} columns and x1 {clouds[1].shape[1]}; a bridge joins "
            "points of one space."
        )
    return clouds


def standard_unit(
    clouds: Sequence[NDArray[np.float64]], masses: Sequence[NDArray[np.float64]]
) -> tuple[list[NDArray[np.float64]], tuple[float, float]]:
    """Centres and spreads of two clouds; a first cloud of one point has the spread of the second."""
    centres = [mass @ cloud for mass, cloud in zip(masses, clouds, strict=True)]
    spread = [
        math.sqrt(float(mass @ ((cloud - c) ** 2).mean(1)))
        for mass, cloud, c in zip(masses, clouds, centres, strict=True)
    ]
    if spread[1] <= 1e-12 * float(np.abs(centres[1]).max()):
        raise InvalidProblem(
            "EntropicTransport: all of x1 is one point; expected two different ones or more."
        )
    is_point = spread[0] <= 1e-12 * float(np.abs(centres[0]).max())
    return centres, (spread[1] if is_point else spread[0], spread[1])


def _cloud(name: str, values: ArrayLike | Tensor) -> NDArray[np.float64]:
    found = as_real(f"EntropicTransport: {name}", values)
    if found.ndim != 2 or not found.size:
        raise InvalidProblem(
            f"EntropicTransport: {name} has shape {found.shape}; expected (samples, dimensions), one or more of each."
        )
    check_finite(f"EntropicTransport: {name}", found)
    return found


def _mass(name: str, values: ArrayLike | None, count: int) -> NDArray[np.float64]:
    """Weights that sum to one."""
    if values is None:
        return np.full(count, 1 / count)
    found = as_real(f"EntropicTransport: {name}", values)
    if found.shape != (count,):
        raise InvalidProblem(f"EntropicTransport: {name} has shape {found.shape}; expected ({count},).")
    check_finite(f"EntropicTransport: {name}", found)
    if found.min() < 0 or found.sum() <= 0:
        raise InvalidProblem(f"EntropicTransport: {name} needs weights >= 0, not all of them zero.")
    return np.asarray(found / found.sum())
