"""From what is known to an acquisition: which one a name stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thalweg.blackbox import acquisition as acq
from thalweg.core import UnknownName
from thalweg.numerics.gaussian_process import Posterior, draw_paths
from thalweg.numerics.quasirandom import sobol

#: Variance of standardised noise that is worth counting with.
NOISY = 1e-4


@dataclass(frozen=True)
class Knowledge:
    """What an acquisition is made of.

    Args:
        posterior: of the standardised objective, to be maximised.
        best: the largest mean among the points that count: visited and feasible.
        visited: points evaluated, shape (n, d).
        pending: points being evaluated, shape (p, d), apart from the visited ones and from each other.
        noise: variance of an observation, standardised.
        seed: of common random numbers.
        batch: how pending points count: ``"joint"``, with the values they may take; ``"believer"``, as predicted;
            ``"liar"``, as good as the best; ``"penalisation"``, keeping away from them.
    """

    posterior: Any
    best: float
    visited: Tensor
    pending: Tensor
    noise: float
    seed: int
    batch: str = "joint"

    @property
    def noisy(self) -> bool:
        """Whether the noise is worth counting with."""
        return self.noise > NOISY

    @property
    def believed(self) -> Any:  # noqa: ANN401 -- acquisitions differ in what they ask of it
        """The posterior as if the pending points had turned out as predicted, or as good as the best."""
        if not len(self.pending) or not isinstance(self.posterior, Posterior):
            return self.posterior
        values = self.posterior.mean(self.pending)
        if self.batch == "liar":
            values = torch.full_like(values, self.best)
        return self.posterior.grow(self.pending, values)

    @property
    def some_targets(self) -> Tensor:
        """The best of the visited points, and some of the cube: where a knowledge gradient looks."""
        means = self.posterior.mean(self.visited).reshape(-1, len(self.visited)).mean(0)
        best = self.visited[means.topk(min(48, len(means))).indices]
        return torch.cat([best, sobol(48, self.visited.shape[1], self.seed)])


@dataclass(frozen=True)
class PathValue(acq.Acquisition):
    """The value of one function drawn from the posterior: its maximum is a Thompson sample."""

    path: Callable[[Tensor], Tensor]

    def __call__(self, X: Tensor) -> Tensor:
        return self.path(X[:, 0])[0]


def _auto(known: Knowledge) -> acq.Acquisition:
    single = isinstance(known.posterior, Posterior) and known.posterior.theta.ndim == 1
    if len(known.pending) and known.batch == "joint":
        if not single:
            return acq.QLogEI(known.posterior, known.best, known.pending, seed=known.seed)
        if known.noisy:
            return acq.noisy_ei(known.posterior, seed=known.seed, pending=known.pending)
        return acq.pending_ei(known.posterior, known.best, known.pending, seed=known.seed)
    if len(known.pending) and known.batch == "penalisation":
        steepest = acq.lipschitz_constant(known.posterior, sobol(256, known.visited.shape[1], known.seed))
        base = acq.LogEI(known.posterior, known.best)
        return acq.Penalised(base, known.posterior, known.pending, steepest, known.best)
    if len(known.pending):
        return acq.LogEI(known.believed, known.best)
    if known.noisy and single:
        return acq.noisy_ei(known.posterior, seed=known.seed)
    return acq.LogEI(known.posterior, known.best)


def _continuous_kg(known: Knowledge) -> acq.Acquisition:
    posterior, targets = known.believed, known.some_targets
    best = float(posterior.mean(targets).max())
    return acq.ContinuousKG(posterior, best, targets, noise=known.noise, seed=known.seed)


def _thompson(known: Knowledge) -> acq.Acquisition:
    return PathValue(draw_paths(known.believed, 1, known.seed))


def _entropy_search(known: Knowledge) -> acq.Acquisition:
    points = acq.sample_optima(known.believed, 24, known.seed).points
    return acq.EntropySearch(known.believed, points, noise=known.noise, draws=256, seed=known.seed)


def _predictive_entropy(known: Knowledge) -> acq.Acquisition:
    optima = acq.sample_optima(known.believed, 12, known.seed).points
    return acq.PredictiveEntropy(known.believed, optima, known.best, noise=known.noise)


def _lookahead(known: Knowledge) -> acq.Acquisition:
    later = torch.cat([sobol(200, known.visited.shape[1], known.seed), known.visited])
    return acq.TwoStepEI(known.believed, known.best, later)


ACQUISITIONS: Mapping[str, Callable[[Knowledge], acq.Acquisition]] = {
    "auto": _auto,
    "logei": lambda known: acq.LogEI(known.believed, known.best),
    "noisy-ei": lambda known: acq.noisy_ei(known.believed, seed=known.seed),
    "qlogei": lambda known: acq.QLogEI(known.posterior, known.best, known.pending, seed=known.seed),
    "pi": lambda known: acq.PI(known.believed, known.best + 0.01),
    "ucb": lambda known: acq.UCB(known.believed),
    "visited-kg": lambda known: acq.KnowledgeGradient(known.believed, known.visited, noise=known.noise),
    "kg": lambda known: acq.KnowledgeGradient(known.believed, known.some_targets, noise=known.noise),
    "continuous-kg": _continuous_kg,
    "mes": lambda known: acq.MaxValueEntropy(
        known.believed, acq.sample_optima(known.believed, 16, known.seed).values
    ),
    "pes": _predictive_entropy,
    "es": _entropy_search,
    "thompson": _thompson,
    "two-step": _lookahead,
}


def acquisition_named(name: str) -> Callable[[Knowledge], acq.Acquisition]:
    """The maker of an acquisition; `UnknownName` if there is none of that name.

    >>> acquisition_named("logei") is ACQUISITIONS["logei"]
    True
    """
    if name not in ACQUISITIONS:
        raise UnknownName("acquisition", name, ACQUISITIONS)
    return ACQUISITIONS[name]
