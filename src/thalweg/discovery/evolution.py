"""Regularised evolution of programs, and the random searches that it is compared with.

Real, Aggarwal, Huang and Le (2019), "Regularized evolution for image classifier architecture search"; Chen et al.
(2023), "Symbolic discovery of optimization algorithms", section 3.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, get_args

from thalweg.core import InvalidProblem, Method
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require
from thalweg.discovery.abstract import check
from thalweg.discovery.mutation import Mutations
from thalweg.discovery.problem import ProgramSearch
from thalweg.discovery.program import Program, parse
from thalweg.discovery.trial import COUNTS, Engine, SearchState, Trial

#: Changes of one parent without a valid child, after which something else is wrong.
ATTEMPTS = 10_000


def _begun(problem: ProgramSearch, seed: int) -> SearchState:
    losses = problem.check_proxy()
    source = problem.start.source
    state = SearchState(
        x=source,
        best=losses[-1],
        draw=generator(seed),
        place=problem.fingerprint(),
        length=len(losses),
        counts=dict.fromkeys(COUNTS, 0),
        archive=[[0, source, losses[-1]]],
    )
    state.metrics = state.told()
    return state


def _archived(state: SearchState, children: list[tuple[Program, float]], per_slice: int) -> None:
    """Keep the best child of each time slice."""
    valid = state.counts["generated"] - state.counts["rejected"]
    number = (valid - 1) // per_slice + 1
    for program, loss in children:
        last = state.archive[-1]
        if last[0] != number * per_slice:
            state.archive.append([number * per_slice, program.source, loss])
        elif loss < float(str(last[2])):
            state.archive[-1] = [number * per_slice, program.source, loss]


@dataclass(frozen=True)
class RegularizedEvolution(Method[ProgramSearch, SearchState]):
    """A child of the better of two programs takes the place of the oldest one.

    Use it to find an update rule, or a schedule, for tasks like the proxy. It needs hundreds of evaluations for a rule
    that beats a tuned AdamW on a proxy of seconds, and what it finds is tuned to the proxy: judge the archive on larger
    tasks by `funnel`. With ``tournament=1`` nothing is selected, and programs drift.

    Args:
        population: programs alive, all of them the start at first. 1 000 in the paper; 100 by default.
        tournament: programs drawn, of which the best is the parent. 2, as in the paper; more for short searches.
        children: a step, made from one population and run side by side. What is found hangs on it, and not on the
            workers. A quarter to a half of them is left to run: for several workers take 16 a worker.
        mutations: how a child differs. A parent is changed again until a child passes `check`.
        restart_after: children without a new best program, after which the whole population becomes that one. By
            default never.
        per_slice: children of a time slice, of which the best one is archived.
        early_stop, join, workers, engine, cache: as of `Trial`.

    The metrics of a step: the best ``loss``, the population's ``median``, counts ``evaluated`` and ``generated``, and
    the shares ``rejected``, ``hits`` of the caches, and ``saved``, their sum.

    Raises:
        InvalidParameter: a population smaller than the tournament, or a number out of its range.
        InvalidProblem: no valid child comes.

    Cost per step: ``children`` runs of the proxy less what is saved, and 0.3 ms a child.

    >>> from thalweg.discovery import RegularizedEvolution
    >>> from thalweg import Stop, solve
    >>> from thalweg.discovery import DigitsMLP, ProgramSearch
    >>> task = ProgramSearch(DigitsMLP(steps=20, seeds=(0,)))
    >>> found = solve(task, RegularizedEvolution(population=10), stop=Stop(steps=5))
    >>> found.metrics["loss"] <= task.metrics(task.start.source)["loss"]
    True
    """

    in_place: ClassVar[bool] = False

    population: int = 100
    tournament: int = 2
    children: int = 8
    mutations: Mutations = field(default_factory=Mutations)
    restart_after: int | None = None
    per_slice: int = 100
    early_stop: bool = True
    join: bool = True
    workers: int = field(default=1, compare=False)
    engine: Engine = field(default="loky", compare=False)
    cache: str | Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        fits = is_whole(self.tournament) and is_whole(self.population)
        require(
            fits and 1 <= self.tournament <= self.population,
            "RegularizedEvolution needs 1 <= tournament <= population",
            got=(self.tournament, self.population),
        )
        _check_counts(self, ("children", "per_slice", "workers"))
        if self.restart_after is not None:
            _check_counts(self, ("restart_after",))
        require(self.engine in get_args(Engine), "engine is loky or ray", got=self.engine)

    def init(self, problem: ProgramSearch, seed: int) -> SearchState:
        state = _begun(problem, seed)
        state.population = [state.x] * self.population
        state.losses = [state.best] * self.population
        return state

    def step(self, problem: ProgramSearch, state: SearchState) -> SearchState:
        programs = [self._child(problem, state) for _ in range(self.children)]
        state.since += len(programs)
        losses = self._trial()(problem, state, programs)
        state.population = [*state.population, *(p.source for p in programs)][len(programs) :]
        state.losses = [*state.losses, *losses][len(programs) :]
        _archived(state, list(zip(programs, losses, strict=True)), self.per_slice)
        if self.restart_after is not None and state.since >= self.restart_after:
            state.population = [state.x] * self.population
            state.losses = [state.best] * self.population
            state.since = 0
            state.counts["restarts"] += 1
        state.calls = state.counts["evaluated"]
        state.metrics = state.told()
        return state

    def _trial(self) -> Trial:
        return Trial(self.workers, self.engine, self.early_stop, self.join, self.cache)

    def _child(self, problem: ProgramSearch, state: SearchState) -> Program:
        drawn = state.draw.choice(len(state.population), self.tournament, replace=False)
        parent = parse(state.population[min(drawn, key=lambda k: state.losses[k])], problem.start.signature)
        for _ in range(ATTEMPTS):
            child = self.mutations.child(parent, state.draw)
            state.counts["generated"] += 1
            if check(child) is None:
                return child
            state.counts["rejected"] += 1
        raise InvalidProblem(f"No valid child in {ATTEMPTS} changes of:\n{parent.source}")


@dataclass(frozen=True)
class RandomPrograms(Method[ProgramSearch, SearchState]):
    """Random programs, each drawn afresh: what a search is worth that learns nothing. A baseline, no more.

    Args:
        statements: of each program.
        children: a step.
        mutations: statements are drawn as its insertions are.
        per_slice, early_stop, join, workers, engine, cache: as of `RegularizedEvolution`.

    Cost per step: as of `RegularizedEvolution`; most draws are rejected.
    """

    statements: int = 8
    children: int = 8
    mutations: Mutations = field(default_factory=Mutations)
    per_slice: int = 100
    early_stop: bool = True
    join: bool = True
    workers: int = field(default=1, compare=False)
    engine: Engine = field(default="loky", compare=False)
    cache: str | Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        _check_counts(self, ("statements", "children", "per_slice", "workers"))
        require(self.engine in get_args(Engine), "engine is loky or ray", got=self.engine)

    def init(self, problem: ProgramSearch, seed: int) -> SearchState:
        return _begun(problem, seed)

    def step(self, problem: ProgramSearch, state: SearchState) -> SearchState:
        programs = [self._drawn(problem, state) for _ in range(self.children)]
        trial = Trial(self.workers, self.engine, self.early_stop, self.join, self.cache)
        losses = trial(problem, state, programs)
        _archived(state, list(zip(programs, losses, strict=True)), self.per_slice)
        state.calls = state.counts["evaluated"]
        state.metrics = state.told()
        return state

    def _drawn(self, problem: ProgramSearch, state: SearchState) -> Program:
        empty = Program(problem.start.signature, ())
        for _ in range(ATTEMPTS):
            program = self.mutations.grown(empty, self.statements, state.draw)
            state.counts["generated"] += 1
            if check(program) is None:
                return program
            state.counts["rejected"] += 1
        raise InvalidProblem(
            f"No valid program among {ATTEMPTS} random ones of {self.statements} statements."
        )


def _check_counts(method: object, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(method, name)
        require(is_whole(value) and value >= 1, f"{type(method).__name__} needs {name} >= 1", got=value)
