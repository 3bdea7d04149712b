"""Self-tuning networks with shared modules, shared tensors, frozen tensors, and code that reads tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from thalweg.bilevel.selftuning import HyperParameter, HyperSpace, Tuned, self_tuning
from thalweg.core import InvalidProblem

SPACE = HyperSpace(HyperParameter("rate", 0.2, high=0.9), HyperParameter("decay", 1e-3, scale="log"))
U = SPACE.u0.double() + torch.tensor([0.7, -0.4], dtype=torch.float64)


class Nested(nn.Module):
    """One block, with a child of its own, under three names."""

    def __init__(self):
        super().__init__()
        block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.first, self.inner = block, nn.ModuleList([block, nn.Sequential(block[0], nn.Tanh())])

    def forward(self, x):
        return self.inner[1](self.inner[0](self.first(x)))


class TiedLinear(nn.Module):
    """Two layers with one weight, each with a bias."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


class TiedLanguage(nn.Module):
    """The decoder's weight is the embedding's."""

    def __init__(self, decoder_first=False):
        super().__init__()
        parts = {"embedding": nn.Embedding(7, 5), "head": nn.Linear(5, 7)}
        for name in sorted(parts, reverse=decoder_first):
            setattr(self, name, parts[name])
        self.head.weight = self.embedding.weight

    def forward(self, codes):
        return self.head(torch.tanh(self.embedding(codes)))


