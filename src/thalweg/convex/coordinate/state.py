"""What block coordinate descent keeps up to date from step to step, and what it has worked out of blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

import numpy as np
from scipy.linalg import cho_factor

from thalweg.convex.datafits import Index, Vector
from thalweg.convex.problem import Penalized
from thalweg.core import State

T = TypeVar("T")

#: Cholesky's factor, and whether it is the lower one, as SciPy has them.
Factor: TypeAlias = tuple[Vector, bool]


@dataclass
class WorkedOut:
    """Bounds, constants and factors of blocks that come again; made anew after a checkpoint."""

    bounds: dict[bytes, Vector] = field(default_factory=dict)
    constants: dict[bytes, float] = field(default_factory=dict)
    factors: dict[bytes, Factor] = field(default_factory=dict)

    def state_dict(self) -> dict[str, object]:
        """Nothing: all of it follows from the problem."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Forget what belongs to the state before."""
        for kept in (self.bounds, self.constants, self.factors):
            kept.clear()


@dataclass(kw_only=True)
class BlockState(State):
    """``x`` is overwritten by each step, and so are z and g."""

    x: Vector  # (n,)
    z: Vector  # the loss's own: predictions, or a product
    g: Vector  # (n,) gradient of the smooth part
    stream: np.random.Generator
    t: int = 0  # steps done
    used: int = 0  # coordinates, or groups, updated so far
    identified: int = 0  # last step at which the active set changed
    blocks_return: bool = False  # blocks come again, so that it pays to keep what is worked out of them
    worked_out: WorkedOut = field(default_factory=WorkedOut, repr=False)

    def matrix(self, problem: Penalized, block: Index) -> Vector:
        """The bound of the Hessian's block."""
        return self._once(self.worked_out.bounds, block, lambda: problem.loss.bound(block))

    def constant(self, problem: Penalized, block: Index) -> float:
        """The block's Lipschitz constant: the bound's largest eigenvalue."""
        if len(block) == 1:
            return float(problem.loss.lipschitz[block[0]])

        def make() -> float:
            return float(np.linalg.eigvalsh(self.matrix(problem, block))[-1])

        return self._once(self.worked_out.constants, block, make)

    def factor(self, problem: Penalized, block: Index) -> Factor:
        """Cholesky's factor of the bound."""

        def make() -> Factor:
            H = self.matrix(problem, block)
            c, lower = cho_factor(H + 1e-12 * np.diag(np.diag(H)))
            return c, bool(lower)

        return self._once(self.worked_out.factors, block, make)

    def _once(self, kept: dict[bytes, T], block: Index, make: Callable[[], T]) -> T:
        if not self.blocks_return:
            return make()
        key = block.tobytes()
        if key not in kept:
            kept[key] = make()
        return kept[key]
