"""A quadratic bilevel problem whose solution, response and objective are known, exactly and with noise."""

from __future__ import annotations

import torch

from thalweg.bilevel import Bilevel

DOUBLE = torch.float64
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=DOUBLE)


A = normal(5, 5)
H, B, C = A @ A.T / 5 + torch.eye(5, dtype=DOUBLE), normal(5, 3), normal(5)
CURVATURE = float(torch.linalg.eigvalsh(H)[-1])
RESPONSE = torch.linalg.solve(H, B)  # y*(x) = RESPONSE x
SOLUTION = torch.linalg.solve(RESPONSE.T @ RESPONSE + torch.eye(3, dtype=DOUBLE), RESPONSE.T @ C)
SILENCE = torch.zeros(8, dtype=DOUBLE)
ZERO = torch.zeros(1, dtype=DOUBLE)


def upper(x, y):
    return 0.5 * (y - C).square().sum() + 0.5 * x.square().sum()


def lower(x, y):
    return 0.5 * y @ H @ y - y @ (B @ x)


def objective(x):
    return upper(x, RESPONSE @ x)


def distance(found):
    return float(torch.linalg.vector_norm(found.x.x - SOLUTION))


def quadratic(**options):
    return Bilevel(upper, lower, torch.zeros(3, dtype=DOUBLE), torch.zeros(5, dtype=DOUBLE), **options)


class Noise:
    """Batches that add noise to both gradients."""

    whole = None

    def __init__(self, size, scale):
        self.size, self.scale = size, scale

    def __call__(self, generator):
        return self.scale * torch.randn(self.size, generator=generator, dtype=DOUBLE)


def noisy(scale):
    def with_noise(f):
        return lambda x, y, e=SILENCE: f(x, y) + e @ torch.cat([x, y])

    return Bilevel(
        with_noise(upper),
        with_noise(lower),
        torch.zeros(3, dtype=DOUBLE),
        torch.zeros(5, dtype=DOUBLE),
        upper_batches=Noise(8, scale),
        lower_batches=Noise(8, scale),
    )
