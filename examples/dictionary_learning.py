"""A dictionary learned for its task: sparse codes that tell malignant from benign, against codes that only reconstruct.

Mairal, Bach and Ponce (2012); Blondel et al. (2022), section 4.3, on scikit-learn's breast_cancer.
Run it: python examples/dictionary_learning.py
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.decomposition import DictionaryLearning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from thalweg import Stop
from thalweg.bilevel import ProximalGradient, differentiable
from thalweg.datasets import load
from thalweg.numerics import prox
from thalweg.numerics.torch_krylov import LinearSolver

ATOMS, L1, L2 = 4, 0.5, 0.5


def main(steps: int = 60, seeds: tuple[int, ...] = (0, 1, 2)) -> tuple[float, float]:
    data = load("breast_cancer")
    X = torch.tensor((data.X - data.X.mean(0)) / data.X.std(0))
    y = torch.tensor(data.y, dtype=torch.float64)

    def reconstruction(codes: Tensor, theta: tuple[Tensor, Tensor]) -> Tensor:
        inputs, dictionary = theta
        return 0.5 * (inputs - codes @ dictionary).square().sum()

    code = differentiable(
        ProximalGradient(),
        reconstruction,
        lambda codes, _, scale: prox.elastic_net(codes, L1, L2, scale),
        stop=Stop(below={"residual": 1e-6}, steps=500),
        linear=LinearSolver("normal-cg", tol=1e-6),
    )
    scores = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(X))
        train, test = order[:100], order[100:]
        made = DictionaryLearning(ATOMS, alpha=L1, max_iter=50, fit_algorithm="cd", random_state=seed).fit(
            X[train].numpy()
        )
        D = torch.tensor(made.components_)
        start = torch.zeros(len(train), ATOMS, dtype=torch.float64)

        def codes_of(rows: np.ndarray, D: Tensor) -> Tensor:
            return code(torch.zeros(len(rows), ATOMS, dtype=torch.float64), (X[rows], D))

        before = LogisticRegression(C=10.0).fit(codes_of(train, D).numpy(), y[train].numpy())
        unsupervised = roc_auc_score(y[test], before.decision_function(codes_of(test, D).numpy()))
        D.requires_grad_()
        w = torch.tensor(before.coef_[0], requires_grad=True)
        b = torch.tensor(before.intercept_[0], requires_grad=True)
        optimizer = torch.optim.Adam([D, w, b], lr=0.02)
        for _ in range(steps):
            logits = code(start, (X[train], D)) @ w + b
            loss = functional.binary_cross_entropy_with_logits(logits, y[train]) + 1e-3 * w.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            task_driven = roc_auc_score(y[test], (codes_of(test, D) @ w + b).numpy())
        scores.append((unsupervised, task_driven))
        print(f"seed {seed}: test AUC {unsupervised:.4f} unsupervised, {task_driven:.4f} task-driven")
    return tuple(float(v) for v in np.mean(scores, 0))


if __name__ == "__main__":
    main()
