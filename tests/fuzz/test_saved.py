"""Files that the library itself wrote, damaged or of another kind: read right, or refused by name."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thalweg import Checkpoint
from thalweg.blackbox import Real
from thalweg.blackbox.study import Study
from thalweg.core import Stop, ThalwegError, UnreadableFile, solve
from thalweg.core import tree as tree_module
from thalweg.core.tree import load_tree, save_tree
from thalweg.linear import SOR, SSORCG, LinearSystem, SequenceSolver, omega_grid
from thalweg.online import TsallisINF
from thalweg.workbench.record import Record

SYSTEM = LinearSystem(np.array([[4.0, 1.0], [1.0, 3.0]]), np.ones(2))


def study():
    return Study({"x": Real(0, 1), "y": Real(0, 10)}, noise="none")


def solver():
    return SequenceSolver(TsallisINF(4), omega_grid(SSORCG, 4))


def resumed(path):
    return solve(SYSTEM, SOR(1.1), stop=Stop(steps=5), resume=path, progress=False)


def told(path):
    read = study()
    read.load(path)
    return read


def learned(path):
    read = solver()
    read.load(path)
    return read


READERS = {"tree": load_tree, "checkpoint": resumed, "study": told, "solver": learned, "record": Record.load}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """One whole file of every kind."""
    folder = tmp_path_factory.mktemp("saved")
    tensors = {"a": torch.arange(3), "b": [torch.Generator(), np.random.default_rng(0)], 3: (1.5, None, "é")}
    save_tree(folder / "tree", tensors)
    solve(SYSTEM, SOR(1.1), stop=Stop(steps=3), callbacks=[Checkpoint(folder / "checkpoint", every=1)])
    optimised = study()
    for _ in range(4):
        trial = optimised.ask()
        optimised.tell(trial, trial["x"] + trial["y"])
    optimised.save(folder / "study")
    taught = solver()
    for _ in range(3):
        taught.solve(SYSTEM)
    taught.save(folder / "solver")
    about = {"system": "02", "scale": "smoke", "seconds": 1.0, "machine": {}, "code": ""}
    evidence = {"verdicts": [], "table": [], "figures": [], "notes": []}
    (folder / "record").write_text(json.dumps(about | {"evidence": evidence}))
    return {path.name: path.read_bytes() for path in folder.iterdir()}, folder


def answered(reader, path):
    """Read it; nothing but an error of the library's own, in one line, may come out."""
    said = ""
    try:
        READERS[reader](path)
    except ThalwegError as error:
        said = str(error)
    assert "\n" not in said


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_files_are_refused(kept, data):
    whole, folder = kept
    kind = data.draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        if not content:
            break
        at = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["bit", "cut", "bytes"]))
        if how == "bit":
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del content[max(at, 1) :]
        else:
            content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    (folder / "damaged").write_bytes(content)
    answered(kind, folder / "damaged")


def test_every_bit_of_a_directory_of_an_archive_may_be_wrong(kept):
    whole, folder = kept
    content = whole["checkpoint"]
    start = content.index(b"PK\x01\x02")
    for at in range(start, len(content)):
        for bit in range(0, 8, 3):
            wrong = bytearray(content)
            wrong[at] ^= 1 << bit
            (folder / "damaged").write_bytes(wrong)
            answered("checkpoint", folder / "damaged")


@pytest.mark.parametrize("reader", sorted(READERS))
def test_whole_files_of_another_kind_are_refused(kept, reader):
    whole, folder = kept
    for kind in whole:
        if kind == reader or (reader == "tree" and kind != "record"):
            READERS[reader](folder / kind)
        else:
            with pytest.raises(ThalwegError):
                READERS[reader](folder / kind)


leaves = st.none() | st.integers(-3, 10**20) | st.floats() | st.text(max_size=3)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["tuple", "dict", "scalar", "array", "generator", "tensor", "torch_generator", "x"]
            ),
            inner,
            max_size=2,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(tree=trees, reader=st.sampled_from(["checkpoint", "study", "solver"]))
def test_any_tree_is_refused(kept, tree, reader):
    _, folder = kept
    with zipfile.ZipFile(folder / "any", "w") as archive:
        archive.writestr("tree.json", json.dumps(tree))
        archive.writestr("0.npy", _npy(np.arange(4.0)))
        archive.comment = tree_module._seal(archive)
    with pytest.raises(ThalwegError):
        READERS[reader](folder / "any")


@pytest.mark.parametrize("reader", ["checkpoint", "study", "solver"])
def test_a_value_changed_by_hand_is_seen(kept, reader):
    """In an archive that is whole in itself."""
    _, folder = kept
    with zipfile.ZipFile(folder / reader) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
        comment = archive.comment
    members["tree.json"] = members["tree.json"].replace(b"3", b"4", 1)
    with zipfile.ZipFile(folder / "changed", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment
    with pytest.raises(UnreadableFile, match="changed by hand"):
        READERS[reader](folder / "changed")


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


class TestSize:
    """Own files are stored as they are: what would unpack to more than the file holds is not read."""

    def test_compressed_members_are_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("tree.json", "[" + "0," * 10**6 + "0]")
        assert Path(tmp_path / "bomb").stat().st_size < 10**4
        with pytest.raises(UnreadableFile, match="compressed"):
            load_tree(tmp_path / "bomb")

    def test_members_that_were_added_are_refused(self, tmp_path):
        save_tree(tmp_path / "a", {"x": np.ones(2)})
        with zipfile.ZipFile(tmp_path / "a", "a") as archive:
            archive.writestr("1.npy", b"no array")
        with pytest.raises(UnreadableFile, match="not as thalweg saved it"):
            load_tree(tmp_path / "a")

    def test_an_array_larger_than_its_member_is_refused(self, tmp_path):
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}
        )
        with zipfile.ZipFile(tmp_path / "a", "w") as archive:
            archive.writestr("tree.json", '{"array": 0}')
            archive.writestr("0.npy", head.getvalue() + b"\0" * 64)
            archive.comment = tree_module._seal(archive)
        with pytest.raises(UnreadableFile, match="damaged"):
            load_tree(tmp_path / "a")
