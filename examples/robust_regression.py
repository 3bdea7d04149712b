"""Regression whose worst examples count, as a game between the weights and an adversary; the residual certifies it.

Run it: ``python examples/robust_regression.py``. It prints the mean loss over the worst 30 % of the examples for
the game's weights and for those of least squares, and the certificate.
"""

import math

import torch

from thalweg import Stop, solve
from thalweg.datasets import load
from thalweg.equilibrium import Extragradient, robust_regression


def main(examples: int = 200, tolerance: float = 1e-3) -> tuple[float, float, float]:
    """Mean of the worst losses: the game's weights, least squares; and the residual that certifies the first."""
    data = load("diabetes")
    X = torch.tensor(data.X[:examples], dtype=torch.float64)
    X = torch.cat([(X - X.mean(0)) / X.std(0), torch.ones(len(X), 1, dtype=torch.float64)], 1)
    y = torch.tensor(data.y[:examples], dtype=torch.float64)
    y = (y - y.mean()) / y.std()
    game = robust_regression(X, y)
    found = solve(game, Extragradient(), stop=Stop(below={"residual": tolerance}, steps=40_000))
    weights = found.x[: X.shape[1]]
    plain = torch.linalg.lstsq(X, y[:, None]).solution[:, 0]
    share = math.ceil(0.3 * examples)
    losses = (((X @ w - y).square() / 2).sort(descending=True).values[:share] for w in (weights, plain))
    worst, usual = (float(values.mean()) for values in losses)
    print(f"{found.status.value}, residual {found.metrics['residual']:.2g} (zero at an equilibrium)")
    return worst, usual, found.metrics["residual"]


if __name__ == "__main__":
    print("worst 30 %, robust and least squares; certificate:", *(f"{v:.3g}" for v in main()))
