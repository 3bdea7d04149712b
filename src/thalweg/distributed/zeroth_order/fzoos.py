"""FZooS: gradients of Gaussian-process surrogates, corrected for what the other clients' look like."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.core.validation import require, require_counts, require_positive
from thalweg.distributed.zeroth_order.rounds import Ask, Local, Message, ZerothOrder
from thalweg.distributed.zeroth_order.surrogate import Features, Surrogates
from thalweg.numerics.gaussian_process import Matern, Stationary

#: Lengthscales that are tried, over the root of the dimension.
LENGTHSCALES = tuple(float(v) for v in torch.logspace(-1.0, 1.0, 9).tolist())


@dataclass(frozen=True)
class FZooS(ZerothOrder):
    """``x -= lr (grad mu_i(x) + gamma_t (grad mu_server(x) - grad mu_i^rff(x)))``, mu_i a surrogate of all queries.

    Every client fits a Gaussian process to what it has queried and follows the gradient of its mean, with a query at
    each local point and a few near it where that gradient is least certain. Once a round it sends its surrogate as the
    weights of random Fourier features that all share; their average stands in for the others' functions at any x.

    Args:
        local_steps, lr, optimizer, faults: as of all methods.
        kernel: `Matern` 5/2 by default, or `RBF`.
        lengthscale: None (default) chooses, each round, the one of nine with the greatest likelihood at all clients,
            who send nine numbers for it.
        noise: variance, of values scaled to an interval of length one.
        gamma: of the correction; local step t takes ``gamma/(t + 1)``. Zero leaves clients alone.
        features: M.
        active: queries near x a local step, of ``candidates`` in a cube of half-width ``radius``.
        initial: random ones before the first step, where there is no surrogate yet.
        nearest: earlier points that a round's surrogate begins with, nearest to the server's x.
        history: points a client keeps.

    Messages are x, the weights, the likelihoods and the seed of the features: no values and no other points.

    A message with features of another seed than the broadcast's does not add up, and is rejected.

    Cost per local step and client: O(n^2) for a new point and each candidate, n being ``nearest`` and the round's own.

    Source: Shu, Lin, Dai and Low (2023), arXiv 2308.04077, algorithm 2.

    >>> from thalweg.distributed.zeroth_order import FZooS
    >>> from thalweg import Stop, solve
    >>> from thalweg.distributed.zeroth_order import quadratic
    >>> problem = quadratic(dim=20, clients=3, heterogeneity=1.0)
    >>> found = solve(problem, FZooS(), stop=Stop(steps=8))
    >>> found.metrics["objective"] < 0.1 * problem.metrics(problem.x0)["objective"]
    True
    """

    kernel: Stationary = field(default_factory=Matern)
    lengthscale: float | None = None
    noise: float = 1e-6
    gamma: float = 1.0
    features: int = 2000
    active: int = 5
    candidates: int = 100
    radius: float = 0.01
    initial: int = 10
    nearest: int = 150
    history: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "noise", *([] if self.lengthscale is None else ["lengthscale"]))
        require_positive(self, "gamma", zero=True)
        require_counts(self, "features", "initial", "nearest", "history")
        require_counts(self, "active", "candidates", least=0)
        require(
            0 <= self.active <= self.candidates,
            "FZooS needs 0 <= active <= candidates",
            got=(self.active, self.candidates),
        )
        require_positive(self, "radius")
        require(self.radius <= 1, "FZooS needs 0 < radius <= 1", got=self.radius)
        require(
            1 <= self.nearest <= self.history,
            "FZooS needs 1 <= nearest <= history",
            got=(self.nearest, self.history),
        )

    def first_broadcast(self, x0: Tensor, seed: int) -> Message:
        scale = torch.tensor(self.lengthscale or math.sqrt(len(x0)), dtype=x0.dtype)
        return {"x": x0.clone(), "lengthscale": scale, "features": torch.tensor(seed)}

    def first_memory(self, clients: int, d: int) -> Message:
        X = torch.empty(clients, 0, d, dtype=torch.float64)
        return {"X": X, "y": X[..., 0], "known": torch.empty(clients, 0, dtype=torch.bool)}

    def surrogates(self, broadcast: Message, memory: Message) -> Surrogates:
        """The clients' surrogates with the points they have that are nearest to the broadcast's x."""
        near = _nearest(memory, broadcast["x"], self.nearest)
        return Surrogates.fit(self.kernel, float(broadcast["lengthscale"]), self.noise, *near)

    def begin(self, ask: Ask, broadcast: Message, memory: Message) -> Local:
        return _Round(self, ask, broadcast, memory)

    def fits(self, broadcast: Message, message: Message) -> bool:
        return bool((message["features"] == broadcast["features"]).all())

    def combine(self, broadcast: Message, messages: Message, weights: Tensor) -> Message:
        new = {
            "w": weights @ messages["w"],
            "of": broadcast["lengthscale"],
            "features": broadcast["features"],
        }
        scale = broadcast["lengthscale"]
        if "likelihood" in messages:
            best = int((weights @ messages["likelihood"]).argmax())
            scale = torch.tensor(LENGTHSCALES[best] * math.sqrt(len(broadcast["x"])), dtype=torch.float64)
        return new | {"lengthscale": scale}


class _Round(Local):
    """A round of FZooS at some clients."""

    def __init__(self, method: FZooS, ask: Ask, broadcast: Message, memory: Message) -> None:
        self.method, self.ask, self.broadcast, self.memory = method, ask, broadcast, memory
        self.seed, d = int(broadcast["features"]), len(broadcast["x"])
        self.features = Features.of(method.kernel, method.features, d, self.seed)
        self.surrogates = method.surrogates(broadcast, memory)
        self.first = self.surrogates.X.shape[1]

    def _query(self, X: Tensor) -> None:
        X = X.clamp(0.0, 1.0)
        y = self.ask(X)
        known = torch.isfinite(y)
        self.surrogates = self.surrogates.append(X, torch.where(known, y, 0.0), known)

    def direction(self, x: Tensor, t: int) -> Tensor:
        method, d = self.method, x.shape[1]
        is_new = self.surrogates.X.shape[1] == 0
        self._query(x[:, None])
        if is_new:
            self._query(x[:, None] + method.radius * self.ask.uniform(method.initial, d))
        elif method.active:
            near = x[:, None] + method.radius * self.ask.uniform(method.candidates, d)
            near = near.clamp(0.0, 1.0)
            best = self.surrogates.uncertainty(near).topk(method.active, dim=1).indices
            self._query(near.take_along_dim(best[..., None], 1))
        g = self.surrogates.gradient(x)
        if "w" not in self.broadcast or "w" not in self.memory or method.gamma == 0.0:
            return g  # nothing to compare with: a first round, or a client that lost its memory
        of = float(self.broadcast["of"])
        theirs = self.features.gradient(x, self.broadcast["w"], of)
        return g + method.gamma / (t + 1) * (theirs - self.features.gradient(x, self.memory["w"], of))

    def finish(self, x: Tensor) -> tuple[Message, Message]:
        method, fitted = self.method, self.surrogates
        sent = {"w": fitted.summary(self.features), "features": torch.full((len(x),), self.seed)}
        if method.lengthscale is None:
            scales = math.sqrt(x.shape[1]) * torch.tensor(LENGTHSCALES, dtype=torch.float64)
            sent["likelihood"] = fitted.log_likelihoods(scales)
        new = {"X": fitted.X, "y": fitted.y, "known": fitted.known}
        kept = {k: torch.cat([self.memory[k], v[:, self.first :]], 1) for k, v in new.items()}
        return sent, {k: v[:, -method.history :] for k, v in kept.items()} | {"w": sent["w"]}


def _nearest(memory: Message, x: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The points kept that are nearest to x, at most so many, those without a value last."""
    X, y, known = memory["X"], memory["y"], memory["known"]
    if X.shape[1] > most:
        far = torch.where(known, (X - x).square().sum(-1), torch.inf)
        rows = far.topk(most, dim=1, largest=False).indices
        X = X.take_along_dim(rows[..., None], 1)
        y, known = y.take_along_dim(rows, 1), known.take_along_dim(rows, 1)
    return X, y, known
