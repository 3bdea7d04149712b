"""SciPy's solvers with derivatives: closed forms, finite differences, other packages' solutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.autograd import gradcheck
from torch.nn import functional

from thalweg.bilevel import scipy_minimize, scipy_root
from thalweg.core import InvalidProblem, NotFinite
from thalweg.numerics.torch_krylov import LinearSolver

DOUBLE = torch.float64
RNG = np.random.default_rng(0)
X, LABELS = torch.tensor(RNG.standard_normal((40, 4))), torch.tensor(RNG.integers(0, 2, 40).astype(float))


def regularised(w, log_strength):
    loss = functional.binary_cross_entropy_with_logits(X @ w, LABELS, reduction="sum")
    return loss + 0.5 * log_strength.exp() * w.square().sum()


@pytest.mark.parametrize("method", [None, "L-BFGS-B", "CG"])
def test_logistic_regression_is_scikit_learns_and_its_hyper_gradient_that_of_differences(method) -> None:
    fit = scipy_minimize(regularised, method=method, tol=1e-12, solve=LinearSolver("cg"))
    strength = torch.tensor(0.5, dtype=DOUBLE)
    w = fit(torch.zeros(4, dtype=DOUBLE), strength)
    theirs = LogisticRegression(C=1 / np.exp(0.5), fit_intercept=False, tol=1e-12, max_iter=10_000).fit(
        X, LABELS
    )
    np.testing.assert_allclose(w.numpy(), theirs.coef_[0], atol=1e-5)
    assert gradcheck(
        lambda s: fit(torch.zeros(4, dtype=DOUBLE), s), strength.requires_grad_(), atol=1e-4, eps=1e-3
    )


def test_bounds_hold_and_entries_on_them_do_not_move() -> None:
    fit = scipy_minimize(lambda w, y: 0.5 * (w - y).square().sum(), bounds=(0.0, 1.0), tol=1e-14)
    y = torch.tensor([-1.0, 0.3, 5.0], dtype=DOUBLE)
    init = torch.full((3,), 0.5, dtype=DOUBLE)
    torch.testing.assert_close(fit(init, y), y.clamp(0, 1))
    jacobian = torch.func.jacrev(fit, argnums=1)(init, y)
    torch.testing.assert_close(jacobian, torch.diag(torch.tensor([0.0, 1.0, 0.0], dtype=DOUBLE)))


@pytest.mark.parametrize("method", ["hybr", "lm", "krylov"])
def test_roots_of_systems_on_pytrees(method: str) -> None:
    def condition(x, theta):
        return {
            "u": x["u"] + 0.5 * x["v"].sum() - theta["a"],
            "v": x["v"] ** 3 + x["v"] - theta["b"] * x["u"],
        }

    solve = scipy_root(condition, method=method, tol=1e-10)
    init = {"u": torch.zeros(1, dtype=DOUBLE), "v": torch.zeros(2, dtype=DOUBLE)}
    a, b = torch.tensor([1.0], dtype=DOUBLE), torch.tensor([0.5, 2.0], dtype=DOUBLE)

    def total(a, b):
        x = solve(init, {"a": a, "b": b})
        return x["u"].sum() + x["v"].square().sum()

    inputs = (a.requires_grad_(), b.requires_grad_())
    assert gradcheck(total, inputs, check_forward_ad=True, atol=1e-4, eps=1e-4)


def test_single_precision_stays_single() -> None:
    fit = scipy_minimize(lambda w, y: 0.5 * (w - y).square().sum())
    assert fit(torch.zeros(2), torch.ones(2)).dtype == torch.float32


def test_bad_input() -> None:
    y = torch.ones(2, dtype=DOUBLE)
    with pytest.raises(InvalidProblem, match="scalar tensor"):
        scipy_minimize(lambda w, y: w - y)(y, y)
    with pytest.raises(InvalidProblem, match="low <= high"):
        scipy_minimize(lambda w, y: w.sum(), bounds=(1.0, 0.0))
    with pytest.raises(NotFinite, match="not finite"):
        scipy_minimize(lambda w, y: (w * y).sum().sqrt())(-y, y)
    with pytest.raises(NotFinite, match="not finite"):
        scipy_root(lambda x, y: x / 0.0 - y)(y, y)
