"""32: losses along a segment against loss-landscapes and a bare loop; the largest eigenvalue against PyHessian."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from loss_landscapes import linear_interpolation
from loss_landscapes.metrics import Loss
from pyhessian import hessian as PyHessian  # noqa: N812 -- a class in small letters
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.race import Row, race
from thalweg.datasets import load
from thalweg.landscape import LossSurface, interpolate, top_eigenvalues

POINTS = 101


def network(width: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def bare(a: nn.Module, b: nn.Module, X: torch.Tensor, y: torch.Tensor) -> list[float]:
    """The loop that one would write: weights mixed into one network, its loss taken."""
    own, ends = copy.deepcopy(a), list(zip(a.parameters(), b.parameters(), strict=True))
    found = []
    with torch.no_grad():
        for t in np.linspace(0.0, 1.0, POINTS):
            for p, (v, w) in zip(own.parameters(), ends, strict=True):
                p.copy_((1 - t) * v + t * w)
            found.append(float(cross_entropy(own(X), y)))
    return found


def rows() -> Iterator[Row]:
    """Segments of 101 points on small and on all data; then the top of a Hessian, by products."""
    data = load("digits")
    X = torch.tensor(np.asarray(data.X) / 16.0, dtype=torch.float32)
    y = torch.tensor(np.asarray(data.y)).long()
    for width, count in ((24, 128), (64, 128), (24, 1300), (64, 1300), (256, 1300)):
        a, b = network(width, 0), network(width, 1)
        some = X[:count], y[:count]
        surface = LossSurface(a, some)
        metric = Loss(nn.CrossEntropyLoss(), *some)
        (ours, line), (loop, _), (peer, found) = race(
            lambda surface=surface, a=a, b=b: interpolate(surface, a, b, POINTS),
            lambda a=a, b=b, some=some: bare(a, b, *some),
            lambda a=a, b=b, metric=metric: linear_interpolation(a, b, metric, POINTS, deepcopy_model=True),
            rounds=3,
        )
        yield Row("32", f"{POINTS} points, width {width}, {count} rows", ours, "a bare loop", loop)
        difference = float(abs(line.values[0] - found[0]))
        yield Row(
            "32", f"{POINTS} points, width {width}, {count} rows", ours, "loss-landscapes", peer, difference
        )
    for width in (24, 64):
        net, some = trained(width, X[:1300], y[:1300]), (X[:1300], y[:1300])
        surface = LossSurface(net, some)

        def power(net: nn.Module = net, some: tuple[torch.Tensor, torch.Tensor] = some) -> float:
            found = PyHessian(copy.deepcopy(net), nn.CrossEntropyLoss(), data=some, cuda=False)
            return float(found.eigenvalues(maxIter=200, tol=1e-3, top_n=1)[0][0])

        exact = float(top_eigenvalues(surface, net, tol=1e-7).values[0])
        (ours, pairs), (peer, value) = race(lambda s=surface, n=net: top_eigenvalues(s, n), power, rounds=2)
        errors = abs(float(pairs.values[0]) / exact - 1.0), abs(value / exact - 1.0)
        yield Row(
            "32",
            f"largest eigenvalue, width {width}, {pairs.products} products",
            ours,
            "PyHessian",
            peer,
            *errors,
        )


def trained(width: int, X: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """A network after 200 steps of Adam."""
    net = network(width, 0)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        cross_entropy(net(X), y).backward()
        optimizer.step()
    return net
