"""Relaxed orders: matrices of orders move as orders do, copies are recovered, midpoints get better."""

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.landscape.permutation import Rebasin, SinkhornMatching, trace_permutations
from thalweg.landscape.permutation.sinkhorn import doubly_stochastic, moved_softly


def mlp(seed=0, depth=1):
    torch.manual_seed(seed)
    hidden = [layer for _ in range(depth - 1) for layer in (nn.Linear(8, 8), nn.ReLU())]
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), *hidden, nn.Linear(8, 3))


def test_matrices_of_orders_move_as_orders_do():
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    spec = trace_permutations(net, torch.randn(1, 2, 4, 4))
    orders = spec.random(4)
    hard = {n: torch.eye(len(o), dtype=torch.float64)[torch.from_numpy(o)] for n, o in orders.items()}
    for name, value in net.state_dict().items():
        found = moved_softly(spec, name, value, hard)
        torch.testing.assert_close(found, spec.moved(name, value, orders).double())


def test_sums_of_rows_and_columns_are_one():
    logits = 5.0 * torch.randn(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = doubly_stochastic(logits, 300)
    for axis in (0, 1):
        torch.testing.assert_close(found.sum(axis), torch.ones(9, dtype=torch.float64), atol=1e-6, rtol=0)
    assert bool((doubly_stochastic(1e3 * logits, 50) >= 0).all())


@pytest.mark.parametrize("seed", range(4))
def test_a_permuted_copy_is_recovered(seed):
    net = mlp(seed)
    spec = trace_permutations(net)
    copy = spec.apply(net.state_dict(), spec.random(seed))
    found = solve(Rebasin(net, copy, spec), SinkhornMatching(steps=100))
    assert found.converged
    assert found.metrics["distance"] == 0


def test_the_midpoint_gets_better_and_a_resumed_run_is_the_same(tmp_path):
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(60, 5, generator=draw)
    y = X[:, :3].argmax(1)
    ends = [mlp(1, 2), mlp(2, 2)]
    for net in ends:
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X), y).backward()
            optimizer.step()
    given = Rebasin(*ends, trace_permutations(ends[0]), ends[0], (X, y))
    method = SinkhornMatching(goal="midpoint", steps=40)
    whole = solve(given, method)
    goal = whole.history["goal"]
    assert (np.diff(goal) <= 0).all()
    assert goal[-1] < goal[0]
    solve(given, method, stop=Stop(steps=10), callbacks=[Checkpoint(tmp_path / "run", every=10)])
    resumed = solve(given, method, resume=tmp_path / "run")
    assert all(np.array_equal(resumed.x[n], order) for n, order in whole.x.items())


def test_heads_missing_data_and_bad_options_are_refused():
    spec = trace_permutations(mlp())
    with pytest.raises(InvalidProblem, match=r"needs module= and data="):
        solve(Rebasin(mlp(1), mlp(2), spec), SinkhornMatching(goal="midpoint"))
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    heads = trace_permutations(layer, torch.randn(1, 3, 8))
    with pytest.raises(InvalidProblem, match="inside heads"):
        solve(Rebasin(layer, layer, heads), SinkhornMatching())
    for options, message in (
        ({"goal": "loss"}, "weights or midpoint"),
        ({"rate": 0.0}, "rate > 0"),
        ({"temperature": -1.0}, "temperature > 0"),
        ({"iterations": 0}, "iterations >= 1"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            SinkhornMatching(**options)
