"""REPAIR: units of a merged network get the moments of the ends; what it cannot rescale is told."""

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.core import InvalidProblem
from thalweg.landscape.permutation import repair


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 2)
    ).double()


def moments(net, X, upto):
    with torch.no_grad():
        out = net[:upto](X)
    rows = out.movedim(1, -1).reshape(-1, out.shape[1])
    return rows.mean(0).numpy(), rows.std(0, correction=0).numpy()


def test_every_hidden_unit_has_the_ends_moments():
    X = torch.randn(300, 1, 4, 4, dtype=torch.float64)
    ends = [network(s) for s in range(3)]
    shares = [0.5, 0.3, 0.2]
    states = [e.state_dict() for e in ends]
    merged = {n: sum(w * s[n] for w, s in zip(shares, states, strict=True)) for n in states[0]}
    found = network(9)
    found.load_state_dict(repair(ends[0], merged, states, X, weights=shares, batch_size=64))
    for upto in (1, 4):  # after the convolution, after the hidden linear layer
        wanted = [moments(e, X, upto) for e in ends]
        for k, got in enumerate(moments(found, X, upto)):
            expected = sum(w * m[k] for w, m in zip(shares, wanted, strict=True))
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(found[5].weight, merged["5.weight"])


def test_equal_ends_stay_as_they_are():
    X, net = torch.randn(50, 1, 4, 4, dtype=torch.float64), network(0)
    found = repair(net, net.state_dict(), [net.state_dict()] * 2, X)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_dead_units_do_no_harm():
    X, net = torch.randn(50, 1, 4, 4, dtype=torch.float64), network(0)
    state = {n: torch.zeros_like(v) for n, v in net.state_dict().items()}
    found = repair(net, state, [net.state_dict(), state], X)
    assert all(bool(torch.isfinite(v).all()) for v in found.values())


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), "batch normalisation"),
        (nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)), "'0' has no bias"),
        (nn.Sequential(nn.Linear(3, 2)), "needs a hidden layer"),
    ],
)
def test_what_cannot_be_rescaled_is_told(net, message):
    with pytest.raises(InvalidProblem, match=message):
        repair(net, net.state_dict(), [net.state_dict()], torch.randn(9, 3))


def test_a_layer_called_twice_is_told():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.last(self.layer(self.layer(x)))

    net = Twice()
    with pytest.raises(InvalidProblem, match="called twice"):
        repair(net, net.state_dict(), [net.state_dict()], torch.randn(9, 3))
    with pytest.raises(InvalidProblem, match="a share of each"):
        repair(net, net.state_dict(), [], torch.randn(9, 3))


def test_a_unit_that_does_not_vary_keeps_its_weights():
    make = lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()  # noqa: E731
    torch.manual_seed(0)
    ends, X = [make(), make()], torch.randn(301, 2, dtype=torch.float64)
    X[:, 0] = 0.1
    merged = {n: v.clone() for n, v in ends[0].state_dict().items()}
    merged["0.weight"][:, 1] = 0.0  # all that these units see is a constant
    found = repair(ends[0], merged, [e.state_dict() for e in ends], X)
    torch.testing.assert_close(found["0.weight"], merged["0.weight"], rtol=0, atol=0)


def test_a_far_mean_does_not_drown_the_deviation():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    X, state = torch.randn(300, 2, dtype=torch.float64), net.state_dict()
    state = {n: v.clone() for n, v in state.items()}
    state["0.bias"] += 1e6
    state["0.weight"] *= 1e-3
    found = repair(net, {**state, "0.weight": state["0.weight"] / 2}, [state, state], X)
    torch.testing.assert_close(found["0.weight"], state["0.weight"], rtol=1e-6, atol=0)
