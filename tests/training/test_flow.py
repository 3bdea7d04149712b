"""The flow of Lion-K: its Lyapunov function, its two phases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thalweg.core import InvalidParameter, NotFinite, Status, Stop, solve
from thalweg.training import L1, GroupL2, HalfSquare, Huber, LionKFlow, Lp, PseudoHuber, SmoothFunction


@pytest.fixture
def quadratic():
    torch.manual_seed(0)
    A = torch.randn(5, 5, dtype=torch.float64)
    H = A @ A.T + torch.eye(5, dtype=torch.float64)
    c = torch.tensor([3.0, -2.0, 0.1, 0.5, -0.2], dtype=torch.float64)
    return SmoothFunction(lambda x: 0.5 * (x - c) @ H @ (x - c), torch.zeros(5, dtype=torch.float64))


@pytest.mark.parametrize("e", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("K", [HalfSquare(), Huber(0.3), PseudoHuber(0.3)], ids=repr)
def test_the_lyapunov_function_falls_along_smooth_flows(quadratic, K, e):
    result = solve(quadratic, LionKFlow(K, e=e, dt=1e-3), stop=Stop(steps=2500))
    H = result.history["lyapunov"]
    assert np.isfinite(H).all()
    # Euler's error in H is of the order of dt^2 a step; the fall is far larger until the end.
    assert np.diff(H).max() <= 1e-4 * (H[0] - H[-1])
    assert H[-1] < H[0]


@pytest.mark.parametrize("K", [L1(), Lp(2.0), GroupL2()], ids=repr)
def test_it_falls_up_to_the_size_of_a_step_where_k_has_kinks(quadratic, K):
    # On a kink the update chatters, which lifts H by the order of dt; a finer step must lift it less.
    lifts = []
    for dt in (8e-3, 8e-4):
        result = solve(quadratic, LionKFlow(K, e=0.5, dt=dt), stop=Stop(steps=int(6 / dt)))
        H = result.history["lyapunov"]
        lifts.append(np.max(H - np.minimum.accumulate(H)) / (H[0] - H[-1]))
    assert lifts[1] <= max(0.2 * lifts[0], 1e-6)
    assert lifts[1] < 1e-2


@pytest.mark.parametrize("lam", [0.5, 2.0])
def test_outside_the_domain_the_distance_falls_at_the_rate_of_the_decay(quadratic, lam):
    problem = SmoothFunction(quadratic.f, quadratic.x0 + 20.0)
    result = solve(problem, LionKFlow(L1(), weight_decay=lam, dt=1e-3), stop=Stop(steps=1000))
    excess = result.history["excess"]
    # At least that fast (theorem 3.1), and no faster than the update helps: |u| <= 1.
    assert (excess <= (excess[0] * np.exp(-lam * 1e-3 * np.arange(1000))) * (1 + 5e-3)).all()


def test_once_inside_it_stays_inside(quadratic):
    problem = SmoothFunction(quadratic.f, quadratic.x0 + 3.0)
    excess = solve(problem, LionKFlow(L1(), dt=1e-2), stop=Stop(steps=3000)).history["excess"]
    inside = np.flatnonzero(excess <= 1e-12)[0]
    assert excess[inside:].max() <= 1e-12


def test_bad_input_is_refused():
    with pytest.raises(NotFinite, match="x0 holds NaN"):
        SmoothFunction(lambda x: x.sum(), torch.tensor([float("nan")]))
    for options in ({"weight_decay": 0.0}, {"a": 0.0}, {"e": 3.0}, {"dt": 0.0}):
        with pytest.raises(InvalidParameter, match="LionKFlow needs"):
            LionKFlow(**options)


def test_the_shortest_call_comes_to_the_bounded_optimum():
    """Lion's flow with a weight decay of one holds every weight to the box of side one."""
    result = solve(SmoothFunction(lambda x: ((x - torch.tensor([3.0, 0.5])) ** 2).sum(), torch.zeros(2)))
    assert result.status is Status.EXHAUSTED
    assert result.steps == 1000
    torch.testing.assert_close(result.x, torch.tensor([1.0, 0.5]), atol=0.02, rtol=0.0)


def test_steps_that_are_too_long_are_told():
    problem = SmoothFunction(lambda x: (x**4).sum(), torch.full((2,), 10.0))
    result = solve(problem, LionKFlow(HalfSquare(), dt=1.0), stop=Stop(steps=100))
    assert result.status is Status.DIVERGED
    assert "Lower dt" in result.message
