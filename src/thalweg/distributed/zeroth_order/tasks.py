"""Black boxes to try methods on: synthetic functions, attacks on classifiers, metrics that have no gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator, torch_generator
from thalweg.core.validation import is_real, require
from thalweg.datasets import load
from thalweg.distributed.federated import by_class
from thalweg.distributed.zeroth_order.problem import FederatedBlackBox
from thalweg.numerics.tensor_checks import divisor

DOUBLE = torch.float64


def quadratic(
    dim: int = 300, clients: int = 5, heterogeneity: float = 1.0, seed: int = 0
) -> FederatedBlackBox:
    """``(a_i'z^2 + b_i'z + 1)/(10 d)``, z = 20 x - 10, with coefficients whose mean over the clients is one.

    Each coordinate's coefficients depart from one by ``heterogeneity`` times a Dirichlet(1/N) draw less 1/N, the
    paper's C. The mean has its least value ``(1 - d/4)/(10 d)`` at z = -1/2, whatever the heterogeneity.

    >>> round(quadratic(8).metrics(torch.full((8,), 9.5 / 20))["objective"], 6)
    -0.0125
    """
    a, b = (_coefficients(dim, clients, heterogeneity, seed, k) + 1.0 for k in (0, 1))

    def client(i: int) -> Callable[[Tensor], Tensor]:
        def f(x: Tensor) -> Tensor:
            z = 20.0 * x - 10.0
            return 0.1 / dim * ((z * z) @ a[i] + z @ b[i] + 1.0)

        return f

    return _federated(client, dim, clients, seed)


def ackley(dim: int = 300, clients: int = 5, heterogeneity: float = 1.0, seed: int = 0) -> FederatedBlackBox:
    """Ackley's function of ``c_i (z - m_i)``, z = 20 x - 10, c_i near 0.1 and centres m_i that differ."""
    scale, center = (_coefficients(dim, clients, heterogeneity, seed, k) for k in (0, 1))

    def client(i: int) -> Callable[[Tensor], Tensor]:
        def f(x: Tensor) -> Tensor:
            z = (0.1 + scale[i]) * (20.0 * x - 10.0 - center[i])
            far = torch.exp(-0.2 * z.square().mean(-1).sqrt())
            return 20.0 + math.e - 20.0 * far - torch.exp(torch.cos(math.pi * z).mean(-1))

        return f

    return _federated(client, dim, clients, seed)


def rosenbrock(
    dim: int = 300, clients: int = 5, heterogeneity: float = 1.0, seed: int = 0
) -> FederatedBlackBox:
    """Rosenbrock's function over d of ``z - m_i``, z = 4 x - 2, its valley elsewhere for each client."""
    shift = _coefficients(dim, clients, heterogeneity, seed, 0)

    def client(i: int) -> Callable[[Tensor], Tensor]:
        def f(x: Tensor) -> Tensor:
            z = 4.0 * x - 2.0 - shift[i]
            valley = 100.0 * (z[..., 1:] - z[..., :-1].square()).square() + (1.0 - z[..., :-1]).square()
            return valley.sum(-1) / dim

        return f

    return _federated(client, dim, clients, seed)


def _coefficients(dim: int, clients: int, heterogeneity: float, seed: int, which: int) -> Tensor:
    """Departures, shape (clients, dim), that sum to zero over the clients."""
    require(dim >= 1 and clients >= 1, "A task needs dim, clients >= 1", got=(dim, clients))
    fits = is_real(heterogeneity) and 0 <= heterogeneity < math.inf
    require(fits, "A task needs a finite heterogeneity >= 0", got=heterogeneity)
    drawn = generator(seed, which, 0x25).dirichlet([1.0 / clients] * clients, size=dim).T
    return torch.from_numpy(heterogeneity * (drawn - 1.0 / clients))


def _federated(
    client: Callable[[int], Callable[[Tensor], Tensor]], dim: int, clients: int, seed: int
) -> FederatedBlackBox:
    x0 = torch.rand(dim, generator=torch_generator(seed, 0x26), dtype=DOUBLE)
    return FederatedBlackBox([client(i) for i in range(clients)], x0)


def _classifiers(clients: int, classes: int, seed: int, hidden: int) -> tuple[nn.ModuleList, Tensor, Tensor]:
    """A small network for each client, trained on its own classes of the digits, and the images held back."""
    data = load("digits")
    X = torch.as_tensor(np.asarray(data.X), dtype=DOUBLE) / 16.0
    y = torch.as_tensor(np.asarray(data.y), dtype=torch.long)
    order = torch.from_numpy(generator(seed, 0x27).permutation(len(y)))
    train, test = order[: len(y) // 2], order[len(y) // 2 :]
    parts = by_class(y[train].numpy(), clients, classes, seed)
    networks = []
    for i, part in enumerate(parts):
        with torch.random.fork_rng():
            torch.manual_seed(1000 * seed + i)
            network = nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10)).to(DOUBLE)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        own = train[torch.from_numpy(part)]
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(X[own]), y[own]).backward()
            optimizer.step()
        networks.append(network.requires_grad_(False))
    return nn.ModuleList(networks), X[test], y[test]


