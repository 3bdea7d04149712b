"""The penalised objective: how close it is, its certificate, and where its error bound fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hand_solved import CURVATURE, DOUBLE, RESPONSE, ZERO, objective, quadratic

from thalweg import Status, Stop, solve
from thalweg.bilevel import (
    AID,
    Bilevel,
    LowerErrorBoundFails,
    LowerErrorBoundMonitor,
    Penalty,
    explicit_hypergradient,
    lower_error_bound,
    penalty_certificate,
    penalty_value,
)
from thalweg.numerics.projections import box

STEP = 0.5 / CURVATURE


class TestPenaltyObjective:
    @pytest.mark.parametrize("constrained", [False, True])
    def test_value_and_gradient_are_order_s_close(self, constrained):
        """Constrained: the lower solution of ``|y - x|^2`` in a box is the clipped x, some entries active."""
        x = torch.tensor([0.3, -2.0, 0.1], dtype=DOUBLE)
        if constrained:
            problem = Bilevel(
                lambda x, y: (y - 1.0).square().sum() + 0.1 * x.square().sum(),
                lambda x, y: (y - x).square().sum(),
                x,
                x,
                y_set=lambda y: box(y, -1.0, 1.0),
            )

            def exact(x):
                return (x.clamp(-1.0, 1.0) - 1.0).square().sum() + 0.1 * x.square().sum()
        else:
            problem, exact = quadratic(), objective
        slope = torch.func.grad(exact)(x)
        penalties = np.array([1e-1, 1e-2, 1e-3])
        values, gradients = [], []
        for s in penalties:
            found = penalty_value(problem, x, s)
            values.append(abs(found.value - float(exact(x))))
            gradients.append(float(torch.linalg.vector_norm(found.gradient - slope)))
        for errors in (values, gradients):
            assert np.polyfit(np.log(penalties), np.log(errors), 1)[0] == pytest.approx(1.0, abs=0.1)
        at = x.clamp(-1.0, 1.0) if constrained else RESPONSE @ x
        torch.testing.assert_close(explicit_hypergradient(problem, x, at), slope)

    def test_with_many_lower_solutions_the_pseudo_inverse_is_right(self):
        """g sees only y's first entry; f picks the second: psi(x) = (x - 1)^2 + 0."""
        problem = Bilevel(
            lambda x, y: (y[0] - 1).square() + (y[1] - 2).square(),
            lambda x, y: (y[0] - x[0]).square(),
            ZERO,
            torch.zeros(2, dtype=DOUBLE),
        )
        x = torch.tensor([0.3], dtype=DOUBLE)
        found = explicit_hypergradient(problem, x, torch.tensor([0.3, 2.0], dtype=DOUBLE))
        torch.testing.assert_close(found, torch.tensor([-1.4], dtype=DOUBLE))
        near = penalty_value(problem, x, 1e-4)
        torch.testing.assert_close(near.gradient, found, rtol=1e-3, atol=1e-3)
        solved = solve(problem, Penalty(0.2, 0.2, penalty=0.05, inner_steps=40), stop=Stop(steps=60))
        assert solved.x.x.item() == pytest.approx(1.0, abs=1e-2)
        assert solved.x.y[1].item() == pytest.approx(2.0, abs=1e-2)

    def test_without_the_error_bound_it_is_not_order_s_close(self):
        """``g = (y - x)^4 / 4, f = y^2 / 2``: ``y_s - x ~ s^(1/3)``, so psi_s - psi ~ s^(1/3)."""
        problem = Bilevel(
            lambda x, y: 0.5 * y.square().sum(), lambda x, y: (y - x).pow(4).sum() / 4, ZERO + 1, ZERO + 1
        )
        x = ZERO + 1
        penalties = np.array([1e-2, 1e-3, 1e-4])
        stop = Stop(below={"residual": 1e-13}, steps=100_000)
        errors = [abs(penalty_value(problem, x, s, stop=stop).value - 0.5) for s in penalties]
        assert np.polyfit(np.log(penalties), np.log(errors), 1)[0] == pytest.approx(1 / 3, abs=0.05)

    def test_the_certificate_is_zero_at_the_solution_only(self):
        problem, s = quadratic(), 0.1
        found = solve(
            problem, Penalty(0.1, STEP, penalty=s, inner_steps=50), stop=Stop(below={"stationarity": 1e-9})
        )
        assert found.status is Status.CONVERGED
        value = penalty_value(problem, found.x.x, s)
        good = penalty_certificate(problem, found.x.x, value.y, value.z, s)
        assert max(good.stationarity, good.penalised_gap, good.lower_gap) < 1e-6
        bad = penalty_certificate(problem, found.x.x + 1.0, value.y, value.z, s)
        assert min(bad.stationarity, bad.penalised_gap, bad.lower_gap) > 1e-2

    def test_upper_sets_are_kept_to(self):
        problem = quadratic(x_set=lambda x: box(x, -0.1, 0.1))
        found = solve(problem, Penalty(0.1, STEP, penalty=1e-3), stop=Stop(steps=300))
        aid = solve(problem, AID(0.1, STEP), stop=Stop(steps=300))
        torch.testing.assert_close(found.x.x, aid.x.x, atol=1e-3, rtol=0)
        assert float(found.x.x.abs().max()) <= 0.1


class TestErrorBound:
    def test_it_fails_where_the_penalised_objective_jumps(self):
        """``g = x y`` on [-1, 1]: y jumps from -1 to 1 as x goes through zero."""
        problem = Bilevel(
            lambda x, y: (x.square() + y.square()).sum(),
            lambda x, y: (x * y).sum(),
            ZERO + 0.5,
            ZERO,
            x_set=lambda x: box(x, -1.0, 1.0),
            y_set=lambda y: box(y, -1.0, 1.0),
        )
        assert lower_error_bound(problem, ZERO + 0.5).holds
        assert not lower_error_bound(problem, ZERO + 0.01).holds
        far, near = (penalty_value(problem, ZERO + at, 1e-3).value for at in (1e-2, 0.0))
        assert far == pytest.approx(1.0, abs=1e-2)  # psi(x) = 1 + x^2, but psi(0) = 0
        assert near == pytest.approx(0.0, abs=1e-6)

    def test_the_monitor_warns_along_a_run(self):
        problem = Bilevel(lambda x, y: (y - 1).square().sum(), lambda x, y: (y - x).pow(4).sum(), ZERO, ZERO)
        monitor = LowerErrorBoundMonitor(every=2, samples=1)
        with pytest.warns(LowerErrorBoundFails, match="Step 2.*error bound fails"):
            solve(problem, Penalty(0.01, 0.05), stop=Stop(steps=2), callbacks=[monitor])
        assert not monitor.seen[2].holds
