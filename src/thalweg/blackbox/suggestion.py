"""The next point by compiled expected improvement, as `maximize` finds it with `LogEI`, `noisy_ei` and `pending_ei`."""

from __future__ import annotations

import functools
import sys
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.blackbox import _improvement_kernels, _world_kernels
from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.numerics.gaussian_process import GaussianProcess, Matern
from thalweg.numerics.gaussian_process.compiled import CompiledSurrogate
from thalweg.numerics.quasirandom import sobol, sobol_normal

Array = NDArray[np.float64]

#: Fantasies of what values truly are or will be.
FANTASIES = 32
#: Points of a table, shifted at random for each suggestion, that are looked at; climbs.
LOOKS, CLIMBS = 256, 12
STEPS, FLAT = 30, 1e-6
#: Seconds of compiling after which it is said.
SILENT = 2.0

_lock = threading.Lock()
_ready = threading.Event()


class Worth:
    """The log expected improvement of a model at single points; averaged over fantasies where values are not known.

    Args:
        model: with all data in it.
        pending: points being evaluated, shape (p, d), apart from the data and from each other.
        noisy: whether the values told have noise worth counting with.
        best: the largest value; with noise each fantasy has its own.
        seed: of the fantasies.

    Cost: nothing without noise and pending points; else two factors of the size of all points.
    """

    def __init__(
        self, model: CompiledSurrogate, pending: Array, noisy: bool, best: float, seed: int = 0
    ) -> None:
        n, p = len(model.y), len(pending)
        self.model, self.count, self.trend, self.seed = model, n + p, model.trend, seed
        self.pending, self.noisy = torch.from_numpy(pending), noisy
        self.M, self.variance = model.M, model.variance
        self.weights: Array = model.weights[None]
        self.best: Array = np.array([best])
        if not noisy and not p:
            return
        if noisy:
            self.variance = model.worlds_with(pending)
            self.M = model.world
        else:
            model.with_pending(pending)
            self.M = model.M
        fantasies = _normals(1 << max(6, (n + p - 1).bit_length()), seed)
        self.weights, bests, drawn = _world_kernels.worlds(
            model.scaled,
            n,
            p,
            model.M,
            self.M,
            model.weights,
            model.trend,
            model.variance,
            noisy,
            model.standard,
            model.fitted,
            fantasies,
        )
        if not drawn:
            raise InvalidProblem(
                "What pending points may turn out has no covariance. Tell some of them first."
            )
        self.best = bests if noisy else np.maximum(bests, best)

    def __call__(self, X: Tensor) -> Tensor:
        """At single points, b x 1 x d: shape (b,), without a gradient. Cost: n^2 + n fantasies a point."""
        points = np.ascontiguousarray(X[:, 0].numpy())
        return torch.from_numpy(_improvement_kernels.log_improvements(points, *self._world))

    @property
    def _world(self) -> tuple[Array, Array, int, Array, Array, float, Array]:
        theta = self.model.parameters.numpy()
        return theta, self.model.scaled, self.count, self.M, self.weights, self.trend, self.best

    def climb(self, looked: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best of the points looked at, shape (m, d), where climbs from them ended, and the values there."""
        found = _improvement_kernels.search(
            np.ascontiguousarray(looked.numpy()),
            low.numpy(),
            high.numpy(),
            *self._world,
            self.variance,
            CLIMBS,
            STEPS + 2 * looked.shape[1],
            1e-4,
            FLAT,
        )
        first, points, values = (torch.from_numpy(v) for v in found)
        return first, points, values


@functools.lru_cache(maxsize=8)
def _normals(dimension: int, seed: int) -> Array:
    """Common random numbers of fantasies, which all suggestions of a study share, shape (FANTASIES, dimension)."""
    return sobol_normal(FANTASIES, dimension, seed).numpy()


@functools.lru_cache(maxsize=8)
def _table(dimension: int, seed: int) -> Array:
    return sobol(LOOKS, dimension, seed).numpy()


def looks(near: Tensor, low: Tensor, high: Tensor, table: int, seed: int) -> Tensor:
    """Points of a box to look at, spread over it and around good ones, shape (m, d).

    Args:
        near: the good points, shape (k, d), any number.
        table: seed of the points that are shifted. seed: of the shift. A table takes milliseconds, a shift none.
    """
    d, random = len(low), generator(seed)
    shifted = _table(d, table) + random.random(d)
    lower, upper = low.numpy(), high.numpy()
    parts = [lower + (upper - lower) * (shifted - np.floor(shifted))]
    if len(near):
        points, count = near.numpy(), LOOKS // 4
        reach = 10.0 ** (-1.0 - 2.0 * random.random((count, 1)))
        around = points[random.integers(len(points), size=count)] + reach * random.standard_normal((count, d))
        parts += [np.clip(around, lower, upper), np.clip(points, lower, upper)]
    return torch.from_numpy(np.concatenate(parts))


def compile_kernels() -> None:
    """Compile what suggestions need, or load it where another process has compiled it.

    Once on a machine it takes some twenty seconds; after two of them that is said on standard error. Suggestions do not
    come from torch meanwhile: how many would depend on the machine's load, and no seed would repeat them.

    Cost: half a second where it is compiled already, nothing from the second call on.
    """
    if _ready.is_set():
        return
    with _lock:
        timer = threading.Timer(SILENT, _say)
        timer.daemon = True
        timer.start()
        try:
            _use_all()
        finally:
            timer.cancel()
        _ready.set()


def _say() -> None:
    sys.stderr.write("thalweg compiles its models, once on this machine; that takes some twenty seconds.\n")
    sys.stderr.flush()


def _use_all() -> None:
    """Each kernel on a few data, so that Numba has it for the types in use."""
    model = CompiledSurrogate(GaussianProcess(Matern()))
    X = torch.tensor([[0.1], [0.4], [0.6], [0.9]], dtype=torch.float64)
    y = torch.tensor([0.0, 1.0, 0.5, 0.7], dtype=torch.float64)
    model.update(X[:3], y[:3])
    model.with_pending(X[3:].numpy())
    model.predict(X)
    for noisy in (False, True):
        worth = Worth(model, X[3:].numpy(), noisy, 1.0)
        worth.climb(X, X[0] * 0.0, X[0] * 0.0 + 1.0)
        worth(X[:, None])
