"""Shapley's iteration over zero-sum Markov games."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from thalweg.core import Method, NotFinite, State, Status, Stop, solve
from thalweg.core.validation import require
from thalweg.equilibrium.deterministic import Extragradient
from thalweg.equilibrium.markov import MarkovGame, stage_games
from thalweg.equilibrium.method import check_options
from thalweg.equilibrium.problem import MonotoneInclusion


@dataclass(kw_only=True)
class ShapleyState(State):
    """``values`` of the states; ``calls`` counts evaluations of a state's stage game."""

    x: Tensor  # (states, rows + columns) both strategies
    values: Tensor  # (states,) in the game's units
    seed: int


@dataclass(frozen=True)
class ShapleyIteration(Method[MarkovGame, ShapleyState]):
    """``V(s) = val(payments(s) + discount E V)``: solve the matrix games of all states, take their values, go on.

    A step is a contraction by the discount, up to the accuracy of its games.

    Args:
        stage: method for the games of a step, all states' in one inclusion, started from the step before. Default
            `Extragradient`.
        inexactness: residual of the stage games, as a share of the last change of the values: larger is looser.
            Default 0.1.
        passes: most evaluations of all states' games in a step. Default 10 000.

    The metrics of a step are ``exploitability`` and ``value``, as the game's.

    Source: Shapley (1953). Cost per step: the stage games, and policy iteration for both best responses.

    >>> from thalweg.equilibrium import random_markov_game
    >>> found = solve(random_markov_game(3, 2, 2), stop=Stop(below={"exploitability": 1e-4}))
    >>> found.converged
    True
    """

    stage: Method[MonotoneInclusion] = field(default_factory=Extragradient)
    inexactness: float = 0.1
    passes: int = 10_000

    def __post_init__(self) -> None:
        require(isinstance(self.stage, Method), "ShapleyIteration needs a method as stage", got=self.stage)
        check_options(self, positive=["inexactness"], counts=["passes"])

    def init(self, problem: MarkovGame, seed: int) -> ShapleyState:
        states, m, n = problem.payments.shape
        x = torch.cat([torch.full((states, m), 1.0 / m), torch.full((states, n), 1.0 / n)], 1)
        x = x.to(problem.payments)
        values = torch.zeros(states).to(x)
        return ShapleyState(x=x, values=values, seed=seed, metrics=problem.metrics(x))

    def step(self, problem: MarkovGame, state: ShapleyState) -> ShapleyState:
        games = problem.stage(state.values)
        far = state.metrics["exploitability"] / problem.unit * (1.0 - problem.discount)
        stop = Stop(
            below={"residual": max(self.inexactness * far, 1e-13)},
            calls=self.passes * len(games),
            steps=None,
        )
        stages = stage_games(games, state.x)
        found = solve(stages, self.stage, stop=stop, seed=state.seed, progress=False)
        if found.status is Status.DIVERGED:
            raise NotFinite(
                f"ShapleyIteration: {self.stage.name} diverged on the stage games. {found.message}"
            )
        x = found.x.view_as(state.x)
        rows, columns = problem.strategies(x)
        values = torch.einsum("sa,sab,sb->s", rows, games, columns)
        return replace(state, x=x, values=values, calls=state.calls + found.calls, metrics=problem.metrics(x))
