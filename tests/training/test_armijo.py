"""The line search on losses in any unit, against the solution of least squares."""

from __future__ import annotations

import pytest
import torch

from thalweg.training import ArmijoSGD


class TestUnits:
    """Loss and gradient times a number: the step that lowers the loss is as many times shorter."""

    @pytest.mark.parametrize(
        ("power", "dtype"),
        [
            (-400, torch.float64),
            (-60, torch.float64),
            (60, torch.float64),
            (-120, torch.float32),
            (-60, torch.float32),
            (100, torch.float32),
        ],
    )
    def test_least_squares_are_solved_in_any_unit_of_the_loss(self, power, dtype):
        generator = torch.Generator().manual_seed(3)
        A = torch.randn(20, 4, dtype=dtype, generator=generator)
        B = torch.randn(20, 2, dtype=dtype, generator=generator)
        X = torch.nn.Parameter(torch.zeros(4, 2, dtype=dtype))
        optimizer = ArmijoSGD([X])

        def closure():
            optimizer.zero_grad()
            loss = 2.0**power * (A @ X - B).square().sum()
            loss.backward()
            return loss

        for _ in range(100):
            optimizer.step(closure)
        least = torch.linalg.lstsq(A, B, driver="gelsd").solution
        # near the minimum a loss shows distances down to the root of its rounding
        torch.testing.assert_close(X.detach(), least, rtol=0, atol=3 * torch.finfo(dtype).eps ** 0.5)

    def test_a_gradient_beyond_the_root_of_the_largest_number_is_no_infinite_one(self):
        x = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
        optimizer = ArmijoSGD([x], lr=1e-200)

        def closure():
            optimizer.zero_grad()
            loss = (1e200 * (x - 3.0).abs()).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        assert (
            float(x.detach()) == 2.0
        )  # the first step, 1e-200 times 1e200, lowers the loss by all that it promises
