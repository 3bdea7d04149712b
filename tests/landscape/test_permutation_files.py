"""Networks in files: mapped, matched and merged a tensor at a time, in the types they have."""

import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from thalweg.core import Checkpoint, InvalidParameter, InvalidProblem, solve
from thalweg.landscape.permutation import (
    PermutationSpec,
    Rebasin,
    WeightMatching,
    check_preserved,
    load_weights,
    match,
    merge,
    mixed,
    save_weights,
    trace_permutations,
)


def mlp(seed, *widths):
    torch.manual_seed(seed)
    layers = []
    for n, m in itertools.pairwise(widths):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class TestFiles:
    @pytest.fixture
    def files(self, tmp_path):
        a, b = mlp(0, 5, 12, 12, 3), mlp(1, 5, 12, 12, 3)
        save_weights(tmp_path / "a.safetensors", a.state_dict())
        save_weights(tmp_path / "b.pt", b.state_dict())
        return tmp_path, a, b

    def test_files_are_merged_as_the_networks_in_them(self, files):
        folder, a, b = files
        there = merge(
            [folder / "a.safetensors", str(folder / "b.pt")], module=a, out=folder / "m.safetensors"
        )
        here = merge([a, b])
        written = load_file(folder / "m.safetensors")
        assert here.keys() == written.keys() == there.keys()
        assert all(torch.equal(here[n], written[n]) and torch.equal(there[n], written[n]) for n in here)
        found = match(folder / "a.safetensors", folder / "b.pt", module=a)
        assert all(torch.equal(found.weights[n], v) for n, v in match(a, b).weights.items())

    def test_another_ending_or_a_missing_file_is_refused_before_any_work(self, files):
        folder, a, _ = files
        with pytest.raises(InvalidParameter, match=r"expected .safetensors"):
            merge([folder / "a.safetensors", folder / "b.pt"], module=a, out=folder / "m.pt")
        with pytest.raises(InvalidProblem, match=r"need spec="):
            merge([folder / "a.safetensors", folder / "b.pt"])

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
    def test_no_network_is_whole_in_memory(self, tmp_path):
        """Two files of 72 MiB are merged in a third of one's memory."""
        width, depth = 512, 72
        names = [str(k) for k in range(depth)]
        for seed, name in enumerate("ab"):
            draw = torch.Generator().manual_seed(seed)
            save_file(
                {n: torch.randn(width, width, generator=draw) for n in names},
                tmp_path / f"{name}.safetensors",
            )
        spec = PermutationSpec.by_hand(
            {n: ("units", None) for n in names}, {n: (width, width) for n in names}
        )
        torch.randn(width, width) @ torch.randn(width, width)
        peak, done = [_anonymous()], threading.Event()

        def watch():
            while not done.is_set():
                peak.append(_anonymous())
                time.sleep(0.002)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            merge([tmp_path / f"{n}.safetensors" for n in "ab"], spec, out=tmp_path / "m.safetensors")
        finally:
            done.set()
            watcher.join()
        one = width * width * depth * 4
        assert max(peak) - peak[0] < one / 3
        assert (tmp_path / "m.safetensors").stat().st_size > one


def _anonymous():
    """Bytes of this process that no file backs."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


class TestTypes:
    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_types_are_matched_exactly_and_kept(self, tmp_path, kind):
        net = mlp(2, 6, 24, 24, 3).to(kind)
        spec = trace_permutations(net, torch.randn(4, 6, dtype=kind))
        shuffled = spec.apply(net.state_dict(), spec.random(3))
        found = merge([net, shuffled], spec)
        assert all(torch.equal(found[n], v) and v.dtype == kind for n, v in net.state_dict().items())
        save_weights(tmp_path / "a.safetensors", found)
        assert all(torch.equal(v, found[n]) for n, v in load_file(tmp_path / "a.safetensors").items())

    def test_every_kind_of_tensor_comes_back_and_safetensors_reads_it(self, tmp_path):
        state = {
            "empty": torch.zeros(0, 3),
            "flags": torch.tensor([True, False, True]),
            "scalar": torch.tensor(7),
            "transposed": torch.arange(6.0).reshape(2, 3).T,
            "bytes": torch.arange(5, dtype=torch.uint8),
        }
        save_weights(tmp_path / "s.safetensors", state)
        for found in (load_file(tmp_path / "s.safetensors"), load_weights(tmp_path / "s.safetensors")):
            assert found.keys() == state.keys()
            assert all(torch.equal(found[n], v) and found[n].dtype == v.dtype for n, v in state.items())

    def test_a_type_that_the_format_lacks_is_refused(self, tmp_path):
        with pytest.raises(InvalidParameter, match=r"'z' is torch.complex64"):
            save_weights(tmp_path / "s.safetensors", {"z": torch.zeros(2, dtype=torch.complex64)})
        assert not list(tmp_path.iterdir())


def test_a_start_is_where_matching_begins(tmp_path):
    net = mlp(4, 5, 30, 30, 3)
    spec = trace_permutations(net)
    orders = spec.random(8)
    problem = Rebasin(net, spec.apply(net.state_dict(), spec.inverse(orders)), spec)
    at_once = solve(problem, WeightMatching(x0=orders), progress=False)
    assert at_once.metrics["distance"] == 0
    assert at_once.steps == 1
    path = tmp_path / "c.npz"
    solve(problem, WeightMatching(x0=orders), callbacks=[Checkpoint(path)], progress=False)
    assert path.exists()
    with pytest.raises(InvalidProblem, match=r"needs each of"):
        solve(problem, WeightMatching(x0={**orders, "0": np.zeros(30, int)}), progress=False)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
    share=st.floats(0.0, 1.0),
)
def test_a_permuted_network_is_the_same_function_and_its_distance_is_what_the_objective_says(
    widths, seed, share
):
    net, other = (mlp(seed + k, 3, *widths, 2).double() for k in range(2))
    spec = trace_permutations(net)
    orders = spec.random(seed)
    if spec.permutations:
        assert check_preserved(net, spec, (torch.randn(5, 3, dtype=torch.float64),), orders=orders) < 1e-9
    moved = spec.apply(other.state_dict(), orders)
    back = spec.apply(moved, spec.inverse(orders))
    assert all(torch.equal(back[n], v) for n, v in other.state_dict().items())
    problem = Rebasin(net, other, spec)
    told, direct = problem.metrics(orders), 0.0
    for n, v in net.state_dict().items():
        direct += float(((v - moved[n]) ** 2).sum())
    np.testing.assert_allclose(told["distance"] ** 2, direct, rtol=1e-9)
    np.testing.assert_allclose(direct, problem.norms - 2 * told["objective"], rtol=1e-9, atol=1e-9)
    between = mixed([net.state_dict(), moved], [1 - share, share])
    torch.testing.assert_close(
        between["0.weight"], (1 - share) * net[0].weight.detach() + share * moved["0.weight"]
    )
