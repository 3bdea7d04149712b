"""Episodes in a Markov decision process: read from a file of arrays, and told by their regret."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thalweg.cli.output import array_of
from thalweg.core import Figure, InvalidProblem, Problem, Result, Series

if TYPE_CHECKING:
    import numpy as np

    from thalweg.online import AdversarialMDP

#: The arrays of a file; the last two may be left out.
ARRAYS = ("transitions", "losses", "features", "start")


def read_episodes(path: Path) -> AdversarialMDP:
    """``transitions`` (S, A, S), ``losses`` (K, H, S, A), and perhaps ``features`` (S, A, d) and ``start``.

    Without features, each state and action has a unit vector of its own.
    """
    from thalweg.datasets import load_arrays
    from thalweg.online import AdversarialMDP
    from thalweg.online.mdp import tabular

    arrays = load_arrays(path)
    strange = [name for name in arrays if name not in ARRAYS]
    missing = [name for name in ARRAYS[:2] if name not in arrays]
    if strange or missing:
        raise InvalidProblem(
            f"{path} holds the arrays {', '.join(arrays) or 'none'}; expected transitions and losses, and perhaps "
            "features and start."
        )
    losses, start = arrays["losses"], arrays.get("start")
    begins = 0 if start is None else int(start) if start.shape == () and start.dtype.kind in "iu" else start
    if "features" in arrays:
        return AdversarialMDP(arrays["features"], arrays["transitions"], losses, start=begins)
    layers = losses.shape[1] if losses.ndim == 4 else 1
    world = tabular(arrays["transitions"], layers=layers, start=begins)
    return AdversarialMDP(losses=losses, dynamics=world)


def episodes_of(problem: Problem) -> AdversarialMDP | None:
    """The problem where it is of this kind."""
    from thalweg.online import AdversarialMDP

    return problem if isinstance(problem, AdversarialMDP) else None


def told(problem: AdversarialMDP, result: Result) -> dict[str, object]:
    """Regret as episodes came, and that of the policy that takes all actions alike."""
    at, regret = problem.curve(array_of(result.x))
    world = problem.dynamics
    return {
        "curve": {"episodes": at, "regret": regret},
        "regret_of_uniform": _uniform(problem, result)["regret"],
        "sizes": {"layers": world.layers, "states": world.states, "actions": world.actions},
        "features": {"dimension": world.dimension, "rank": world.rank, "misfit": problem.misfit},
    }


def said(problem: AdversarialMDP, result: Result) -> Sequence[str]:
    """The same in words."""
    world, uniform = problem.dynamics, _uniform(problem, result)
    return [
        f"{problem.episodes} episodes of {world.layers} layers, {world.states} states, {world.actions} actions; "
        f"features of {world.dimension} dimensions, rank {world.rank}.",
        f"Regret {result.metrics['regret']:.4g} against the best fixed policy in hindsight; with all actions alike it "
        f"is {uniform['regret']:.4g}.",
    ]


def figures(problem: AdversarialMDP, result: Result) -> Sequence[Figure]:
    """Regret as episodes come, ours and that of all actions alike."""
    x = array_of(result.x)
    series = [
        Series.of("ours", *problem.curve(x)),
        Series.of("all actions alike", *problem.curve(_alike(problem, x))),
    ]
    return [
        Figure(
            "Regret as episodes come",
            "Against the best fixed policy of the episodes so far.",
            "episodes",
            "regret",
            series,
        )
    ]


def _uniform(problem: AdversarialMDP, result: Result) -> dict[str, float]:
    return problem.metrics(_alike(problem, array_of(result.x)))


def _alike(problem: AdversarialMDP, x: np.ndarray) -> np.ndarray:
    """The uniform policy in the episodes played."""
    import numpy as np

    return np.where(np.isnan(x), x, 1.0 / problem.dynamics.actions)
