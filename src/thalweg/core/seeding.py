"""Random streams: one integer seed makes a whole run repeatable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def generator(*seed: int) -> np.random.Generator:
    """NumPy generator of the stream named by ``seed``; several integers name a stream of a stream.

    >>> bool(generator(0, 7).random() == generator(0, 7).random())
    True
    """
    return np.random.default_rng(seed)


def torch_generator(*seed: int, device: str = "cpu") -> torch.Generator:
    """Torch generator of the stream named by ``seed``, on ``device``."""
    import torch

    words = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    return torch.Generator(device=device).manual_seed(int(words[0] >> np.uint64(1)))
