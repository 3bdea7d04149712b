"""Random streams: one integer seed makes a whole run repeatable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from thalweg.core.errors import InvalidParameter
from thalweg.core.validation import is_whole

if TYPE_CHECKING:
    import torch


def generator(*seed: int) -> np.random.Generator:
    """NumPy generator of the stream named by ``seed``; several integers name a stream of a stream.

    Streams of different names differ, a trailing zero included.

    >>> bool(generator(0, 7).random() == generator(0, 7).random())
    True
    >>> bool(generator(5).random() == generator(5, 0).random())
    False
    """
    return np.random.default_rng(_sequence(seed))


def torch_generator(*seed: int, device: str = "cpu") -> torch.Generator:
    """Torch generator of the stream named by ``seed``, on ``device``."""
    import torch

    words = _sequence(seed).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(words[0] >> np.uint64(1)))


def _sequence(seed: tuple[int, ...]) -> np.random.SeedSequence:
    if not (seed and all(is_whole(part) and part >= 0 for part in seed)):
        raise InvalidParameter(f"A seed is one or more integers >= 0; got {seed}.")
    # Entropy alone would be padded with zeros, and integers cut into words: (5,) and (5, 0) would be one stream.
    return np.random.SeedSequence(seed[0], spawn_key=seed[1:])
