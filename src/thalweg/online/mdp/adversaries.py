"""Who chooses the losses: the same always, switching, slowly turning, or drawn anew every so often.

They are oblivious: all losses are fixed before the first episode. All are linear in the features, by vectors of d
numbers in [0, 1] for each layer and episode, so that features need to be non-negative and to sum to at most one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.numerics.markov import ROUNDING
from thalweg.online.mdp.problem import Array, Dynamics


def fixed_losses(world: Dynamics, episodes: int, seed: int = 0) -> Array:
    """The same losses in each episode, shape (K, H, S, A).

    >>> from thalweg.online.mdp import random_linear_mdp
    >>> losses = fixed_losses(random_linear_mdp(), 10)
    >>> losses.shape, bool((losses[0] == losses[9]).all())
    ((10, 4, 12, 4), True)
    """
    return block_losses(world, episodes, blocks=1, seed=seed)


def switching_losses(world: Dynamics, episodes: int, at: Sequence[float] = (0.5,), seed: int = 0) -> Array:
    """Losses that become others at shares of all episodes, ``at``, in (0, 1) and rising.

    >>> from thalweg.online.mdp import random_linear_mdp
    >>> losses = switching_losses(random_linear_mdp(), 10, (0.4,))
    >>> bool((losses[3] == losses[0]).all()), bool((losses[4] == losses[0]).any())
    (True, False)
    """
    ends = [0.0, *at, 1.0]
    rising = all(is_real(a) for a in ends) and all(a < b for a, b in itertools.pairwise(ends))
    require(rising, "switching_losses needs rising shares in (0, 1)", got=at)
    _check(episodes)
    vectors = _vectors(world, len(ends) - 1, seed)
    which = np.searchsorted(np.asarray(at), np.arange(episodes) / episodes, side="right")
    return _losses(world, vectors[which])


def sinusoidal_losses(world: Dynamics, episodes: int, periods: float = 3.0, seed: int = 0) -> Array:
    """Losses that swing between two, ``periods`` times over all episodes.

    >>> from thalweg.online.mdp import random_linear_mdp
    >>> sinusoidal_losses(random_linear_mdp(), 10).max() <= 1
    np.True_
    """
    require(is_real(periods) and 0 < periods < np.inf, "sinusoidal_losses needs periods > 0", got=periods)
    _check(episodes)
    first, second = _vectors(world, 2, seed)
    share = 0.5 + 0.5 * np.sin(2.0 * np.pi * periods * np.arange(episodes) / episodes)
    share = share[:, None, None]
    return _losses(world, share * first + (1.0 - share) * second)


def block_losses(world: Dynamics, episodes: int, blocks: int = 10, seed: int = 0) -> Array:
    """Losses drawn anew for each of so many blocks of episodes.

    >>> from thalweg.online.mdp import random_linear_mdp
    >>> losses = block_losses(random_linear_mdp(), 10, blocks=5)
    >>> len({float(row[0, 0, 0]) for row in losses})
    5
    """
    require(is_whole(blocks) and blocks >= 1, "block_losses needs blocks >= 1", got=blocks)
    _check(episodes)
    return _losses(world, _vectors(world, blocks, seed)[np.arange(episodes) * blocks // episodes])


def _check(episodes: int) -> None:
    require(is_whole(episodes) and episodes >= 1, "Losses need episodes >= 1", got=episodes)


def _vectors(world: Dynamics, count: int, seed: int) -> Array:
    if (world.features < 0).any() or (world.features.sum(-1) > 1.0 + ROUNDING).any():
        raise InvalidProblem(
            "Losses are made for features that are not negative and sum to at most one, such as unit vectors or "
            "Dirichlet's; for others give losses of your own."
        )
    return generator(seed, 0xAD).random((count, world.layers, world.dimension))


def _losses(world: Dynamics, vectors: Array) -> Array:
    """``phi . vector`` for each episode and layer, (K, H, d) to (K, H, S, A)."""
    found = np.einsum("hsad,khd->khsa", world.features, vectors, optimize=True)
    return np.ascontiguousarray(np.clip(found, 0.0, 1.0))