class TiedLSTM(nn.Module):
    """The recurrent weights of both layers are one tensor."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 6, 2, batch_first=True)
        self.lstm.weight_hh_l1 = self.lstm.weight_hh_l0

    def forward(self, x):
        return self.lstm(x[:, None].expand(-1, 3, -1))[0]


def twice():
    layer = nn.Linear(6, 6)
    return nn.Sequential(layer, nn.Tanh(), layer)


def batch_norm_twice():
    norm = nn.BatchNorm1d(6)
    return nn.Sequential(norm, nn.Linear(6, 6), norm)


SHARED = {
    "module": twice,
    "block": Nested,
    "norm": batch_norm_twice,
    "linear weight": TiedLinear,
    "lstm weight": TiedLSTM,
    "embedding and head": TiedLanguage,
    "head and embedding": lambda: TiedLanguage(decoder_first=True),
}


def made(make, delta=False, frozen=()):
    torch.manual_seed(0)
    plain = make().double()
    for name, p in plain.named_parameters():
        if name in frozen:
            p.requires_grad_(False)
    tuned = self_tuning(plain, SPACE, delta=delta).eval()
    with torch.no_grad():
        for p in tuned.responses:
            p.normal_(0.0, 0.3)
    x = torch.randint(7, (4, 3)) if "embedding" in dir(plain) else torch.randn(4, 6, dtype=torch.float64)
    return plain, tuned, x


class TestSharing:
    @pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
    def test_the_export_is_the_network(self, make):
        _, tuned, x = made(make)
        torch.testing.assert_close(tuned(x, at=U), tuned.export(U).eval()(x), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
    def test_each_tensor_has_one_response_and_counts_once(self, make):
        plain, tuned, _ = made(make)
        assert len(tuned.responses) == 2 * len(list(plain.parameters()))
        assert len(list(tuned.parameters())) == 3 * len(list(plain.parameters()))
        weights = [p.detach() for p in tuned.export(U).parameters() if p.ndim > 1]
        assert float(tuned.squared_norm(U).detach()) == pytest.approx(
            sum(float(p.square().sum()) for p in weights), rel=1e-12
        )

    @pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
    def test_deltas_response_is_the_first_order_one(self, make):
        _, exact, x = made(make)
        linear = made(make, delta=True)[1]
        linear.load_state_dict(exact.state_dict())
        h, move = 1e-5, U - exact.centre
        ahead, back = (exact(x, at=exact.centre + s * h * move) for s in (1, -1))
        expected = exact(x, at=exact.centre) + (ahead - back) / (2.0 * h)
        torch.testing.assert_close(linear(x, at=U), expected, rtol=1e-7, atol=1e-7)

    def test_the_export_shares_what_the_network_shares(self):
        _, tuned, _ = made(Nested)
        out = tuned.export(U)
        assert out.first is out.inner[0]
        assert out.first[0] is out.inner[1][0]
        tied = made(TiedLanguage)[1].export(U)
        assert tied.head.weight is tied.embedding.weight

    def test_a_shared_dropout_has_one_rate(self):
        drop = nn.Dropout()
        net = nn.Sequential(drop, nn.Linear(6, 6), drop)
        tuned = self_tuning(net, SPACE, dropout={"2": "rate"})
        assert tuned.module[0] is tuned.module[2]
        out = tuned.export()
        assert out[0] is out[2]
        assert out[0].p == pytest.approx(0.2)
        with pytest.raises(InvalidProblem, match="used twice, with rates 'rate' and 'decay'"):
            self_tuning(net, SPACE, dropout={"0": "rate", "2": "decay"})

    def test_a_tensor_that_two_kinds_of_layers_gate_otherwise_is_refused(self):
        net = nn.Sequential(nn.Conv1d(6, 6, 1), nn.Flatten(), nn.Embedding(6, 6))
        net[2].weight = net[0].weight = nn.Parameter(torch.zeros(6, 6, 1))
        with pytest.raises(
            InvalidProblem, match=r"0.weight \(Conv1d\) and 2.weight \(Embedding\) are one tensor"
        ):
            self_tuning(net, SPACE)

    def test_views_of_one_another_are_refused(self):
        net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        net[1].weight = nn.Parameter(net[0].weight.detach().T)
        with pytest.raises(InvalidProblem, match=r"'0.weight' and '1.weight' lie in the same memory"):
            self_tuning(net, SPACE)
        whole = torch.randn(12, 6)
        net[0].weight, net[1].weight = nn.Parameter(whole[:6]), nn.Parameter(whole[6:])
        self_tuning(net, SPACE)  # side by side


FROZEN = {
    "layer": (lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)), ("0.weight", "0.bias")),
    "weight": (lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)), ("0.weight", "2.bias")),
    "norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), ("1.weight",)),
    "norm's shift": (lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), ("1.bias", "0.weight")),
    "convolution": (
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.Conv1d(2, 4, 2), nn.Conv1d(4, 2, 1)),
        ("1.weight", "2.bias"),
    ),
    "lstm": (TiedLSTM, ("lstm.weight_hh_l0", "lstm.bias_ih_l1")),
    "embedding": (TiedLanguage, ("embedding.weight",)),
    "no form": (lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)), ("1.weight", "1.bias")),
}


class TestFrozen:
    @pytest.mark.parametrize("delta", [False, True])
    @pytest.mark.parametrize(("make", "frozen"), FROZEN.values(), ids=FROZEN)
    def test_frozen_tensors_have_no_gates_and_keep_their_bits(self, make, frozen, delta):
        plain, tuned, _ = made(make, delta, frozen)
        trained = [p for p in plain.parameters() if p.requires_grad]
        assert len(tuned.responses) == 2 * len(trained)
        assert len([p for p in tuned.parameters() if p.requires_grad]) == 3 * len(trained)
        out = dict(tuned.export(U).named_parameters())
        for name, p in plain.named_parameters():
            assert torch.equal(out[name], p) == (name in frozen), name
            assert out[name].requires_grad == p.requires_grad

    @pytest.mark.parametrize(("make", "frozen"), FROZEN.values(), ids=FROZEN)
    def test_the_rest_responds_rightly(self, make, frozen):
        _, tuned, x = made(make, frozen=frozen)
        out = tuned.export(U).eval()
        torch.testing.assert_close(tuned(x, at=U), out(x), rtol=1e-12, atol=1e-12)
        weights = [p.detach() for p in out.parameters() if p.ndim > 1]
        assert float(tuned.squared_norm(U).detach()) == pytest.approx(
            sum(float(p.square().sum()) for p in weights), rel=1e-12
        )

    @pytest.mark.parametrize(("make", "frozen"), FROZEN.values(), ids=FROZEN)
    def test_deltas_response_is_the_first_order_one(self, make, frozen):
        _, exact, x = made(make, frozen=frozen)
        linear = made(make, True, frozen)[1]
        linear.load_state_dict(exact.state_dict())
        h, move = 1e-5, U - exact.centre
        ahead, back = (exact(x, at=exact.centre + s * h * move) for s in (1, -1))
        expected = exact(x, at=exact.centre) + (ahead - back) / (2.0 * h)
        torch.testing.assert_close(linear(x, at=U), expected, rtol=1e-7, atol=1e-7)

    def test_training_moves_no_frozen_weight(self):
        plain, tuned, x = made(*FROZEN["layer"][:1], frozen=FROZEN["layer"][1])
        loss = tuned.train()(x, at=U).square().sum() + tuned.squared_norm(U).sum()
        loss.backward()
        torch.optim.SGD(tuned.parameters(), 0.1, weight_decay=0.1).step()
        assert torch.equal(tuned.export(U)[0].weight, plain[0].weight)

    def test_a_network_that_is_frozen_whole_is_refused(self):
        with pytest.raises(InvalidProblem, match="parameters that are trained"):
            self_tuning(nn.Linear(3, 3).requires_grad_(False), SPACE)


class Reads(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.part = nn.Linear(6, 3), nn.ModuleList([nn.Linear(3, 3)])

    def forward(self, x):
        return self.decoded(self.encoder(x))

    def decoded(self, code):
        return functional.linear(code, self.encoder.weight.T)


class ReadsRoundabout(Reads):
    def decoded(self, code):
        layer = self.part[0]
        return functional.linear(code, layer.weight)


class ReadsSizes(Reads):
    def forward(self, x):
        return self.encoder(x) / self.encoder.out_features

    def initialise(self):
        nn.init.zeros_(self.encoder.weight)


class TestCode:
    def test_a_forward_that_reads_a_layers_tensor_is_told_at_conversion(self):
        with pytest.raises(InvalidProblem, match=r"'1.encoder': The network reads 'weight' of a Linear"):
            self_tuning(nn.Sequential(nn.Linear(6, 6), Reads()), SPACE)

    def test_one_that_reads_it_in_a_roundabout_way_is_told_in_the_first_pass(self):
        tuned = self_tuning(ReadsRoundabout(), SPACE)
        with pytest.raises(InvalidProblem, match=r"reads 'weight' of a Linear.*register_layer"):
            tuned(torch.randn(4, 6))

    def test_sizes_may_be_read_and_frozen_tensors_too(self):
        torch.manual_seed(0)
        net, x = ReadsSizes(), torch.randn(4, 6)
        assert torch.equal(self_tuning(net, SPACE)(x), net(x))
        tied = Reads()
        tied.encoder.weight.requires_grad_(False)
        assert torch.equal(self_tuning(tied, SPACE)(x), tied(x))

    def test_hooks_that_would_be_passed_over_are_refused(self):
        net = nn.Sequential(nn.Linear(6, 6))
        net[0].register_forward_hook(lambda module, inputs, out: 2.0 * out)
        with pytest.raises(InvalidProblem, match=r"'0' \(Linear\) has forward hooks"):
            self_tuning(net, SPACE)


class TestOneExample:
    @pytest.mark.parametrize(
        ("layer", "shape"),
        [
            (nn.Linear(6, 2), (6,)),
            (nn.Conv1d(2, 3, 2), (2, 5)),
            (nn.Conv2d(2, 3, 2), (2, 5, 5)),
            (nn.LSTM(6, 4, 2, batch_first=True), (5, 6)),
        ],
        ids=["linear", "conv1d", "conv2d", "lstm"],
    )
    @pytest.mark.parametrize("delta", [False, True])
    def test_without_a_batch_it_is_the_exported_layers(self, layer, shape, delta):
        torch.manual_seed(0)
        tuned = self_tuning(layer.double(), SPACE, delta=delta)
        with torch.no_grad():
            for p in tuned.responses:
                p.normal_(0.0, 0.3)
        x = torch.randn(shape, dtype=torch.float64)

        def outputs(net, *inputs, **at):
            out = net(*inputs, **at)
            return [out] if isinstance(out, torch.Tensor) else [out[0], *out[1]]

        one = outputs(tuned, x, at=U)
        batched = outputs(tuned, x[None], at=U[None])
        reference = outputs(layer, x)
        assert [t.shape for t in one] == [t.shape for t in reference]
        torch.testing.assert_close(one[0], batched[0][0])
        if not delta:
            torch.testing.assert_close(one, outputs(tuned.export(U), x))

    def test_for_several_examples_hyper_parameters_it_is_refused(self):
        tuned = self_tuning(nn.Linear(6, 2).double(), SPACE)
        with pytest.raises(InvalidProblem, match="1 rows met hyper-parameters for 4 examples"):
            tuned(torch.randn(6, dtype=torch.float64), at=U.expand(4, 2))


def test_padding_words_stay_zero_at_every_u():
    layer = nn.Embedding(5, 3, padding_idx=1)
    tuned = self_tuning(layer, SPACE)
    with torch.no_grad():
        tuned.module.gates["weight"].scale.fill_(1.0)
    assert bool((tuned(torch.tensor([[1, 2]]), at=U.float())[0, 0] == 0).all())
    assert isinstance(tuned.module, Tuned)
    with pytest.raises(InvalidProblem, match="max_norm=None"):
        self_tuning(nn.Embedding(5, 3, max_norm=1.0), SPACE)
