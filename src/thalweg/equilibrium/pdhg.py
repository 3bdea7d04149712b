"""Primal-dual hybrid gradients of bilinear games and linear programs, restarted from their averages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.equilibrium.method import InclusionMethod, InclusionState, check_options
from thalweg.equilibrium.operators import Bilinear
from thalweg.equilibrium.problem import MonotoneInclusion
from thalweg.equilibrium.programs import LinearProgram


@dataclass(kw_only=True)
class AveragedState(InclusionState):
    """``x`` is the iterate, or the average where that was found to be better."""

    iterate: Tensor  # (d,)
    total: Tensor  # (d,) sum of the iterates since the last restart
    count: int  # how many they are
    step_size: float
    restarted_at: float  # residual at the last restart


@dataclass(frozen=True)
class PDHG(InclusionMethod[AveragedState]):
    """Primal-dual hybrid gradients (Chambolle and Pock, 2011) of a bilinear game or a linear program, restarted.

    ``x -= tau A y``, projected; ``y += tau A' (2 x - x before)``, projected; every so often it starts over from the
    average, where that is better (Applegate et al., 2021, the heart of PDLP).

    For components that are `Bilinear`, without regularisation, and a resolvent that treats x and y apart, as
    `matrix_game`'s and `linear_program`'s do.

    Args:
        step_size: tau; by default ``0.9/|A|``. On a linear program x moves by tau times the ratio of x's unit to y's,
            and y by tau over it.
        every: steps between two looks at the average.
        restart: start over from iterate or average, whichever is better, once its residual has fallen to this share of
            what it was at the last start. None for the plain method, which answers with the better of the two.

    Raises:
        InvalidParameter: an option outside its range.
        InvalidProblem: a problem that is not bilinear.

    Cost per step: the same products with A as one evaluation of F.

    >>> from thalweg import Stop, solve
    >>> from thalweg.equilibrium import matrix_game, random_game
    >>> solve(matrix_game(random_game(5, 4)), PDHG(), stop=Stop(below={"residual": 1e-6})).converged
    True
    """

    step_size: float | None = None
    every: int = 50
    restart: float | None = 0.5

    def __post_init__(self) -> None:
        check_options(self, positive=["step_size"], counts=["every"])
        if self.restart is not None:
            check_options(self, shares=["restart"])

    def init(self, problem: MonotoneInclusion, seed: int) -> AveragedState:
        size = _bilinear(problem)[0].norm
        tau = self.step_size if self.step_size is not None else 0.9 / size if size > 0.0 else 1.0
        u = problem.resolvent(problem.x0, tau)
        residual = problem.natural_residual(u)
        return AveragedState(
            x=u,
            metrics={"residual": residual},
            calls=problem.count,
            seed=seed,
            iterate=u,
            total=torch.zeros_like(u),
            count=0,
            step_size=tau,
            restarted_at=residual,
        )

    def step(self, problem: MonotoneInclusion, state: AveragedState) -> AveragedState:
        (game, ratio), u, tau = _bilinear(problem), state.iterate, state.step_size
        A, linear, m = game.A, game.linear, len(game.A)
        ahead = torch.cat([u[:m] - tau * ratio * (A @ u[m:] + linear[:m]), u[m:]])
        x = problem.resolvent(ahead, tau)[:m]
        up = (2.0 * x - u[:m]) @ A - linear[m:]
        y = problem.resolvent(torch.cat([x, u[m:] + tau / ratio * up]), tau)[m:]
        new = self.checked(problem, torch.cat([x, y]), state)
        moved = replace(
            state,
            x=new,
            iterate=new,
            total=state.total + new,
            count=state.count + 1,
            step=state.step + 1,
            calls=state.calls + problem.count,
            metrics={},
        )
        return self._looked_at(problem, moved) if moved.count % self.every == 0 else moved

    def _looked_at(self, problem: MonotoneInclusion, state: AveragedState) -> AveragedState:
        """Iterate or average, whichever is better; started over from there once the residual has fallen enough."""
        ways = {problem.natural_residual(v): v for v in (state.iterate, state.total / state.count)}
        best = min(ways)
        state = replace(
            state, x=ways[best], metrics={"residual": best}, calls=state.calls + 2 * problem.count
        )
        if self.restart is None or best > self.restart * state.restarted_at:
            return state
        return replace(state, iterate=state.x, total=torch.zeros_like(state.x), count=0, restarted_at=best)


def _bilinear(problem: MonotoneInclusion) -> tuple[Bilinear, float]:
    """The game, and the unit of x over that of y."""
    game = problem.components
    if not isinstance(game, Bilinear) or game.regularisation:
        raise InvalidProblem(
            "PDHG is for bilinear games and linear programs: components has to be Bilinear, without regularisation."
        )
    of_x, of_y = problem.units if isinstance(problem, LinearProgram) else (1.0, 1.0)
    return game, of_x / of_y
