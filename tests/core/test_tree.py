"""Saved trees come back bit for bit."""

from __future__ import annotations

import contextlib
import json
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thalweg.core import InvalidProblem, UnreadableFile
from thalweg.core.fingerprint import fingerprint
from thalweg.core.tree import load_tree, save_tree

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
arrays = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int32, np.bool_]), hnp.array_shapes(min_side=0)
)
trees = st.recursive(
    leaves | arrays,
    lambda t: (
        st.lists(t, max_size=3) | st.tuples(t, t) | st.dictionaries(st.text() | st.integers(), t, max_size=3)
    ),
    max_leaves=8,
)


@given(tree=trees)
def test_a_tree_comes_back_as_it_was(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("tree") / "tree"
    save_tree(path, tree)
    np.testing.assert_equal(load_tree(path), tree)
    assert fingerprint(load_tree(path)) == fingerprint(tree)


def test_tensors_keep_their_dtype_and_bits(tmp_path):
    tree = {"a": torch.randn(3, 2).bfloat16(), "b": torch.tensor(2), "c": torch.zeros(0, 3)}
    save_tree(tmp_path / "t", tree)
    back = load_tree(tmp_path / "t")
    for name, tensor in tree.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor)


def test_generators_go_on_where_they_were(tmp_path):
    ours, torchs = np.random.default_rng(3), torch.Generator().manual_seed(3)
    ours.random(5)
    torch.rand(5, generator=torchs)
    save_tree(tmp_path / "t", {"numpy": ours, "torch": torchs})
    back = load_tree(tmp_path / "t")
    assert back["numpy"].random() == ours.random()
    assert torch.equal(torch.rand(3, generator=back["torch"]), torch.rand(3, generator=torchs))


def test_objects_are_refused(tmp_path):
    with pytest.raises(InvalidProblem, match="cannot be saved"):
        save_tree(tmp_path / "t", {"a": object()})
    with pytest.raises(InvalidProblem, match="Python objects"):
        save_tree(tmp_path / "t", np.array([object()]))
    assert list(tmp_path.iterdir()) == []


DAMAGED = [
    {"array": 7},
    {"a": 1, "b": 2},
    {},
    {"tensor": ["evil", [1], "cpu", 0]},
    {"tensor": ["nn", [1], "cpu", 0]},
    {"tensor": ["float32", [3], "cpu", 0]},
    {"tensor": ["float32", [0], "cuda:77", 0]},
    {"torch_generator": ["cuda", 0]},
    {"generator": {"dict": []}},
    {"generator": {"dict": [["bit_generator", "os"]]}},
    {"unheard of": 1},
    {"dict": [[{"dict": []}, 1]]},
    {"tuple": 3},
]


@pytest.mark.parametrize("tree", DAMAGED, ids=str)
def test_a_damaged_file_is_unreadable_and_nothing_else(tmp_path, tree):
    with zipfile.ZipFile(tmp_path / "d", "w") as archive:
        archive.writestr("tree.json", json.dumps(tree))
    with pytest.raises(UnreadableFile):
        load_tree(tmp_path / "d")


@given(cut=st.integers(0, 400), flip=st.integers(0, 400))
def test_a_file_cut_short_or_with_a_byte_changed_is_unreadable_or_whole(tmp_path_factory, cut, flip):
    path = tmp_path_factory.mktemp("tree") / "tree"
    save_tree(path, {"a": np.arange(5), "rng": np.random.default_rng(0)})
    data = bytearray(path.read_bytes())
    data[flip % len(data)] ^= 0xFF
    path.write_bytes(bytes(data[: len(data) - cut % 3]))
    with contextlib.suppress(UnreadableFile):
        load_tree(path)
