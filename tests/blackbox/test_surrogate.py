"""The model that follows growing data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg.numerics.gaussian_process import GaussianProcess, Matern, surrogate
from thalweg.numerics.gaussian_process.surrogate import Surrogate


@pytest.mark.parametrize("bayesian", [False, True])
def test_one_that_was_saved_is_made_again_with_the_same_bits(bayesian, monkeypatch):
    """Grown twice since its last whole posterior: every block has to come back."""
    monkeypatch.setattr(surrogate, "SETTLED", 12)
    monkeypatch.setattr(surrogate, "GROWTH", 2.0)
    X = torch.rand(18, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.sin(4 * X[:, 0]) + X[:, 1]
    model = Surrogate(GaussianProcess(Matern()), bayesian)
    for n in (13, 15, 18):
        model.update(X[:n], y[:n])
    again = Surrogate(GaussianProcess(Matern()), bayesian)
    again.load_state_dict(model.state_dict())
    again.update(X, y)
    assert again.state_dict()["blocks"] == model.state_dict()["blocks"]
    assert len(again.posterior.X) == 18
    for a, b in zip(again.posterior.predict(X), model.posterior.predict(X), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_same_data_twice_are_fitted_once():
    X = torch.rand(8, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = Surrogate(GaussianProcess(Matern()))
    first = model.update(X, X[:, 0])
    assert model.update(X, X[:, 0]) is first
