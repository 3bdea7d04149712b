"""Specifications found by tracing keep the function of many architectures, and say what they do not understand."""

import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

from thalweg.core import InvalidProblem, NotFinite
from thalweg.landscape.permutation import PermutationSpec, check_preserved, trace_permutations


class Residual(nn.Module):
    def __init__(self, into, out, stride):
        super().__init__()
        self.c1, self.b1 = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.c2, self.b2 = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.short = nn.Conv2d(into, out, 1, stride) if into != out else nn.Identity()

    def forward(self, x):
        y = self.b2(self.c2(torch.relu(self.b1(self.c1(x)))))
        y += self.short(x)
        return torch.relu(y)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 5, 3), nn.Linear(5 * 36, 3)

    def forward(self, x):
        x = torch.cat([x, torch.relu(self.one(x))], 1)
        return self.out(torch.relu(self.two(x)).flatten(1))


class Windows(nn.Module):
    """Rolled windows, biases read from a table, and pooled images whose channels come last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 2)
        self.norm = nn.LayerNorm(8)
        self.table, self.up, self.down = nn.Parameter(torch.randn(5, 8)), nn.Linear(8, 12), nn.Linear(12, 8)
        self.register_buffer("places", torch.arange(16).reshape(4, 4) % 5)

    def forward(self, x):
        x = self.first(x).permute(0, 2, 3, 1)
        x = self.norm(torch.roll(x, (1, 2), (1, 2)) + self.table[self.places])
        bias = self.up.bias.clone()
        bias.zero_()
        x = x + self.down(torch.relu(nn.functional.linear(x, self.up.weight, bias)))
        return self.last(nn.functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1).flatten(1))


class Attention(nn.Module):
    """Query heads share key heads where there are fewer of these."""

    def __init__(self, heads=4, groups=2, inside=3):
        super().__init__()
        self.h, self.g, self.d = heads, groups, inside
        self.e, self.o = nn.Linear(6, 8), nn.Linear(8, 3)
        self.q, self.p = nn.Linear(8, heads * inside), nn.Linear(heads * inside, 8)
        self.k, self.v = nn.Linear(8, groups * inside), nn.Linear(8, groups * inside)

    def heads(self, x, n):
        x = x.view(*x.shape[:2], n, self.d).transpose(1, 2)
        r = self.h // n
        return x[:, :, None].expand(-1, -1, r, -1, -1).reshape(len(x), self.h, -1, self.d) if r > 1 else x

    def forward(self, x):
        x = self.e(x)
        q, k, v = self.heads(self.q(x), self.h), self.heads(self.k(x), self.g), self.heads(self.v(x), self.g)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(x + self.p(y.transpose(1, 2).flatten(2)))


def vgg():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 3),
    )  # fmt: skip


def resnet():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Residual(8, 8, 1), Residual(8, 16, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
    )  # fmt: skip


IMAGE, PLACES = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 6)
NETWORKS = {
    "vgg": (vgg, torch.randn(2, 3, 20, 20), 3),
    "resnet": (resnet, torch.randn(2, 3, 12, 12), 4),
    "concatenation": (Dense, IMAGE, 2),
    "heads": (lambda: Attention(4, 4), PLACES, 4),
    "grouped heads": (Attention, PLACES, 5),
    "one group of heads": (lambda: Attention(4, 1), PLACES, 4),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 3)),
        IMAGE,
        2,
    ),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)),
        IMAGE,
        1,
    ),
    "windows": (Windows, torch.randn(2, 3, 8, 8), 2),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), torch.randn(2, 5, 8), 3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_permutations_are_found_and_keep_the_function(name):
    make, example, count = NETWORKS[name]
    net = make()
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 2), layer.weight.data.normal_()
    spec = trace_permutations(net, example)
    assert len(spec.permutations) == count
    moved = spec.apply(net.state_dict(), spec.random(5))
    assert any(not torch.equal(moved[n], v) for n, v in net.state_dict().items())
    assert check_preserved(net, spec, (example,), orders=spec.random(5)) <= 1e-5


@pytest.mark.parametrize("kind", ["GPT2", "Llama"])
def test_language_models_of_transformers_are_understood(kind):
    transformers = pytest.importorskip("transformers")
    if kind == "GPT2":
        config = transformers.GPT2Config(n_embd=24, n_head=3, n_layer=1, vocab_size=40, n_positions=16)
        net = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            hidden_size=24, intermediate_size=20, num_attention_heads=4, num_key_value_heads=2,
            num_hidden_layers=1, vocab_size=40,
        )  # fmt: skip
        net = transformers.LlamaForCausalLM(config)
    spec = trace_permutations(net, {"input_ids": torch.randint(40, (2, 7)), "use_cache": False})
    stream = next(iter(spec.uses.values()))
    assert {use.tensor for use in stream} >= {"lm_head.weight"}
    assert any(p.under for p in spec.permutations.values())


def test_rounding_is_no_fault():
    """Large units that cancel: in float32 the order of a sum shows in the third digit, in float64 it does not."""
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(50, 6)
    with torch.no_grad():
        net[0].bias[:2] = 1e4
        net[0].weight[:2] = 0
        net[2].weight[:, 0], net[2].weight[:, 1] = 1.0, -1.0
    spec = trace_permutations(net)
    own, moved = copy.deepcopy(net), spec.apply(net.state_dict(), spec.random(1))
    own.load_state_dict(moved)
    with torch.no_grad():
        assert float((own(x) - net(x)).abs().max() / net(x).abs().max()) > 1e-4
    assert check_preserved(net, spec, (x,)) < 1e-9
    half = PermutationSpec.by_hand({"0.weight": ("h", None), "0.bias": ("h",)}, net)
    with pytest.raises(InvalidProblem, match=r"does not keep"):
        check_preserved(net, half, (x,))


def test_layers_and_their_bias_share_a_permutation():
    spec = trace_permutations(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    assert str(spec) == "0 (8): 0.weight[0], 0.bias[0], 2.weight[1]"


def test_what_is_not_understood_is_named_and_can_be_held():
    class Sorted(nn.Module):
        def forward(self, x):
            return x.sort(-1).values

    net = nn.Sequential(nn.Linear(4, 8), Sorted(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.raises(InvalidProblem, match=r"'sort', called by '1', is not understood.*hold=\['1'\]"):
        trace_permutations(net)
    assert [p.size for p in trace_permutations(net, hold=["1"]).permutations.values()] == [6]


def test_an_input_that_cannot_be_guessed_is_asked_for():
    with pytest.raises(InvalidProblem, match=r"Give example="):
        trace_permutations(nn.LSTM(3, 4))


def test_orders_compose_and_turn_back_inside_heads_too():
    net = Attention()
    spec, state = trace_permutations(net, PLACES), net.state_dict()
    p, q = spec.random(1), spec.random(2)
    twice, once = spec.apply(spec.apply(state, p), q), spec.apply(state, spec.composed(p, q))
    back = spec.apply(spec.apply(state, p), spec.inverse(p))
    for name, value in state.items():
        assert torch.equal(twice[name], once[name])
        assert torch.equal(back[name], value)


class TestByHand:
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"w": (3, 3), "b": (3,), "f": (2, 12)}

    def test_a_flattened_channel_moves_in_blocks(self):
        spec = PermutationSpec.by_hand({"b": ("h",), "f": (None, ("h", 4))}, self.shapes)
        state = {"w": torch.zeros(3, 3), "b": torch.arange(3.0), "f": torch.arange(24.0).view(2, 12)}
        moved = spec.apply(state, {"h": [2, 0, 1]})
        assert moved["f"][0].tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7]

    def test_one_permutation_on_two_axes_is_refused_unless_declared(self):
        with pytest.raises(InvalidProblem, match=r"moves axes 0 and 1 of 'w'.*twice="):
            PermutationSpec.by_hand({"w": ("h", "h")}, self.shapes)
        assert PermutationSpec.by_hand({"w": ("h", "h")}, self.shapes, twice={"w"}).twice == {"w"}

    def test_bad_input_is_refused(self):
        with pytest.raises(InvalidProblem, match=r"No tensor 'x'"):
            PermutationSpec.by_hand({"x": ("h",)}, self.shapes)
        with pytest.raises(InvalidProblem, match=r"'w' has 2 axes; 1 are specified"):
            PermutationSpec.by_hand({"w": ("h",)}, self.shapes)
        with pytest.raises(InvalidProblem, match=r"moved by 'h', which is of size"):
            PermutationSpec.by_hand({"b": ("h",), "f": ("h", None)}, self.shapes)
        spec = PermutationSpec.by_hand({"b": ("h",)}, {"b": (3,)})
        with pytest.raises(InvalidProblem, match=r"each of 0..2 once"):
            spec.apply({"b": torch.zeros(3)}, {"h": [0, 0, 1]})
        with pytest.raises(InvalidProblem, match=r"has shape \(4,\)"):
            spec.apply({"b": torch.zeros(4)}, {"h": [0, 2, 1]})
        with pytest.raises(NotFinite, match=r"'b' holds NaN"):
            spec.apply({"b": torch.tensor([0, 1, torch.nan])}, {"h": [0, 2, 1]})

    def test_a_specification_of_another_network_is_told(self):
        net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        wrong = PermutationSpec.by_hand({"0.weight": ("h", None)}, net)
        with pytest.raises(InvalidProblem, match=r"does not keep the network's function"):
            check_preserved(net, wrong, (torch.randn(3, 4),))
