"""The model of one output as `Surrogate` has it, compiled: for a Matern 5/2 process of some hundred data.

Torch spends half a millisecond on the calls that one likelihood of twenty data takes; compiled it is some microseconds.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.seeding import torch_generator
from thalweg.numerics.gaussian_process import (
    GaussianProcess,
    Matern,
    Posterior,
    _process_kernels,
    standardised,
    surrogate,
)

Array = NDArray[np.float64]

#: Data at most: beyond, LAPACK's blocked factor is as fast.
MOST = 500
#: Variance of the noise where values are known, for a well-conditioned covariance: that of `noisy_ei`.
NUGGET = 1e-6
#: Room for data and pending points at first; it doubles.
ROOM = 64


def is_plain(process: GaussianProcess) -> bool:
    """Whether the kernels are about this process: Matern 5/2 of all coordinates, with a constant mean.

    >>> is_plain(GaussianProcess(Matern())), is_plain(GaussianProcess(Matern(nu=1.5)))
    (True, False)
    """
    return process.kernel == Matern() and process.degree == 0


class CompiledSurrogate:
    """A Gaussian process that follows growing data, as `Surrogate` does and with its schedule; for plain processes.

    The most probable hyper-parameters are those of `GaussianProcess.fit` up to what climbs miss: beyond sixty data all
    starts climb six steps and the best two to the end. The start from the last hyper-parameters has their curvature.

    Args:
        process: the model, a plain one.
        seed: of fresh starts.

    Raises:
        InvalidProblem: a covariance matrix that no jitter makes positive definite.

    Cost: n^3 + d n^2 operations for each of some ten energies of a refit (0.02 ms at 20 data, 20 ms at 500 in all); n^2
    for one more datum.
    """

    def __init__(self, process: GaussianProcess, seed: int = 0) -> None:
        self.process, self.seed = process, seed
        self.theta: Tensor | None = None
        self.offset, self.scale = 0.0, 1.0
        self.X: Array = np.empty((0, 0))  # (n, d) the data, and (n,) their values as they were told
        self.y: Array = np.empty(0)
        self._metric: Tensor | None = None  # the last fit's inverse Hessian
        self._box: tuple[Array, ...] = ()
        self._fitted, self._searched = 0, 0
        self._blocks = [0, 0]  # data at the last whole factor, and now
        self._held: Posterior | None = None
        self._points: Array = np.empty((0, 0))  # (d, room)
        self.scaled: Array = np.empty((0, 0))
        self.M: Array = np.empty((0, 0))  # the inverse factor, (room, room)
        self.world: Array = np.empty((0, 0))  # that of values without noise
        self._worlds = 0  # its rows

    # Data

    def update(self, X: Tensor, y: Tensor) -> None:
        """Take in all data: points (n, d), values (n,). It grows where they begin with those it has already."""
        points, values = X.numpy(), y.numpy()
        first, count = self._blocks
        if not len(self.y) and self.theta is not None and 0 < count <= len(values):
            self._rebuild(points, values, first, count)
        held = len(self.y)
        same = (
            0 < held <= len(values)
            and np.array_equal(values[:held], self.y)
            and np.array_equal(points[:held], self.X)
        )
        if same and held == len(values):
            return
        self.X, self.y, self._held = points.copy(), values.copy(), None
        due = self._is_due()
        if not same or due or bool((np.abs(self._standard(values[held:])) > surrogate.OUTLYING).any()):
            self._refit(due)
        else:
            self._grow(held, len(values))
        self._settle()

    def _is_due(self) -> bool:
        """Whether the hyper-parameters are to be found anew."""
        n = len(self.y)
        return self.theta is None or n < surrogate.SETTLED or n > surrogate.GROWTH * self._fitted

    def _rebuild(self, X: Array, y: Array, first: int, count: int) -> None:
        """The factor that a saved one had, by the same steps and so with the same bits."""
        self.X, self.y = X[:count].copy(), y[:count].copy()
        _, self.offset, self.scale = standardised(torch.from_numpy(self.y[:first]))
        self._factor(first)
        self._grow(first, count)
        self._settle()

    def _refit(self, due: bool) -> None:
        values, self.offset, self.scale = standardised(torch.from_numpy(self.y))
        if due:
            self._find(values)
            self._fitted = len(self.y)
        self._factor(len(self.y))

    # Hyper-parameters

    def _find(self, y: Tensor) -> None:
        """Fresh starts on few data whenever a tenth has come on top, then a climb on all from the best of them."""
        n = len(y)
        if n > surrogate.GROWTH * self._searched:
            self._searched = n
            few = surrogate.subset(y, surrogate.SEARCHED).numpy()
            self._climb(self.X[few], y.numpy()[few], starts=4, steps=40)
            if len(few) == n:
                return
            self._metric = cast(Tensor, self._metric) * (len(few) / n)  # more data bend the energy more
        self._climb(self.X, y.numpy(), starts=0, steps=40 if n <= surrogate.SEARCHED else 15)

    def _climb(self, X: Array, y: Array, starts: int, steps: int) -> None:
        """The best of the prior's mean, of draws from it, and of the last hyper-parameters with their curvature."""
        means, stds, low, high = self._prior(X.shape[1])
        x0 = [means][:starts]
        if starts > 1:
            generator = torch_generator(self.seed + len(y))
            draws = torch.randn(starts - 1, len(means), generator=generator, dtype=torch.float64)
            x0 += [means + 0.5 * stds * draw for draw in draws.numpy()]
        guess = np.diag(0.3 * stds**2 / (1.0 + 0.05 * len(y)))
        metrics, known = [guess] * len(x0), [0.0] * len(x0)
        if self.theta is not None:
            x0 = [*x0, self.theta.numpy()]
            metrics = [*metrics, guess if self._metric is None else self._metric.numpy()]
            known = [*known, float(self._metric is not None)]
        theta, metric, _ = _process_kernels.fit(
            np.array(x0),
            np.array(metrics),
            np.array(known),
            np.ascontiguousarray(X.T),
            np.ascontiguousarray(y),
            self.process.learn_noise,
            means,
            stds,
            low,
            high,
            steps,
            1e-3,
            1e-5,
        )
        self.theta, self._metric = torch.from_numpy(theta), torch.from_numpy(metric)

    def _prior(self, d: int) -> tuple[Array, ...]:
        """Mean and deviation of each hyper-parameter, the least and the largest."""
        if not self._box or len(self._box[0]) != d + self.process.learn_noise:
            means, stds = (torch.tensor(v, dtype=torch.float64) for v in self.process.prior(d))
            self._box = tuple(v.numpy() for v in (means, stds, *self.process.box(means, stds)))
        return self._box

    @property
    def noise(self) -> float:
        """Variance of an observation, standardised."""
        return math.exp(self.parameters[-1]) if self.process.learn_noise else 0.0

    @property
    def parameters(self) -> Tensor:
        """The hyper-parameters."""
        return cast(Tensor, self.theta)  # there are some from the first `update` on

    # The factor

    def reserve(self, n: int) -> None:
        """Room for n data and pending points."""
        d, room = self.X.shape[1], self._points.shape[1] or 64
        while room < n:
            room *= 2
        if self._points.shape == (d, room):
            return
        M, world = np.zeros((room, room)), np.zeros((room, room))
        points, scaled = np.zeros((d, room)), np.zeros((d, room))
        if len(self._points) == d:
            held = self._points.shape[1]
            M[:held, :held], world[:held, :held] = self.M, self.world
            points[:, :held], scaled[:, :held] = self._points, self.scaled
        self.M, self.world, self._points, self.scaled = M, world, points, scaled

    def _factor(self, n: int) -> None:
        """That of the first n data."""
        self.reserve(len(self.y))
        self._points[:, : len(self.y)] = self.X.T
        self.variance = self._inverted(n, self.noise, self.M)
        self._worlds, self._blocks = 0, [n, n]

    def _inverted(self, n: int, noise: float, M: Array) -> float:
        """M of the first n data; returns noise and jitter."""
        jitter = float(
            _process_kernels.inverse_factor(self._points, n, self.parameters.numpy(), noise, M, self.scaled)
        )
        if math.isnan(jitter):
            raise InvalidProblem(
                "A covariance matrix is not positive definite, not even with 1e-4 of its diagonal added. Look for "
                "huge values."
            )
        return noise + jitter

    def _grow(self, low: int, high: int) -> None:
        """Rows ``low`` to ``high`` of the factor."""
        self.reserve(high)
        self._points[:, low:high] = self.X[low:high].T
        self._append(self.M, low, high, self.variance)
        self._blocks[1] = high

    def _append(self, M: Array, low: int, high: int, noise: float) -> None:
        for n in range(low, high):
            _process_kernels.grow(M, self.scaled, n, self._points, self.parameters.numpy(), noise)

    def worlds_with(self, pending: Array) -> float:
        """Make ``world`` of all data and pending points, shape (p, d); returns its variance beside one.

        Cost: 2 n^3/3 after a refit, n^2 for each datum since and each pending point.
        """
        first, n = self._blocks
        self.reserve(n + len(pending))
        if not self._worlds:
            self._world_variance = self._inverted(first, NUGGET, self.world)
            self._worlds = first
        self._append_pending(pending, self.world, self._worlds, self._world_variance)
        self._worlds = n
        return self._world_variance

    def with_pending(self, pending: Array) -> None:
        """Rows of M for pending points, shape (p, d), behind those of the data, for a while. Cost: n^2 a point."""
        n = len(self.y)
        self.reserve(n + len(pending))
        self._append_pending(pending, self.M, n, self.variance)

    def _append_pending(self, pending: Array, M: Array, low: int, variance: float) -> None:
        n, p = len(self.y), len(pending)
        self._points[:, n : n + p] = pending.T
        self._append(M, low, n + p, variance)

    def _settle(self) -> None:
        """The mean, the weights and the means at the data."""
        n = len(self.y)
        self.standard: Array = self._standard(self.y)
        self.weights: Array = np.empty(n)
        self.trend = float(_process_kernels.weights(self.M, self.standard, n, self.weights))
        self.fitted: Array = self.standard - self.variance * self.weights

    def _standard(self, y: Array) -> Array:
        return (y - self.offset) / self.scale

    # What is known

    def predict(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised mean and variance at points (m, d), shape (m,) each. Cost: n^2/2 operations a point."""
        mean, variance = np.empty(len(X)), np.empty(len(X))
        _process_kernels.predict(
            np.ascontiguousarray(X.numpy()),
            self.parameters.numpy(),
            self.scaled,
            len(self.y),
            self.M,
            self.weights,
            self.trend,
            mean,
            variance,
        )
        return torch.from_numpy(mean), torch.from_numpy(variance)

    @property
    def posterior(self) -> Posterior:
        """The same in torch, for what is not compiled. Cost: n^3/3 once for the data."""
        if self._held is None:
            X, y = torch.from_numpy(self.X), torch.from_numpy(self.standard)
            self._held = self.process.posterior(self.parameters, X, y)
        return self._held

    def to_values(self, standard: Tensor) -> Tensor:
        """Means in the units of the data."""
        return self.offset + self.scale * standard

    # Keeping

    def state_dict(self) -> dict[str, Any]:
        """The hyper-parameters with their curvature, and how the factor has grown since they were found."""
        counts = {"fitted": self._fitted, "searched": self._searched, "blocks": list(self._blocks)}
        return {"theta": self.theta, "metric": self._metric, **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; the factor is made again by the next `update`."""
        self.theta, self._metric = state["theta"], state["metric"]
        self._fitted, self._searched = state["fitted"], state["searched"]
        self._blocks = list(state["blocks"]) or [0, 0]
