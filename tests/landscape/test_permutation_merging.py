"""Merged networks, alignment of singular vectors, and weights in files."""

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.core import InvalidParameter, InvalidProblem, UnreadableFile
from thalweg.landscape.permutation import (
    alignment,
    input_energy,
    load_weights,
    match,
    merge,
    merge_many,
    recomputed,
    save_weights,
    trace_permutations,
)


def mlp(seed=0, width=16):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 3)
    )


def shuffled(net, seed):
    spec = trace_permutations(net)
    return spec.apply(net.state_dict(), spec.random(seed))


def test_merging_permuted_copies_gives_the_network_back():
    net = mlp()
    found = merge([net, shuffled(net, 1), shuffled(net, 2)])
    for name, value in net.state_dict().items():
        torch.testing.assert_close(found[name], value)
    mean, states = merge_many([shuffled(net, k) for k in range(3)], module=net)
    for name in mean:
        torch.testing.assert_close(states[0][name], states[2][name])


def test_weights_are_shares():
    a, b = mlp(1), mlp(2)
    assert all(torch.equal(v, a.state_dict()[n]) for n, v in merge([a, b], weights=[1, 0]).items())
    moved = match(a, b).weights
    found = merge([a, b], weights=[0.25, 0.75])
    torch.testing.assert_close(found["0.bias"], 0.25 * a[0].bias.detach() + 0.75 * moved["0.bias"])
    with pytest.raises(InvalidParameter, match=r"of sum 1"):
        merge([a, b], weights=[1, 1])


def test_a_matched_network_is_the_same_function():
    a, b = mlp(1), mlp(2)
    own, x = mlp(), torch.randn(50, 6)
    own.load_state_dict(match(a, b).weights)
    torch.testing.assert_close(own(x), b(x))


def test_batch_normalisation_needs_data_and_gets_its_statistics():
    def net(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    a, b, x = net(1), net(2), torch.randn(100, 6)
    with pytest.raises(InvalidProblem, match=r"Give data="):
        merge([a, b])
    found = merge([a, b], data=(x,))
    inner = x @ found["0.weight"].T + found["0.bias"]
    torch.testing.assert_close(found["1.running_mean"], inner.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["1.running_var"], inner.var(0), atol=1e-5, rtol=1e-4)
    assert torch.equal(recomputed(a, found, x)["0.weight"], found["0.weight"])


def test_what_cannot_be_merged_is_refused():
    with pytest.raises(InvalidProblem, match=r"two or more"):
        merge([mlp()])
    with pytest.raises(InvalidProblem, match=r"list of two or more networks; got a value of type Sequential"):
        merge(mlp(), mlp())
    with pytest.raises(InvalidProblem, match=r"got a value of type NoneType"):
        match(mlp(), None)
    with pytest.raises(InvalidProblem, match=r"state dicts need spec="):
        match(mlp().state_dict(), mlp().state_dict())
    with pytest.raises(InvalidProblem, match=r"Both networks need one architecture"):
        merge([mlp(), mlp(width=17)])


class TestAlignment:
    def test_one_for_equal_and_about_zero_for_unrelated_networks(self):
        a, b = mlp(1, 128), mlp(2, 128)
        assert alignment(a, a).total == pytest.approx(1)
        assert abs(alignment(a, b, 0.0).total) < 0.05

    def test_signs_of_pairs_of_vectors_do_not_count(self):
        weight, other = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
        found = alignment({"w": weight}, {"w": other}, 0.2)
        ua, sa, va = np.linalg.svd(weight.numpy(), full_matrices=False)
        ub, sb, vb = np.linalg.svd(other.numpy(), full_matrices=False)
        keep_a, keep_b = sa >= 0.2 * sa[0], sb >= 0.2 * sb[0]
        flip = np.array([1, -1, -1, 1])
        ua, va = ua * flip, va * flip[:, None]
        expected = ((ua.T @ ub) * (va @ vb.T))[np.ix_(keep_a, keep_b)].sum() / min(keep_a.sum(), keep_b.sum())
        assert found.total == pytest.approx(expected)

    def test_singular_values_stay_under_permutations(self):
        net = mlp()
        moved = shuffled(net, 3)
        for name, value in net.state_dict().items():
            if value.ndim == 2:
                torch.testing.assert_close(torch.linalg.svdvals(value), torch.linalg.svdvals(moved[name]))

    def test_energy_is_all_of_it_in_a_full_span(self):
        weight, x = torch.randn(6, 4), torch.randn(20, 4)
        assert input_energy(weight, x, 0.0) == pytest.approx(1)
        assert input_energy(weight, x, 0.9) < 1

    def test_bad_input_is_refused(self):
        with pytest.raises(InvalidParameter, match=r"0 <= threshold <= 1"):
            alignment(mlp(), mlp(), 2)
        with pytest.raises(InvalidProblem, match=r"no '0.weight' of shape"):
            alignment(mlp(), mlp(width=4))


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_weights_in_files_come_back(tmp_path, ending):
    net = mlp()
    save_weights(tmp_path / f"a.{ending}", net.state_dict())
    back = load_weights(tmp_path / f"a.{ending}")
    assert all(torch.equal(back[n], v) for n, v in net.state_dict().items())


def test_files_without_weights_are_refused(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "b.pt")
    for name in ("e.pt", "e.safetensors", "e.csv"):
        (tmp_path / name).touch()
        with pytest.raises(UnreadableFile, match="is empty; expected weights"):
            load_weights(tmp_path / name)
    for name, words in (("a.pt", "holds no weights: "), ("b.pt", "no state dict"), ("c.pt", "No file")):
        with pytest.raises(UnreadableFile, match=words):
            load_weights(tmp_path / name)


def test_a_file_that_leaves_a_tied_name_out_is_whole():
    class Tied(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.table, self.inner, self.head = (
                nn.Embedding(30, 6),
                nn.Linear(6, 6),
                nn.Linear(6, 30, bias=False),
            )
            self.head.weight = self.table.weight

        def forward(self, x):
            return self.head(torch.relu(self.inner(self.table(x))))

    a, b = Tied(0), Tied(1)
    words = torch.randint(0, 30, (2, 5))
    without = {n: v for n, v in b.state_dict().items() if n != "head.weight"}
    whole = match(a, b, module=a, example=words)
    found = match(a, without, module=a, example=words)
    assert whole.metrics == found.metrics
    assert torch.equal(found.weights["head.weight"], found.weights["table.weight"])
    merged = merge([a.state_dict(), without], module=a, example=words)
    assert set(merged) == set(a.state_dict())


def test_complex_weights_are_refused():
    a, b = (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)) for _ in range(2))
    odd = {n: v.to(torch.complex64) for n, v in b.state_dict().items()}
    with pytest.raises(InvalidProblem, match="is complex"):
        match(a, odd, trace_permutations(a))


def test_networks_of_tiny_weights_are_merged_as_others():
    net = mlp().double()
    shuffles = [shuffled(net, k) for k in range(3)]
    _, wanted = merge_many(shuffles, module=net)
    tiny = [{n: v * 1e-15 for n, v in s.items()} for s in shuffles]
    _, found = merge_many(tiny, module=net)
    for one, other in zip(found, wanted, strict=True):
        for name in other:
            torch.testing.assert_close(one[name] * 1e15, other[name])
