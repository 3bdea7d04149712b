"""Primal-dual hybrid gradients of bilinear games, restarted from their averages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import require
from thalweg.equilibrium.method import InclusionMethod, InclusionState
from thalweg.equilibrium.operators import Bilinear
from thalweg.equilibrium.problem import MonotoneInclusion


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
    """Primal-dual hybrid gradients (Chambolle and Pock, 2011) of a bilinear game, its averages restarted.

    ``x -= tau A y``, projected; ``y += tau A' (2 x - x before)``, projected; every so often it starts over from the
    average, where that is better (Applegate et al., 2021, the heart of PDLP).

    For games whose components are `Bilinear` alone and whose resolvent treats x and y apart, as `matrix_game`'s does.

    Args:
        step_size: tau; by default ``0.9/|A|``.
        every: steps between two looks at the average.

    Cost per step: the same products with A as one evaluation of F.

    >>> from thalweg import Stop, solve
    >>> from thalweg.equilibrium import matrix_game, random_game
    >>> solve(matrix_game(random_game(5, 4)), PDHG(), stop=Stop(below={"residual": 1e-6})).converged
    True
    """

    step_size: float | None = None
    every: int = 50

    def __post_init__(self) -> None:
        require(self.step_size is None or self.step_size > 0, "PDHG needs step_size > 0", got=self.step_size)
        require(self.every >= 1, "PDHG needs every >= 1", got=self.every)

    def init(self, problem: MonotoneInclusion, seed: int) -> AveragedState:
        A = _payoffs(problem)
        tau = self.step_size if self.step_size is not None else 0.9 / float(torch.linalg.matrix_norm(A, 2))
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
        A, u, tau = _payoffs(problem), state.iterate, state.step_size
        m = len(A)
        ahead = torch.cat([u[:m] - tau * (A @ u[m:]), u[m:]])
        x = problem.resolvent(ahead, tau)[:m]
        y = problem.resolvent(torch.cat([x, u[m:] + tau * ((2.0 * x - u[:m]) @ A)]), tau)[m:]
        new = self.finite(torch.cat([x, y]), state)
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
        """Iterate or average, whichever is better; started over from there once the residual has halved."""
        ways = {problem.natural_residual(v): v for v in (state.iterate, state.total / state.count)}
        best = min(ways)
        state = replace(
            state, x=ways[best], metrics={"residual": best}, calls=state.calls + 2 * problem.count
        )
        if best > 0.5 * state.restarted_at:
            return state
        return replace(state, iterate=state.x, total=torch.zeros_like(state.x), count=0, restarted_at=best)


def _payoffs(problem: MonotoneInclusion) -> Tensor:
    if not isinstance(problem.components, Bilinear):
        raise InvalidProblem("PDHG is for bilinear games: components has to be Bilinear.")
    return problem.components.A
