"""Worlds to play in: tables, random linear MDPs, locks, grids, Gymnasium's, and what a simulator's counts say."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, is_whole, require
from thalweg.numerics.markov import square_moves
from thalweg.online.mdp.problem import Array, Dynamics

#: ``simulate(layer, state, action, draws, rng)`` -> next states, shape (draws,).
Simulator = Callable[[int, int, int, int, np.random.Generator], ArrayLike]


def tabular(transitions: ArrayLike, *, layers: int | None = None, start: int | ArrayLike = 0) -> Dynamics:
    """A unit vector for each state and action: all values are linear in these features, and d = S A.

    Args:
        transitions, layers, start: as `Dynamics`.

    >>> tabular(np.full((2, 3, 2), 0.5), layers=4).dimension
    6
    """
    moves = as_real("transitions", transitions)
    if moves.ndim not in (3, 4) or moves.size == 0:
        raise InvalidProblem(f"transitions has shape {moves.shape}; expected (S, A, S) or (H, S, A, S).")
    states, actions = moves.shape[-3:-1]
    pairs = states * actions
    return Dynamics(np.eye(pairs).reshape(states, actions, pairs), moves, layers=layers, start=start)


def random_linear_mdp(
    states: int = 12, actions: int = 4, dimension: int = 4, layers: int = 4, seed: int = 0
) -> Dynamics:
    """Features drawn from a Dirichlet(0.3), and next states from a mixture of d distributions by their weights.

    >>> world = random_linear_mdp(seed=0)
    >>> (world.states, world.actions, world.dimension, world.layers)
    (12, 4, 4, 4)
    """
    _check_sizes(states=states, actions=actions, dimension=dimension, layers=layers)
    rng = generator(seed, 0x3D)
    features = rng.dirichlet(np.full(dimension, 0.3), (states, actions))
    mixed = rng.dirichlet(np.ones(states), dimension)
    moves = features @ mixed
    return Dynamics(features, moves / moves.sum(-1, keepdims=True), layers=layers)


def lock(layers: int = 5, actions: int = 3, seed: int = 0) -> Dynamics:
    """A combination lock: state 0 is on the track, 1 off it; one action of each layer keeps on it, the others leave.

    There is no way back. `lock_losses` are what makes it hard.

    >>> lock().states
    2
    """
    _check_sizes(layers=layers, actions=actions)
    moves = np.zeros((layers, 2, actions, 2))
    moves[..., 1] = 1.0
    code = combination(layers, actions, seed)
    moves[np.arange(layers), 0, code] = [1.0, 0.0]
    return tabular(moves)


def combination(layers: int, actions: int, seed: int = 0) -> NDArray[np.int64]:
    """The actions that open `lock`, shape (H,)."""
    return generator(seed, 0x10C).integers(actions, size=layers)


def lock_losses(episodes: int, layers: int = 5, actions: int = 3, seed: int = 0, lure: float = 0.05) -> Array:
    """Losses of `lock`, shape (K, H, 2, A): 1 at the end but for who has the whole combination, 0 for them.

    Args:
        lure: what each right action before the last costs: who learns from small losses alone leaves the track.

    >>> lock_losses(10).shape
    (10, 5, 2, 3)
    """
    _check_sizes(episodes=episodes, layers=layers, actions=actions)
    require(0 <= lure <= 1, "lock_losses needs lure in [0, 1]", got=lure)
    code = combination(layers, actions, seed)
    losses = np.zeros((layers, 2, actions))
    losses[np.arange(layers), 0, code] = lure
    losses[-1] = 1.0
    losses[-1, 0, code[-1]] = 0.0
    return np.broadcast_to(losses, (episodes, *losses.shape)).copy()


def grid(side: int = 5, layers: int = 8, slip: float = 0.1) -> Dynamics:
    """A square of ``side`` x ``side`` states, from a corner: north, east, south, west; walls stop.

    Args:
        slip: the chance that a step goes in a direction drawn anew.

    >>> grid(3, slip=0.0).transitions[0, 0].argmax(-1)  # from the north-western corner
    array([0, 1, 3, 0])
    """
    _check_sizes(side=side, layers=layers)
    require(0 <= slip <= 1, "grid needs 0 <= slip <= 1", got=slip)
    return tabular(square_moves(side, slip), layers=layers)


def measured_dynamics(
    features: ArrayLike,
    simulate: Simulator,
    layers: int,
    *,
    draws: int = 1000,
    start: int | ArrayLike = 0,
    seed: int = 0,
) -> Dynamics:
    """Dynamics whose transitions are the counts of a simulator's draws, for every layer, state and action.

    It is asked in two passes. Where their counts differ by more than chance, the simulator changes as it is used, and
    no method here is meant for it.

    Args:
        features: shape (S, A, d) or (H, S, A, d).
        simulate: ``simulate(layer, state, action, draws, rng)`` returns next states, shape (draws,), numbers below S.
        layers: H.
        draws: for each; a chance is off by about ``1/sqrt(draws)`` at most. Default 1000.
        start: a state, or chances.
        seed: names the stream that ``simulate`` is handed.

    Raises:
        InvalidProblem: next states of another shape or that are none, a simulator that changes.

    >>> stays = lambda layer, state, action, draws, rng: np.full(draws, state)
    >>> measured_dynamics(np.eye(2)[:, None], stays, 3, draws=10).transitions[0, :, 0]
    array([[1., 0.],
           [0., 1.]])
    """
    phi = as_real("features", features)
    if phi.ndim not in (3, 4):
        raise InvalidProblem(f"features has shape {phi.shape}; expected (S, A, d) or (H, S, A, d).")
    _check_sizes(layers=layers, draws=draws)
    states, actions = phi.shape[-3:-1]
    rng = generator(seed, 0x51)
    halves: list[Array] = []
    for part in range(2):
        count = np.zeros((layers, states, actions, states))
        size = draws - draws // 2 if part == 0 else draws // 2
        for h, s, a in np.ndindex(layers, states, actions):
            if size:
                count[h, s, a] = np.bincount(_next(simulate, h, s, a, size, states, rng), minlength=states)
        halves.append(count)
    first, second = halves
    if draws >= 2:
        _check_alike(first, second)
    return Dynamics(phi, (first + second) / draws, layers=layers, start=start)


def _check_alike(first: Array, second: Array) -> None:
    """The chi-square test that two tables of counts, (H, S, A, S), are of the same chances, over all rows at once."""
    n, m = first.sum(-1, keepdims=True), second.sum(-1, keepdims=True)
    seen = first + second > 0
    apart = (first * np.sqrt(m / n) - second * np.sqrt(n / m)) ** 2
    statistic = float((apart[seen] / (first + second)[seen]).sum())
    freedom = int(seen.sum()) - n.size
    if freedom and chi2.sf(statistic, freedom) < 1e-9:
        raise InvalidProblem(
            f"The simulator's next states change as it is used: chi-square {statistic:.4g} with {freedom} degrees of "
            "freedom between two passes. Transitions must be the same in all episodes."
        )


def _next(
    simulate: Simulator, h: int, s: int, a: int, draws: int, states: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    found = np.asarray(simulate(h, s, a, draws, rng))
    if found.shape != (draws,) or found.dtype.kind not in "iu":
        raise InvalidProblem(
            f"The simulator gave next states of shape {found.shape} of {found.dtype} at layer {h}, state {s}, "
            f"action {a}; expected ({draws},) whole numbers."
        )
    if (found < 0).any() or (found >= states).any():
        raise InvalidProblem(
            f"The simulator gave the next state {int(found[(found < 0) | (found >= states)][0])} at layer {h}, "
            f"state {s}, action {a}; expected states in 0 .. {states - 1}."
        )
    return found.astype(np.int64)


def _check_sizes(**sizes: int) -> None:
    for name, value in sizes.items():
        require(is_whole(value) and value >= 1, f"{name} is a whole number >= 1", got=value)
