"""What the area's methods share: a state that knows its random numbers, and a step that refuses NaN."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from thalweg.core import Method, NotFinite, State, Unbounded
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.equilibrium.problem import MonotoneInclusion


@dataclass(kw_only=True)
class InclusionState(State):
    """``x`` is u; ``calls`` counts component evaluations."""

    x: Tensor  # (d,)
    seed: int
    step: int = 0  # steps done, from which the random numbers of the coming one follow

    def stream(self) -> torch.Generator:
        """The random numbers of the coming step."""
        return torch_generator(self.seed, self.step, 0xE2)


def check_options(
    method: Method, *, positive: Sequence[str] = (), counts: Sequence[str] = (), shares: Sequence[str] = ()
) -> None:
    """Refuse options, given by their names, that are no number > 0, no whole number >= 1, no share in (0, 1).

    None passes where it is the default.
    """
    name = type(method).__name__
    for option in (*positive, *counts, *shares):
        value = getattr(method, option)
        if value is None and getattr(type(method), option) is None:
            continue
        if option in counts:
            require(is_whole(value) and value >= 1, f"{name} needs {option} >= 1, a whole number", got=value)
        elif option in shares:
            require(is_real(value) and 0 < value < 1, f"{name} needs 0 < {option} < 1", got=value)
        else:
            require(is_real(value) and 0 < value < math.inf, f"{name} needs {option} > 0", got=value)


def anchor_chance(batch: int, count: int) -> float:
    """p of a loopless anchor, 2 b / n: it shares the evaluations evenly between anchors and differences of two."""
    return 1.0 if batch >= count else min(2.0 * batch / count, 1.0)


def period(chance: float, random: torch.Generator) -> int:
    """Steps up to a coin's first success, that step included: a loopless anchor's life, drawn at once."""
    if chance >= 1.0:
        return 1
    drawn = 1.0 - float(torch.rand((), generator=random, dtype=torch.float64))  # in (0, 1]
    return max(1, math.ceil(math.log(drawn) / math.log1p(-chance)))


S = TypeVar("S", bound=InclusionState)


class InclusionMethod(Method[MonotoneInclusion, S]):
    """Base of the methods for `MonotoneInclusion`."""

    def checked(self, problem: MonotoneInclusion, u: Tensor, state: InclusionState) -> Tensor:
        """The new iterate u.

        Raises:
            NotFinite: it is not finite.
            Unbounded: the problem says that it has no solution; asked after 1, 2, 4, 8, ... steps.
        """
        if not math.isfinite(float(u.sum())) and not bool(torch.isfinite(u).all()):
            raise NotFinite(
                f"{type(self).__name__}: the iterate is not finite after {state.step} steps. The step may be too long: "
                "give the method a smaller step_size."
            )
        if state.step & (state.step - 1) == 0:
            why = problem.hopeless(u)
            if why:
                raise Unbounded(why)
        return u
