"""Rows out of a network's outputs: one an example, or one a pixel where there is a class at each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from thalweg.core import InvalidProblem


def rows_of(
    features: Tensor, logits: Tensor, labels: Tensor | None, most: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features (n, d), logits (n, K) and labels (n,).

    Args:
        features: (n, d), or (n, d, height, width), averaged over places where logits are per example.
        logits: (n, K), or (n, K, height, width).
        labels: (n,), or (n, height, width), by nearest pixels where their size is another; those < 0 are left out.
        most: pixels kept, drawn by torch's global generator.

    Raises:
        InvalidProblem: other shapes; no labelled pixel.

    >>> z, p, y = rows_of(torch.ones(2, 5, 4, 4), torch.ones(2, 3, 4, 4), torch.zeros(2, 4, 4).long(), 10)
    >>> tuple(z.shape), tuple(p.shape), tuple(y.shape)
    ((10, 5), (10, 3), (10,))
    """
    if logits.ndim == 2:
        z = features if features.ndim == 2 else features.flatten(2).mean(2)
        if labels is not None and labels.shape != (len(logits),):
            raise InvalidProblem(
                f"Labels have shape {tuple(labels.shape)}; expected ({len(logits)},), one a row."
            )
        return z, logits, None if labels is None else labels.long()
    if logits.ndim != 4 or features.ndim != 4:
        raise InvalidProblem(
            f"Features have shape {tuple(features.shape)} and logits {tuple(logits.shape)}; expected rows, or both "
            "with height and width."
        )
    size = logits.shape[2:]
    z = features if features.shape[2:] == size else functional.interpolate(features, size=size)
    z, p = (t.movedim(1, -1).reshape(-1, t.shape[1]) for t in (z, logits))
    if labels is None:
        chosen = torch.arange(len(p), device=p.device)
    else:
        if labels.shape[1:] != size:
            labels = functional.interpolate(labels[:, None].double(), size=size)[:, 0].long()
        labels = labels.reshape(-1).long()
        chosen = torch.nonzero(labels >= 0)[:, 0]
        if not len(chosen):
            raise InvalidProblem("No pixel of the source batch has a label >= 0.")
    if len(chosen) > most:
        chosen = chosen[torch.randperm(len(chosen))[:most].to(chosen.device)]
    return z[chosen], p[chosen], None if labels is None else labels[chosen]


def check_labels(labels: Tensor, classes: int, pixelwise: bool = False) -> None:
    """Refuse labels outside 0 to K - 1; where there is one a pixel, -1 stands for none.

    >>> check_labels(torch.tensor([0, 2]), 3)
    """
    low, high = int(labels.min()), int(labels.max())
    if high >= classes or low < (-1 if pixelwise else 0):
        raise InvalidProblem(
            f"Source labels run from {low} to {high}; the head has {classes} classes, 0 to {classes - 1}."
        )
