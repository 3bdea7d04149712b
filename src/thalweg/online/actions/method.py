"""A search as a method for `solve`: it plays a table of actions."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from thalweg.core import InvalidParameter, Method, State, Status
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real
from thalweg.online.actions.problem import ActionTable, Features, as_features
from thalweg.online.actions.search import Search


@dataclass(kw_only=True)
class SearchState(State):
    """``x`` is the action that would be the answer now."""

    search: Search
    rng: np.random.Generator  # of the table's noise


class ActionSearch(Method[ActionTable, SearchState]):
    """Base of methods that search among actions: options, and `begin`, which makes a `Search` of them.

    A step is one reward observed; ``calls`` counts them. The metrics of a step are the ``gap`` of the answer where
    the table knows it, its mean ``reward`` as observed, and the ``queries``: different actions. Eliminations also tell
    what is ``certified`` so far, a bound of the gap: ``Stop(below={"certified": 0.3})`` ends them when that is enough.
    A search that ends with a certificate is CONVERGED, one that ends without is EXHAUSTED.
    """

    in_place = True

    def begin(self, features: ArrayLike, *, noise: float = 0.0, seed: int = 0) -> Search:
        """A search to ask and to tell.

        Args:
            features: shape (n, d), rows all different.
            noise: standard deviation of a reward that is observed; 0 for exact ones.
            seed: names its random stream.

        Raises:
            InvalidProblem: features that no search can use. InvalidParameter: options that do not fit them.
        """
        if not (is_real(noise) and 0 <= noise < np.inf):
            raise InvalidParameter(f"begin needs a finite noise >= 0; got {noise!r}.")
        search = self.made(as_features(features), float(noise), seed)
        search.start()
        return search

    @abstractmethod
    def made(self, features: Features, noise: float, seed: int) -> Search:
        """The search before its first choice, for features that have been checked."""

    def init(self, problem: ActionTable, seed: int) -> SearchState:
        search = self.begin(problem.features, noise=problem.noise, seed=seed)
        return _told(problem, SearchState(x=0, search=search, rng=generator(seed, 17)))

    def step(self, problem: ActionTable, state: SearchState) -> SearchState:
        search = state.search
        if not search.done:  # of a run resumed from its end
            search.observe(problem.draw(search.next_action(), state.rng))
        return _told(problem, state)


def _told(problem: ActionTable, state: SearchState) -> SearchState:
    """The state after the search has moved on."""
    search = state.search
    state.x = search.answer()
    state.calls = len(search.actions)
    state.message = search.message
    state.metrics = {"queries": float(search.queries)}
    if not callable(problem.rewards):
        state.metrics["gap"] = float(problem.rewards.max() - problem.rewards[state.x])
    if search.counts[state.x]:
        state.metrics["reward"] = search.mean(state.x)
    proof = search.certificate() if search.queries else None
    if search.certifies:
        state.metrics["certified"] = math.inf if proof is None else proof.gap
    if search.done:
        state.status = Status.EXHAUSTED if proof is None else Status.CONVERGED
        if proof is not None:
            state.message = " ".join(filter(None, (search.message, str(proof))))
    return state