def digits_attack(
    clients: int = 5, classes: int = 6, size: float = 0.4, seed: int = 0
) -> tuple[FederatedBlackBox, Callable[[Tensor], bool]]:
    """One perturbation of an image of a digit that misleads all clients' classifiers: a black-box attack, 64 numbers.

    Client i's function is the margin of its own network, trained on some classes: the score of the true label less the
    best other's. Below zero on average, the clients' mean score names another digit.

    Args:
        clients, classes: clients, and pieces of classes each is trained on; fewer are more heterogeneous.
        size: largest change of a pixel, of a range of one.
        seed: of the networks and the image, the first that most clients know.

    Returns:
        The problem, x in the cube being the change from ``-size`` to ``size``, and whether an x succeeds.
    """
    networks, X, y = _classifiers(clients, classes, seed, 32)
    scores = torch.stack([network(X) for network in networks])
    known = scores.mean(0).argmax(-1) == y
    if not bool(known.any()):
        raise InvalidProblem("digits_attack: no image is recognised. Give clients more classes.")
    pick = int(known.nonzero()[0])
    image, label = X[pick], int(y[pick])

    def moved(x: Tensor) -> Tensor:
        return (image + size * (2.0 * x - 1.0)).clamp(0.0, 1.0)

    def margin(score: Tensor) -> Tensor:
        others = torch.cat([score[..., :label], score[..., label + 1 :]], -1)
        return score[..., label] - others.amax(-1)

    def client(i: int) -> Callable[[Tensor], Tensor]:
        return lambda x: margin(networks[i](moved(x)))

    def succeeds(x: Tensor) -> bool:
        return int(torch.stack([network(moved(x)) for network in networks]).mean(0).argmax()) != label

    problem = FederatedBlackBox([client(i) for i in range(clients)], torch.full((64,), 0.5, dtype=DOUBLE))
    return problem, succeeds


Metric = Literal["precision", "recall", "f1", "jaccard"]


def metric_of_network(
    metric: Metric = "f1", clients: int = 5, classes: int = 6, hidden: int = 12, seed: int = 0
) -> FederatedBlackBox:
    """Tune a network's last layer for a metric that has no gradient: one minus its mean over the classes present.

    x holds the changes, from -1 to 1, of the 10 (hidden + 1) numbers of the last layer of a network, which was
    disturbed; client i's examples are digits of some classes.
    """
    require(metric in ("precision", "recall", "f1", "jaccard"), "No such metric", got=metric)
    networks, X, y = _classifiers(1, 10, seed, hidden)
    body, head = networks[0][0], networks[0][2]  # type: ignore[index]
    inner = torch.tanh(body(X))
    parts = by_class(y.numpy(), clients, classes, seed)
    random = torch_generator(seed, 0x28)
    weight = head.weight + 0.5 * torch.randn(head.weight.shape, generator=random, dtype=DOUBLE)
    split = head.weight.numel()

    def client(i: int) -> Callable[[Tensor], Tensor]:
        own = torch.from_numpy(parts[i])

        def f(x: Tensor) -> Tensor:
            change = 2.0 * x - 1.0
            W = weight + change[:, :split].view(-1, *head.weight.shape)
            scores = torch.einsum("eh,mkh->mek", inner[own], W) + (head.bias + change[:, split:])[:, None]
            return 1.0 - macro(metric, scores.argmax(-1), y[own])

        return f

    x0 = torch.full((split + 10,), 0.5, dtype=DOUBLE)
    return FederatedBlackBox([client(i) for i in range(clients)], x0)


def macro(metric: Metric, predicted: Tensor, y: Tensor) -> Tensor:
    """A metric's mean over the classes that are predicted or present, predicted of shape (m, examples): shape (m,)."""
    truth = nn.functional.one_hot(y, 10).to(DOUBLE)
    guess = nn.functional.one_hot(predicted, 10).to(DOUBLE)
    hit, guessed, there = torch.einsum("mek,ek->mk", guess, truth), guess.sum(1), truth.sum(0)
    over = {
        "precision": guessed,
        "recall": there.expand_as(hit),
        "f1": 0.5 * (guessed + there),
        "jaccard": guessed + there - hit,
    }[metric]
    present = (guessed + there) > 0
    share = torch.where(over > 0, hit / divisor(over), 0.0)
    return (share * present).sum(-1) / present.sum(-1)
