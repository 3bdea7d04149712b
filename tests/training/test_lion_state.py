"""States that Lion goes on from, and those that it refuses by name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from thalweg.core import CheckpointMismatch
from thalweg.training import L1, Lion, LionK, Lp


def parameters(*shapes):
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes or ((4, 3), (3,))]


def train(optimizer, params, seed, steps=5):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()


def test_it_goes_on_where_lion_pytorch_stopped():
    lion_pytorch = pytest.importorskip("lion_pytorch")
    theirs, ours = parameters(), parameters()
    peer = lion_pytorch.Lion(theirs, lr=1e-2, weight_decay=0.1)
    train(peer, theirs, 0)
    with torch.no_grad():
        for p, q in zip(ours, theirs, strict=True):
            p.copy_(q)
    optimizer = Lion(ours, lr=1.0, weight_decay=1.0)
    optimizer.load_state_dict(copy.deepcopy(peer.state_dict()))
    train(peer, theirs, 1)
    train(optimizer, ours, 1)
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


def test_it_goes_on_from_states_of_an_earlier_release():
    """That called K by the name of kernel."""
    a, b = parameters(), parameters()
    whole = LionK(a, lr=1e-2, K=Lp(2))
    train(whole, a, 0)
    state = copy.deepcopy(whole.state_dict())
    for group in state["param_groups"]:
        group["kernel"] = group.pop("K")
    with torch.no_grad():
        for p, q in zip(b, a, strict=True):
            p.copy_(q)
    resumed = LionK(b, lr=1.0, K=Lp(2))
    resumed.load_state_dict(state)
    assert "kernel" not in resumed.param_groups[0]
    train(whole, a, 1)
    train(resumed, b, 1)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    with pytest.raises(CheckpointMismatch, match=r"saved with K = Lp\(p=2\); this one has L1"):
        Lion(parameters()).load_state_dict(state)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (torch.optim.AdamW, "AdamW"),
        (torch.optim.Adam, "Adam"),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), "SGD"),
        (torch.optim.RMSprop, "RMSprop"),
        (torch.optim.Adagrad, "Adagrad"),
        (torch.optim.Adamax, "Adamax"),
        (torch.optim.NAdam, "NAdam"),
        (lambda p: torch.optim.LBFGS(p), "LBFGS"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_state_of_another_optimizer_is_refused_by_its_name(make, name):
    params = parameters()
    with pytest.raises(CheckpointMismatch, match=rf"This is the state of {name}\b"):
        Lion(params).load_state_dict(make(params).state_dict())


def test_states_of_other_groups_or_shapes_are_refused_and_nothing_is_taken():
    params = parameters()
    two = Lion([{"params": [p]} for p in parameters()])
    optimizer = Lion(params)
    with pytest.raises(ValueError, match="different number of parameter groups: 2; this optimizer has 1"):
        optimizer.load_state_dict(two.state_dict())
    with pytest.raises(ValueError, match="different number of parameter groups: 1; this optimizer has 2"):
        two.load_state_dict(optimizer.state_dict())
    with pytest.raises(CheckpointMismatch, match=r"group 0 .* was saved with 1 parameters; this one has 2"):
        optimizer.load_state_dict(Lion(parameters((4, 3))).state_dict())
    others = parameters((4, 3), (5,))
    other = Lion(others)
    train(other, others, 0)
    with pytest.raises(
        CheckpointMismatch, match=r"parameter 1 .* has shape \(5,\); the parameter has \(3,\)"
    ):
        optimizer.load_state_dict(other.state_dict())
    assert not optimizer.state


def test_cautious_lion_is_refused():
    params = parameters()
    state = Lion(params).state_dict()
    state["param_groups"][0]["cautious_factor"] = 0.5
    with pytest.raises(CheckpointMismatch, match=r"cautious_factor = 0.5, which is not here"):
        Lion(params).load_state_dict(state)


def test_a_states_own_options_are_taken_and_lacking_ones_are_the_optimizers():
    params = parameters()
    optimizer = Lion(params, lr=1.0, maximize=True, momentum_dtype=torch.bfloat16)
    other = Lion(others := parameters(), lr=2e-3, betas=(0.8, 0.9))
    train(other, others, 0)
    state = other.state_dict()
    options = {"lr", "betas", "weight_decay", "params"}  # what lion-pytorch keeps
    state["param_groups"] = [{k: v for k, v in g.items() if k in options} for g in state["param_groups"]]
    optimizer.load_state_dict(state)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["maximize"], group["K"]) == (2e-3, (0.8, 0.9), True, L1())
    assert optimizer.state[params[0]]["exp_avg"].dtype == torch.bfloat16
