"""What the area's methods share: a state that knows its random numbers, and a step that refuses NaN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from thalweg.core import Method, NotFinite, State
from thalweg.core.seeding import torch_generator
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


S = TypeVar("S", bound=InclusionState)


class InclusionMethod(Method[MonotoneInclusion, S]):
    """Base of the methods for `MonotoneInclusion`."""

    def finite(self, u: Tensor, state: InclusionState) -> Tensor:
        """The new iterate u, or `NotFinite` where it is not finite."""
        if not math.isfinite(float(u.sum())) and not bool(torch.isfinite(u).all()):
            raise NotFinite(
                f"{type(self).__name__}: the iterate is not finite after {state.step} steps. The step may be too long: "
                "give a larger lipschitz, or a smaller step_size."
            )
        return u
