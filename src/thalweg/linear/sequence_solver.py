"""A solver that learns its own parameter while a simulation calls it.

Khodak, Chow, Balcan and Talwalkar (2024), "Learning to relax: setting solver parameters across a sequence of
linear system instances", ICLR.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidProblem, Method, Result, Stop, solve
from thalweg.core.tree import load_tree, require_alike, restoring, save_tree
from thalweg.core.validation import is_real, is_whole, require
from thalweg.linear.problem import LinearSystem
from thalweg.numerics.operators import Matrix
from thalweg.online import Policy

Vector = NDArray[np.float64]
Arm = Method[LinearSystem]
Family = Callable[[float], Arm]


def omega_grid(family: Family, count: int = 20, low: float = 1.0, high: float = 1.95) -> tuple[Arm, ...]:
    """``count`` methods of one family with omegas evenly spaced in [low, high]: the arms of a learned solver.

    >>> from thalweg.linear import SSORCG
    >>> [method.omega for method in omega_grid(SSORCG, 3, 1.0, 1.5)]
    [1.0, 1.25, 1.5]
    """
    require(is_whole(count) and count >= 1, "omega_grid needs a whole count >= 1", got=count)
    finite = all(is_real(end) and math.isfinite(end) for end in (low, high))
    require(finite, "omega_grid needs finite numbers low and high", got=(low, high))
    return tuple(family(float(omega)) for omega in np.linspace(low, high, count))


#: With ``cost="seconds"``, a round that was not solved counts as this many of the slowest.
UNSOLVED = 2.0


class NotSolved(UserWarning):
    """A system of a sequence did not reach the tolerance."""


class SequenceSolver:
    """Solve similar systems one after another, learning from their costs alone which arm is the cheapest.

    Call it once a system, wherever a simulation solves one. It needs no knowledge of the matrices: each round
    it plays one arm (a method: another omega, another drop tolerance, another algorithm) and learns.

    Args:
        policy: a bandit of `thalweg.online`, as many arms as ``arms``.
        arms: methods to choose from, e.g. ``omega_grid(SSORCG)``, or a mixture of methods.
        tol: each system is solved to ``|b - A x| <= tol |b|``.
        max_steps: most iterations of one round, and the loss of a round that did not reach the tolerance.
        cost: ``"iterations"``, the loss of the paper, or ``"seconds"``, which arms of different kinds need.
        warm_start: start each system from the solution of the last one.
        seed: makes the arms drawn repeatable.

    Raises:
        InvalidProblem: from `solve`, a system of another size than those before.

    Cost per round: the solve, and less than 0.1 ms for the learning.

    >>> from thalweg.linear import SequenceSolver, omega_grid
    >>> from thalweg.linear import SSORCG, ShiftedLaplacians
    >>> from thalweg.online import TsallisINF
    >>> solver = SequenceSolver(TsallisINF(20), omega_grid(SSORCG))
    >>> workload = ShiftedLaplacians(rounds=5)
    >>> [solver.solve(workload.system(t, None)).converged for t in range(5)]
    [True, True, True, True, True]
    """

    def __init__(
        self,
        policy: Policy,
        arms: Sequence[Arm],
        *,
        tol: float = 1e-8,
        max_steps: int = 10_000,
        cost: str = "iterations",
        warm_start: bool = False,
        seed: int = 0,
    ) -> None:
        require(
            len(arms) == policy.arms,
            f"SequenceSolver: the policy has {policy.arms} arms but {len(arms)} methods were given",
        )
        require(is_real(tol) and tol > 0, "SequenceSolver needs tol > 0", got=tol)
        require(
            is_whole(max_steps) and max_steps >= 1,
            "SequenceSolver needs a whole max_steps >= 1",
            got=max_steps,
        )
        require(
            cost in ("iterations", "seconds"), "SequenceSolver: cost is 'iterations' or 'seconds'", got=cost
        )
        self.policy, self.arms = policy.started(seed), tuple(arms)
        self.cost, self.warm_start = cost, warm_start
        self._cap, self._stop = max_steps, Stop(below={"residual": tol}, steps=max_steps)
        self.rounds, self.arm = 0, 0
        self._previous: Vector | None = None
        self.last: Result[Vector] | None = None
        self._n, self._slowest = 0, 0.0

    def __call__(self, A: Matrix | ArrayLike, b: ArrayLike, context: float | None = None) -> Vector:
        """The solution of ``A x = b``, shape (n,), to the tolerance or to what ``max_steps`` iterations gave.

        Args:
            A, b: as for `LinearSystem`.
            context: for contextual policies, a number known beforehand that tells how hard the system is.

        Warns:
            NotSolved: the tolerance was not reached. The `Result` of the last system stands in ``last``.
        """
        result = self.solve(LinearSystem(A, b), context)
        if not result.converged:
            warnings.warn(
                f"System {self.rounds - 1} is not solved: {result.status.value} with residual "
                f"{result.metrics['residual']:.3g}. {result.message}",
                NotSolved,
                stacklevel=2,
            )
        answer: Vector = result.x
        return answer

    def solve(self, system: LinearSystem, context: float | None = None) -> Result[Vector]:
        """Solve ``system`` with the arm that the policy draws, and learn from what it cost."""
        if self.rounds and system.n != self._n:
            raise InvalidProblem(
                f"System {self.rounds} has {system.n} unknowns; those before it had {self._n}. "
                "Use another SequenceSolver for it: what was learned does not carry over."
            )
        if self.warm_start and self._previous is not None and system.x0 is None:
            system = system.started_at(self._previous)
        self.arm = self.policy.act(context)
        result = solve(system, self.arms[self.arm], stop=self._stop, progress=False)
        self.policy.learn(self.arm, self._loss(result))
        self.rounds, self._n, self._previous, self.last = self.rounds + 1, system.n, result.x, result
        return result

    def iterations(self, result: Result[Vector]) -> float:
        """What a round counts for: its iterations, or the cap when it did not reach the tolerance."""
        return float(result.steps if result.converged else self._cap)

    def _loss(self, result: Result[Vector]) -> float:
        """What the policy learns; a round that did not reach the tolerance is no cheap one, however soon it ended."""
        if self.cost == "iterations":
            return max(self.iterations(result) - 1.0, 0.0)
        self._slowest = max(self._slowest, result.seconds)
        return result.seconds if result.converged else UNSOLVED * self._slowest

    def save(self, path: str | Path) -> None:
        """Write what was learned to ``path``, for another job to `load`."""
        save_tree(path, self.state_dict())

    def load(self, path: str | Path) -> None:
        """Go on with what another solver, with the same policy and as many arms, has saved."""
        with restoring(path, "what a SequenceSolver saved"):
            self.load_state_dict(load_tree(path))

    def state_dict(self) -> dict[str, Any]:
        """What was learned, and the last solution."""
        state: dict[str, Any] = {
            "rounds": self.rounds,
            "arm": self.arm,
            "n": self._n,
            "previous": self._previous,
        }
        state["slowest"] = self._slowest
        return {**state, "policy": self.policy.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        for name in ("rounds", "arm", "n", "slowest"):
            require_alike(name, 0, state[name], optional=False)
        self.policy.load_state_dict(state["policy"])
        self.rounds, self.arm, self._n = state["rounds"], state["arm"], state["n"]
        self._previous, self._slowest = state["previous"], state["slowest"]


def golden_section(function: Callable[[float], float], low: float, high: float, evaluations: int) -> float:
    """The best of ``evaluations`` points: five evenly spaced, then golden section around the best of them.

    >>> round(golden_section(lambda x: (x - 0.3) ** 2, 0.0, 1.0, 30), 5)
    0.3
    """
    grid = np.linspace(low, high, 5).tolist()
    values = {x: function(x) for x in grid}
    middle = min(range(5), key=lambda i: values[grid[i]])
    left, right = grid[max(middle - 1, 0)], grid[min(middle + 1, 4)]
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    inner, outer = right - ratio * (right - left), left + ratio * (right - left)
    for x in (inner, outer):
        values[x] = function(x)
    for _ in range(evaluations - 7):
        if values[inner] <= values[outer]:
            right, outer = outer, inner
            x = inner = right - ratio * (right - left)
        else:
            left, inner = inner, outer
            x = outer = left + ratio * (right - left)
        values[x] = function(x)
    return float(min(values, key=lambda x: values[x]))
