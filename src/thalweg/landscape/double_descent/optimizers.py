"""Who trains the last layer: in closed form where there is one, step by step where there is none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.landscape._stacked import MakeOptimizer, made
from thalweg.landscape.double_descent import _kernels as kernels
from thalweg.landscape.double_descent.spectrum import Spectrum

Array = NDArray[np.float64]

#: Penalties that `Ridge` chooses from, as shares of s_1^2, and the step counts of `EarlyStopping`.
PENALTIES = np.logspace(-9.0, 1.0, 61)
COUNTS = np.unique(np.logspace(0.0, 7.0, 71).astype(np.int64))


class LastLayer(ABC):
    """Trains the last layer of a model by least squares."""

    @property
    def name(self) -> str:
        """For tables."""
        return repr(self)

    @abstractmethod
    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        """Weights (p, k) for each problem; all have one shape. ``steps`` of the optimizer, where it takes any."""


def _columns(weights: Array) -> Array:
    return weights.reshape(len(weights), -1)


@dataclass(frozen=True)
class GradientDescent(LastLayer):
    """Gradient descent, in closed form: a million steps cost as much as one.

    Args:
        step: the step size as a multiple of ``1/s_1^2``, in (0, 2].

    >>> problem = Spectrum(np.diag([1.0, 0.5]), [1.0, 1.0])
    >>> GradientDescent().fit([problem], steps=2, seed=0)[0][:, 0]
    array([1.   , 0.875])
    """

    step: float = 1.0

    def __post_init__(self) -> None:
        require(
            is_real(self.step) and 0 < self.step <= 2, "GradientDescent needs 0 < step <= 2", got=self.step
        )

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        return [_columns(p.weights(p.descent(steps, self.step * p.step_limit / 2))) for p in problems]


@dataclass(frozen=True)
class HeavyBall(LastLayer):
    """Gradient descent with momentum (Polyak, 1964): ``w += momentum (w - w_before) - step/s_1^2 gradient``.

    It runs in the singular vectors' coordinates, ``O(r)`` a step.

    Args:
        step: as in `GradientDescent`; up to ``2 (1 + momentum)``.
        momentum: in [0, 1). Default 0.9.
    """

    step: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        require(
            is_real(self.momentum) and 0 <= self.momentum < 1,
            "HeavyBall needs 0 <= momentum < 1",
            got=self.momentum,
        )
        require(
            is_real(self.step) and 0 < self.step <= 2 * (1 + self.momentum),
            f"HeavyBall needs 0 < step <= {2 * (1 + self.momentum):g}, 2 (1 + momentum)",
            got=self.step,
        )

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        found = []
        for problem in problems:
            shares = self.step * (problem.singular_values / problem.singular_values[0]) ** 2
            now, before = (
                np.zeros_like(shares),
                np.zeros_like(shares),
            )  # filters: they obey the same recurrence
            for _ in range(steps):
                now, before = now + shares * (1.0 - now) + self.momentum * (now - before), now
            found.append(_columns(problem.weights(now)))
        return found


@dataclass(frozen=True)
class CGLS(LastLayer):
    """Conjugate gradients on the normal equations (Hestenes and Stiefel, 1952): the best in its Krylov space.

    A step is a product with Phi and one with its transpose. It runs in the singular vectors' coordinates, ``O(r k)`` a
    step, one target at a time; it ends early where the gradient has vanished up to rounding.
    """

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        return [self._one(problem, steps) for problem in problems]

    def _one(self, problem: Spectrum, steps: int) -> Array:
        s = problem.singular_values[:, None]
        right = problem.along  # U'(y - Phi w_0), (r, k)
        z, residual = np.zeros_like(right), right.copy()
        slope = s * residual
        direction, size = slope.copy(), (slope**2).sum(0)
        first = size.copy()
        for _ in range(steps):
            live = size > np.finfo(np.float64).eps ** 2 * first
            if not live.any():
                break
            moved = s * direction
            bend = (moved**2).sum(0)
            alpha = np.divide(size, bend, out=np.zeros_like(size), where=live & (bend > 0))
            z += alpha * direction
            residual -= alpha * moved
            slope = s * residual
            new = (slope**2).sum(0)
            direction = slope + np.divide(new, size, out=np.zeros_like(size), where=live) * direction
            size = np.where(live, new, 0.0)
        return problem.lifted(z)


@dataclass(frozen=True)
class LBFGS(LastLayer):
    """SciPy's L-BFGS-B; a step is one evaluation of the loss and its gradient.

    Args:
        memory: pairs kept. Default 10.
    """

    memory: int = 10

    def __post_init__(self) -> None:
        require(is_whole(self.memory) and self.memory >= 1, "LBFGS needs memory >= 1", got=self.memory)

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        return [self._one(problem, steps) for problem in problems]

    def _one(self, problem: Spectrum, steps: int) -> Array:
        Phi, start = np.asarray(problem.features), np.asarray(problem.start)
        y = np.asarray(problem.targets).reshape(len(Phi), -1)
        scale = 1.0 / problem.singular_values[0]  # else the tolerances would depend on the units
        best: tuple[float, Array] = (np.inf, start)
        used = 0

        def loss(x: Array) -> tuple[float, Array]:
            nonlocal best, used
            if used == steps:
                raise _Spent
            used += 1
            w = start + scale * x.reshape(start.shape)
            residual = Phi @ w - y
            value = 0.5 * float((residual**2).sum())
            if value < best[0]:
                best = value, w
            return value, scale * (Phi.T @ residual).ravel()

        options: Any = {
            "maxcor": self.memory,
            "maxiter": steps,
            "maxfun": steps + 100,
            "ftol": 0.0,
            "gtol": 0.0,
        }
        with suppress(_Spent):
            minimize(cast(Any, loss), np.zeros(start.size), jac=True, method="L-BFGS-B", options=options)
        return best[1]


class _Spent(Exception):
    """All evaluations are used."""


@dataclass(frozen=True)
class SGD(LastLayer):
    """Stochastic gradient descent on mini-batches drawn without repeats, compiled: ``O(batch p k)`` a step.

    Args:
        batch: rows a step. Default 10.
        step: multiple of one over the expected smoothness of such a batch (Gower et al., 2019, proposition 3.8),
            ``n (b - 1)/(b (n - 1)) s_1^2/n + (n - b)/(b (n - 1)) max |phi_i|^2``; in (0, 2). Default 1.
    """

    batch: int = 10
    step: float = 1.0

    def __post_init__(self) -> None:
        require(is_whole(self.batch) and self.batch >= 1, "SGD needs batch >= 1", got=self.batch)
        require(is_real(self.step) and 0 < self.step < 2, "SGD needs 0 < step < 2", got=self.step)

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        return [self._one(problem, steps, seed, k) for k, problem in enumerate(problems)]

    def _one(self, problem: Spectrum, steps: int, seed: int, place: int) -> Array:
        Phi = np.asarray(problem.features)
        n = len(Phi)
        b = min(self.batch, n)
        whole, most = problem.singular_values[0] ** 2 / n, float((Phi**2).sum(1).max())
        spread = (n * (b - 1) * whole + (n - b) * most) / (b * max(n - 1, 1))
        smoothness = whole if n == 1 else spread
        draws = generator(seed, place, 0x5D)
        w = np.asarray(problem.start).copy()
        y = np.ascontiguousarray(np.asarray(problem.targets).reshape(n, -1))
        for first in range(0, steps, 4096):
            count = min(4096, steps - first)
            chosen = np.argpartition(draws.random((count, n)), b - 1, axis=1)[:, :b] if b < n else None
            rows = np.tile(np.arange(n), (count, 1)) if chosen is None else chosen
            kernels.sgd(np.ascontiguousarray(Phi), y, w, rows.astype(np.int64), self.step / smoothness)
        return w


@dataclass(frozen=True)
class Ridge(LastLayer):
    """Ridge regression; takes no steps.

    Args:
        penalty: beside the sum of squares. Default: the one with the least leave-one-out error, of shares of s_1^2 from
            1e-9 to 10.
    """

    penalty: float | None = None

    def __post_init__(self) -> None:
        require(
            self.penalty is None or (is_real(self.penalty) and self.penalty >= 0),
            "Ridge needs a penalty >= 0",
            got=self.penalty,
        )

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        found = []
        for problem in problems:
            penalty = self.chosen(problem) if self.penalty is None else self.penalty
            found.append(_columns(problem.weights(problem.ridge(penalty))))
        return found

    def chosen(self, problem: Spectrum) -> float:
        """The penalty of least leave-one-out error: residuals over one less their leverages."""
        penalties = PENALTIES * problem.singular_values[0] ** 2
        return float(penalties[problem.leave_one_out(problem.ridge(penalties)).argmin()])


@dataclass(frozen=True)
class Exact(LastLayer):
    """The minimiser nearest to the start, by the pseudo-inverse; takes no steps."""

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        return [_columns(p.weights(p.exact())) for p in problems]


@dataclass(frozen=True)
class EarlyStopping(LastLayer):
    """Gradient descent with as many steps, of at most those given, as were best for rows held out.

    Args:
        step: as in `GradientDescent`.
        held_out: share of the rows. Default 0.25. The last fit is on all of them.
    """

    step: float = 1.0
    held_out: float = 0.25

    def __post_init__(self) -> None:
        require(is_real(self.step) and 0 < self.step <= 2, "EarlyStopping needs 0 < step <= 2", got=self.step)
        require(
            is_real(self.held_out) and 0 < self.held_out < 1,
            "EarlyStopping needs 0 < held_out < 1",
            got=self.held_out,
        )

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        counts = np.unique(np.append(COUNTS[steps >= COUNTS], steps))
        found = []
        for k, problem in enumerate(problems):
            Phi, y = np.asarray(problem.features), np.asarray(problem.targets)
            order = generator(seed, k, 0xE5).permutation(len(Phi))
            out = max(1, round(self.held_out * len(Phi)))
            kept, held = order[out:], order[:out]
            require(len(kept) > 0, "EarlyStopping needs a row to train on", got=len(Phi))
            part = Spectrum(Phi[kept], y[kept], problem.start)
            filters = part.descent(counts, self.step * part.step_limit / 2)
            best = int(counts[part.test_error(Phi[held], y[held], filters).argmin()])
            found.append(_columns(problem.weights(problem.descent(best, self.step * problem.step_limit / 2))))
        return found


@dataclass(frozen=True)
class Torch(LastLayer):
    """An optimizer of PyTorch on the mean squared error, all seeds at once.

    Args:
        make: called with the parameters: ``lambda p: torch.optim.Adam(p, lr=1e-2)``. It has to treat each number by
            itself: one whose step depends on a norm over all parameters would mix seeds.
        batch: rows a step, drawn anew; None for all.
    """

    make: MakeOptimizer
    batch: int | None = None

    def fit(self, problems: Sequence[Spectrum], steps: int, seed: int) -> list[Array]:
        import torch

        Phi = torch.from_numpy(np.stack([np.asarray(p.features) for p in problems]))
        y = torch.from_numpy(np.stack([np.asarray(p.targets).reshape(Phi.shape[1], -1) for p in problems]))
        w = torch.from_numpy(np.stack([np.asarray(p.start) for p in problems])).requires_grad_()
        optimizer = made("Torch", self.make, [w])
        draws, n = generator(seed, 0x70), Phi.shape[1]
        for _ in range(steps):
            rows, wanted = Phi, y
            if self.batch is not None and self.batch < n:
                chosen = torch.from_numpy(draws.permutation(n)[: self.batch])
                rows, wanted = Phi[:, chosen], y[:, chosen]
            optimizer.zero_grad()
            torch.autograd.backward(((rows @ w - wanted) ** 2).mean((1, 2)).sum())
            optimizer.step()
        return list(w.detach().numpy())
