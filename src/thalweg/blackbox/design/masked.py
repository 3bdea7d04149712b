"""The default encoder: a small convolution that learns to tell hidden letters of the task's own sequences."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.blackbox.design.encoders import Encoder, Features
from thalweg.blackbox.design.space import Codes, SequenceSpace
from thalweg.core.seeding import generator, torch_generator
from thalweg.core.validation import is_real, is_whole, require

#: Features of all positions together, about: longer sequences have fewer channels.
FEATURES, FEWEST, MOST = 2048, 4, 32


class _Network(nn.Module):
    """Two convolutions; the last channel of the input says that a letter is hidden."""

    def __init__(self, letters: int, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(letters + 1, channels, width, padding="same")
        self.second = nn.Conv1d(channels, channels, width, padding="same")
        self.head = nn.Conv1d(channels, letters, 1)

    def hidden(self, x: Tensor) -> Tensor:
        """Shape (batch, channels, length)."""
        h: Tensor = self.second(functional.gelu(self.first(x)))
        return functional.gelu(h)


@dataclass(frozen=True)
class MaskedLetters(Encoder):
    """Features of a convolution trained to tell hidden letters from their neighbours, on the table's sequences alone.

    No weights are loaded, and no score is seen. D = channels x length: features stay by position.

    Args:
        channels: default 32, fewer for more than 64 letters, down to 4, so that D stays near 2048.
        width: letters that a convolution sees, odd, default 3.
        steps: of training, batches of 128, default 300; 0 leaves the weights as they are drawn.
        hidden: share of letters that are hidden, default 0.25.

    Cost: some ``10 steps x 128 length channels^2 width`` operations once, seconds for short sequences.
    """

    channels: int | None = None
    width: int = 3
    steps: int = 300
    hidden: float = 0.25

    def __post_init__(self) -> None:
        usable = self.channels is None or (is_whole(self.channels) and self.channels >= 1)
        require(usable, "MaskedLetters needs channels >= 1", got=self.channels)
        odd = is_whole(self.width) and self.width >= 1 and self.width % 2 == 1
        require(odd, "MaskedLetters needs an odd width", got=self.width)
        require(is_whole(self.steps) and self.steps >= 0, "MaskedLetters needs steps >= 0", got=self.steps)
        share = is_real(self.hidden) and 0 < self.hidden < 1
        require(share, "MaskedLetters needs 0 < hidden < 1", got=self.hidden)

    def fitted(self, space: SequenceSpace, codes: Codes, seed: int) -> Features:
        network = self.trained(space, codes, seed)

        def features(soft: Tensor) -> Tensor:
            x = functional.pad(soft.float(), (0, 1)).transpose(1, 2)
            return network.hidden(x).flatten(1)

        return features

    @torch.enable_grad()
    def trained(self, space: SequenceSpace, codes: Codes, seed: int) -> _Network:
        """The network, without gradients of its weights."""
        few = min(MOST, max(FEWEST, FEATURES // space.positions))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(generator(seed, 0x05, 2).integers(2**62)))
            network = _Network(space.letters, self.channels or few, self.width)
        drawn = torch_generator(seed, 0x05, 3)
        rows = torch.from_numpy(codes)
        adam = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(self.steps):
            batch = rows[torch.randint(len(rows), (min(128, len(rows)),), generator=drawn)]
            away = torch.rand(batch.shape, generator=drawn) < self.hidden
            away[:, 0] |= ~away.any(1)  # a row with nothing hidden would teach nothing
            x = functional.one_hot(batch, space.letters + 1).float()
            x[away] = functional.one_hot(torch.tensor(space.letters), space.letters + 1).float()
            logits = network.head(network.hidden(x.transpose(1, 2))).transpose(1, 2)
            loss = functional.cross_entropy(logits[away], batch[away])
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
        network.requires_grad_(False)
        return network
