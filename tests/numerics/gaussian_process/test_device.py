"""The process on a GPU against itself on the CPU: equal draws and starts, so equal answers."""

import pytest
import torch

from thalweg.numerics.bfgs import minimize_many
from thalweg.numerics.gaussian_process import GaussianProcess, Matern, draw_paths

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_fit_predictions_and_draws_agree() -> None:
    X = torch.rand(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, A = torch.sin(4 * X[:, 0]) + X[:, 1], X[:7] + 0.01
    process = GaussianProcess(Matern())
    here, there = process.fit(X, y), process.fit(X.cuda(), y.cuda())
    for ours, theirs in zip(here.predict(A), there.predict(A.cuda()), strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-4, atol=1e-6)
    theirs = draw_paths(there, 2, seed=1)(A.cuda())
    torch.testing.assert_close(theirs.cpu(), draw_paths(here, 2, seed=1)(A), rtol=1e-3, atol=1e-4)


def test_batched_search_stays_on_the_device() -> None:
    target = torch.tensor([[0.3, 2.0]], dtype=torch.float64, device="cuda")
    found = minimize_many(
        lambda x, _: ((x - target).square().sum(1), 2 * (x - target)), torch.zeros_like(target), 0.0, 1.0
    )
    assert found.x.device.type == "cuda"
    torch.testing.assert_close(found.x.cpu(), torch.tensor([[0.3, 1.0]], dtype=torch.float64))
