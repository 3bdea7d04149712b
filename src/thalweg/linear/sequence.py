"""Sequences of similar systems: what is given, and a solver that learns while it works through them.

Khodak, Chow, Balcan and Talwalkar (2024), "Learning to relax: setting solver parameters across a sequence of
linear system instances", ICLR.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter, Method, Problem, Result, State, Status, Stop, solve
from thalweg.core.validation import is_whole, require
from thalweg.linear.problem import LinearSystem
from thalweg.linear.sequence_solver import Arm, Family, SequenceSolver, golden_section
from thalweg.online import Policy

Vector = NDArray[np.float64]


class LinearSystemSequence(Problem):
    """Base of sequences ``A_t x = b_t``, t = 0 .. rounds - 1, where each may depend on the solution before.

    The answer of a sequence is what each round cost, shape (rounds,); its metric is their sum. A run is CONVERGED when
    every system has reached the tolerance.
    """

    rounds: int

    @abstractmethod
    def system(self, t: int, previous: Vector | None) -> LinearSystem:
        """System t; ``previous`` is the solution of system t - 1, None in round 0."""

    def context(self, t: int) -> float | None:
        """A number known before round t that tells how hard it will be, for contextual policies."""
        return None

    def recommended_stop(self) -> Stop:
        """The last round."""
        return Stop(steps=None)

    def metrics(self, x: Vector) -> dict[str, float]:
        """``{"cost": sum of the costs of the rounds played}``."""
        return {"cost": float(np.sum(x))}


@dataclass(kw_only=True)
class SequenceState(State):
    """``x`` holds the costs so far, shape (rounds,), zero for rounds to come."""

    solver: SequenceSolver | None
    t: int = 0
    unsolved: int = 0  # rounds whose system did not reach the tolerance
    previous: Vector | None = None  # solution of the last round


@dataclass(frozen=True, eq=False)
class LearnedSolver(Method[LinearSystemSequence, SequenceState]):
    """A `SequenceSolver` run on a `LinearSystemSequence`; one step is one round.

    Args:
        policy, arms, tol, max_steps, cost: as for `SequenceSolver`. A fixed choice is
            ``LearnedSolver(Fixed(1), [SSORCG(1.5)])``.

    The metrics of a step are ``cost`` of the round, ``arm``, and ``residual``.

    >>> from thalweg.linear import SSORCG, ShiftedLaplacians, omega_grid
    >>> from thalweg.online import TsallisINF
    >>> result = solve(ShiftedLaplacians(rounds=50), LearnedSolver(TsallisINF(20), omega_grid(SSORCG)))
    >>> result.status, bool(result.metrics["cost"] == result.x.sum())
    (<Status.CONVERGED: 'converged'>, True)
    """

    in_place = True

    policy: Policy
    arms: Sequence[Arm]
    tol: float = 1e-8
    max_steps: int = 10_000
    cost: str = "iterations"

    @property
    def name(self) -> str:
        """The policy's name, or the arm's where there is one only."""
        return type(self.policy).__name__ if len(self.arms) > 1 else self.arms[0].name

    def init(self, problem: LinearSystemSequence, seed: int) -> SequenceState:
        solver = SequenceSolver(
            self.policy, self.arms, tol=self.tol, max_steps=self.max_steps, cost=self.cost, seed=seed
        )
        return SequenceState(x=np.zeros(problem.rounds), solver=solver)

    def step(self, problem: LinearSystemSequence, state: SequenceState) -> SequenceState:
        t, solver = state.t, state.solver
        if solver is None:
            raise InvalidParameter("LearnedSolver: this state is of another method.")
        result = solver.solve(problem.system(t, state.previous), problem.context(t))
        cost = result.seconds if self.cost == "seconds" else solver.iterations(result)
        return _played(problem, state, result, cost, {"arm": float(solver.arm)})


@dataclass(frozen=True, eq=False)
class InstanceOptimal(Method[LinearSystemSequence, SequenceState]):
    """The best omega of every single system, found by golden section and charged for its own run only.

    No method that has to learn can do better: the mark to measure policies against, not for use.

    Args:
        family: makes a method of an omega, e.g. `SSORCG`.
        low, high: ends of the omegas.
        evaluations: omegas tried a round; five of them evenly spaced, the rest by golden section.

    >>> from thalweg.linear import SSORCG, ShiftedLaplacians
    >>> solve(ShiftedLaplacians(rounds=3), InstanceOptimal(SSORCG)).converged
    True
    """

    in_place = True

    family: Family
    low: float = 1.0
    high: float = 1.95
    evaluations: int = 12
    tol: float = 1e-8
    max_steps: int = 10_000

    def init(self, problem: LinearSystemSequence, seed: int) -> SequenceState:
        require(
            is_whole(self.evaluations) and self.evaluations >= 7,
            "InstanceOptimal needs whole evaluations >= 7",
            got=self.evaluations,
        )
        require(self.low < self.high, "InstanceOptimal needs low < high", got=(self.low, self.high))
        return SequenceState(x=np.zeros(problem.rounds), solver=None)

    def step(self, problem: LinearSystemSequence, state: SequenceState) -> SequenceState:
        system = problem.system(state.t, state.previous)
        stop = Stop(below={"residual": self.tol}, steps=self.max_steps)
        results: dict[float, Result[Vector]] = {}

        def iterations(omega: float) -> int:
            results[omega] = solve(system, self.family(omega), stop=stop, progress=False)
            return results[omega].steps

        best = golden_section(iterations, self.low, self.high, self.evaluations)
        return _played(problem, state, results[best], float(results[best].steps), {"omega": best})


def _played(
    problem: LinearSystemSequence,
    state: SequenceState,
    result: Result[Vector],
    cost: float,
    more: dict[str, float],
) -> SequenceState:
    t = state.t
    state.x[t] = cost
    unsolved = state.unsolved + (not result.converged)
    status, message = None, ""
    if t + 1 == problem.rounds:
        status, message = Status.CONVERGED, "Every system of the sequence is solved."
        if unsolved:
            status = Status.EXHAUSTED
            message = f"{unsolved} of {problem.rounds} systems did not reach the tolerance."
    return replace(
        state,
        t=t + 1,
        unsolved=unsolved,
        previous=result.x,
        calls=state.calls + result.steps,
        metrics={"cost": cost, "residual": result.metrics["residual"], **more},
        status=status,
        message=message,
    )
