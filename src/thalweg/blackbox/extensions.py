"""Objectives with something beside the point: a fidelity that makes it cheap, conditions it is a mean over.

Frazier (2018), sections 5.4 and 5.5; Wu, Toscano-Palmerin, Frazier and Wilson (2019), "Practical multi-fidelity
Bayesian optimization"; Toscano-Palmerin and Frazier (2018), "Bayesian optimization with expensive integrands".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.blackbox import acquisition as acq
from thalweg.blackbox.choice import Knowledge
from thalweg.blackbox.parameters import Categorical, Point, Real
from thalweg.blackbox.space import Space
from thalweg.core import InvalidProblem, UnknownName
from thalweg.core.validation import require
from thalweg.numerics.gaussian_process import Downsampling, Kernel, Matern, Scaled
from thalweg.numerics.gaussian_process.surrogate import Belief
from thalweg.numerics.quasirandom import sobol


def _slice(space: Space, name: str) -> slice:
    for other, _, at in space.slices:
        if other == name:
            return at
    raise UnknownName("parameter", name, space.parameters)


@dataclass(frozen=True)
class Fidelity:
    """A parameter that makes an evaluation cheaper and worse; trials are chosen by what they teach per unit of cost.

    Args:
        name: of a `Real`, whose highest value is the truth, or of a `Categorical` of information sources, whose
            last choice is it.
        cost: of evaluating a point; positive.
        trace: shares of a real fidelity that are seen on the way for free, e.g. ``(0.25, 0.5)`` of the epochs.
    """

    name: str
    cost: Callable[[Point], float]
    trace: tuple[float, ...] = ()

    def check(self, space: Space) -> None:
        """Refuse a space that does not have it, and a cost that is none."""
        parameter = space.parameters.get(self.name)
        if not isinstance(parameter, Real | Categorical):
            raise InvalidProblem(f"Fidelity: {self.name!r} is no Real or Categorical parameter of the space.")
        require(all(0 < s < 1 for s in self.trace), "Fidelity: trace holds shares in (0, 1)", got=self.trace)
        require(
            not self.trace or isinstance(parameter, Real),
            "Fidelity: a trace needs a Real fidelity",
            got=self.name,
        )
        cost = self.cost(space.decode(torch.full((space.dimension,), 0.5)))
        require(cost > 0, "Fidelity: cost must be positive", got=cost)

    def kernel(self, space: Space) -> Kernel:
        """Matern of the other coordinates, times a kernel of the fidelity."""
        at = _slice(space, self.name)
        own = tuple(range(at.start, at.stop))
        rest = Matern(dims=tuple(i for i in range(space.dimension) if i not in own))
        if isinstance(space.parameters[self.name], Real):
            return Scaled(rest * Downsampling(own[0]))
        return Scaled(rest * Matern(dims=own))

    def truth(self, space: Space) -> object:
        """The highest fidelity."""
        parameter = space.parameters[self.name]
        return parameter.high if isinstance(parameter, Real) else parameter.choices[-1]  # type: ignore[attr-defined]

    def at_truth(self, space: Space, X: Tensor) -> Tensor:
        """Points moved to the highest fidelity."""
        X = X.clone()
        X[..., _slice(space, self.name)] = X.new_tensor(space.parameters[self.name].encode(self.truth(space)))
        return X

    def acquisition(self, space: Space, known: Knowledge) -> acq.Acquisition:
        """The knowledge gradient about the truth, per unit of cost."""
        targets = self.at_truth(space, known.some_targets)
        at = _slice(space, self.name).start

        def shown(x: Tensor) -> Tensor:
            lower = [
                torch.cat([x[:, :at], share * x[:, at : at + 1], x[:, at + 1 :]], 1) for share in self.trace
            ]
            return torch.stack([x, *lower], 1)

        def cost(x: Tensor) -> Tensor:
            return x.new_tensor([self.cost(space.decode(row)) for row in x])

        return acq.KnowledgeGradient(
            known.believed,
            targets,
            noise=known.noise,
            observes=shown if self.trace else None,
            cost=cost,
            own_target=lambda x: self.at_truth(space, x)[:, None, None],
            seed=known.seed,
        )


@dataclass(frozen=True)
class Environment:
    """Conditions that an evaluation is under and the objective is a weighted mean over: choose x and the condition.

    Args:
        conditions: each a dictionary of some parameters' values, the same parameters in all.
        weights: of the conditions; equal by default. They are scaled to sum to one.
    """

    conditions: Sequence[Mapping[str, object]]
    weights: Sequence[float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that are conditions."""
        return tuple(self.conditions[0])

    def check(self, space: Space) -> None:
        """Refuse conditions that are none of the space's."""
        require(len(self.conditions) > 0, "Environment needs at least one condition")
        require(
            all(set(c) == set(self.names) for c in self.conditions),
            "Environment: conditions need the same names",
        )
        require(
            self.weights is None or (len(self.weights) == len(self.conditions) and min(self.weights) >= 0),
            "Environment needs a weight >= 0 for each condition",
            got=self.weights,
        )
        for condition in self.conditions:
            for name, value in condition.items():
                if name not in space.parameters:
                    raise UnknownName("parameter", name, space.parameters)
                space.parameters[name].encode(value)

    def shares(self) -> Tensor:
        """The weights, summing to one, shape (k,)."""
        weights = torch.tensor(self.weights or [1.0] * len(self.conditions), dtype=torch.float64)
        return weights / weights.sum()

    def spread(self, space: Space, x: Tensor) -> Tensor:
        """Each point, b x d, under every condition: b x k x d."""
        out = x[:, None].repeat(1, len(self.conditions), 1)
        for i, condition in enumerate(self.conditions):
            for name, value in condition.items():
                out[:, i, _slice(space, name)] = x.new_tensor(space.parameters[name].encode(value))
        return out

    def integrated(self, space: Space, posterior: Belief, X: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the weighted mean at each point, shape (n,)."""
        mean, covariance = posterior.joint(self.spread(space, X))
        weights = self.shares()
        return mean @ weights, torch.einsum("bij,i,j->b", covariance, weights, weights)

    def acquisition(self, space: Space, known: Knowledge) -> acq.Acquisition:
        """The knowledge gradient about the weighted mean, of observing one point under one condition."""
        points = torch.cat([known.visited[-64:], sobol(64, space.dimension, known.seed)])
        return acq.KnowledgeGradient(
            known.believed,
            self.spread(space, points),
            self.shares(),
            noise=known.noise,
            own_target=lambda x: self.spread(space, x)[:, None],
            seed=known.seed,
        )
