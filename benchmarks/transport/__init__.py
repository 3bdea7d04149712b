"""19: a step of the fit, and samples, against the plain formulation: points x components x dimensions, and autograd."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.race import Row, race
from thalweg.core.seeding import torch_generator
from thalweg.transport import Bridge
from thalweg.transport._parameters import Family

K, BATCH, STEPS, SAMPLED, EPS = 50, 128, 50, 5000, 1.0


class Plain:
    """The formulas as they are written, differentiated by autograd, with Adam."""

    def __init__(self, log_a: torch.Tensor, R: torch.Tensor, root: torch.Tensor) -> None:
        self.parameters = [p.clone().requires_grad_() for p in (log_a, R, root.log())]
        self.adam = torch.optim.Adam(self.parameters, lr=1e-3)

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        log_a, R, log_root = self.parameters
        S = (2 * log_root).exp()
        c = log_a + (S * x[:, None] ** 2 + 2 * R * x[:, None]).sum(2) / (2 * EPS)
        v = ((y[:, None] - R) ** 2 / (EPS * S) + (2 * math.pi * EPS * S).log()).sum(2) / -2
        return c.logsumexp(1).mean() - (log_a + v).logsumexp(1).mean()

    def step(self, x: torch.Tensor, y: torch.Tensor) -> float:
        self.adam.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.adam.step()
        return float(loss.detach())

    def sample(self, x: torch.Tensor) -> torch.Tensor:
        log_a, R, log_root = (p.detach() for p in self.parameters)
        S = (2 * log_root).exp()
        exponents = log_a + (S * x[:, None] ** 2 + 2 * R * x[:, None]).sum(2) / (2 * EPS)
        means = R + S * x[:, None]
        mixture = torch.distributions.MixtureSameFamily(
            torch.distributions.Categorical(logits=exponents),
            torch.distributions.Independent(torch.distributions.Normal(means, (EPS * S).sqrt()), 1),
        )
        return mixture.sample()


def ours(family: Family, start: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Any:
    """Steps with the gradient by hand."""
    mass = torch.full_like(x[:, 0], 1 / len(x))
    state = start.clone()
    first, second = torch.zeros_like(state), torch.zeros_like(state)
    for t in range(1, STEPS + 1):
        found = family.gradient(state, x, y, mass, mass)
        first = torch.lerp(first, found.gradient, 0.1)
        second = torch.lerp(second, found.gradient**2, 1e-3)
        state = state - 1e-3 * (first / (1 - 0.9**t)) / ((second / (1 - 0.999**t)).sqrt() + 1e-8)
    return found.loss


def rows() -> Iterator[Row]:
    """Fifty steps, and five thousand samples, in 2, 16 and 64 dimensions."""
    for D in (2, 16, 64):
        drawn = torch_generator(D)
        x, y, R = (torch.randn(n, D, generator=drawn, dtype=torch.float64) for n in (BATCH, BATCH, K))
        family, log_a = Family(EPS, D, False), torch.zeros(K, dtype=torch.float64)
        start = family.join(log_a, R, 0.0)

        def plain(
            x: torch.Tensor = x, y: torch.Tensor = y, log_a: torch.Tensor = log_a, R: torch.Tensor = R
        ) -> float:
            model = Plain(log_a, R, torch.ones_like(R))
            return [model.step(x, y) for _ in range(STEPS)][-1]

        (fast, loss), (slow, other) = race(
            lambda f=family, s=start, x=x, y=y: ours(f, s, x, y), plain, rounds=3
        )
        yield Row("19", f"{STEPS} steps, K {K}, D {D}", fast, "N x K x D, autograd", slow, loss, other)
        bridge, model = Bridge(EPS, log_a, R, torch.ones_like(R)), Plain(log_a, R, torch.ones_like(R))
        many = torch.randn(SAMPLED, D, generator=drawn, dtype=torch.float64)
        (fast, _), (slow, _) = race(
            lambda b=bridge, m=many, g=drawn: b.sample(m, g), lambda p=model, m=many: p.sample(m), rounds=3
        )
        yield Row("19", f"{SAMPLED} samples, K {K}, D {D}", fast, "torch's mixtures", slow)
