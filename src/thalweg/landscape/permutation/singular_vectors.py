"""Why matching works: the leading singular vectors of the layers come to lie alike.

Ito, Yamada and Kumagai (2025), "Analysis of linear mode connectivity via permutation-based weight matching" (arXiv
2402.04051).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, require
from thalweg.landscape.permutation.weights import Network, weights_of


@dataclass(frozen=True, eq=False)
class Alignment:
    """How alike the singular vectors of two networks lie, by layer.

    Args:
        layers: names of weights.
        sums: of each layer, ``sum (u_i^a . u_j^b)(v_i^a . v_j^b)`` over kept pairs.
        kept: the number of vectors kept of each, the smaller of the two counts.
    """

    layers: tuple[str, ...]
    sums: NDArray[np.float64]
    kept: NDArray[np.int64]

    @property
    def total(self) -> float:
        """R: 1 for equal networks, about 0 for unrelated ones."""
        return float(self.sums.sum() / self.kept.sum())

    @property
    def by_layer(self) -> dict[str, float]:
        """R of each layer."""
        return dict(zip(self.layers, (self.sums / self.kept).tolist(), strict=True))


def alignment(a: Network, b: Network, threshold: float = 0.3) -> Alignment:
    """How alike the singular vectors of two networks lie that belong to values of a share of the layer's largest.

    Args:
        threshold: that share, gamma, in [0, 1]. Default 0.3, the paper's.

    Raises:
        InvalidProblem: other shapes, no weight of two or more axes.

    Cost: a singular value decomposition of each weight, with kernels flattened.

    >>> from torch import nn
    >>> net = nn.Linear(5, 4)
    >>> round(alignment(net, net).total, 6)
    1.0
    """
    require(is_real(threshold) and 0 <= threshold <= 1, "alignment needs 0 <= threshold <= 1", got=threshold)
    one, two = weights_of(a), weights_of(b)
    names, sums, kept = [], [], []
    for name, value in one.items():
        if value.ndim < 2 or not value.is_floating_point() or not bool(value.any()):
            continue
        if name not in two or two[name].shape != value.shape:
            raise InvalidProblem(
                f"alignment: the second network has no '{name}' of shape {tuple(value.shape)}."
            )
        (ua, va), (ub, vb) = (_leading(w[name], threshold) for w in (one, two))
        names.append(name)
        sums.append(float(((ua.T @ ub) * (va @ vb.T)).sum()))
        kept.append(min(ua.shape[1], ub.shape[1]))
    if not names:
        raise InvalidProblem("alignment: no weight of two or more axes.")
    return Alignment(tuple(names), np.array(sums), np.array(kept))


def _leading(weight: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Singular vectors of the values from a share of the largest on, of rank ones left out."""
    u, s, v = torch.linalg.svd(weight.double().flatten(1), full_matrices=False)
    keep = s >= max(threshold, 1e-12) * s[0] if bool(s[0] > 0) else s > 1
    return u[:, keep], v[keep]


def input_energy(weight: Tensor, inputs: Tensor, threshold: float = 0.3) -> float:
    """The share of inputs' squares, shape (n, inputs), in the span of a layer's leading right singular vectors."""
    _, v = _leading(weight, threshold)
    x = inputs.double()
    return float((x @ v.T).square().sum() / x.square().sum())
