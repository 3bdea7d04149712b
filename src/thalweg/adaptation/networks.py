"""Small networks for data that bring none of their own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn


def perceptron(widths: Sequence[int]) -> nn.Module:
    """Linear layers of these widths, a ReLU after each: a backbone for tables.

    >>> import torch
    >>> perceptron((5, 8, 4))(torch.ones(2, 5)).shape
    torch.Size([2, 4])
    """
    layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*layers)


#: Channels of the convolutions, and the width of the features.
CHANNELS, FEATURES = (16, 32, 64), 64


def convolutional(channels: int) -> nn.Module:
    """Three convolutions with halvings, and 64 features: a backbone for small pictures, of 8 pixels a side or more.

    Weights: 40 000. Use a network that was trained before where pictures are photographs; this one sees strokes and
    patches.

    Args:
        channels: of the pictures.

    >>> import torch
    >>> convolutional(3)(torch.ones(2, 3, 32, 32)).shape
    torch.Size([2, 64])
    """
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise((channels, *CHANNELS)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * CHANNELS[-1], FEATURES), nn.ReLU()]
    return nn.Sequential(*layers, *head)
