"""Matching by activations and through the loss; the study's smallest scale."""

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.landscape.permutation import ActivationMatching, Rebasin, StraightThrough, trace_permutations
from thalweg.landscape.permutation.matching import best_order


def mlp(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))


@pytest.fixture
def data():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(80, 6, generator=draw), torch.randint(0, 3, (80,), generator=draw)


def problem(a, b, data):
    spec = trace_permutations(a)
    return Rebasin(a, b, spec, a, data)


@pytest.mark.parametrize("correlation", [False, True])
def test_a_permuted_copy_is_recovered_from_activations(data, correlation):
    net = mlp()
    spec = trace_permutations(net)
    found = solve(
        Rebasin(net, spec.apply(net.state_dict(), spec.random(2)), spec, net, data),
        ActivationMatching(correlation),
    )
    assert found.converged
    assert found.metrics["distance"] == 0


def test_channels_are_matched_by_their_activations():
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    x = torch.randn(20, 2, 6, 6)
    spec = trace_permutations(net, x[:2])
    copy = spec.apply(net.state_dict(), spec.random(2))
    found = solve(Rebasin(net, copy, spec, net, (x,)), ActivationMatching(correlation=True))
    assert found.metrics["distance"] == 0


def test_straight_through_begins_with_weight_matching_from_a(data):
    given = problem(mlp(1), mlp(2), data)
    first = solve(given, StraightThrough(from_a=True, sweeps=20, steps=1))
    assert all(best_order(given, first.x, name) is None for name in given.spec.tops)


def test_the_midpoint_gets_better_and_a_resumed_run_is_the_same(data, tmp_path):
    X, y = data[0], data[0][:, :3].argmax(1)
    ends = [mlp(1), mlp(2)]
    for net in ends:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X), y).backward()
            optimizer.step()
    given, method = problem(*ends, (X, y)), StraightThrough(steps=200)
    whole = solve(given, method)
    middle = whole.history["midpoint"]
    assert (np.diff(middle) <= 0).all()
    assert middle[-1] < middle[0]
    solve(given, method, stop=Stop(steps=10), callbacks=[Checkpoint(tmp_path / "run", every=10)])
    resumed = solve(given, method, resume=tmp_path / "run")
    assert all(np.array_equal(resumed.x[n], order) for n, order in whole.x.items())


def test_missing_data_and_bad_options_are_refused(data):
    for method in (ActivationMatching(), StraightThrough()):
        with pytest.raises(InvalidProblem, match=r"needs module= and data="):
            solve(Rebasin(mlp(1), mlp(2), trace_permutations(mlp())), method)
    with pytest.raises(NotFinite, match="data holds NaN"):
        solve(problem(mlp(1), mlp(2), (data[0] * torch.nan, data[1])), ActivationMatching())
    with pytest.raises(InvalidParameter, match="rate > 0"):
        StraightThrough(rate=0.0)


def test_correlations_do_not_know_how_large_activations_are(data):
    a, b = mlp(1).double(), mlp(2).double()
    spec, inputs = trace_permutations(a), (data[0].double(),)
    small = {n: v.clone() for n, v in b.state_dict().items()}
    for name in ("0.weight", "0.bias"):
        small[name][::2] *= 1e-16  # every other unit of the first layer, and rectifiers keep what they say
    small["2.weight"][:, ::2] *= 1e16
    one, other = (
        solve(Rebasin(a, state, spec, a, inputs), ActivationMatching(correlation=True)).x
        for state in (b.state_dict(), small)
    )
    for name, order in one.items():
        np.testing.assert_array_equal(other[name], order)
