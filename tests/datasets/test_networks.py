"""Named tensors in files, and files that are shipped."""

import hashlib

import pytest
import torch

from thalweg.core import InvalidParameter, UnreadableFile
from thalweg.datasets import networks


def test_tensors_and_words_come_back(tmp_path):
    tensors = {"w": torch.arange(6.0).reshape(2, 3).T, "n": torch.tensor(3)}
    networks.save_tensors(tmp_path / "a.safetensors", tensors, {"kind": "mine"})
    about, found = networks.load_tensors(tmp_path / "a.safetensors", lambda *given: given, "nothing")
    assert about == {"kind": "mine"}
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    with pytest.raises(InvalidParameter, match=r"expected .safetensors"):
        networks.save_tensors(tmp_path / "a.pt", tensors, {})


def test_files_of_something_else_say_why(tmp_path):
    def build(about, tensors):
        return about["kind"], tensors["w"]

    networks.save_tensors(tmp_path / "a.safetensors", {"v": torch.ones(2)}, {"kind": "other"})
    (tmp_path / "b.safetensors").write_bytes(b"no header")
    for name, reason in (("a", "'w'"), ("b", "header"), ("c", "No such file")):
        with pytest.raises(UnreadableFile, match=rf"is no network\. f\(\) writes them\. \(.*{reason}"):
            networks.load_tensors(tmp_path / f"{name}.safetensors", build, "no network. f() writes them")


def test_a_shipped_file_with_other_bytes_is_damaged():
    with (
        pytest.raises(UnreadableFile, match=r"is damaged: its SHA-256 is"),
        networks.shipped("thalweg.robust", "knapsack.safetensors", "0" * 64),
    ):
        pass
    from thalweg.robust.value_network import PRETRAINED

    name, checksum = PRETRAINED["knapsack"]
    with networks.shipped("thalweg.robust", name, checksum) as path:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == checksum
