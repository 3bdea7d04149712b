"""The model of one output of the black box, kept from evaluation to evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from thalweg.numerics.gaussian_process import (
    GaussianProcess,
    Posterior,
    SparsePosterior,
    sparse_posterior,
    standardised,
)

#: Data from which the hyper-parameters are found anew only when a tenth has come on top.
SETTLED, GROWTH = 60, 1.1
#: Data that fresh starts are tried on, and that the hyper-parameters are found on.
SEARCHED, SUBSET = 200, 1000
#: Data up to which the posterior is exact.
EXACT = 2500
#: A value so many standard deviations away asks for another scale.
OUTLYING = 1e3


@dataclass(frozen=True)
class OfValues:
    """The part of a process with a `Derivative` kernel that is about values: queries have d coordinates again."""

    inner: Posterior

    @property
    def X(self) -> Tensor:  # noqa: N802 -- the name it has in a Posterior
        """Where values were observed, shape (n, d)."""
        return self.inner.X[self.inner.X[:, -1] < 0.5, :-1]

    def _coded(self, A: Tensor) -> Tensor:
        return torch.cat([A, torch.zeros_like(A[..., :1])], -1)

    def predict(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance at each point."""
        return self.inner.predict(self._coded(A))

    def mean(self, A: Tensor) -> Tensor:
        """Mean at each point."""
        return self.inner.mean(self._coded(A))

    def joint(self, A: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the points of each batch."""
        return self.inner.joint(self._coded(A))


#: What is known of an output at points that were not evaluated.
Belief: TypeAlias = Posterior | SparsePosterior | OfValues


class Surrogate:
    """A Gaussian process that follows growing data.

    While there are few data its hyper-parameters are found anew at each `update`, from the last ones; later only when
    a tenth has come on top. Fresh starts are tried whenever a tenth has come on top. In between the posterior grows by
    blocks. For one thread at a time: a `Study` sees to that.

    Args:
        process: the model.
        bayesian: average over the hyper-parameters instead of taking the most probable ones.
    """

    def __init__(self, process: GaussianProcess, bayesian: bool = False, seed: int = 0) -> None:
        self.process, self.bayesian, self.seed = process, bayesian, seed
        self.theta: Tensor | None = None
        self.posterior: Any = None
        self.offset, self.scale = 0.0, 1.0
        self._fitted, self._searched = 0, 0
        self._data = torch.empty(0, 0)  # points, values and noises that the posterior is given
        self._blocks: list[int] = []  # numbers of data at the last whole posterior, and after each growth

    def update(self, X: Tensor, y: Tensor, noise: Tensor | None = None) -> Belief:
        """The posterior of standardised values given all data: points (n, d), values (n,), standard deviations (n,).

        It grows where the data begin with those it is given already; any others are another data set to it.
        """
        data = _joined(X, y, noise)
        held = len(self._data)
        same = not held or torch.equal(data[:held], self._data)
        if self.posterior is None and self._blocks and len(y) >= self._blocks[-1]:
            self._rebuild(X, y, noise)
            held = len(self._data)
        made = self.posterior is not None and same
        if made and len(y) == held:
            return self._current()
        due = not made or len(y) < SETTLED or len(y) > GROWTH * self._fitted
        if due or len(y) > EXACT or bool((self._standard(y[held:]).abs() > OUTLYING).any()):
            self._refit(X, y, noise)
        else:
            self._grow(X, y, noise, held, len(y))
            self._blocks.append(len(y))
        self._data = data
        return self._current()

    def _standard(self, y: Tensor) -> Tensor:
        return (y - self.offset) / self.scale

    def _grow(self, X: Tensor, y: Tensor, noise: Tensor | None, low: int, high: int) -> None:
        """Give the posterior rows ``low`` to ``high`` of the data."""
        more = None if noise is None else (noise[low:high] / self.scale) ** 2
        self.posterior = self.posterior.grow(X[low:high], self._standard(y[low:high]), more)

    def _current(self) -> Belief:
        posterior: Belief = self.posterior
        return posterior

    def _refit(self, X: Tensor, y: Tensor, noise: Tensor | None) -> None:
        self._blocks = [len(y)]
        values, self.offset, self.scale = standardised(y)
        scaled = None if noise is None else (noise / self.scale) ** 2
        if self.bayesian and len(y) <= SETTLED:
            self.posterior = self.process.fit_bayes(X, values, scaled, seed=self.seed)
            return
        if self.theta is None or len(y) > GROWTH * self._fitted or len(y) < SETTLED:
            found = self._searched_for(X, values, scaled)
            self.theta, self._fitted = found.theta, len(y)
            if len(found.X) == len(y) <= EXACT:
                self.posterior = found
                return
        if len(y) > EXACT:
            self.posterior = sparse_posterior(self.process, self.theta, X, values, scaled)
        else:
            self.posterior = self.process.posterior(self.theta, X, values, scaled)

    def _rebuild(self, X: Tensor, y: Tensor, noise: Tensor | None) -> None:
        """The posterior that a saved one was, by the same steps and so with the same bits."""
        first, *later = blocks = self._blocks  # a model without parameters, or a sparse one, has never grown
        values, self.offset, self.scale = standardised(y[:first])
        scaled = None if noise is None else (noise / self.scale) ** 2
        if self.theta is None or first > EXACT:
            self._refit(X[:first], y[:first], None if noise is None else noise[:first])
        else:
            part = None if scaled is None else scaled[:first]
            self.posterior = self.process.posterior(self.theta, X[:first], values, part)
        for low, high in zip(blocks, later, strict=False):
            self._grow(X, y, noise, low, high)
        self._blocks, self._data = blocks, _joined(X, y, noise)[: blocks[-1]]

    def _searched_for(self, X: Tensor, y: Tensor, noise: Tensor | None) -> Posterior:
        """The most probable hyper-parameters: fresh starts on few data, then a climb on more from the best of all."""
        warm, n = self.theta, len(y)

        def fit(count: int, starts: int, iterations: int) -> Posterior:
            few = subset(y, count)
            part = None if noise is None else noise[few]
            return self.process.fit(
                X[few], y[few], part, starts=starts, warm=warm, iterations=iterations, seed=self.seed + n
            )

        if n > GROWTH * self._searched:
            self._searched = n
            found = fit(SEARCHED, 4, 40)
            if n <= SEARCHED:
                return found
            warm = found.theta
        return fit(SUBSET, 0, 40 if n <= SEARCHED else 15)

    def to_values(self, standard: Tensor) -> Tensor:
        """Means in the units of the data."""
        return self.offset + self.scale * standard

    def state_dict(self) -> dict[str, Any]:
        """The hyper-parameters, and how the posterior has grown since they were found."""
        counts = {"fitted": self._fitted, "searched": self._searched, "blocks": self._blocks}
        return {"theta": self.theta, **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`; the posterior is made again by the next `update`."""
        self.theta, self._fitted, self._searched = state["theta"], state["fitted"], state["searched"]
        self._blocks = list(state["blocks"])


def _joined(X: Tensor, y: Tensor, noise: Tensor | None) -> Tensor:
    """Points, values and noises as one matrix, (n, d + 2)."""
    return torch.cat([X, torch.stack([y, torch.zeros_like(y) if noise is None else noise], 1)], 1)


def subset(values: Tensor, count: int) -> Tensor:
    """At most ``count``: the best half, and as many drawn from the rest: where it matters, and everywhere."""
    if len(values) <= count:
        return torch.arange(len(values))
    order = values.argsort(descending=True)
    rest = order[count // 2 :]
    drawn = torch.randperm(len(rest), generator=torch.Generator().manual_seed(len(values)))[: count // 2]
    return torch.cat([order[: count // 2], rest[drawn]])
