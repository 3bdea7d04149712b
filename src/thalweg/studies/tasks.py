"""Real training tasks small enough for two cores: handwritten digits, and Python's own documentation."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.datasets import load, load_text
from thalweg.training import TrainingTask


def digits_cnn() -> nn.Module:
    """Two convolutions and a linear layer for 8 x 8 images; 6 000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )


def digits_mlp() -> nn.Module:
    """One hidden layer of 64 units."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def digits_mlp_bn() -> nn.Module:
    """The same with batch normalisation, without which large rates kill it."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
    )


def digits_bn() -> nn.Module:
    """The convolutions with batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 16, 10),
    )


class _ResidualBlock(nn.Module):
    def __init__(self, inside: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        same = stride == 1 and inside == out
        self.shortcut = nn.Identity() if same else nn.Conv2d(inside, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.second(functional.relu(self.norm1(self.first(x)))))
        return functional.relu(inner + self.shortcut(x))


def digits_resnet() -> nn.Module:
    """A small residual network on the digits enlarged to 32 x 32: three stages of one block, 77 000 parameters."""
    return nn.Sequential(
        nn.Upsample(size=(32, 32), mode="bilinear"),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        _ResidualBlock(16, 16, 1),
        _ResidualBlock(16, 32, 2),
        _ResidualBlock(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


@functools.cache
def _digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    data = load("digits")
    X = torch.tensor(data.X, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16.0
    y = torch.tensor(data.y, dtype=torch.int64)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    X, y = X[order], y[order]
    return (X[:1300], y[:1300]), (X[1300:], y[1300:])


NETWORKS = {
    "cnn": digits_cnn,
    "cnn-bn": digits_bn,
    "mlp": digits_mlp,
    "mlp-bn": digits_mlp_bn,
    "resnet": digits_resnet,
}


def digits(steps: int, batch_size: int = 32, *, network: str = "cnn", tuning: bool = False) -> TrainingTask:
    """Classify scikit-learn's digits; 1300 to train on, 497 to judge by.

    For ``tuning`` the 1300 alone: 900 to train on, 400 to choose settings by; the 497 are not seen.
    """
    train, test = _digits()
    if tuning:
        (X, y) = train
        train, test = (X[:900], y[:900]), (X[900:], y[900:])
    return TrainingTask(NETWORKS[network], train, test, steps=steps, batch_size=batch_size)


class CharTransformer(nn.Module):
    """A decoder-only transformer over characters.

    Args:
        alphabet: number of characters.
        length: longest context.
        width, heads, layers: size of the network.
    """

    def __init__(self, alphabet: int, length: int, width: int = 32, heads: int = 2, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(alphabet, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, alphabet)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits of the next character, shape (batch, length, alphabet), of codes, shape (batch, length)."""
        x = self.embedding(codes) + self.position[: codes.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.mix(self.norm1(x)).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        out: Tensor = x + self.narrow(functional.gelu(self.wide(self.norm2(x))))
        return out


@functools.cache
def _text(length: int, characters: int) -> tuple[int, Tensor]:
    corpus = load_text(characters=characters)
    windows = torch.tensor(corpus.windows(length), dtype=torch.int64)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0))
    return len(corpus.alphabet), windows[order]


def text(
    steps: int,
    batch_size: int = 8,
    *,
    length: int = 32,
    width: int = 32,
    layers: int = 1,
    tuning: bool = False,
) -> TrainingTask:
    """Predict the next character of the language reference behind Python's ``help()``; 400 windows to judge by.

    For ``tuning`` another 400 windows take their place, and the first are not seen.
    """
    alphabet, windows = _text(length, 200_000)
    if tuning:
        windows = windows[400:]
    held_out, train = windows[:400], windows[400:]
    return TrainingTask(
        lambda: CharTransformer(alphabet, length, width, layers=layers),
        (train[:, :-1], train[:, 1:]),
        (held_out[:, :-1], held_out[:, 1:]),
        steps=steps,
        batch_size=batch_size,
    )
