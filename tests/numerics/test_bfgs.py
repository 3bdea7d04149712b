"""BFGS for many starts at once."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, rosen, rosen_der

from thalweg.numerics.bfgs import minimize_many


def rosenbrock(x, starts):
    values = [rosen(row) for row in x.numpy()]
    return torch.tensor(values), torch.tensor(np.array([rosen_der(row) for row in x.numpy()]))


def test_it_finds_rosenbrocks_minimum_from_every_start():
    x0 = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = minimize_many(rosenbrock, x0, max_steps=300, tol=1e-8)
    # in four dimensions Rosenbrock's function has a second, local minimum near (-1, 1, 1, 1)
    values = [minimize(rosen, row, jac=rosen_der, method="L-BFGS-B").fun for row in x0.numpy()]
    assert float(found.values.max()) <= 3.71
    assert float(found.values.min()) < 1e-10
    assert float(found.values.median()) <= np.median(values) + 1e-6


@given(seed=st.integers(0, 50))
def test_in_a_box_it_agrees_with_scipy_on_quadratics(seed):
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    H, c = root @ root.T + torch.eye(5), 3 * torch.randn(5, dtype=torch.float64, generator=generator)

    def quadratic(x, starts):
        return 0.5 * ((x @ H) * x).sum(1) - x @ c, x @ H - c

    found = minimize_many(quadratic, torch.zeros(1, 5, dtype=torch.float64), -0.5, 0.5, max_steps=200)
    peer = minimize(
        lambda x: (0.5 * x @ H.numpy() @ x - c.numpy() @ x, H.numpy() @ x - c.numpy()),
        np.zeros(5),
        jac=True,
        bounds=[(-0.5, 0.5)] * 5,
        method="L-BFGS-B",
        options={"gtol": 1e-9},
    )
    assert float(found.values[0]) <= peer.fun + 1e-6


def test_starts_do_not_disturb_one_another():
    x0 = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = minimize_many(rosenbrock, x0, max_steps=40)
    alone = torch.cat([minimize_many(rosenbrock, row[None], max_steps=40).x for row in x0])
    assert torch.allclose(together.x, alone)


def test_it_is_told_which_starts_it_evaluates():
    targets = torch.tensor([[0.0], [1.0], [-2.0]], dtype=torch.float64)

    def own(x, starts):
        gap = x - targets[starts]
        return gap.square().sum(1), 2 * gap

    found = minimize_many(own, torch.tensor([[0.0], [5.0], [5.0]], dtype=torch.float64))
    assert torch.allclose(found.x, targets, atol=1e-6)
