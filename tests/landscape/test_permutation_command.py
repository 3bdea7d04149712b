"""Two networks in files are matched and merged by the command."""

import json

import pytest
import torch
from torch import nn

from running import thalweg
from thalweg.landscape.permutation import load_weights, save_weights, trace_permutations

FACTORY = """
from torch import nn
def make():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
def number():
    return 3
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "my_factory.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    spec = trace_permutations(net)
    save_weights(tmp_path / "a.safetensors", net.state_dict())
    save_weights(tmp_path / "b.pt", spec.apply(net.state_dict(), spec.random(1)))
    return tmp_path, net


def test_a_permuted_copy_is_merged_into_the_network(files):
    folder, net = files
    done = thalweg(
        "solve",
        "landscape",
        str(folder / "a.safetensors"),
        str(folder / "b.pt"),
        "--module",
        "my_factory:make",
        "--method",
        "weight-matching",
        "--out",
        str(folder / "m.safetensors"),
        "--report",
        str(folder / "p.html"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["metrics"]["distance"] == 0
    assert told["distance before"] > 0
    merged = load_weights(folder / "m.safetensors")
    assert all(torch.equal(merged[n], v) for n, v in net.state_dict().items())
    assert "singular vectors" in (folder / "p.html").read_text()


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("my_factory", "package.module:function"),
        ("my_factory:none", "PYTHONPATH"),
        ("my_factory:number", "expected an nn.Module"),
    ],
)
def test_a_module_that_is_none_is_refused(files, module, words):
    folder, _ = files
    done = thalweg(
        "solve", "landscape", str(folder / "a.safetensors"), str(folder / "b.pt"), "--module", module
    )
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
