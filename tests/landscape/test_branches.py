"""Branches of one run are what each would be alone; barriers by when they parted; the toy in the plane."""

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.landscape import LossSurface, Mountainside, late_decay, ridges, spawn
from thalweg.landscape.branches import _order


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()


@pytest.fixture
def data():
    rng = torch.Generator().manual_seed(2)
    return torch.randn(40, 4, generator=rng, dtype=torch.float64), torch.randint(0, 3, (40,), generator=rng)


def trained(net, data, make, steps, order, factor):
    optimizer = make(net.parameters())
    rate = optimizer.param_groups[0]["lr"]
    return optimizer, [_step(net, data, optimizer, order(), rate * factor(t)) for t in range(steps)]


def _step(net, data, optimizer, rows, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(net(data[0][rows]), data[1][rows])
    loss.backward()
    optimizer.step()
    return float(loss)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),  # its counters differ between moments
    ],
)
def test_branches_are_what_each_would_be_alone(data, make):
    found = spawn(network(), data, make, after=[0, 7], steps=9, batch_size=8, seed=4)
    for k in (0, 7):
        for j in (0, 1):
            net = network()
            optimizer, _ = trained(net, data, make, k, _order(40, 8, 4, 0, 0), lambda t: 1.0)
            for name, p in net.named_parameters():
                torch.testing.assert_close(found.roots[k][name], p.detach(), rtol=1e-10, atol=1e-12)
            order, rate = _order(40, 8, 4, k, j + 1), optimizer.param_groups[0]["lr"]
            for t in range(9):
                _step(net, data, optimizer, order(), rate * late_decay(t, 9))
            for name, p in net.named_parameters():
                torch.testing.assert_close(found.ends[k][j][name], p.detach(), rtol=1e-9, atol=1e-11)


def test_an_epoch_has_each_example_once():
    order = _order(12, 4, 0)
    assert sorted(np.concatenate([order() for _ in range(3)])) == list(range(12))
    assert not np.array_equal(_order(12, 4, 0)(), _order(12, 4, 1)())


def test_branches_that_take_no_step_have_no_barrier(data):
    make = lambda p: torch.optim.SGD(p, lr=0.0)  # noqa: E731
    found = ridges(
        LossSurface(network(), data), spawn(network(), data, make, after=[3], steps=1, batch_size=8)
    )
    assert found.barrier[0, 0] == pytest.approx(0.0, abs=1e-12)
    assert found.distance[0, 0] == 0.0
    assert found.cosine[0, 0] == 1.0


def test_tables_and_figures(data):
    make = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    spawned = spawn(network(), data, make, after=[0, 5, 20], steps=10, batch_size=8, branches=3)
    found = ridges(LossSurface(network(), data), spawned)
    assert found.barrier.shape == (3, 3)
    assert list(found.to_frame()["after"]) == [0.0, 5.0, 20.0]
    assert [s.name for s in found.figure().series] == ["barrier", "predicted", "cosine"]
    assert -1.0 <= found.rank_agreement <= 1.0


def test_dropout_is_another_in_each_branch_and_repeatable(data):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 30), nn.Dropout(0.5), nn.ReLU(), nn.Linear(30, 3)).double()
    make = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    a, b = (spawn(net, data, make, after=[0], steps=3, batch_size=40, seed=1).ends[0] for _ in range(2))
    assert torch.equal(a[0]["0.weight"], b[0]["0.weight"])
    assert not torch.allclose(a[0]["0.weight"], a[1]["0.weight"])  # the same examples, all of them


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"after": []}, InvalidParameter, "different whole numbers"),
        ({"after": [1, 1]}, InvalidParameter, "different whole numbers"),
        ({"after": [-1]}, InvalidParameter, "different whole numbers"),
        ({"steps": 0}, InvalidParameter, "steps >= 1"),
        ({"branches": 0}, InvalidParameter, "branches >= 1"),
        ({"optimizer": lambda p: torch.optim.SGD(p, lr=1e200)}, NotFinite, "diverged"),
        ({"optimizer": lambda p: torch.optim.LBFGS(p)}, InvalidParameter, "all parameters together"),
        ({"optimizer": lambda p: None}, InvalidParameter, "function of the parameters"),
        ({"module": nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double()}, InvalidProblem, "buffers"),
        ({"data": (torch.ones(3, 4), torch.ones(2).long())}, InvalidProblem, "as many examples"),
        ({"data": (np.ones((3, 4)), torch.ones(3).long())}, InvalidProblem, r"data\[0\] is a ndarray"),
    ],
)
def test_what_cannot_be_spawned_is_told(data, options, error, message):
    given = {
        "module": network(),
        "data": data,
        "optimizer": lambda p: torch.optim.SGD(p, lr=0.1),
        "after": [0],
        "steps": 5,
        **options,
    }
    with pytest.raises(error, match=message):
        spawn(given.pop("module"), given.pop("data"), given.pop("optimizer"), **given)


def test_one_branch_has_nothing_to_be_compared_with(data):
    make = lambda p: torch.optim.SGD(p, lr=0.1)  # noqa: E731
    alone = spawn(network(), data, make, after=[0], steps=2, branches=1)
    with pytest.raises(InvalidProblem, match="two or more"):
        ridges(LossSurface(network(), data), alone)


class TestMountainside:
    def test_gradients_are_differences(self):
        toy, h = Mountainside(valleys=7, power=1.5), 1e-6
        x = 4.0 * np.random.default_rng(0).standard_normal((60, 2))
        expected = np.stack([(toy.value(x + h * e) - toy.value(x - h * e)) / (2 * h) for e in np.eye(2)], -1)
        np.testing.assert_allclose(toy.gradient(x), expected, atol=1e-7)

    def test_valleys_are_minima(self):
        toy = Mountainside()
        angles = 2 * np.pi * np.arange(12) / 12
        points = 10.0 * np.stack([np.cos(angles), np.sin(angles)], -1)
        np.testing.assert_allclose(toy.value(points), 0.0, atol=1e-12)
        np.testing.assert_allclose(toy.gradient(points), 0.0, atol=1e-12)
        assert sorted(toy.valley(points)) == list(range(12))
        np.testing.assert_array_equal(toy.valley(points * 0.7), toy.valley(points))

    def test_runs_that_part_late_share_a_valley_and_only_those_have_no_barrier(self):
        toy = Mountainside()
        shares = []
        for k in (0, 20, 80, 160):
            _, a, b = toy.spawned(k, 300)
            same, barrier = toy.valley(a) == toy.valley(b), toy.barrier(a, b)
            assert (barrier[same] < 0.1).all()
            assert (barrier[~same] > 1.0).all()
            shares.append(same.mean())
        assert (np.diff(shares) > 0).all()
        assert shares[0] <= 0.35
        assert shares[-1] >= 0.95

    def test_shared_steps_are_shared(self):
        toy = Mountainside()
        root, _, _ = toy.spawned(10, 5, seed=3)
        longer, _, _ = toy.spawned(20, 5, seed=3)
        again, _, _ = toy.spawned(10, 5, seed=3)
        np.testing.assert_array_equal(root, again)
        assert (np.hypot(*longer.T) > np.hypot(*root.T) - 1).all()

    def test_settings(self):
        with pytest.raises(InvalidParameter, match="radius > 0"):
            Mountainside(radius=0)
        with pytest.raises(InvalidParameter, match="0 <= shared <= 400"):
            Mountainside().spawned(500, 3)
        assert Mountainside().figure(5).surface is not None
