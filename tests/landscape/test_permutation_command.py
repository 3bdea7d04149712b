"""Two networks in files are matched and merged by the command."""

import json
import sys

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
def wide(n):
    return nn.Linear(n, n)
def torn():
    raise OSError("no such disk")
constant = 4
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
        ("my_factory:none", "my_factory has no function 'none'.\n"),
        ("my_factory:constant", "my_factory has no function 'constant'.\n"),
        (
            "my_factory:wide",
            "wide() raised TypeError: wide() missing 1 required positional argument: 'n'. It is",
        ),
        ("my_factory:torn", "torn() raised OSError: no such disk. It is called without arguments"),
        ("no_such_factory:make", "It has to be in the current folder, or on PYTHONPATH"),
        (".my_factory:make", "--module is package.module:function; got"),
        ("my_factory:number", "expected an nn.Module"),
    ],
)
def test_a_module_that_is_none_is_refused(files, module, words):
    folder, _ = files
    done = thalweg(
        "solve", "landscape", str(folder / "a.safetensors"), str(folder / "b.pt"), "--module", module
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_module_of_the_current_folder_needs_no_path(files, monkeypatch):
    folder, _ = files
    monkeypatch.setattr("sys.path", [*sys.path])
    (folder / "here").mkdir()
    (folder / "here" / "factory_here.py").write_text(FACTORY)
    (folder / "here" / "factory_torn.py").write_text("import no_such_neighbour")
    words = ["solve", "landscape", str(folder / "a.safetensors"), str(folder / "b.pt"), "--module"]
    assert thalweg(*words, "factory_here:make", cwd=folder / "here").returncode == 0
    torn = thalweg(*words, "factory_torn:make", cwd=folder / "here")
    assert torn.stderr == "Error: --module factory_torn:make: No module named 'no_such_neighbour'.\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--example", "1,999"), "--example: the network does not take an input of shape (1, 999)"),
        (("--example", "0,3"), "whole numbers above 0 by commas"),
    ],
)
def test_examples_that_are_none_are_refused(files, options, words):
    folder, _ = files
    networks = (str(folder / "a.safetensors"), str(folder / "b.pt"), "--module", "my_factory:make")
    done = thalweg("solve", "landscape", *networks, *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
