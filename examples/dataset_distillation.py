"""Ten images that a classifier can be trained on instead of a thousand: dataset distillation.

The images are the outer variable; the inner problem fits logistic regression to them. Wang et al. (2018); Blondel et
al. (2022), section 4.2. Run it: python examples/dataset_distillation.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from thalweg.bilevel import scipy_minimize
from thalweg.datasets import load
from thalweg.numerics.torch_krylov import LinearSolver


def main(steps: int = 60) -> tuple[float, float]:
    data = load("digits")
    X, y = torch.tensor(data.X / 16.0), torch.tensor(data.y, dtype=torch.int64)
    X_train, y_train, X_test, y_test = X[:1000], y[:1000], X[1000:], y[1000:]
    one_of_each = torch.arange(10)

    def fitted_to(W: Tensor, images: Tensor) -> Tensor:
        return functional.cross_entropy(images @ W, one_of_each) + 1e-2 * W.square().sum()

    fit = scipy_minimize(fitted_to, method="L-BFGS-B", tol=1e-8, solve=LinearSolver("cg", tol=1e-6))

    def loss(images: Tensor) -> Tensor:
        return functional.cross_entropy(X_train @ fit(torch.zeros(64, 10).double(), images), y_train)

    def accuracy(images: Tensor) -> float:
        W = fit(torch.zeros(64, 10).double(), images)
        return float(((X_test @ W).argmax(1) == y_test).double().mean())

    examples = torch.stack([X_train[y_train == k][0] for k in range(10)])
    images = examples.clone().requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(images).backward()
        optimizer.step()
    before, after = accuracy(examples), accuracy(images.detach())
    print(f"test accuracy from ten images: {before:.3f} with the first of each digit, {after:.3f} distilled")
    for digit in (0, 1):
        for row in images[digit].detach().reshape(8, 8):
            print("".join(" .:-=+*#%@"[int(v.clamp(0, 0.99) * 10)] for v in row))
    return before, after


if __name__ == "__main__":
    main()
