"""The light bridge's loss minimised on all samples at once, by L-BFGS.

Nocedal and Wright (2006), "Numerical optimization", algorithms 7.4 and 7.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from thalweg.core import Method, State, Status
from thalweg.core.validation import is_whole, require, require_positive
from thalweg.transport._parameters import Gradient
from thalweg.transport.light_bridge import LightSB
from thalweg.transport.problem import EntropicTransport

#: Of a step: the fall that is enough, the slope that is flat enough, and how often a length is tried.
FALL, FLAT, TRIES = 1e-4, 0.9, 25


@dataclass(kw_only=True)
class FullBatchState(State):
    """The answer, its loss and gradient, and the last steps with the gradients' changes, (pairs, K, columns)."""

    x: Tensor
    loss: float
    gradient: Tensor
    moves: Tensor
    changes: Tensor


@dataclass(frozen=True)
class FullBatch(Method[EntropicTransport, FullBatchState]):
    """L-BFGS on the loss of all samples: a stationary point to many digits.

    Use it to polish an answer of `LightSB` (``x0=``), or where samples are few and exact. When not: the loss of few
    samples is minimised beyond what they say, and many samples cost a pass each step: `LightSB` is the default.

    Args:
        x0: an answer to begin at. Default: `LightSB`'s start.
        tol: largest entry of the gradient, in the standardised unit, at which the run ends CONVERGED; the default is
            small against the noise of any sample.
        memory: pairs kept.

    A run ends STALLED where no step lowers the loss any more, by rounding or since components have reached the smallest
    S.

    Cost per step: one gradient of all samples in the usual case, ``O((n0 + n1) K D)``, and ``4 memory K D``.

    >>> import numpy as np
    >>> from thalweg import solve
    >>> rng = np.random.default_rng(0)
    >>> problem = EntropicTransport(rng.standard_normal((500, 1)), 3 + rng.standard_normal((500, 1)), 1.0, 1)
    >>> solve(problem, FullBatch()).converged
    True
    """

    x0: Tensor | None = None
    tol: float = 1e-7
    memory: int = 10

    def __post_init__(self) -> None:
        require_positive(self, "tol")
        require(is_whole(self.memory) and self.memory >= 1, "FullBatch needs memory >= 1", got=self.memory)

    def init(self, problem: EntropicTransport, seed: int) -> FullBatchState:
        x = LightSB().first_answer(problem, seed) if self.x0 is None else problem.started(self.x0)
        found = _gradient(problem, x)
        none = x.new_zeros((0, *x.shape))
        return FullBatchState(
            x=x.clone(), loss=found.loss, gradient=found.gradient, moves=none, changes=none.clone()
        )

    def step(self, problem: EntropicTransport, state: FullBatchState) -> FullBatchState:
        g = state.gradient
        if float(g.abs().max()) <= self.tol:
            return self._ended(problem, state, Status.CONVERGED, f"No slope is above {self.tol:g}.")
        direction = _direction(g, state.moves, state.changes)
        if float((direction * g).sum()) >= 0:  # rounding has spoilt the pairs: begin again at the gradient
            direction = _direction(g, state.moves[:0], state.changes[:0])
        x, found, calls = _searched(problem, state, direction)
        if found is None:
            return self._ended(problem, state, Status.STALLED, "No step lowers the loss any more.")
        move, change = x - state.x, found.gradient - g
        moves, changes = state.moves, state.changes
        if float((move * change).sum()) > 1e-10 * float(move.norm() * change.norm()):
            moves = torch.cat([moves, move[None]])[-self.memory :]
            changes = torch.cat([changes, change[None]])[-self.memory :]
        return FullBatchState(
            x=x,
            loss=found.loss,
            gradient=found.gradient,
            moves=moves,
            changes=changes,
            calls=state.calls + calls,
            metrics={"loss": found.loss},
        )

    def _ended(
        self, problem: EntropicTransport, state: FullBatchState, status: Status, message: str
    ) -> FullBatchState:
        state.metrics, state.status, state.message = problem.metrics(state.x), status, message
        return state


def _gradient(problem: EntropicTransport, x: Tensor) -> Gradient:
    """The loss's, with no slope towards what the smallest S forbids."""
    found, D = problem.gradient(x), problem.dimensions
    low = x[:, 1 + D : 1 + 2 * D] <= problem.family.floor
    part = found.gradient[:, 1 + D : 1 + 2 * D]
    part[low & (part > 0)] = 0.0
    return found


def _direction(g: Tensor, moves: Tensor, changes: Tensor) -> Tensor:
    """``-H g`` by the two loops over the pairs."""
    q, shares = g.clone(), []
    for s, y in zip(reversed(moves.unbind()), reversed(changes.unbind()), strict=True):
        share = (s * q).sum() / (s * y).sum()
        shares.append(share)
        q = q - share * y
    if len(moves):
        q = q * ((moves[-1] * changes[-1]).sum() / (changes[-1] ** 2).sum())
    else:
        q = q / g.norm().clamp(min=1.0)
    for s, y, share in zip(moves.unbind(), changes.unbind(), reversed(shares), strict=True):
        q = q + s * (share - (y * q).sum() / (s * y).sum())
    return -q


def _searched(
    problem: EntropicTransport, state: FullBatchState, direction: Tensor
) -> tuple[Tensor, Gradient | None, int]:
    """A step that falls enough and has a flatter slope (weak Wolfe), by bisection; None where there is none."""
    D, slope = problem.dimensions, float((direction * state.gradient).sum())
    low, high, length = 0.0, math.inf, 1.0
    for calls in range(1, TRIES + 1):
        x = state.x + length * direction
        x[:, 1 + D : 1 + 2 * D].clamp_(min=problem.family.floor)
        found = _gradient(problem, x)
        if not found.loss <= state.loss + FALL * length * slope:
            high = length
        elif float((found.gradient * direction).sum()) < FLAT * slope:
            low = length
        else:
            return x, found, calls
        length = 2 * length if math.isinf(high) else (low + high) / 2
    return (x, found, TRIES) if found.loss < state.loss else (x, None, TRIES)
