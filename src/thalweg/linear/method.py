"""The base of methods for one linear system: whatever the units of A and b, they work on numbers near one."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem, Method, NotFinite, State
from thalweg.linear.columns import Columns, here
from thalweg.linear.problem import LinearSystem

if TYPE_CHECKING:
    from torch import Tensor

S = TypeVar("S", bound=State)


class LinearMethod(Method[LinearSystem, S | Columns[S]], Generic[S]):
    """Base of methods for a `LinearSystem`; a method writes `begin` and `advance` as another writes `init` and `step`.

    Where A or b hold numbers whose squares float64 cannot hold well, both see the `LinearSystem.balanced` system, which
    differs by powers of two: so the iterates are those of the same system in other units, digit for digit. Between
    two steps the answer is in the user's own units. Several right-hand sides are solved side by side, a step of each
    that has not ended.
    """

    @abstractmethod
    def begin(self, problem: LinearSystem, seed: int) -> S:
        """`init` for the balanced system."""

    @abstractmethod
    def advance(self, problem: LinearSystem, state: S) -> S:
        """`step` for the balanced system."""

    def init(self, problem: LinearSystem, seed: int) -> S | Columns[S]:
        if not isinstance(problem, LinearSystem):
            raise InvalidProblem(
                f"{type(self).__name__} solves a LinearSystem; got a {type(problem).__name__}. Build one from A and b."
            )
        if problem.b.ndim == 2:
            return Columns.of([self._init(column, seed) for column in problem.columns])
        return self._init(problem, seed)

    def step(self, problem: LinearSystem, state: S | Columns[S]) -> S | Columns[S]:
        if isinstance(state, Columns):
            return state.stepped(lambda j, one: self._step(problem.columns[j], one))
        return self._step(problem, state)

    def _init(self, problem: LinearSystem, seed: int) -> S:
        problem.require_consistent()
        with np.errstate(over="ignore", invalid="ignore"):
            state = self.begin(problem.balanced, seed)
        if not np.isfinite(state.metrics["residual"]):
            raise NotFinite("x0 is so far from the answer that its residual is beyond float64. Start nearer.")
        return state if problem.balanced is problem else self._in_units(state, problem.unit)

    def _step(self, problem: LinearSystem, state: S) -> S:
        if problem.balanced is problem:
            return self.advance(problem, state)
        state = self._in_units(state, -problem.unit)
        try:
            after = self.advance(problem.balanced, state)
        except Exception:
            if self.in_place:
                self._in_units(state, problem.unit)
            raise
        return self._in_units(after, problem.unit)

    def _in_units(self, state: S, exponent: int) -> S:
        """The state with its answer times ``2 ** exponent``."""
        with np.errstate(over="ignore"):
            if self.in_place:
                _shift(state.x, exponent)
            else:
                state = replace(state, x=np.ldexp(state.x, exponent))
        if not np.isfinite(here(state.x)).all():
            raise NotFinite("x is beyond the largest number that a float64 holds. Measure b in larger units.")
        return state


def _shift(x: NDArray[np.float64] | Tensor, exponent: int) -> None:
    """``x *= 2 ** exponent``."""
    if isinstance(x, np.ndarray):
        np.ldexp(x, exponent, out=x)
        return
    for part in (exponent // 2, exponent - exponent // 2):  # 2 ** exponent itself may be beyond float64
        x.mul_(2.0**part)
