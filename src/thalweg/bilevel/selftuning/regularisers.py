"""What hyper-parameters do to training: cutout, noise, weight decay, label smoothing, by the example."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from thalweg.bilevel.selftuning.network import SelfTuned

Values: TypeAlias = dict[str, Tensor]
#: ``augment(inputs, values, generator)``: the inputs of a training batch, changed.
Augment: TypeAlias = Callable[[Tensor, Values, torch.Generator], Tensor]
#: ``penalty(network, u, values)``: what each example's training loss is raised by, shape (batch,).
ExamplePenalty: TypeAlias = Callable[[SelfTuned, Tensor, Values], Tensor]


def weight_decay(name: str) -> ExamplePenalty:
    """``value |W(u)|^2`` over all matrices and kernels, exactly, at each example's own weights."""

    def penalty(network: SelfTuned, u: Tensor, values: Values) -> Tensor:
        return values[name].detach() * network.squared_norm(u)

    return penalty


def cutout(length: str, holes: str | None = None, most: int = 4) -> Augment:
    """Squares of zeros in images, at random places (DeVries and Taylor, 2017).

    Args:
        length: the hyper-parameter with the side, in pixels; may be an integer one.
        holes: the one with the number of squares; one square without.
        most: squares that are drawn at most.
    """

    def augment(x: Tensor, values: Values, generator: torch.Generator) -> Tensor:
        batch, _, high, wide = x.shape
        side = values[length].detach().round()
        number = values[holes].detach().round() if holes else torch.ones(batch)
        keep = torch.ones(batch, high, wide, dtype=torch.bool)
        rows, columns = torch.arange(high), torch.arange(wide)
        for k in range(most if holes else 1):
            top = torch.rand(batch, generator=generator) * high - side / 2.0
            left = torch.rand(batch, generator=generator) * wide - side / 2.0
            inside = ((rows >= top[:, None]) & (rows < (top + side)[:, None]))[:, :, None]
            inside = inside & ((columns >= left[:, None]) & (columns < (left + side)[:, None]))[:, None, :]
            keep &= ~(inside & (k < number)[:, None, None])
        return x * keep[:, None].to(x)

    return augment


def input_noise(name: str) -> Augment:
    """Gaussian noise of standard deviation ``value`` on the inputs."""

    def augment(x: Tensor, values: Values, generator: torch.Generator) -> Tensor:
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
        return x + noise * values[name].detach().reshape(-1, *[1] * (x.ndim - 1)).to(x)

    return augment


def cross_entropy_by_example(outputs: Tensor, targets: Tensor, values: Values | None = None) -> Tensor:
    """Cross-entropy of each example, shape (batch,); over time too where there is one."""
    losses = functional.cross_entropy(outputs.flatten(0, -2), targets.flatten(), reduction="none")
    return losses.reshape(len(outputs), -1).mean(1)


def label_smoothing(name: str) -> Callable[[Tensor, Tensor, Values | None], Tensor]:
    """Cross-entropy with a share ``value`` of the label spread over all classes; plain where there are no values."""

    def loss(outputs: Tensor, targets: Tensor, values: Values | None = None) -> Tensor:
        sharp = cross_entropy_by_example(outputs, targets)
        if values is None:
            return sharp
        even = -outputs.log_softmax(-1).mean(-1).reshape(len(outputs), -1).mean(1)
        share = values[name].detach()
        return (1.0 - share) * sharp + share * even

    return loss
